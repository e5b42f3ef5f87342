"""The start folder: the one in which the command was typed, from which every relative path counts.

Hydra changes the current folder for a job with `hydra.job.chdir=true`, and an engine may start a job's process in any
folder. Libraries resolve paths, and variables that hold paths, against the current folder whenever they like, so a job
goes back to the start folder before it does anything. What it records are the paths as they were typed.

Not covered: a machine that has neither the start folder nor the job's own; there the current folder stays.
"""

from __future__ import annotations

import contextlib
import os
from pathlib import Path


def enter(start: str | Path, otherwise: Path | None = None) -> None:
    """Make the start folder this process's current one.

    Args:
        start: its absolute path.
        otherwise: the folder for a machine that has no start folder, so that no file there is taken for one that was
            named from it; None: the current folder stays.
    """
    for folder in (start, otherwise):
        if folder is not None:
            with contextlib.suppress(OSError):
                os.chdir(folder)
                return
