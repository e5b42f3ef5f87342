"""Where an experiment's artifacts are kept, and what to do where they cannot be written from this machine."""

from __future__ import annotations

import contextlib
import ipaddress
import urllib.parse
from pathlib import Path


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


def _is_here(host: str) -> bool:
    with contextlib.suppress(ValueError):
        return ipaddress.ip_address(host).is_loopback
    return host == "localhost"
