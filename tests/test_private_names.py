"""Private names of the libraries stand in the modules `*_internals.py` alone, as entries that are true.

What counts as private: a component with a leading underscore, and the modules of `NOT_DOCUMENTED`, which the
libraries' documentation does not present as an interface. An attribute with a leading underscore counts unless it is
of `self`, `cls` or `super()`, is defined in the same file, or belongs to a module of ours or to the standard library.

Not covered: names put together at run time, and formats that only a library's source defines.
"""

from __future__ import annotations

import ast
import importlib
import importlib.metadata
import importlib.util
import inspect
import re
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from packaging.version import Version

from bench.compat.private_name import PrivateName, entries

SRC = Path(__file__).parents[1] / "src"
LIBRARIES = ("torch", "transformers", "hydra", "omegaconf", "antlr4", "mlflow", "optuna", "ray", "submitit")
# Modules without an underscore that no documentation presents.
NOT_DOCUMENTED = (
    "antlr4",
    "hydra.core.default_element",
    "hydra.core.override_parser",
    "hydra.grammar",
    "mlflow.protos",
    "mlflow.server",
    "mlflow.store",
    "mlflow.utils",
    "omegaconf.base",
    "omegaconf.basecontainer",
    "omegaconf.grammar",
    "omegaconf.nodes",
    "omegaconf.vendor",
    "submitit.core",
    "transformers.generation.continuous_batching",
    "transformers.masking_utils",
    "transformers.models.llama.modeling_llama.LlamaRMSNorm.kernel_layer_name",
    "transformers.utils.import_utils",
)
OF_NAMED_TUPLES = ("_asdict", "_fields", "_replace", "_make")
OWN = ("bench", "hydra_plugins")
_LITERAL = re.compile(rf"({'|'.join(LIBRARIES)})([.:]\w+)+")  # not in a sentence, and more than a library


def is_private(name: str) -> bool:
    """Return whether a dotted name of a library is private: hydra._internal.utils, mlflow.store.db.

    Args:
        name: a module, or a name in it, after a dot or a colon.
    """
    parts = name.replace(":", ".").split(".")
    if parts[0] not in LIBRARIES:
        return False
    if any(_is_hidden(each) for each in parts):
        return True
    dotted = ".".join(parts)
    return any(f"{dotted}.".startswith(f"{each}.") for each in NOT_DOCUMENTED)


def _is_hidden(name: str) -> bool:
    return name.startswith("_") and not name.endswith("__") and name.strip("_") != ""


def private_names(tree: ast.Module) -> Iterator[tuple[int, str]]:
    """Return the private names that a module uses, each with its line."""
    defined = set(_definitions(tree))
    imported = dict(_imported(tree))
    for node in ast.walk(tree):
        match node:
            case ast.Import():
                found = [alias.name for alias in node.names if is_private(alias.name)]
            case ast.ImportFrom(module=str(module), level=0):
                found = [f"{module}.{each.name}" for each in node.names if is_private(f"{module}.{each.name}")]
            case ast.Attribute():
                found = _of_attribute(node.value, node.attr, imported, defined)
            case ast.Call(func=ast.Name(id="getattr" | "hasattr" | "setattr" | "delattr"), args=[of, name, *_]):
                literal = name.value if isinstance(name, ast.Constant) else None
                found = _of_attribute(of, literal, imported, defined) if isinstance(literal, str) else []
            case ast.Call(func=ast.Name(id="PrivateName")):
                found = ["PrivateName"]
            case ast.Constant(value=str(text)) if _LITERAL.fullmatch(text) and is_private(text):
                found = [text]
            case _:
                found = []
        yield from ((node.lineno, each) for each in found)


def _of_attribute(of: ast.expr, name: str, imported: dict[str, str], defined: set[str]) -> list[str]:
    """What an attribute is, where it is private."""
    dotted = _dotted(of, imported)
    if dotted is not None and dotted.partition(".")[0] in LIBRARIES:
        whole = f"{dotted}.{name}"  # each is told once, by the shortest part of it that is private
        return [whole] if is_private(whole) and not is_private(dotted) else []
    is_known = dotted is not None and dotted.partition(".")[0] in (*OWN, *sys.stdlib_module_names)
    if not _is_hidden(name) or name in OF_NAMED_TUPLES or name in defined or is_known or _is_self(of):
        return []
    return [name]


