"""The g++ of the tests: what it made once is copied the next time, for the tests compile the same small model again
and again, and three quarters of what compiling takes are g++'s.

tests/conftest.py puts this folder first in PATH. Inductor, its own caches and what bench observes of them stay as they
are: they see a compiler that answers sooner. ccache cannot do it, for Inductor compiles and links in one command, in a
folder with another name each time.

The key of an entry is a digest of all that decides the output: the arguments (the folder of the output replaced by a
mark), the content of each file among them, what torch's headers and the compiler are, and the processor. A call of
another form, a failing one, and any trouble with the entries themselves end in the real g++.
"""

import contextlib
import hashlib
import os
import platform
import shutil
import subprocess
import sys
import tempfile
import time
from pathlib import Path

HERE = Path(__file__).resolve().parent
KEPT_S = 7 * 86400  # entries that nobody used for so long are removed


def main(arguments: list[str]) -> int:
    """Copy what the same call made before, or let the real g++ make it and keep it; returns the exit status."""
    compiler = real_compiler()
    output = Path(arguments[arguments.index("-o") + 1]) if "-o" in arguments[:-1] else None
    folder = os.environ.get("BENCH_TEST_COMPILED")
    if output is None or not folder:
        os.execv(compiler, [compiler, *arguments])
    entry = Path(folder, key(compiler, arguments, output))
    with contextlib.suppress(OSError):
        replace(output, entry)
        os.utime(entry)
        return 0
    status = subprocess.run([compiler, *arguments], check=False).returncode
    if status == 0:
        with contextlib.suppress(OSError):
            entry.parent.mkdir(parents=True, exist_ok=True)
            remove_unused(entry.parent)
            replace(entry, output)
    return abs(status)


def real_compiler() -> str:
    """Return the g++ that PATH names without this folder."""
    others = [each for each in os.environ["PATH"].split(os.pathsep) if Path(each or ".").resolve() != HERE]
    found = shutil.which("g++", path=os.pathsep.join(others))
    if found is None:
        sys.exit("g++: not found")
    return found


def key(compiler: str, arguments: list[str], output: Path) -> str:
    """Return the digest of all that decides the output of a call.

    A header's folder stands for all in it: to install torch anew changes the folder's time.
    """
    named = os.fsencode(output.parent), os.fsencode(output.parent.parent)  # Inductor's cache: ROOT/ab/NAME.so

    def without_folder(text: bytes) -> bytes:
        return text.replace(named[0], b"FOLDER").replace(named[1], b"ROOT")

    digest = hashlib.sha256(platform.machine().encode())
    with contextlib.suppress(OSError):
        flags = [line for line in Path("/proc/cpuinfo").read_bytes().splitlines() if line.startswith(b"flags")]
        digest.update(b"".join(flags[:1]))
    digest.update(identity(Path(compiler).resolve()))
    for each in arguments:
        digest.update(without_folder(os.fsencode(each)) + b"\0")
        if each.startswith("-I"):
            digest.update(identity(Path(each[2:])))
        elif Path(each).is_file() and Path(each) != output:
            digest.update(without_folder(Path(each).read_bytes()))
    return digest.hexdigest()


def identity(path: Path) -> bytes:
    """Return what tells a file or folder from one that took its place."""
    with contextlib.suppress(OSError):
        found = path.stat()
        return f"{path} {found.st_size} {found.st_mtime_ns}".encode()
    return b"none"


def replace(target: Path, source: Path) -> None:
    """Put a copy of a file at another path, whole or not at all."""
    with tempfile.NamedTemporaryFile(dir=target.parent, prefix=".new-", delete=False) as new:
        try:
            with source.open("rb") as old:
                shutil.copyfileobj(old, new, 1 << 20)
            shutil.copymode(source, new.name)
            Path(new.name).rename(target)
        except OSError:
            Path(new.name).unlink()
            raise


def remove_unused(folder: Path) -> None:
    """Remove the entries that were not used for long."""
    for each in folder.iterdir():
        with contextlib.suppress(OSError):
            if time.time() - each.stat().st_mtime > KEPT_S:
                each.unlink()


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
