"""A database that cannot be written is found out by writing to it, whoever asks and whatever forbids it."""

from __future__ import annotations

import contextlib
import os
import re
import sqlite3
import stat
import subprocess
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from bench.tracking.publisher import Publisher
from bench.tracking.store.database import ROOM_BYTES, check_writable
from bench.tracking.store.errors import TrackingError, UnreachableError
from bench.tracking.store.opening import open_store
from bench.tracking.store.reachable import check_answers
from bench.tracking.store.store import Store
from small_disk import fill, make_read_only, small_disk

pytestmark = pytest.mark.as_user

ORDINARY_USER = 65534


@pytest.fixture(scope="module")
def made(tmp_path_factory) -> bytes:
    """The content of a database with all tables."""
    folder = tmp_path_factory.mktemp("made")
    open_store(None, "bench", folder)
    return (folder / "mlflow.db").read_bytes()


@pytest.fixture
def folder(made: bytes, tmp_path: Path) -> Path:
    """A folder with a database and its lock, as an earlier start leaves them."""
    place = tmp_path / "work"
    place.mkdir()
    (place / "mlflow.db").write_bytes(made)
    (place / "mlflow.db.lock").touch()
    return place


@pytest.fixture
def as_ordinary_user() -> Callable[[], contextlib.AbstractContextManager[None]]:
    """Do something with the rights of a user who owns nothing here; as such a user already, change nothing."""

    @contextlib.contextmanager
    def become() -> Iterator[None]:
        if os.geteuid() != 0:
            yield
            return
        os.seteuid(ORDINARY_USER)
        try:
            yield
        finally:
            os.seteuid(0)

    return become


def refused_by(folder: Path) -> str:
    """The one line that opening a store in this folder fails with."""
    with pytest.raises(UnreachableError) as error:
        open_store(None, "bench", folder)
    line = str(error.value)
    assert "\n" not in line
    assert f"{folder}/mlflow.db cannot be written: " in line
    return line


def open_to_all(folder: Path) -> None:
    """Let an ordinary user come as far as this folder, and no further than pytest's own lets everybody."""
    for each in folder.parents:
        if each.stat().st_uid == os.getuid() and each.is_relative_to("/tmp") and each != Path("/tmp"):
            each.chmod(0o755)


def test_the_check_changes_nothing(folder) -> None:
    before = (folder / "mlflow.db").read_bytes()
    check_writable(folder / "mlflow.db", 1, room_bytes=ROOM_BYTES)
    assert (folder / "mlflow.db").read_bytes() == before
    assert sorted(each.name for each in folder.iterdir()) == ["mlflow.db", "mlflow.db.lock"]


@pytest.mark.parametrize(
    ("refuses", "which"), [("file", "the file may only be read"), ("folder", "its folder may only be read")]
)
def test_a_file_and_a_folder_that_may_only_be_read_are_told_with_sqlites_reason(
    folder, as_ordinary_user, refuses: str, which: str
) -> None:
    open_to_all(folder)
    (folder / "mlflow.db").chmod(0o444 if refuses == "file" else 0o666)
    folder.chmod(0o555 if refuses == "folder" else 0o777)
    with as_ordinary_user():
        line = refused_by(folder)
    folder.chmod(0o755)
    assert re.search(rf"(attempt to write a readonly database|unable to open database file) \({which}\)", line)
    assert "check that file and its folder, or set tracking.uri to another" in line


def test_a_file_system_that_is_read_only_is_told_with_sqlites_reason(made, tmp_path) -> None:
    with small_disk(tmp_path / "disk", 20) as disk:
        (disk / "mlflow.db").write_bytes(made)
        make_read_only(disk)
        assert "attempt to write a readonly database (the file and its folder may only be read)" in refused_by(disk)


def test_a_file_that_is_mounted_read_only_is_told_with_sqlites_reason(folder) -> None:
    file = folder / "mlflow.db"
    for options in (["--bind", str(file), str(file)], ["-o", "remount,bind,ro", str(file)]):
        done = subprocess.run(["mount", *options], capture_output=True, text=True, check=False)
        if done.returncode:
            pytest.skip(f"nothing can be mounted here: {done.stderr.strip()}")
    try:
        assert "attempt to write a readonly database" in refused_by(folder)
    finally:
        subprocess.run(["umount", str(file)], check=True)


@pytest.mark.parametrize("leave_bytes", [0, 100_000])
def test_a_full_disk_is_told_with_sqlites_reason(made, tmp_path, leave_bytes: int) -> None:
    with small_disk(tmp_path / "disk", 20) as disk:
        (disk / "mlflow.db").write_bytes(made)
        fill(disk / "filler", leave_bytes=leave_bytes)
        assert "database or disk is full" in refused_by(disk)


def test_a_database_that_another_process_holds_is_told_with_sqlites_reason(folder) -> None:
    with contextlib.closing(sqlite3.connect(folder / "mlflow.db", isolation_level=None)) as other:
        other.execute("BEGIN IMMEDIATE")
        with pytest.raises(UnreachableError, match="database is locked"):
            check_answers(f"sqlite:///{folder}/mlflow.db", 0.1)


def test_a_publisher_says_it_once_before_anything_runs_and_prints_no_traceback(folder, made, capfd) -> None:
    lines: list[str] = []
    with contextlib.ExitStack() as stack:
        disk = stack.enter_context(small_disk(folder / "disk", 20))
        (disk / "mlflow.db").write_bytes(made)
        make_read_only(disk)
        publisher = Publisher(uri=None, experiment="other", tags={}, folder=disk, warn=lines.append)
        assert publisher.begin_sweep(sweep_id="s", name="s", swept={}, settings=[], baseline=None) is None
    (line,) = lines
    assert line.startswith("not published: MLflow at sqlite:///")
    assert "attempt to write a readonly database" in line
    assert capfd.readouterr() == ("", "")


def test_an_error_of_the_database_later_on_prints_no_traceback(folder, capfd) -> None:
    store: Store = open_store(None, "bench", folder)
    with contextlib.closing(sqlite3.connect(folder / "mlflow.db")) as other:
        other.execute("DROP TABLE tags")
        other.commit()
    with pytest.raises(TrackingError, match="no such table: tags"):
        store.create_run("x", 0.0, {"a": "b"})
    assert capfd.readouterr() == ("", "")


@pytest.mark.parametrize(("mask", "expected"), [(0o077, 0o600), (0o022, 0o644), (0o002, 0o664)])
def test_a_new_database_and_its_artifacts_have_the_mode_that_the_umask_allows(tmp_path, mask, expected) -> None:
    before = os.umask(mask)
    try:
        store = open_store(None, "bench", tmp_path)
        run_id = store.create_run("x", 0.0, {})
        store.upload_texts(run_id, {"a.txt": "text"})
    finally:
        os.umask(before)
    files = [each for each in tmp_path.rglob("*") if each.is_file()]
    assert {each.name for each in files} == {"mlflow.db", "mlflow.db.lock", "a.txt"}
    assert {stat.S_IMODE(each.stat().st_mode) for each in files} == {expected}
    folders = [each for each in tmp_path.rglob("*") if each.is_dir()]
    assert {stat.S_IMODE(each.stat().st_mode) for each in folders} == {0o777 & ~mask}


def test_an_empty_database_file_that_is_filled_keeps_its_mode(tmp_path) -> None:
    (tmp_path / "mlflow.db").touch(mode=0o600)
    open_store(None, "bench", tmp_path)
    assert stat.S_IMODE((tmp_path / "mlflow.db").stat().st_mode) == 0o600