def _is_self(of: ast.expr) -> bool:
    match of:
        case ast.Name(id="self" | "cls"):
            return True
        case ast.Call(func=ast.Name(id="super")):
            return True
    return False


def _dotted(of: ast.expr, imported: dict[str, str]) -> str | None:
    """Return the dotted name of an imported module or of a name in one, None for any other value."""
    match of:
        case ast.Name(id=name):
            return imported.get(name)
        case ast.Attribute(value=value, attr=attr):
            start = _dotted(value, imported)
            return None if start is None else f"{start}.{attr}"
    return None


def _imported(tree: ast.Module) -> Iterator[tuple[str, str]]:
    """Map each name in this module to its import."""
    for node in ast.walk(tree):
        match node:
            case ast.Import():
                for alias in node.names:
                    yield (alias.asname, alias.name) if alias.asname else (alias.name.partition(".")[0],) * 2
            case ast.ImportFrom(module=str(module), level=0):
                yield from ((alias.asname or alias.name, f"{module}.{alias.name}") for alias in node.names)


def _definitions(tree: ast.Module) -> Iterator[str]:
    """Return all names that a module defines: functions, classes, variables, fields, attributes of self and cls."""
    for node in ast.walk(tree):
        match node:
            case ast.FunctionDef(name=name) | ast.AsyncFunctionDef(name=name) | ast.ClassDef(name=name):
                yield name
            case ast.Name(id=name, ctx=ast.Store()):
                yield name
            case ast.Attribute(value=ast.Name(id="self" | "cls"), attr=name, ctx=ast.Store()):
                yield name


def wrong_names(src: Path) -> list[str]:
    """Return forbidden private names below `src`, one line each: file, line, name."""
    wrong = []
    for path in sorted(src.rglob("*.py")):
        where = path.relative_to(src)
        if not path.stem.endswith("_internals"):
            found = private_names(ast.parse(path.read_text(encoding="utf-8")))
            wrong += [f"{where.as_posix()}:{line}: {name}" for line, name in found]
    return wrong


def test_private_names_are_used_only_in_internals_modules() -> None:
    assert wrong_names(SRC) == []


@pytest.mark.parametrize(
    ("code", "name"),
    [
        ("import hydra._internal.hydra", "hydra._internal.hydra"),
        ("import torch._dynamo as dynamo", "torch._dynamo"),
        ("from hydra._internal import hydra", "hydra._internal.hydra"),
        ("from hydra.core.override_parser.types import Override", "hydra.core.override_parser.types.Override"),
        ("from hydra.core import override_parser", "hydra.core.override_parser"),
        ("from omegaconf import _utils", "omegaconf._utils"),
        ("from mlflow.store.db import utils", "mlflow.store.db.utils"),
        ("from antlr4 import InputStream", "antlr4.InputStream"),
        ("def f():\n    from transformers.cache_utils import _static", "transformers.cache_utils._static"),
        ("import torch\ntorch._dynamo.reset()", "torch._dynamo"),
        ("import torch\ntorch._C._cuda.get()", "torch._C"),
        ("import torch as t\nt.utils._pytree.tree_map(f, x)", "torch.utils._pytree"),
        ("import mlflow\nmlflow.store.db.x", "mlflow.store"),
        ("from torch import nn\nnn._x", "torch.nn._x"),
        ("import submitit\nraise submitit.core.utils.FailedJobError", "submitit.core"),
        ("def f(config):\n    return config._content", "_content"),
        ("def f(override):\n    override._value = 3", "_value"),
        ("f(x)._get_node('a')", "_get_node"),
        ("getattr(model, '_name', None)", "_name"),
        ("hasattr(model.config, '_attn')", "_attn"),
        ("setattr(config, '_py_driver_sys_path', [])", "_py_driver_sys_path"),
        ("import torch\ngetattr(torch, '_dynamo')", "torch._dynamo"),
        ("importlib.import_module('torch._inductor.config')", "torch._inductor.config"),
        ("x = 'hydra._internal.core_plugins.basic_sweeper'", "hydra._internal.core_plugins.basic_sweeper"),
        ("x = 'omegaconf:DictConfig._content'", "omegaconf:DictConfig._content"),
        ("x = PrivateName(where='torch:x', since='1', until='2', lost='y')", "PrivateName"),
        ("class A:\n    def f(self, other):\n        return other._x", "_x"),
    ],
)
def test_a_private_name_is_found(code: str, name: str, tmp_path: Path) -> None:
    (tmp_path / "planted.py").write_text(code, encoding="utf-8")
    assert {each.rpartition(": ")[2] for each in wrong_names(tmp_path)} == {name}


