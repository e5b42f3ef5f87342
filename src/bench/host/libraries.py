"""Identify the copy of each library that computes: its folder, how it was installed, and its state.

The installed metadata describe what pip put into ``site-packages``. Python may import another copy: from a folder in
``PYTHONPATH``, an editable install, a line in a ``.pth`` file. Both sides of a job use this module: its worker for the
modules that it has imported, for the record; and its parent, without importing them, for the fingerprint. Both use the
same words, so that a record and a fingerprint of the same copy are equal.

A copy outside of ``site-packages`` is identified by its folder and, in a checkout, by commit and changes; else by the
list of files with which pip installed it there; else by the sizes and times of its files.

Not covered: files of ``site-packages`` that were edited in place, other than their version; and libraries that these
load without Python, such as cuBLAS, of which the versions are known alone.
"""

from __future__ import annotations

import contextlib
import functools
import glob
import hashlib
import importlib.metadata
import importlib.util
import json
import os
import re
import site
import sys
import sysconfig
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from types import ModuleType
from typing import Any

from bench.host.git import checkout_of

# Distribution → its module: libraries whose version or copy may change results or speed.
COMPUTING = {
    "torch": "torch",
    "transformers": "transformers",
    "triton": "triton",
    "numpy": "numpy",
    "tokenizers": "tokenizers",
    "safetensors": "safetensors",
    "accelerate": "accelerate",
    "gguf": "gguf",
    "kernels": "kernels",
    "flash-attn": "flash_attn",
    "torchao": "torchao",
}
OWN = {"bench": "bench"}
INSTALLED, EDITABLE, VARIABLE, OTHER = "installed", "editable", "PYTHONPATH", "sys.path"
VERSION_FILES = ("__init__.py", "version.py", "_version.py")
VERSION = re.compile(r"""^(?:__)?version(?:__)?(?:: *str)? *= *["']([^"'\n]+)["']""", re.MULTILINE)
MOST_READ = 1 << 16  # characters that are read of such a file
CODE = (".py", ".so")
COMPILED = (".so",)
MOST_FILES = 50_000


@dataclass(frozen=True, kw_only=True)
class Source:
    """The copy of a library that is imported."""

    version: str | None  # that the imported module states; None: it states none, or is not imported
    installed_version: str | None  # from the installed metadata; None: there are none
    folder: str  # the package's; of a module that is a single file, that file
    came_from: str  # installed (in site-packages), editable, PYTHONPATH, or sys.path for any other way
    commit: str | None = None  # of the checkout that it is imported from
    dirty: bool | None = None  # whether that differs from its commit; None outside of a checkout
    state: str | None = None  # a digest of differences from the commit; None: none, or it is installed

    def in_words(self) -> str:
        """Return what distinguishes this copy from others, in one line."""
        parts = [self.came_from]
        if self.commit is not None:
            parts.append(f"commit {self.commit[:12]}")
        if self.state is not None:
            parts.append(f"{'changes' if self.dirty else 'files'} {self.state}")
        return f"{self.folder} ({', '.join(parts)})"


def imported() -> dict[str, dict[str, Any]]:
    """Return library → the copy that this process has imported, as plain values for the record; bench included."""
    found = {}
    for library, name in (*OWN.items(), *COMPUTING.items()):
        with contextlib.suppress(Exception):  # reading an attribute of a module may raise anything
            if (module := sys.modules.get(name)) is not None and (folder := _place_of(module)) is not None:
                found[library] = asdict(_source(library, folder, _stated(module)))
    return found


def unusual(found: Mapping[str, Mapping[str, Any]] | None = None) -> dict[str, str]:
    """Return the entries of a fingerprint for libraries that are not as pip installed them in site-packages.

    Args:
        found: from `imported`; None: look up what would be imported here, without importing it.
    """
    if found is not None:
        sources = {name: Source(**each) for name, each in found.items() if name in COMPUTING}
    else:
        looked_up = {library: _would_be_imported(name) for library, name in COMPUTING.items()}
        sources = {name: _source(name, folder) for name, folder in looked_up.items() if folder is not None}
    unusual_ones = {}
    for name, each in sources.items():
        if each.came_from != INSTALLED:
            unusual_ones[key_of(name)] = each.in_words()
        elif contradicts(stated := _written_version(each.folder) or each.version, each.installed_version):
            unusual_ones[key_of(name)] = f"states version {stated} in {each.folder}"
    return unusual_ones


def contradicts(stated: str | None, installed: str | None) -> bool:
    """Whether a module states another version than the metadata. What follows a + names a build, not a version."""
    if stated is None or installed is None:
        return False
    return stated.partition("+")[0] != installed.partition("+")[0]


def key_of(library: str) -> str:
    """Return the name of a library's source in a fingerprint; the library's own name holds its installed version."""
    return f"{library} source"


def with_imported(fingerprint: Mapping[str, str], found: Mapping[str, Mapping[str, Any]]) -> dict[str, str]:
    """Return an earlier fingerprint with the copies that were imported in place of those looked up."""
    asked = {key_of(name) for name in found}
    return {name: value for name, value in fingerprint.items() if name not in asked} | unusual(found)


# ---- one library -----------------------------------------------------------------------------------------------------


