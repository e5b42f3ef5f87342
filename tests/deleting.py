"""Find every place in the sources that deletes, renames or overwrites something, or creates what may already exist.

It uses the syntax tree: a call counts by the name of the called function, anywhere. Not covered: what libraries do
themselves, and names built at run time.
"""

from __future__ import annotations

import ast
from collections.abc import Iterator
from pathlib import Path

# Methods and functions that delete, move or overwrite, on any object.
ALWAYS = frozenset((
    "unlink", "remove_tree", "rmtree", "rmdir", "removedirs", "rename", "renames", "move", "write_text", "write_bytes",
    "copyfile", "copy2", "copytree", "copymode", "ftruncate", "symlink_to", "hardlink_to", "symlink", "touch", "chmod",
    "fchmod", "mkdir", "makedirs", "save_file", "save_pretrained", "savefig", "export_chrome_trace", "_dump_snapshot",
    "NamedTemporaryFile", "TemporaryDirectory", "mkdtemp", "mkstemp", "FileLock", "write_whole", "write_named",
))  # fmt: skip
OF_OS = frozenset(("remove", "replace", "link", "truncate"))  # names that other objects have too: only as os.NAME
WRITING = frozenset("wax+")  # in the mode of open


def places(src: Path) -> set[str]:
    """Return each place below a source folder as `module.function`; nested functions and classes have dots."""
    found = set()
    for path in sorted(src.rglob("*.py")):
        parts = path.relative_to(src).with_suffix("").parts
        module = ".".join(part for part in parts if part != "__init__")
        found |= {f"{module}.{name}" for name in places_in(ast.parse(path.read_text(encoding="utf-8")))}
    return found


def places_in(tree: ast.AST, inside: str = "") -> Iterator[str]:
    """Return the functions and classes of one module with such a call; "<module>" is the module's top level."""
    for node in ast.iter_child_nodes(tree):
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef | ast.ClassDef):
            yield from places_in(node, f"{inside}.{node.name}".lstrip("."))
            continue
        if isinstance(node, ast.Call) and is_deleting(node):
            yield inside or "<module>"
        yield from places_in(node, inside)


def is_deleting(call: ast.Call) -> bool:
    """Return whether a call deletes, moves, overwrites, or creates something under a name that may be taken."""
    match call.func:
        case ast.Name(id=name):
            owner = None
        case ast.Attribute(attr=name, value=value):
            owner = value.id if isinstance(value, ast.Name) else ""
        case _:
            return False
    is_other_replace = name == "replace" and (owner == "dataclasses" or len(call.args) != 1 or call.keywords)
    return (
        name in ALWAYS
        or (name in OF_OS and owner == "os")
        or (name == "replace" and not is_other_replace)  # str.replace takes two arguments, a dataclass's keywords
        or (name == "truncate" and owner == "file")  # a rich text is cut by terminal cells
        or (name == "save" and owner == "OmegaConf")
        or (name == "open" and owner == "os" and _flags_write(call))
        or (name == "open" and owner != "os" and _mode_writes(call, is_method=owner is not None))
    )


def _flags_write(call: ast.Call) -> bool:
    text = ast.unparse(call)
    return any(flag in text for flag in ("O_WRONLY", "O_RDWR", "O_CREAT", "O_TRUNC")) and "os.devnull" not in text


def _mode_writes(call: ast.Call, *, is_method: bool) -> bool:
    given = [each.value for each in call.keywords if each.arg == "mode"] + call.args[0 if is_method else 1 :][:1]
    return any(isinstance(each, ast.Constant) and bool(WRITING & set(str(each.value))) for each in given)
