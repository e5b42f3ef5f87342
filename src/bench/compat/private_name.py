"""Look up names of a library that are not part of its public interface.

A release may rename or remove such a name without notice. Therefore each one is an entry, a `PrivateName`, in a module
for its library (see `bench.compat`), and all code uses the entry and handles `MISSING`. A missing name costs only what
its entry states; tests remove each in turn.
"""

from __future__ import annotations

import functools
import importlib
import importlib.metadata
import operator
from dataclasses import dataclass
from types import ModuleType
from typing import Any, Final


class _Missing:
    """Define the type of `MISSING`, which is falsy."""

    def __bool__(self) -> bool:
        return False

    def __repr__(self) -> str:
        return "MISSING"


MISSING: Final[Any] = _Missing()  # None may be the value of a name


@dataclass(frozen=True, kw_only=True)
class PrivateName:
    """Describe a private name of a library, and the loss without it."""

    where: str  # "module:attribute.attribute", as in entry points; without ":" for a module itself
    since: str  # the oldest and the newest release of the library known to have it; see `docs/versions.md`
    until: str
    lost: str  # what bench cannot do or report without the name: the end of a sentence that begins with it
    on_instances: bool = False  # only instances have the attribute, so that only `of` finds it, and `get` never does

    @property
    def library(self) -> str:
        """Return the top-level package that has it."""
        return self.where.partition(":")[0].partition(".")[0]

    def get(self) -> Any:
        """Return the current value of the name; `MISSING` if this version of the library does not have it."""
        module, _, attributes = self.where.partition(":")
        try:
            found: Any = importlib.import_module(module)
            for each in attributes.split(".") if attributes else ():
                found = getattr(found, each)
        except (ImportError, AttributeError):
            return MISSING
        return found

    def of(self, owner: object) -> Any:
        """Return the object's attribute of this name; `MISSING` if it has none."""
        return getattr(owner, self.where.rpartition(":")[2].rpartition(".")[2], MISSING)

    def put(self, value: object) -> None:
        """Set the name to another value; do nothing if this version of the library does not have it."""
        if self.is_here():
            module, _, attributes = self.where.partition(":")
            owner, _, last = attributes.rpartition(".")
            found = importlib.import_module(module)
            setattr(operator.attrgetter(owner)(found) if owner else found, last, value)

    def is_here(self) -> bool:
        """Check whether this version of the library has it."""
        return self.get() is not MISSING

    def unseen(self) -> str:
        """Return one line for a record or a message: which version lacks what, and the loss."""
        return f"{self.library} {_version(self.library)} has no {self.where.replace(':', '.')}: {self.lost}"


def entries(module: ModuleType) -> dict[str, PrivateName]:
    """Return the entries of a library's module by the names of their constants; entries of a tuple are numbered."""
    found = {}
    for name, value in vars(module).items():
        if isinstance(value, PrivateName):
            found[name] = value
        elif isinstance(value, tuple) and all(isinstance(each, PrivateName) for each in value):
            found |= {f"{name}[{index}]": each for index, each in enumerate(value)}
    return found


@functools.cache
def _version(library: str) -> str:
    """Return the version of a top-level package from its distribution."""
    distributions = importlib.metadata.packages_distributions().get(library) or [library]
    try:
        return importlib.metadata.version(distributions[0])
    except importlib.metadata.PackageNotFoundError:
        return "of unknown version"
