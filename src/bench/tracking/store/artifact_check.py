"""Check before anything runs that artifacts can be written from this machine, by writing one and removing it."""

from __future__ import annotations

import contextlib
import tempfile
import time
from pathlib import Path

from bench.tracking.store.artifact_access import local_folder
from bench.tracking.store.run_owner import TAG as OWNER
from bench.tracking.store.run_owner import own_tag
from bench.tracking.store.store import Store

CHECK = "check"  # the kind, and the name, of a run that is made to try an artifact store, and then deleted


def check_artifacts(store: Store) -> None:
    """Write an artifact where there is no run yet that it could belong to, and remove it.

    Where artifacts go to a folder, a file is made there. Else MLflow has to be asked, with a run that is deleted.

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
    """Write a file in a folder, and leave nothing behind."""
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
