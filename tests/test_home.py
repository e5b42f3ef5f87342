"""Test users without a writable home folder, and temporary folders with long paths."""

from __future__ import annotations

import errno
import os
import pwd
from pathlib import Path

import pytest

from bench.config.rules import ConfigError
from bench.host import home_folder
from bench.jobs.planning.preflight import preflight
from bench.jobs.process import fork_server
from conftest import run_bench

pytestmark = pytest.mark.as_user

FEW = ("warmup.iterations=0", "measurement.iterations=1", "tracking=off")


@pytest.fixture
def without_passwd_entry(monkeypatch) -> None:
    def missing(uid: int) -> None:
        raise KeyError(f"getpwuid(): uid not found: {uid}")

    monkeypatch.setattr(pwd, "getpwuid", missing)


def test_a_user_without_a_home_gets_a_placeholder_that_is_never_written_to(without_passwd_entry, monkeypatch) -> None:
    monkeypatch.delenv("HOME", raising=False)
    monkeypatch.delenv("XDG_CACHE_HOME", raising=False)
    assert home_folder.cache_home() == Path("/dev/null/.cache/bench")
    home_folder.ensure_home()
    assert os.environ["HOME"] == "/dev/null"
    assert Path.home() == Path("/dev/null")  # raised RuntimeError before


def test_a_home_set_by_the_user_is_kept(without_passwd_entry, monkeypatch, tmp_path) -> None:
    monkeypatch.setenv("HOME", str(tmp_path))
    home_folder.ensure_home()
    assert os.environ["HOME"] == str(tmp_path)


def test_a_home_of_the_passwd_file_needs_no_variable(monkeypatch) -> None:
    entry = pwd.struct_passwd(("me", "x", os.getuid(), 0, "", "/home/me", ""))
    monkeypatch.setattr(pwd, "getpwuid", lambda _: entry)
    monkeypatch.delenv("HOME", raising=False)
    home_folder.ensure_home()
    assert "HOME" not in os.environ


@pytest.mark.parametrize(
    ("named", "expected"),
    [("/elsewhere", "/elsewhere/bench"), ("relative", "/home/me/.cache/bench"), ("", "/home/me/.cache/bench")],
)
def test_only_an_absolute_xdg_cache_home_counts(named, expected, monkeypatch) -> None:
    monkeypatch.setenv("HOME", "/home/me")
    monkeypatch.setenv("XDG_CACHE_HOME", named)
    assert home_folder.cache_home() == Path(expected)


def test_an_unwritable_shared_compile_cache_is_refused_with_folder_and_remedy(tiny, monkeypatch, tmp_path) -> None:
    (tmp_path / "file").write_text("in the way")
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "file"))
    config = tiny()
    config.compile.cache = "shared"
    with pytest.raises(ConfigError) as refused:
        preflight([config])
    text = str(refused.value)
    assert text.startswith("compile.cache=shared: ")
    assert str(tmp_path / "file/bench") in text
    assert os.strerror(errno.ENOTDIR) in text
    assert "XDG_CACHE_HOME" in text
    assert "compile.cache=fresh" in text


def test_an_unwritable_compile_cache_ends_the_command_before_anything_runs(tmp_path) -> None:
    (tmp_path / "file").write_text("in the way")
    ended = run_bench(
        *FEW, "compile=default", "compile.cache=shared", folder=tmp_path, XDG_CACHE_HOME=str(tmp_path / "file")
    )
    assert ended.returncode == 2
    assert ended.stderr.startswith("bench: compile.cache=shared: ")
    assert ended.stderr.count("\n") == 1
    assert not list(tmp_path.glob("outputs/*/record.json"))


# ---- a long TMPDIR ---------------------------------------------------------------------------------------------------


def long_folder(parent: Path, size: int = 150) -> Path:
    folder = parent / ("x" * max(1, size - len(str(parent)) - 1))
    folder.mkdir()
    return folder


def test_a_run_with_a_temporary_folder_too_long_for_a_socket_is_ok(tmp_path) -> None:
    temporary = long_folder(tmp_path)
    ended = run_bench(*FEW, folder=tmp_path, TMPDIR=str(temporary))
    assert ended.returncode == 0, ended.stdout + ended.stderr
    assert not list(temporary.glob("pymp-*"))


def test_a_temporary_folder_that_is_short_enough_is_used_for_the_socket(monkeypatch) -> None:
    monkeypatch.setattr(fork_server, "SHORT_FOLDERS", ())
    longest = "/" + "x" * (fork_server.LONGEST_SOCKET_BYTES - fork_server.SOCKET_BYTES - 1)
    assert fork_server._folder_for_sockets(longest) == longest


def test_path_length_is_counted_in_bytes_not_characters(tmp_path, monkeypatch) -> None:
    monkeypatch.setattr(fork_server, "SHORT_FOLDERS", (str(tmp_path),))
    assert fork_server._folder_for_sockets("/" + "ü" * 60) == str(tmp_path)


def test_without_a_short_enough_folder_one_line_says_what_to_set(monkeypatch) -> None:
    monkeypatch.setattr(fork_server, "SHORT_FOLDERS", ("/nonexistent",))
    with pytest.raises(ConfigError, match=r"isolation.mode=forkserver: .*TMPDIR.*isolation.mode=spawn"):
        fork_server._folder_for_sockets("/" + "x" * 100)
