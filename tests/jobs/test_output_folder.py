"""Test the output folder of a single run: created, locked, and removed again if nothing ran."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from bench.config.rules import ConfigError
from bench.jobs.folders.created import CreatedFolders
from bench.jobs.folders.output_folder import check_usable, free_config_folder, in_output_folder, why_taken
from bench.results.file_names import HYDRA_NAMES
from factories import make_record
from snapshots import contents, snapshot

pytestmark = pytest.mark.as_user


def as_hydra(folder: Path, name: str = ".hydra") -> None:
    """Write the files that Hydra writes before it calls its task."""
    (folder / name).mkdir(parents=True, exist_ok=True)
    for each in HYDRA_NAMES:
        (folder / name / each).write_text("composed")


# ---- created -------------------------------------------------------------------------------------------------------


def test_only_created_folders_are_removed_and_only_when_empty(tmp_path) -> None:
    (tmp_path / "empty").mkdir()
    before = contents(tmp_path)
    created = CreatedFolders()
    for place in ("empty", "empty/a/b", "c/d", "c/../e"):
        created.make(tmp_path / place)
        assert (tmp_path / place).is_dir()
    (tmp_path / "c/d/mine").touch()
    created.remove_empty()
    assert contents(tmp_path).keys() - before.keys() == {"c", "c/d", "c/d/mine"}
    assert (tmp_path / "empty").is_dir()


def test_a_folder_that_another_process_creates_meanwhile_is_not_ours(tmp_path, monkeypatch) -> None:
    real = Path.mkdir

    def slower(path: Path) -> None:
        real(path)  # by another process
        real(path)

    monkeypatch.setattr(Path, "mkdir", slower)
    created = CreatedFolders()
    created.make(tmp_path / "theirs")
    created.remove_empty()
    assert (tmp_path / "theirs").is_dir()


def test_folders_created_before_a_file_blocked_the_path_are_removed(tmp_path) -> None:
    (tmp_path / "file").touch()
    created = CreatedFolders()
    with pytest.raises(OSError, match="file"):
        created.make(tmp_path / "new/../file/below")
    created.remove_empty()
    assert contents(tmp_path).keys() == {"file"}


# ---- in a run ------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("error", [KeyboardInterrupt, SystemExit, OSError, ConfigError("key", 1, "wrong")])
def test_a_start_that_ends_before_its_run_leaves_nothing(tmp_path, error) -> None:
    (tmp_path / "empty").mkdir()
    (tmp_path / "used").mkdir()
    (tmp_path / "used/thesis.txt").write_text("mine")
    before = contents(tmp_path)
    for place in ("empty", "used", "new/below"):
        folder = tmp_path / place
        with pytest.raises((KeyboardInterrupt, SystemExit, OSError, ConfigError)):
            stop_in(folder, error)
        assert contents(tmp_path) == before


def stop_in(folder: Path, error: BaseException) -> None:
    with in_output_folder(folder, typed=folder, config_folder=".hydra"):
        as_hydra(folder)
        raise error


@pytest.mark.parametrize("name", ["record.json", "worker.log", "references/0/record.json"])
def test_files_of_a_run_stay_with_its_config_when_it_ends(tmp_path, name: str) -> None:
    with in_output_folder(tmp_path / "o", typed=tmp_path, config_folder=".hydra"):
        as_hydra(tmp_path / "o")
        (tmp_path / "o" / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / "o" / name).touch()
    assert (tmp_path / "o/.hydra/config.yaml").exists()
    assert (tmp_path / "o" / name).exists()


def test_files_that_the_user_added_beside_hydras_files_stay(tmp_path) -> None:
    with in_output_folder(tmp_path / "o", typed=tmp_path / "o", config_folder=".hydra"):
        as_hydra(tmp_path / "o")
        (tmp_path / "o/.hydra/notes").touch()
    assert contents(tmp_path / "o").keys() == {".hydra", ".hydra/notes"}


def test_the_config_of_another_program_is_neither_overwritten_nor_removed(tmp_path) -> None:
    as_hydra(tmp_path)
    before = contents(tmp_path)
    name = free_config_folder(tmp_path, ".hydra")
    assert name == ".hydra-bench"
    with in_output_folder(tmp_path, typed=tmp_path, config_folder=name):
        as_hydra(tmp_path, name)
    assert contents(tmp_path) == before
    assert free_config_folder(tmp_path, None) is None


HOLDER = """
import sys
from pathlib import Path
from bench.jobs.folders.output_folder import in_output_folder
folder = Path(sys.argv[1])
with in_output_folder(folder, typed=folder, config_folder=None):
    print("held", flush=True)
    sys.stdin.read()
"""


def test_two_simultaneous_starts_do_not_share_a_folder(tmp_path) -> None:
    command = [sys.executable, "-c", HOLDER, str(tmp_path / "o")]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE) as other:
        assert other.stdout.readline() == b"held\n"
        with pytest.raises(ConfigError, match="another run is using it"):
            stop_in(tmp_path / "o", AssertionError())
        assert (tmp_path / "o").is_dir()
        other.stdin.close()
        other.wait()
    assert not (tmp_path / "o").exists()


def test_a_folder_taken_after_its_check_is_refused(tmp_path) -> None:
    check_usable(tmp_path)
    make_record().write(tmp_path)
    before = snapshot(tmp_path)
    with pytest.raises(ConfigError, match=r"record\.json of an earlier run"):
        stop_in(tmp_path, AssertionError())
    assert snapshot(tmp_path) == before


def test_a_file_named_like_a_plan_does_not_make_a_sweep(tmp_path) -> None:
    (tmp_path / "sweep.json").write_text('{"program": "train.py", "method": "grid"}')
    (tmp_path / "run1").mkdir()
    make_record(sweep_id=None).write(tmp_path / "run1")  # of a single run
    assert why_taken(tmp_path) is None
    assert why_taken(tmp_path / "new/below") is None


@pytest.mark.parametrize("make", [Path.touch, lambda path: path.symlink_to("nowhere")])
def test_a_path_that_is_no_folder_is_refused(tmp_path, make) -> None:
    make(tmp_path / "x")
    for place in ("x", "x/below"):
        with pytest.raises(ConfigError, match="no folder; choose another one"):
            check_usable(tmp_path / place)
