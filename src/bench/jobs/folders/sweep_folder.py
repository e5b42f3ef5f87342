"""The folder of a sweep: what it may hold before the sweep begins, and which folders and files in it are bench's own.

The user may have files and runs of other programs there: these stay where they are, and no job is given one of their
names. The sweep is refused where it would have to overwrite a file.
"""

from __future__ import annotations

import os
from pathlib import Path

from bench.config.rules import ConfigError
from bench.host.atomic_files import write_whole
from bench.results.file_names import (
    CONCLUSIONS,
    ENGINE_JOBS_NAME,
    MARK_NAME,
    MULTIRUN_NAME,
    RECORD_NAME,
    SEARCH_DATABASE,
    SWEEP_NAME,
)
from bench.results.sweep_file import SweepFile, is_sweep_file

# What a sweep writes into its folder besides the plan, under these names, as patterns.
WRITTEN = (*CONCLUSIONS, SEARCH_DATABASE, MARK_NAME, ENGINE_JOBS_NAME)
SWEEPER = "hydra_plugins.bench_sweeper"  # named in every such file of bench


def is_record(path: Path) -> bool:
    """Whether a file is a record of bench, or the beginning of one; other programs may use the same name."""
    try:
        with path.open(encoding="utf-8", errors="replace") as file:
            head = file.read(1000)
    except OSError:
        return False
    return head.lstrip().startswith("{") and '"schema_version"' in head and '"trial_id"' in head


def check_nothing_is_overwritten(folder: Path) -> None:
    """Refuse a folder in which a sweep that begins would overwrite a file. Raises ConfigError."""
    if os.path.lexists(folder / RECORD_NAME):
        raise ConfigError("hydra.sweep.dir", folder, f"holds the {RECORD_NAME} of a run; choose another folder")
    names = [each.relative_to(folder).as_posix() for pattern in WRITTEN for each in sorted(folder.glob(pattern))]
    if (
        (folder / SWEEP_NAME).exists()
        and (folder / SWEEP_NAME).stat().st_size
        and not is_sweep_file(folder / SWEEP_NAME)
    ):
        remedy = f"{folder} holds {SWEEP_NAME}, which a sweep would overwrite; choose another name, or move that"
        raise ConfigError("sweep.name", folder.name, remedy)
    if names:
        remedy = f"holds {names[0]}, which a sweep would overwrite; choose another folder, or move that"
        raise ConfigError("hydra.sweep.dir", folder, remedy)


def own_folders(file: SweepFile | None) -> set[str]:
    """Return the names of the folders that the jobs of a plan have."""
    return {job.folder for job in file.jobs} | set(file.kept) if file is not None else set()


def keep_config(folder: Path, text: str) -> None:
    """Write the config that the sweep was composed from, as YAML, unless another program's file has that name.

    Raises:
        OSError: the folder cannot be written.
    """
    path = folder / MULTIRUN_NAME
    if os.path.lexists(path):
        try:
            if SWEEPER not in path.read_text(encoding="utf-8", errors="replace"):
                return
        except OSError:
            return
    write_whole(path, text)
