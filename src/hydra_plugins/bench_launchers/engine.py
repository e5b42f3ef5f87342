"""Implement the common part of the engine launchers: start a job on its node, and pass on its result.

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

# Called with the number of the job in the batch, and its result.
OnReturn = Callable[[int, JobReturn], None]


class EngineLauncher(Launcher):
    """Submit a batch of jobs to an engine, and pass on each result as soon as it is available.

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
        """Store the objects that Hydra passes to a launcher."""
        self.hydra_context, self.task_function, self.config = hydra_context, task_function, config

    def launch(self, job_overrides: Sequence[Sequence[str]], initial_job_idx: int) -> Sequence[JobReturn]:
        """Run the jobs; each yields a `JobReturn`, even if it fails or is lost."""
        results: list[JobReturn | None] = [None] * len(job_overrides)

        def keep(index: int, result: JobReturn) -> None:
            results[index] = result
            self.on_return(index, result)

        self.run_all(self.job(), [list(each) for each in job_overrides], initial_job_idx, keep)
        return [each for each in results if each is not None]

    def run_all(self, job: "EngineJob", overrides: list[list[str]], first: int, keep: OnReturn) -> None:
        """Submit all jobs to the engine and call `keep` once for each. Implemented per engine."""
        raise NotImplementedError

    def check(self, folder: Path) -> None:
        """Refuse invalid settings before anything is created. Raises ConfigError."""

    def job(self) -> "EngineJob":
        """Return the callable that is sent to the nodes."""
        assert self.hydra_context is not None
        return EngineJob(self.hydra_context, self.task_function, self.config, Singleton.get_state())


class EngineJob:
    """Run one job in a process of the engine: compose its config there, then run it.

    It is pickled, therefore it contains no reference to the waiting launcher.
    """

    def __init__(
        self, hydra_context: HydraContext, task_function: Any, config: DictConfig, singletons: dict[Any, Any]
    ) -> None:
        self.hydra_context, self.task_function, self.config = hydra_context, task_function, config
        self.singletons = singletons

    def __call__(self, overrides: list[str], number: int, engine_job_id: str | None = None) -> JobReturn:
        """Run the job. Exceptions of its task are stored in the `JobReturn`."""
        from bench.host import start_folder  # noqa: PLC0415 - see above

        keep_out_of_children()  # set here, because the engine may not pass on this process's variables
        start = str(self.config.hydra.runtime.cwd)
        start_folder.enter(start)  # the base of relative paths of the command line, including hydra.searchpath
        Singleton.set_state(self.singletons)
        setup_globals()
        composed = self.hydra_context.config_loader.load_sweep_config(self.config, overrides)
        with open_dict(composed):
            composed.hydra.job.id, composed.hydra.job.num = engine_job_id or str(number), number
            composed.hydra.runtime.cwd = start  # Hydra would use this process's current folder
        result = run_job(
            hydra_context=self.hydra_context,
            task_function=self.task_function,
            config=composed,
            job_dir_key="hydra.sweep.dir",
            job_subdir_key="hydra.sweep.subdir",
        )
        # The configs that Hydra adds are also in the job's folder, and those of all jobs at once are large.
        result.cfg = result.hydra_cfg = None
        return result


def lost(error: Exception) -> JobReturn:
    """Create the `JobReturn` of a job that returned none."""
    result = JobReturn()
    result.status, result.return_value = JobStatus.FAILED, error
    return result
