"""Test which copy of a library is imported: its location, its installation and the identity of its state."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from bench.host import libraries
from bench.host.libraries import contradicts, key_of, unusual, with_imported

# What a process says before and after it imports tokenizers, from a folder that is none of pip's.
TELL = """
import json, sys
from bench.host.libraries import imported, unusual
before = unusual()
loaded = "tokenizers" in sys.modules
import tokenizers
print(json.dumps([before, loaded, imported()["tokenizers"], unusual(imported())]))
"""


def tell(**variables: str) -> tuple[dict[str, str], bool, dict[str, object], dict[str, str]]:
    kept = {name: value for name, value in os.environ.items() if not name.startswith(("PYTHON", "GIT_"))}
    done = subprocess.run(
        [sys.executable, "-P", "-c", TELL], env=kept | variables, capture_output=True, text=True, check=True
    )
    before, loaded, found, after = json.loads(done.stdout)
    return before, loaded, found, after


@pytest.fixture
def place(tmp_path) -> Path:
    """Create a folder with a package `tokenizers` that pip did not install."""
    package = tmp_path / "place/tokenizers"
    package.mkdir(parents=True)
    (package / "__init__.py").write_text('__version__ = "9.9"\n')
    return package.parent


def source_of(place: Path) -> str:
    """Return the package's entry in a fingerprint, equal before and after the import."""
    before, loaded, _, after = tell(PYTHONPATH=str(place))
    assert not loaded
    assert before == after
    assert set(before) == {"tokenizers source"}
    return before["tokenizers source"]


def git(folder: Path, *arguments: str) -> str:
    settings = ["-c", "user.name=me", "-c", "user.email=me@example.org", "-c", "commit.gpgsign=false"]
    done = subprocess.run(["git", *settings, *arguments], cwd=folder, capture_output=True, text=True, check=True)
    return done.stdout.strip()


def test_packages_pip_installed_are_not_in_a_fingerprint() -> None:
    before, loaded, found, after = tell()
    assert (before, loaded, after) == ({}, False, {})
    assert (found["came_from"], found["version"]) == ("installed", found["installed_version"])


def test_pips_install_is_not_in_a_fingerprint_even_if_it_is_in_pythonpath() -> None:
    import tokenizers

    assert tell(PYTHONPATH=str(Path(tokenizers.__file__).parents[1]))[0] == {}


def test_a_copy_in_pythonpath_is_reported_with_version_and_folder(place) -> None:
    found = tell(PYTHONPATH=str(place))[2]
    assert (found["version"], found["folder"]) == ("9.9", str(place / "tokenizers"))
    assert found["came_from"] == "PYTHONPATH"
    assert found["installed_version"] not in (None, "9.9")
    assert found["commit"] is None


def test_a_single_file_module_is_a_copy_too(tmp_path) -> None:
    (tmp_path / "tokenizers.py").write_text('__version__ = "9.9"\n')
    assert source_of(tmp_path).startswith(f"{tmp_path}/tokenizers.py (PYTHONPATH, files ")


def test_another_state_of_the_same_folder_is_another_copy(place) -> None:
    before = source_of(place)
    assert source_of(place) == before
    (place / "tokenizers/fast.py").write_text("STEPS = 2\n")
    assert source_of(place) != before


def test_files_that_python_writes_beside_the_code_do_not_change_the_state(place) -> None:
    before = source_of(place)
    (place / "tokenizers/__pycache__").mkdir(exist_ok=True)
    (place / "tokenizers/__pycache__/made.py").write_text("")
    (place / "tokenizers/notes.txt").write_text("results")
    assert source_of(place) == before


def test_commit_and_changes_of_a_checkout_are_reported(place) -> None:
    git(place, "init")
    git(place, "add", ".")
    git(place, "commit", "-m", "first")
    commit = git(place, "rev-parse", "HEAD")
    clean = source_of(place)
    assert clean == f"{place}/tokenizers (PYTHONPATH, commit {commit[:12]})"
    (place / "tokenizers/__init__.py").write_text("FAST = True\n")
    changed = source_of(place)
    assert changed.startswith(clean[:-1] + ", changes ")
    (place / "tokenizers/__init__.py").write_text("FAST = None\n")
    assert source_of(place) not in (clean, changed)
    git(place, "checkout", ".")
    assert source_of(place) == clean
    (place / "tokenizers/new.py").write_text("")
    assert source_of(place) != clean
    found = tell(PYTHONPATH=str(place))[2]
    assert (found["commit"], found["dirty"]) == (commit, True)