@pytest.mark.parametrize(
    "code",
    [
        "import hydra\nfrom hydra.core.config_store import ConfigStore\nfrom hydra.types import RunMode",
        "import torch\ntorch.__version__\ntorch.compiler.reset()",
        "from __future__ import annotations\nfrom torch import nn",
        "import os\nos._exit(1)",
        "f().memory_info()._asdict()",
        "class A:\n    def f(self):\n        self._x = super()._y()\n        return self._z",
        "class A:\n    def f(self):\n        self._x = 1\ndef g(a):\n    return a._x",
        "class A:\n    _x: int\ndef g(a, b):\n    return getattr(a, '_x') == b._x",
        "import bench\nbench._HOMES",
        "from bench.cli import application\napplication._typed",
        "def _f(): ...\n_f()",
        "'''A docstring may speak of hydra._internal.'''",
        "x = 'see torch._dynamo for it'",
        "for _ in x: ...\n_, __ = y",
        "getattr(x, name)",
    ],
)
def test_public_names_and_our_own_are_not_private(code: str, tmp_path: Path) -> None:
    (tmp_path / "planted.py").write_text(code, encoding="utf-8")
    assert wrong_names(tmp_path) == []


def test_an_internals_module_may_use_private_names(tmp_path: Path) -> None:
    (tmp_path / "torch_internals.py").write_text("import torch._dynamo", encoding="utf-8")
    (tmp_path / "internals.py").write_text("import torch._dynamo", encoding="utf-8")
    assert wrong_names(tmp_path) == ["internals.py:1: torch._dynamo"]


# ---- the entries -------------------------------------------------------------------------------------------------


def _all_entries() -> dict[str, PrivateName]:
    found = {}
    for path in sorted(SRC.rglob("*_internals.py")):
        name = ".".join(path.relative_to(SRC).with_suffix("").parts)
        found |= {f"{name}.{each}": entry for each, entry in entries(importlib.import_module(name)).items()}
    return found


ENTRIES = _all_entries()


@pytest.mark.parametrize("name", sorted(ENTRIES))
def test_an_entry_matches_the_installed_version(name: str) -> None:
    entry = ENTRIES[name]
    assert is_private(entry.where) or entry.on_instances, "a public name needs no entry"
    assert Version(entry.since) <= Version(entry.until)
    for needed in (entry.library, *(["kernels"] if ".KERNEL_" in name else [])):
        if importlib.util.find_spec(needed) is None:
            pytest.skip(f"{needed} is not installed")
    distribution = importlib.metadata.packages_distributions()[entry.library][0]
    installed = Version(importlib.metadata.version(distribution))
    if Version(entry.since) <= installed <= Version(entry.until):
        assert _is_there(entry), f"{distribution} {installed} has it not"


def _is_there(entry: PrivateName) -> bool:
    """Whether it is found; an attribute of instances is one that the source of their class speaks of."""
    if entry.is_here():
        return True
    owner_name, _, attribute = entry.where.rpartition(".")
    module, _, owner = owner_name.partition(":")
    kind: Any = getattr(importlib.import_module(module), owner)
    source = Path(str(inspect.getsourcefile(kind))).read_text(encoding="utf-8")
    return re.search(rf"\b{attribute}\b", source) is not None


@pytest.mark.parametrize("name", sorted(ENTRIES))
def test_an_entry_says_what_fails_without_the_name(name: str) -> None:
    """The end of the sentence "hydra-core 9 has no hydra.x: ..."."""
    lost = ENTRIES[name].lost
    assert len(lost.split()) >= 4
    assert not lost.endswith((".", ":", " "))
    assert "\n" not in lost
