"""Wrap submitit's undocumented errors for jobs that cannot be submitted.

Hydra imports this file at every start, so nothing heavy may be imported at its top.
"""

from bench.compat.private_name import MISSING, PrivateName

_LOST = "a job that Slurm refuses is told as an error of the launcher, without the key"

FAILED_JOB = PrivateName(where="submitit.core.utils:FailedJobError", since="1.5.1", until="1.5.4", lost=_LOST)
FAILED_SUBMISSION = PrivateName(
    where="submitit.core.utils:FailedSubmissionError", since="1.5.1", until="1.5.4", lost=_LOST
)


def refusals() -> tuple[type[Exception], ...]:
    """Return the errors that submitit raises if the engine refuses a job, as far as this version has them."""
    return tuple(each for each in (FAILED_JOB.get(), FAILED_SUBMISSION.get()) if each is not MISSING)
