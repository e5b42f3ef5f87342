"""Test that the tests' g++ (tests/compiler) answers as the real one and calls it for any new input."""

from __future__ import annotations

import os
import subprocess
from pathlib import Path

import pytest

OURS = Path(__file__).parent / "compiler"
# Writes what it was asked for, and notes each call.
REAL = """#!/bin/sh
echo "$@" >> {calls}
while [ $# -gt 0 ]; do
    case $1 in -o) shift; out=$1 ;; *.cpp) source=$1 ;; esac
    shift
done
grep -q wrong "$source" && exit 3
[ -z "$out" ] || {{ cat "$source" > "$out"; chmod 750 "$out"; }}
"""


class Desk:
    """Install a g++ that records its calls behind that of the tests."""

    def __init__(self, folder: Path) -> None:
        self.folder, self.notes = folder, folder / "calls"
        self.real = folder / "bin/g++"
        self.real.parent.mkdir()
        self.real.write_text(REAL.format(calls=self.notes))
        self.real.chmod(0o755)
        self.kept = folder / "kept"

    def compile(self, cache: str, source: str = "int a;", *more: str) -> tuple[int, Path]:
        """Compile as Inductor does: a source in a separate folder with its output beside it."""
        folder = self.folder / cache / "ab"
        folder.mkdir(parents=True, exist_ok=True)
        (folder / "x.cpp").write_text(source)
        output = folder / "x.so"
        return self.run(str(folder / "x.cpp"), "-O3", *more, "-o", str(output)), output

    def run(self, *arguments: str) -> int:
        path = os.pathsep.join([str(OURS), str(self.real.parent), os.environ["PATH"]])
        variables = os.environ | {"PATH": path, "BENCH_TEST_COMPILED": str(self.kept)}
        return subprocess.run([OURS / "g++", *arguments], env=variables, check=False).returncode

    def calls(self) -> int:
        return len(self.notes.read_text().splitlines()) if self.notes.exists() else 0


@pytest.fixture
def desk(tmp_path) -> Desk:
    return Desk(tmp_path)


def test_the_same_call_in_another_folder_is_a_copy(desk) -> None:
    assert desk.compile("one")[0] == 0
    status, output = desk.compile("two")
    assert (status, desk.calls()) == (0, 1)
    assert (output.read_text(), output.stat().st_mode & 0o777) == ("int a;", 0o750)


def test_a_header_of_the_cache_is_identified_by_its_content(desk) -> None:
    for cache, text in (("one", "1"), ("two", "1"), ("three", "2")):
        header = desk.folder / cache / "headers/h.h"
        header.parent.mkdir(parents=True)
        header.write_text(text)
        desk.compile(cache, "int a;", "-include", str(header))
    assert desk.calls() == 2


def test_the_folder_in_a_source_does_not_matter(desk) -> None:
    for cache in ("one", "two"):
        desk.compile(cache, f'#include "{desk.folder / cache}/h.h"')
    assert desk.calls() == 1


def test_another_source_option_header_folder_or_compiler_calls_the_real_one(desk) -> None:
    headers = desk.folder / "include"
    headers.mkdir()
    include = f"-I{headers}"
    desk.compile("a", "int a;", include)
    desk.compile("b", "int b;", include)
    assert desk.calls() == 2
    desk.compile("c", "int a;", include, "-g")
    assert desk.calls() == 3
    (headers / "new").touch()
    desk.compile("d", "int a;", include)
    assert desk.calls() == 4
    desk.real.write_text(desk.real.read_text() + "# another release\n")
    desk.compile("e", "int a;", include)
    assert desk.calls() == 5


def test_a_failing_call_is_not_cached(desk) -> None:
    for number in (1, 2):
        status, output = desk.compile("one", "wrong")
        assert (status, output.exists(), desk.calls()) == (3, False, number)


def test_a_call_without_output_goes_to_the_real_compiler(desk) -> None:
    for number in (1, 2):
        desk.run("--version")
        assert desk.calls() == number
    assert not desk.kept.exists()


def test_an_unwritable_cache_folder_only_prevents_the_copy(desk) -> None:
    desk.kept.touch()  # a file: no entry can be created below it
    for number in (1, 2):
        status, output = desk.compile(str(number))
        assert (status, output.read_text(), desk.calls()) == (0, "int a;", number)


def test_entries_unused_for_long_are_removed(desk) -> None:
    desk.compile("one")
    (old,) = desk.kept.iterdir()
    os.utime(old, (0, 0))
    desk.compile("two", "int b;")
    assert not old.exists()
    assert len(list(desk.kept.iterdir())) == 1
