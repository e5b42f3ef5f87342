"""Ray, over its public API: one task for each job, in a worker process of its own.

No job is tried a second time by itself, for what has been measured twice is not one measurement; only one whose node
died is started again. GPUs are whole, so Ray never gives one to two jobs at a time.

Hydra imports this file at every start, so nothing heavy may be imported at its top. (The name of this module hides
nothing: imports are absolute.)
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

LOOK_S = 1.0  # so often a Ctrl-C is heard, and the nodes are looked at
CANCEL_S = 60.0  # for cancelled jobs to write their records
CONNECT_S = 60.0


class RayLauncher(EngineLauncher):
    """hydra/launcher=ray."""

    def check(self, folder: Path) -> None:  # noqa: ARG002 - Ray's jobs end with whoever started them
        """Connect, and refuse what no node can give. Raises ConfigError."""
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
            del options["include_dashboard"]  # is the cluster's matter
        if not (options.get("address") or os.environ.get("RAY_ADDRESS") or "").startswith("ray://"):
            options.setdefault("job_config", config_without_current_folder())  # a client's server adds nothing
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
        """Queue all jobs, and take what comes as it comes."""
        import ray  # noqa: PLC0415 - see above

        # max_calls: the worker ends after its one job; max_retries: see the module.
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
    """In the worker."""
    import ray  # noqa: PLC0415 - see above

    from bench.jobs.engine import ATTEMPT_VARIABLE, ENGINE_VARIABLE, JOB_VARIABLE  # noqa: PLC0415

    task_id = str(ray.get_runtime_context().get_task_id())
    os.environ |= {ENGINE_VARIABLE: "ray", JOB_VARIABLE: task_id, ATTEMPT_VARIABLE: str(attempt)}
    # Ray sets it to the number of cores that it counts for a task, which would decide how fast the model computes.
    os.environ.pop("OMP_NUM_THREADS", None)
    if threads is not None:
        os.environ["OMP_NUM_THREADS"] = threads
    return job(overrides, number, task_id)


def _result_of(reference: Any) -> tuple[JobReturn, bool]:
    """What a task gave back, and whether its worker or its node died."""
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
    except Exception as error:  # noqa: BLE001 - Ray raises what the task raised, whatever that is
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
    """Ask each job to end, which lets it write its record, and take what comes."""
    import ray  # noqa: PLC0415 - see above

    for each in waiting:
        with contextlib.suppress(Exception):
            ray.cancel(each, force=False)
    until = time.monotonic() + CANCEL_S
    while waiting and time.monotonic() < until:
        for each in ray.wait(list(waiting), timeout=LOOK_S)[0]:
            index, _ = waiting.pop(each)
            keep(index, _result_of(each)[0])
