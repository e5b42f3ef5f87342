"""How bench reads names of a library that are not part of its public interface.

A release may rename or remove such a name without notice. So each one is an entry, a `PrivateName`, in the one module
for its library (see `bench.compat`), and every reader asks the entry and copes with `MISSING`. A name that is gone
costs what its entry says and no more; tests remove each in turn.
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
    """The type of `MISSING`, which is false."""

    def __bool__(self) -> bool:
        return False

    def __repr__(self) -> str:
        return "MISSING"


MISSING: Final[Any] = _Missing()  # None is a value that a name may have


@dataclass(frozen=True, kw_only=True)
class PrivateName:
    """A private name of a library, and what bench does without it."""

    where: str  # "module:attribute.attribute", as entry points are written; ":" is left out for a module by itself
    since: str  # the oldest and the newest release of the library in which it was seen; see `docs/versions.md`
    until: str
    lost: str  # what bench cannot do, or tell, where the name is gone: the end of a sentence that begins with it
    on_instances: bool = (
        False  # only instances have the attribute, so that it is read with `of` and never found by `get`
    )

    @property
    def library(self) -> str:
        """The top-level package that has it."""
        return self.where.partition(":")[0].partition(".")[0]

    def get(self) -> Any:
        """What the name stands for now; `MISSING` where this version of the library has no such name."""
        module, _, attributes = self.where.partition(":")
        try:
            found: Any = importlib.import_module(module)
            for each in attributes.split(".") if attributes else ():
                found = getattr(found, each)
        except (ImportError, AttributeError):
            return MISSING
        return found

    def of(self, owner: object) -> Any:
        """The attribute of this name that an object has now; `MISSING` where it has none."""
        return getattr(owner, self.where.rpartition(":")[2].rpartition(".")[2], MISSING)

    def put(self, value: object) -> None:
        """Let the name stand for another value; nothing happens where this version of the library has no such name."""
        if self.is_here():
            module, _, attributes = self.where.partition(":")
            owner, _, last = attributes.rpartition(".")
            found = importlib.import_module(module)
            setattr(operator.attrgetter(owner)(found) if owner else found, last, value)

    def is_here(self) -> bool:
        """Whether this version of the library has it."""
        return self.get() is not MISSING

    def unseen(self) -> str:
        """One line for a record or a message: which version lacks what, and what that costs."""
        return f"{self.library} {_version(self.library)} has no {self.where.replace(':', '.')}: {self.lost}"


def entries(module: ModuleType) -> dict[str, PrivateName]:
    """The entries of a library's module, by the constants that hold them; those of a tuple are numbered."""
    found = {}
    for name, value in vars(module).items():
        if isinstance(value, PrivateName):
            found[name] = value
        elif isinstance(value, tuple) and all(isinstance(each, PrivateName) for each in value):
            found |= {f"{name}[{index}]": each for index, each in enumerate(value)}
    return found


@functools.cache
def _version(library: str) -> str:
    """The version of a top-level package as its distribution states it."""
    distributions = importlib.metadata.packages_distributions().get(library) or [library]
    try:
        return importlib.metadata.version(distributions[0])
    except importlib.metadata.PackageNotFoundError:
        return "of unknown version"