def _place_of(module: ModuleType) -> Path | None:
    """Return the folder of a package, or the file of another module; None for a module that is not on disk."""
    places: list[str | None] = list(getattr(module, "__path__", [])) or [getattr(module, "__file__", None)]
    return Path(places[0]) if places[0] else None


def _would_be_imported(name: str) -> Path | None:
    """Return the same for the module that an import would find."""
    try:
        spec = importlib.util.find_spec(name)
    except (ImportError, ValueError, AttributeError):
        return None
    if spec is None:
        return None
    places: list[str | None] = list(spec.submodule_search_locations or [])
    places = places or [spec.origin if spec.has_location else None]
    return Path(places[0]) if places[0] else None


def _stated(module: ModuleType) -> str | None:
    version = getattr(module, "__version__", None)
    return None if version is None else str(version)


def _source(library: str, folder: Path, version: str | None = None) -> Source:
    came_from, installed = _how(library, folder)
    commit, dirty, state = None, None, None
    if came_from != INSTALLED:
        commit, dirty, state = state_of(folder)
    return Source(
        version=version,
        installed_version=installed,
        folder=str(folder),
        came_from=came_from,
        commit=commit,
        dirty=dirty,
        state=state,
    )


def _how(library: str, folder: Path) -> tuple[str, str | None]:
    """Return how a package is installed, and its version from the installed metadata."""
    version, is_editable = None, False
    with contextlib.suppress(importlib.metadata.PackageNotFoundError):
        distribution = importlib.metadata.distribution(library)
        found = re.search(r"^Version: *(\S+)", distribution.read_text("METADATA") or "", re.MULTILINE)
        version = found[1] if found else None
        if not _is_site(folder.parent):
            origin = json.loads(distribution.read_text("direct_url.json") or "{}")
            is_editable = bool(origin.get("dir_info", {}).get("editable"))
    if _is_site(folder.parent):
        return INSTALLED, version
    places = [Path(each).resolve() for each in os.environ.get("PYTHONPATH", "").split(os.pathsep) if each]
    if folder.parent.resolve() in places:
        return VARIABLE, version
    return (EDITABLE if is_editable else OTHER), version


def _is_site(folder: Path) -> bool:
    return folder in _site_folders() or folder.resolve() in _site_folders()


@functools.cache
def _site_folders() -> frozenset[Path]:
    """Return the folders into which pip installs for this interpreter."""
    paths = sysconfig.get_paths()
    named = [paths["purelib"], paths["platlib"], *site.getsitepackages()]
    if site.ENABLE_USER_SITE:
        named.append(site.getusersitepackages())
    return frozenset(found for each in named for found in (Path(each), Path(each).resolve()))


@functools.cache
def state_of(folder: Path) -> tuple[str | None, bool | None, str | None]:
    """Return the commit of a package's checkout, whether it is changed, and a digest of the differences.

    Cached in this process and in those forked from it: it is the state in which the fork server imported the package,
    even if its files change later.
    """
    candidates = (folder, folder / "__init__.py", *sorted(folder.glob("*.py")))
    first = next((each for each in candidates if each.is_file()), None)
    if first is not None and (checkout := checkout_of(first)) is not None:
        parts = [each for each in (checkout.changes, _digest_of_files(folder, COMPILED)) if each is not None]
        return checkout.commit, checkout.changes is not None, "-".join(parts) or None
    return None, None, _digest_of_install(folder) or _digest_of_files(folder, CODE)


def _digest_of_install(folder: Path) -> str | None:
    """Return a digest of pip's list of file digests, for a package that pip installed into another folder."""
    for path in folder.parent.glob(f"{glob.escape(folder.name)}-*.dist-info/RECORD"):
        with contextlib.suppress(OSError, UnicodeDecodeError):
            text = path.read_text(encoding="utf-8")
            if re.search(rf"^{re.escape(folder.name)}/\S+\.(?:py|so),sha256=", text, re.MULTILINE):
                return hashlib.sha256(text.encode()).hexdigest()[:12]
    return None


def _digest_of_files(folder: Path, endings: tuple[str, ...]) -> str | None:
    """Return a digest of names, sizes and times of files; None where there are none."""
    files = [str(folder)] if folder.is_file() else []
    for path, folders, names in os.walk(folder):
        folders[:] = sorted(each for each in folders if each != "__pycache__")
        files += [f"{path}{os.sep}{each}" for each in sorted(names)]
        if len(files) > MOST_FILES:
            break
    found: list[tuple[str, int, int]] = []
    for each in files:
        if each.endswith(endings):
            with contextlib.suppress(OSError):
                state = Path(each).stat()
                found.append((each.removeprefix(str(folder)), state.st_size, state.st_mtime_ns))
    return hashlib.sha256(repr(found).encode()).hexdigest()[:12] if found else None


def _written_version(folder: str) -> str | None:
    """Return the version that a package's files state, without importing it; None where they state none."""
    for name in VERSION_FILES:
        with contextlib.suppress(OSError, UnicodeDecodeError), Path(folder, name).open(encoding="utf-8") as file:
            if found := VERSION.search(file.read(MOST_READ)):
                return found[1]
    return None
