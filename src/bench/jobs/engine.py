"""Slurm, Ray and other engines that start jobs elsewhere: where a job runs, and how an engine may end it.

An engine ends a job by a signal, on which the job writes its record (`EngineStop`), or kills it; then the process that
started the sweep writes the record from the engine's own report (`LostJob`).
"""

from __future__ import annotations

import os
import platform
from collections.abc import Mapping

from bench.results.record import Placement

# Set by bench's launchers, for engines whose own variables do not name the job.
ENGINE_VARIABLE, JOB_VARIABLE, ATTEMPT_VARIABLE = "BENCH_ENGINE", "BENCH_ENGINE_JOB", "BENCH_ENGINE_ATTEMPT"


class LostJob(Exception):  # noqa: N818 - the end of a job, not an error of the program
    """A job that ended without returning anything.

    Args:
        status: for its record: timeout, oom, interrupted or crashed; failed for an error of bench.
        message: the engine's report, in one line.
        host: where it ran, if the engine says so.
        engine: its name.
        job_id: the engine's.
    """

    def __init__(
        self,
        status: str,
        message: str,
        *,
        host: str | None = None,
        engine: str | None = None,
        job_id: str | None = None,
    ) -> None:
        self.status, self.message = status, message
        self.placement = Placement(host=host, engine=engine, job_id=job_id)
        super().__init__(message)


class EngineStop(KeyboardInterrupt):
    """The engine asks the job to end.

    Args:
        status: for its record: timeout or interrupted.
        message: who asked and why, in one line.
    """

    def __init__(self, status: str, message: str) -> None:
        self.status, self.message = status, message
        super().__init__(message)


def placement(variables: Mapping[str, str] = os.environ) -> Placement:
    """Return the host of this process, and the engine that started it there.

    Slurm's variables: sbatch(1), "Output environment variables".
    """
    host = platform.node()
    if engine := variables.get(ENGINE_VARIABLE):
        attempt = int(variables.get(ATTEMPT_VARIABLE, "1"))
        return Placement(host=host, engine=engine, job_id=variables.get(JOB_VARIABLE), attempt=attempt)
    if variables.get("SUBMITIT_EXECUTOR") == "local":
        return Placement(host=host, engine="submitit_local", job_id=variables.get("SUBMITIT_LOCAL_JOB_ID"))
    if job := variables.get("SLURM_JOB_ID"):
        if "SLURM_ARRAY_JOB_ID" in variables and "SLURM_ARRAY_TASK_ID" in variables:
            job = f"{variables['SLURM_ARRAY_JOB_ID']}_{variables['SLURM_ARRAY_TASK_ID']}"
        restarts = variables.get("SLURM_RESTART_COUNT", "0")
        attempt = 1 + (int(restarts) if restarts.isdecimal() else 0)
        return Placement(host=host, engine="slurm", job_id=job, attempt=attempt)
    return Placement(host=host)