def test_a_change_anywhere_in_the_checkout_counts(place) -> None:
    (place / "kernel.cpp").write_text("one")
    git(place, "init")
    git(place, "add", ".")
    git(place, "commit", "-m", "first")
    before = source_of(place)
    (place / "kernel.cpp").write_text("two")
    assert source_of(place) != before


def test_a_build_that_the_repository_ignores_counts(place) -> None:
    (place / ".gitignore").write_text("*.so\n")
    git(place, "init")
    git(place, "add", ".")
    git(place, "commit", "-m", "first")
    before = source_of(place)
    (place / "tokenizers/fast.so").write_bytes(b"built")
    assert source_of(place) != before


def test_a_folder_ignored_by_a_repository_does_not_have_its_commit(place) -> None:
    (place / ".gitignore").write_text("tokenizers/\n")
    git(place, "init")
    git(place, "add", ".")
    git(place, "commit", "-m", "first")
    assert tell(PYTHONPATH=str(place))[2]["commit"] is None


def test_variables_of_a_git_hook_select_no_other_repository(place, tmp_path) -> None:
    git(place, "init")
    git(place, "add", ".")
    git(place, "commit", "-m", "first")
    found = tell(PYTHONPATH=str(place), GIT_DIR=str(tmp_path / "other"))[2]
    assert found["commit"] == git(place, "rev-parse", "HEAD")


def test_a_fork_server_reports_the_package_state_at_its_import(place) -> None:
    libraries.state_of.cache_clear()
    before = libraries.state_of(place / "tokenizers")
    (place / "tokenizers/__init__.py").write_text("CHANGED = True\n")
    assert libraries.state_of(place / "tokenizers") == before
    libraries.state_of.cache_clear()
    assert libraries.state_of(place / "tokenizers") != before


def test_an_install_elsewhere_is_recognised_by_pips_own_list(place) -> None:
    record = place / "tokenizers-9.9.dist-info/RECORD"
    record.parent.mkdir()
    (record.parent / "METADATA").write_text("Metadata-Version: 2.1\nName: tokenizers\nVersion: 9.9\n")
    record.write_text("tokenizers/__init__.py,sha256=abc,10\n")
    before = source_of(place)
    os.utime(place / "tokenizers/__init__.py", (1, 1))  # as after a copy to another node
    assert source_of(place) == before
    record.write_text("tokenizers/__init__.py,sha256=def,10\n")
    assert source_of(place) != before
    assert tell(PYTHONPATH=str(place))[2]["installed_version"] == "9.9"


def test_a_copy_that_contradicts_its_metadata_is_in_a_fingerprint(place, monkeypatch) -> None:
    monkeypatch.setattr(libraries, "_site_folders", lambda: frozenset({place}))
    monkeypatch.setattr(libraries, "_would_be_imported", lambda name: place / name if name == "tokenizers" else None)
    assert unusual() == {"tokenizers source": f"states version 9.9 in {place}/tokenizers"}


@pytest.mark.parametrize(
    ("stated", "installed", "differ"),
    [
        ("2.13.0+cu130", "2.13.0", False),  # wheels of torch
        ("2.13.0+cpu", "2.13.0+cu130", False),
        ("2.13.0", "2.12.0", True),
        (None, "2.13.0", False),
        ("2.13.0", None, False),
    ],
)
def test_the_name_of_a_build_is_no_other_version(stated: str | None, installed: str | None, differ: bool) -> None:
    assert contradicts(stated, installed) is differ


def test_a_record_has_the_imported_copies_not_the_predicted_ones() -> None:
    foreseen = {"torch": "2", key_of("torch"): "/a (PYTHONPATH)", key_of("gguf"): "/b (PYTHONPATH)"}
    installed = {
        "torch": {
            "version": "2", "installed_version": "2", "folder": "/site/torch", "came_from": "installed",
            "commit": None, "dirty": None, "state": None,
        }
    }  # fmt: skip
    assert with_imported(foreseen, installed) == {"torch": "2", key_of("gguf"): "/b (PYTHONPATH)"}
    elsewhere = {"torch": installed["torch"] | {"came_from": "PYTHONPATH", "folder": "/c"}}
    assert with_imported(foreseen, elsewhere)[key_of("torch")] == "/c (PYTHONPATH)"


def test_the_check_imports_nothing_and_takes_a_few_milliseconds() -> None:
    code = (
        "import sys, time; from bench.host.libraries import unusual; unusual(); began = time.perf_counter(); unusual(); "
        "print(time.perf_counter() - began, 'torch' in sys.modules, 'numpy' in sys.modules)"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    seconds, *loaded = done.stdout.split()
    assert loaded == ["False", "False"]
    assert float(seconds) < 0.1  # 3 ms on an idle machine
