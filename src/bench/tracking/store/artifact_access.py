"""Whether an experiment's artifacts can be written from here: found out by writing one, before anything runs."""

from __future__ import annotations

import contextlib
import ipaddress
import tempfile
import time
import urllib.parse
from pathlib import Path
from typing import TYPE_CHECKING

from bench.tracking.owner import TAG as OWNER
from bench.tracking.owner import own_tag

if TYPE_CHECKING:
    from bench.tracking.store import Store

CHECK = "check"  # the kind, and the name, of a run that is made to try an artifact store, and then deleted


def local_folder(location: str) -> Path | None:
    """The folder on this machine that an artifact location names; None for one that names none."""
    if location.startswith("/"):
        return Path(location)
    address = urllib.parse.urlsplit(location)
    if address.scheme != "file" or address.netloc not in ("", "localhost"):
        return None
    return Path(urllib.parse.unquote(address.path))


def of_another_machine(uri: str, location: str) -> str | None:
    """Why a server's artifacts cannot be meant to lie here; None where they can.

    A server that serves no artifacts names a folder, and its clients write there: into the server's own where the two
    share a file system, else into one that would be made on this machine and that nobody looks into.
    """
    folder = local_folder(location)
    is_server = uri.startswith(("http:", "https:"))
    if not is_server or folder is None or folder.exists() or _is_here(urllib.parse.urlsplit(uri).hostname or ""):
        return None
    return f"it keeps artifacts in {folder}, a folder that this machine does not have"


def remedy_for(uri: str, location: str) -> str | None:
    """What to do where artifacts cannot be written; None where they go the way of all other requests."""
    if local_folder(location) is not None:
        if uri.startswith(("http:", "https:")):
            return "start that server with --artifacts-destination, so that it takes the files itself"
        return "check that folder"
    is_elsewhere = location and not location.startswith("mlflow-artifacts:")
    return f"check the artifact store {location.partition('?')[0]}" if is_elsewhere else None


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


def _is_here(host: str) -> bool:
    with contextlib.suppress(ValueError):
        return ipaddress.ip_address(host).is_loopback
    return host == "localhost"
