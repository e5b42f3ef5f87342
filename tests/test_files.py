"""Test that files are replaced atomically and with the mode that the user's umask allows."""

from __future__ import annotations

import os
import stat
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from bench.host.atomic_files import write_whole

pytestmark = pytest.mark.as_user

MODES = [(0o077, 0o600), (0o022, 0o644), (0o002, 0o664), (0o027, 0o640)]


@contextmanager
def umask(mask: int) -> Iterator[None]:
    before = os.umask(mask)
    try:
        yield
    finally:
        os.umask(before)


def mode(path: Path) -> int:
    return stat.S_IMODE(path.stat().st_mode)


@pytest.mark.parametrize(("mask", "expected"), MODES)
def test_a_new_file_has_the_mode_that_the_umask_allows(tmp_path, mask: int, expected: int) -> None:
    with umask(mask):
        write_whole(tmp_path / "file.json", "text")
    assert mode(tmp_path / "file.json") == expected


@pytest.mark.parametrize("kept", [0o600, 0o640, 0o666])
def test_a_replaced_file_keeps_its_mode(tmp_path, kept: int) -> None:
    path = tmp_path / "file.json"
    path.write_text("old", encoding="utf-8")
    path.chmod(kept)
    with umask(0o022):
        write_whole(path, "new")
    assert (path.read_text(encoding="utf-8"), mode(path)) == ("new", kept)


@pytest.mark.parametrize("name", ["x" * 250 + ".json", "é" * 120 + ".json", "." + "a" * 200])
def test_a_name_as_long_as_the_disk_allows_can_be_written(tmp_path, name: str) -> None:
    write_whole(tmp_path / name, "text")
    assert [each.name for each in tmp_path.iterdir()] == [name]


def test_a_failed_replacement_leaves_no_temporary_file(tmp_path) -> None:
    (tmp_path / "taken").mkdir()
    with pytest.raises(OSError):
        write_whole(tmp_path / "taken", "text")
    assert [each.name for each in tmp_path.iterdir()] == ["taken"]
