"""Slurm, Ray and other engines that start jobs elsewhere: where a job is, and what an engine may do to it.

An engine ends a job by a signal, which the job turns into a record (`EngineStop`), or so hard that the job writes
nothing more; then whoever started the sweep writes the record from what the engine says (`LostJob`).
"""

from __future__ import annotations

import os
import platform
from collections.abc import Mapping

from bench.results.record import Placement

# Set by launchers of ours, for engines whose own variables do not name the job.
ENGINE_VARIABLE, JOB_VARIABLE, ATTEMPT_VARIABLE = "BENCH_ENGINE", "BENCH_ENGINE_JOB", "BENCH_ENGINE_ATTEMPT"


class LostJob(Exception):  # noqa: N818 - a job's end, and no fault of the program
    """A job that gave nothing back.

    Args:
        status: of the record to be: timeout, oom, interrupted or crashed; failed where it is our own fault.
        message: what the engine says of it, in one line.
        host: where it was, as far as the engine tells.
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
        status: of the record to be: timeout or interrupted.
        message: by whom and why, in one line.
    """

    def __init__(self, status: str, message: str) -> None:
        self.status, self.message = status, message
        super().__init__(message)


def placement(variables: Mapping[str, str] = os.environ) -> Placement:
    """Where this process is, and the engine that brought it there.

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
