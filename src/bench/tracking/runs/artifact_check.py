"""Check before the first job that artifacts can be written from this machine, by writing one and removing it."""

from __future__ import annotations

import contextlib
import tempfile
import time
from pathlib import Path

from bench.tracking.runs.run_owner import TAG as OWNER
from bench.tracking.runs.run_owner import own_tag
from bench.tracking.store.artifact_access import local_folder
from bench.tracking.store.store import Store

CHECK = "check"  # the kind and name of the run that tests an artifact store and is then deleted


def check_artifacts(store: Store) -> None:
    """Write a test artifact and remove it.

    If artifacts are stored in a folder, this creates a file there; else it needs a run, which is deleted afterwards.

    Raises:
        TrackingError: it could not be written.
    """
    if (folder := local_folder(store.artifacts)) is not None:
        with store.uploading("keep files"):
            _try_folder(folder)
        return
    run_id = store.create_run(CHECK, time.time(), {"kind": CHECK, OWNER: own_tag()})
    try:
        store.upload_texts(run_id, {f"{CHECK}.txt": "written before a run, to see whether files can be kept here\n"})
    finally:
        store.end_run(run_id, "FINISHED", time.time())
        store.retire(run_id, CHECK)


def _try_folder(folder: Path) -> None:
    """Write a file in a folder and remove it, with any folder that was created."""
    missing = [each for each in (folder, *folder.parents) if not each.exists()]
    try:
        folder.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryFile(dir=folder) as file:
            file.write(b"x" * 4096)
            file.flush()
    finally:
        for made in missing:
            with contextlib.suppress(OSError):
                made.rmdir()
