"""Run jobs on Ray through its public API: one task per job, each in its own worker process.

Jobs are not retried automatically, because a job that ran twice is not one measurement; only a job whose node died is
started again. GPUs are requested as whole units, so that Ray never gives one to two jobs at a time.

Hydra imports this file at every start, so nothing heavy may be imported at its top. (The name of this module does not
shadow the library: imports are absolute.)
"""

import contextlib
import logging
import os
import time
from pathlib import Path
from typing import Any

from hydra.core.utils import JobReturn

from hydra_plugins.bench_launchers.engine import EngineJob, EngineLauncher, OnReturn, lost
from hydra_plugins.bench_launchers.ray_internals import config_without_current_folder

LOOK_S = 1.0  # interval for handling Ctrl-C and checking the nodes
CANCEL_S = 60.0  # for cancelled jobs to write their records
CONNECT_S = 60.0


class RayLauncher(EngineLauncher):
    """Implement hydra/launcher=ray."""

    def check(self, folder: Path) -> None:  # noqa: ARG002 - Ray's jobs end with the process that started them
        """Connect, and refuse resources that no node can provide. Raises ConfigError."""
        from bench.config.rules import ConfigError  # noqa: PLC0415

        try:
            import ray  # noqa: PLC0415 - see above
        except ImportError as error:
            raise ConfigError("hydra/launcher", "ray", "needs Ray: pip install -e '.[ray]' in the checkout") from error
        for key in ("num_gpus", "num_cpus", "node_retries"):
            value = self.parameters[key]
            if not isinstance(value, int) or isinstance(value, bool) or value < 0:
                remedy = "must be a whole number: half a GPU would be one that two jobs share"
                raise ConfigError(f"hydra.launcher.{key}", value, remedy)
        options = {"log_to_driver": False, "include_dashboard": False, **(self.parameters["init"] or {})}
        if options.get("address"):
            del options["include_dashboard"]  # decided by the cluster
        if not (options.get("address") or os.environ.get("RAY_ADDRESS") or "").startswith("ray://"):
            options.setdefault("job_config", config_without_current_folder())  # the Ray client's server adds no folders
        try:
            if not ray.is_initialized():
                ray.init(configure_logging=True, logging_level=logging.ERROR, **options)
        except (ConnectionError, OSError, RuntimeError, TypeError, ValueError) as error:
            said = " ".join(str(error).split())
            raise ConfigError("hydra.launcher.init.address", options.get("address"), f"no Ray there: {said}") from error
        for resource, key in (("GPU", "num_gpus"), ("CPU", "num_cpus")):
            most = max((node["Resources"].get(resource, 0) for node in ray.nodes() if node["Alive"]), default=0)
            if self.parameters[key] > most:
                remedy = (
                    f"no node of this Ray has more than {most:g}; hydra.launcher.{key}={most:g} takes what there is"
                )
                raise ConfigError(f"hydra.launcher.{key}", self.parameters[key], remedy)

    def run_all(self, job: EngineJob, overrides: list[list[str]], first: int, keep: OnReturn) -> None:
        """Queue all jobs, and pass on results as they arrive."""
        import ray  # noqa: PLC0415 - see above

        # max_calls: the worker ends after one job; max_retries: see the module's docstring.
        task = ray.remote(
            num_gpus=self.parameters["num_gpus"],
            num_cpus=self.parameters["num_cpus"],
            resources=self.parameters["resources"] or None,
            max_calls=1,
            max_retries=0,
        )(_run)
        shared = ray.put(job)
        threads = os.environ.get("OMP_NUM_THREADS")

        def start(index: int, attempt: int) -> Any:
            return task.remote(shared, overrides[index], first + index, attempt, threads)

        waiting = {start(index, 1): (index, 1) for index in range(len(overrides))}
        dead = _dead_nodes()
        try:
            while waiting:
                for each in ray.wait(list(waiting), timeout=LOOK_S)[0]:
                    index, attempt = waiting.pop(each)
                    result, has_died = _result_of(each)
                    now_dead = _dead_nodes()
                    if has_died and now_dead - dead and attempt <= self.parameters["node_retries"]:
                        waiting[start(index, attempt + 1)] = (index, attempt + 1)
                    else:
                        keep(index, result)
                    dead |= now_dead if has_died else set()
        except BaseException:
            _cancel(waiting, keep)
            raise


def _run(job: EngineJob, overrides: list[str], number: int, attempt: int, threads: str | None) -> JobReturn:
    """Run a job in the worker."""
    import ray  # noqa: PLC0415 - see above

    from bench.jobs.engine import ATTEMPT_VARIABLE, ENGINE_VARIABLE, JOB_VARIABLE  # noqa: PLC0415

    task_id = str(ray.get_runtime_context().get_task_id())
    os.environ |= {ENGINE_VARIABLE: "ray", JOB_VARIABLE: task_id, ATTEMPT_VARIABLE: str(attempt)}
    # Ray sets it to the number of cores that it assigns to a task, which would change the model's speed.
    os.environ.pop("OMP_NUM_THREADS", None)
    if threads is not None:
        os.environ["OMP_NUM_THREADS"] = threads
    return job(overrides, number, task_id)


def _result_of(reference: Any) -> tuple[JobReturn, bool]:
    """Return the result of a task, and whether its worker or its node died."""
    import ray  # noqa: PLC0415 - see above

    try:
        result = ray.get(reference)
    except ray.exceptions.OutOfMemoryError as error:
        return lost(_lost("oom", "ended the job for memory", reference, error)), False
    except ray.exceptions.TaskCancelledError as error:
        return lost(_lost("interrupted", "cancelled the job", reference, error)), False
    except (ray.exceptions.WorkerCrashedError, ray.exceptions.NodeDiedError) as error:
        return lost(_lost("crashed", "lost the job's worker or its node", reference, error)), True
    except ray.exceptions.RayError as error:
        return lost(_lost("crashed", "could not run the job", reference, error)), False
    except Exception as error:  # noqa: BLE001 - Ray reraises any exception of the task
        return lost(error), False
    return (result if isinstance(result, JobReturn) else lost(TypeError(f"{type(result).__name__} came back"))), False


def _lost(status: str, text: str, reference: Any, error: Exception) -> Exception:
    from bench.jobs.engine import LostJob  # noqa: PLC0415

    task_id = str(reference.task_id().hex())
    said = next((each.strip() for each in str(error).splitlines() if each.strip()), type(error).__name__)
    return LostJob(status, f"ray {text}: {said}", engine="ray", job_id=task_id)


def _dead_nodes() -> set[str]:
    import ray  # noqa: PLC0415 - see above

    return {str(node["NodeID"]) for node in ray.nodes() if not node["Alive"]}


def _cancel(waiting: dict[Any, tuple[int, int]], keep: OnReturn) -> None:
    """Ask each job to end, so that it can write its record, and pass on results for at most CANCEL_S seconds."""
    import ray  # noqa: PLC0415 - see above

    for each in waiting:
        with contextlib.suppress(Exception):
            ray.cancel(each, force=False)
    until = time.monotonic() + CANCEL_S
    while waiting and time.monotonic() < until:
        for each in ray.wait(list(waiting), timeout=LOOK_S)[0]:
            index, _ = waiting.pop(each)
            keep(index, _result_of(each)[0])
