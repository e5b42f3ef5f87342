"""What the launchers for engines have in common: how a job begins on its node, and how its end is passed on.

Hydra imports this file at every start, so nothing heavy may be imported at its top.
"""

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from hydra.core.singleton import Singleton
from hydra.core.utils import JobReturn, JobStatus, run_job, setup_globals
from hydra.plugins.launcher import Launcher
from hydra.types import HydraContext, TaskFunction
from omegaconf import DictConfig, OmegaConf, open_dict

from bench.host.import_path import keep_out_of_children

# Number of the job in the batch, what it gave back.
OnReturn = Callable[[int, JobReturn], None]


class EngineLauncher(Launcher):
    """Hands a batch of jobs to an engine and passes on what each gives back as soon as it is there.

    Args:
        parameters: the keys of hydra.launcher.
    """

    def __init__(self, **parameters: Any) -> None:
        super().__init__()
        plain = {
            key: OmegaConf.to_container(value) if OmegaConf.is_config(value) else value
            for key, value in parameters.items()
        }
        self.parameters: dict[str, Any] = plain
        self.on_return: OnReturn = lambda _, __: None

    def setup(self, *, hydra_context: HydraContext, task_function: TaskFunction, config: DictConfig) -> None:
        """Take what Hydra hands a launcher."""
        self.hydra_context, self.task_function, self.config = hydra_context, task_function, config

    def launch(self, job_overrides: Sequence[Sequence[str]], initial_job_idx: int) -> Sequence[JobReturn]:
        """Run the jobs; each ends in a `JobReturn`, whatever becomes of it."""
        results: list[JobReturn | None] = [None] * len(job_overrides)

        def keep(index: int, result: JobReturn) -> None:
            results[index] = result
            self.on_return(index, result)

        self.run_all(self.job(), [list(each) for each in job_overrides], initial_job_idx, keep)
        return [each for each in results if each is not None]

    def run_all(self, job: "EngineJob", overrides: list[list[str]], first: int, keep: OnReturn) -> None:
        """Hand all jobs to the engine and call `keep` once for each. The engine's own business."""
        raise NotImplementedError

    def check(self, folder: Path) -> None:
        """Refuse what cannot work before anything is made. Raises ConfigError."""

    def job(self) -> "EngineJob":
        """What travels to the nodes."""
        assert self.hydra_context is not None
        return EngineJob(self.hydra_context, self.task_function, self.config, Singleton.get_state())


class EngineJob:
    """One job as it begins in a process of the engine's: composes its config there and runs it.

    It is pickled, so it holds nothing of the launcher that waits for it.
    """

    def __init__(
        self, hydra_context: HydraContext, task_function: Any, config: DictConfig, singletons: dict[Any, Any]
    ) -> None:
        self.hydra_context, self.task_function, self.config = hydra_context, task_function, config
        self.singletons = singletons

    def __call__(self, overrides: list[str], number: int, engine_job_id: str | None = None) -> JobReturn:
        """Run it. What it raises is in the `JobReturn`."""
        from bench.host import start_folder  # noqa: PLC0415 - see above

        keep_out_of_children()  # what the engine handed on of the variables is its own matter
        start = str(self.config.hydra.runtime.cwd)
        start_folder.enter(start)  # relative paths of the command line, hydra.searchpath among them, count from there
        Singleton.set_state(self.singletons)
        setup_globals()
        composed = self.hydra_context.config_loader.load_sweep_config(self.config, overrides)
        with open_dict(composed):
            composed.hydra.job.id, composed.hydra.job.num = engine_job_id or str(number), number
            composed.hydra.runtime.cwd = start  # Hydra takes the folder that this process is in
        result = run_job(
            hydra_context=self.hydra_context,
            task_function=self.task_function,
            config=composed,
            job_dir_key="hydra.sweep.dir",
            job_subdir_key="hydra.sweep.subdir",
        )
        # The configs that Hydra adds lie in the job's folder, and with all jobs at once they are many.
        result.cfg = result.hydra_cfg = None
        return result


def lost(error: Exception) -> JobReturn:
    """The return of a job that gave none."""
    result = JobReturn()
    result.status, result.return_value = JobStatus.FAILED, error
    return result
