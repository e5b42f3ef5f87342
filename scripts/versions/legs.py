"""Define the legs: their versions, their Python, and whether an existing environment may be used again."""

from __future__ import annotations

import functools
import hashlib
import os
import re
import subprocess
import sys
import tomllib
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from packaging.requirements import Requirement
from packaging.utils import canonicalize_name
from packaging.version import Version

ROOT = Path(__file__).parents[2]
ENVIRONMENTS = ROOT / ".cache/versions"
PINNED = "scripts/constraints.txt"
OLDEST, NEWEST, HYDRA_NEXT = (f"scripts/versions/{name}.txt" for name in ("oldest", "newest", "hydra-next"))
EXTRA = "contract"


@dataclass(frozen=True, kw_only=True)
class Leg:
    """Define one environment in which the contract suite runs."""

    name: str
    what: str
    """One line for ``--list``."""
    python: str = "3.11"
    """``major.minor`` of the interpreter; 3.11 is the oldest that pyproject.toml allows."""
    constraints: tuple[str, ...] = ()
    """Files of versions, relative to the checkout. A later file replaces what an earlier one says of a package."""
    on_request: bool = False
    """Whether it runs only when it is named."""

    @property
    def environment(self) -> Path:
        """Return the folder of its environment. nox names it after its session."""
        return ENVIRONMENTS / self.name

    @property
    def merged(self) -> Path:
        """Return the path of the single file of versions that pip reads."""
        return ENVIRONMENTS / f"{self.name}.constraints.txt"

    @property
    def log(self) -> Path:
        """Return the path of its output, used if it runs beside others."""
        return ENVIRONMENTS / f"{self.name}.log"

    @property
    def junit(self) -> Path:
        return ENVIRONMENTS / f"{self.name}.junit.xml"

    @property
    def versions(self) -> Path:
        """Return the path of the installed versions: JSON with names and versions, including ``python``."""
        return ENVIRONMENTS / f"{self.name}.versions.json"


LEGS = {
    leg.name: leg
    for leg in (
        Leg(name="oldest", what="the lower bounds of pyproject.toml", constraints=(OLDEST,)),
        Leg(name="pinned", what="the versions of scripts/constraints.txt", constraints=(PINNED,)),
        Leg(name="newest", what="the newest releases on the day that its file names", constraints=(NEWEST,)),
        Leg(name="py312", what="those of newest, with Python 3.12", python="3.12", constraints=(NEWEST,)),
        Leg(name="py313", what="those of newest, with Python 3.13", python="3.13", constraints=(NEWEST,)),
        Leg(
            name="hydra-next",
            what="those of newest, with pre-releases of Hydra and OmegaConf",
            constraints=(NEWEST, HYDRA_NEXT),
            on_request=True,
        ),
        Leg(name="today", what="what pip installs today, and what differs from newest", on_request=True),
    )
}


def canonical(name: str) -> str:
    """Return the canonical form of a distribution's name."""
    return str(canonicalize_name(name))


def pins(text: str) -> dict[str, str]:
    """Return the versions that a file of constraints states, by canonical name."""
    lines = (line.partition("#")[0].strip() for line in text.splitlines())
    return {canonical(name): version for name, _, version in (line.partition("==") for line in lines if line)}


def merged_pins(leg: Leg) -> dict[str, str]:
    """Return the versions of a leg, by canonical name."""
    found: dict[str, str] = {}
    for name in leg.constraints:
        found |= pins((ROOT / name).read_text(encoding="utf-8"))
    return found


def lower_bounds(extra: str = EXTRA) -> dict[str, str]:
    """Return the lowest version that pyproject.toml allows for each package that a leg installs by name."""
    found: dict[str, str] = {}
    for requirement in requirements(extra):
        least = [each.version for each in requirement.specifier if each.operator in {">=", "==", "~="}]
        name = canonical(requirement.name)
        found[name] = max([*least, *([found[name]] if name in found else [])], key=Version)
    return found


def requirements(extra: str = EXTRA) -> Iterator[Requirement]:
    """Yield the direct requirements of bench with this extra; other extras of bench that it names are included."""
    project = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    extras = project["optional-dependencies"]
    waiting = [Requirement(each) for each in (*project["dependencies"], *extras[extra])]
    for requirement in waiting:
        if canonical(requirement.name) == project["name"]:
            waiting += [Requirement(each) for name in sorted(requirement.extras) for each in extras[name]]
        else:
            yield requirement


def digest(leg: Leg, interpreter: str) -> str:
    """Return a digest of the inputs of this leg's environment: it changes with the files, the Python and the path."""
    parts = [str(ROOT), interpreter, *map(str, requirements())]
    parts += [f"{name}=={version}" for name, version in sorted(merged_pins(leg).items())]
    return hashlib.sha256("\n".join(parts).encode()).hexdigest()


def mark_of(environment: Path) -> Path:
    """Return the file that holds the digest of an environment; it exists only after a finished install."""
    return environment / "installed-versions"


def is_ready(leg: Leg, interpreter: str) -> bool:
    """Tell whether the leg's environment is complete and has the same inputs as a new one."""
    try:
        mark = mark_of(leg.environment).read_text(encoding="utf-8")
    except OSError:
        return False
    return bool(leg.constraints) and mark == digest(leg, interpreter)


@functools.cache
def interpreter_for(python: str) -> str | None:
    """Return the path of a Python of this ``major.minor``: the running one, one in PATH, or one of pyenv's."""
    for candidate in _candidates(python):
        asked = [candidate, "-I", "-c", "import sys; print('%d.%d' % sys.version_info[:2], sys.executable)"]
        try:
            done = subprocess.run(asked, capture_output=True, text=True, timeout=30, check=False)  # noqa: S603
        except (OSError, subprocess.TimeoutExpired):
            continue
        version, _, path = done.stdout.strip().partition(" ")
        if done.returncode == 0 and version == python and path:
            return path
    return None


def _candidates(python: str) -> Iterator[str]:
    yield sys._base_executable  # type: ignore[attr-defined]  # noqa: SLF001  # the Python that the running environment was made with
    yield from (f"{folder}/python{python}" for folder in os.environ.get("PATH", "").split(os.pathsep) if folder)
    versions = Path(os.environ.get("PYENV_ROOT") or os.path.expanduser("~/.pyenv")) / "versions"  # noqa: PTH111  # raises not where there is no home
    own = [each for each in versions.glob(f"{python}.*") if re.fullmatch(r"\d+\.\d+\.\d+", each.name)]
    for folder in sorted(own, key=lambda each: Version(each.name), reverse=True):
        yield str(folder / f"bin/python{python}")
