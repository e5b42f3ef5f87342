"""Test that versions newer than any tested one are reported once at a start and change nothing else."""

from __future__ import annotations

import json
import re
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from bench.orchestration import tested_versions
from bench.orchestration.tested_versions import FILE, LIBRARIES, PASSED, newer_line, newest_tested, read, table
from conftest import ROOT
from sweep_in_fork import SWEEP, run

HERE = {
    "python": "3.11.7", "torch": "2.13.0+cpu", "transformers": "5.23.0", "hydra-core": "1.3.8", "omegaconf": "2.3.1",
    "mlflow": "3.17.2",
}  # fmt: skip
NEWER = HERE | {"transformers": "5.25.0", "python": "3.99.1"}


def leg(name: str = "pinned", result: str = PASSED, python: str = "3.11.7", **versions: str) -> dict[str, Any]:
    known = {name: version for name, version in HERE.items() if name != "python"}
    changed = {name.replace("_", "-"): version for name, version in versions.items()}
    return {"leg": name, "python": python, "result": result, "versions": known | changed}


def file_of(folder: Path, *legs: dict[str, Any]) -> Path:
    path = folder / "tested.json"
    path.write_text(json.dumps({"written": "2026-11-29", "legs": legs}), encoding="utf-8")
    return path


@pytest.fixture
def installed(monkeypatch):
    """Takes the versions that are to be found as installed."""

    def install(**versions: str | None) -> None:
        changed = {name.replace("_", "-"): version for name, version in versions.items()}
        monkeypatch.setattr(tested_versions, "versions", lambda: HERE | changed)

    return install


# ---- the line --------------------------------------------------------------------------------------------------------


def test_tested_versions_are_not_named(tmp_path, installed) -> None:
    installed()
    assert newer_line(file_of(tmp_path, leg())) is None


def test_all_newer_versions_are_in_one_line(tmp_path, installed) -> None:
    installed(transformers="5.25.0", hydra_core="1.4.0rc3", python="3.14.0")
    assert newer_line(file_of(tmp_path, leg(), leg("newest", transformers="5.24.0", python="3.13.2"))) == (
        "bench: newer than any tested version: transformers 5.25.0 (tested up to 5.24.0), "
        "hydra-core 1.4.0rc3 (tested up to 1.3.8), Python 3.14 (tested up to 3.13); see docs/versions.md"
    )


@pytest.mark.parametrize(
    ("library", "here", "is_newer"),
    [
        ("torch", "2.13.0+cu130", False),
        ("torch", "2.13.0", False),
        ("torch", "2.13.1+cpu", True),
        ("torch", "2.14.0.dev20261101+cu130", True),
        ("torch", "2.13.0a0+b2f4c8e.nv26.11", False),  # as in NVIDIA's containers: before the release
        ("torch", "2.13.0.post1", True),
        ("hydra_core", "1.4.0rc3", True),
        ("hydra_core", "1.3.8rc1", False),
        ("omegaconf", "2.4.0.dev11", True),
        ("transformers", "5.9.0", False),  # numbers, not texts, are compared
        ("transformers", "5.24.0.dev0", True),
        ("mlflow", "main-2026-11-29", False),  # no version: nothing can be told
        ("mlflow", None, False),
        ("python", "3.11.99", False),
        ("python", "3.12.0", True),
        ("python", "3.12.0a1+", True),
    ],
)
def test_only_the_public_part_decides_whether_a_version_is_newer(
    tmp_path, installed, library: str, here: str, is_newer: bool
) -> None:
    installed(**{library: here})
    assert (newer_line(file_of(tmp_path, leg())) is not None) is is_newer


def test_a_tested_local_version_counts_without_its_local_part(tmp_path, installed) -> None:
    installed(torch="2.14.1+cu130")
    assert newer_line(file_of(tmp_path, leg(torch="2.14.1+cpu"))) is None


def test_a_failed_leg_does_not_count_as_tested(tmp_path, installed) -> None:
    installed(transformers="5.24.0")
    file = file_of(tmp_path, leg(), leg("newest", result="failed", transformers="5.24.0"))
    assert newest_tested(file)["transformers"] == "5.23.0"
    assert "transformers 5.24.0 (tested up to 5.23.0)" in str(newer_line(file))


def test_the_newest_of_all_legs_counts_whatever_their_order(tmp_path) -> None:
    legs = [leg("newest", torch="2.14.1", python="3.13.0"), leg(), leg("oldest", torch="2.9.0", python="3.9.0")]
    newest = newest_tested(file_of(tmp_path, *legs))
    assert (newest["torch"], newest["python"]) == ("2.14.1", "3.13")


@pytest.mark.parametrize(
    "text",
    [
        "", "{", "null", "[]", "3", '{"legs": 3}', '{"legs": [3, null, {}, {"leg": "a"}]}', "[" * 100_000,
        '{"legs": [{"leg": "a", "python": "3.11", "result": "passed", "versions": []}]}',
        '{"legs": [{"leg": "a", "python": "?", "result": "passed", "versions": {"torch": 2, "mlflow": "new"}}]}',
    ],
)  # fmt: skip
def test_a_broken_file_gives_no_message_and_no_error(tmp_path, installed, text: str) -> None:
    installed(torch="99.0")
    path = tmp_path / "tested.json"
    path.write_text(text, encoding="utf-8")
    assert newest_tested(path) == {}
    assert newer_line(path) is None
    table(path)


def test_a_missing_or_unreadable_file_gives_no_message(tmp_path, installed) -> None:
    installed(torch="99.0")
    (tmp_path / "bytes").write_bytes(b"\xff\xfe\x00")
    for path in (tmp_path / "none.json", tmp_path, tmp_path / "bytes"):
        assert (newer_line(path), table(path)) == (None, [])


def test_damaged_metadata_of_a_library_give_no_message(tmp_path, monkeypatch) -> None:
    def versions() -> dict[str, str | None]:
        raise UnicodeDecodeError("utf-8", b"\xff", 0, 1, "invalid start byte")

    monkeypatch.setattr(tested_versions, "versions", versions)
    assert newer_line(file_of(tmp_path, leg())) is None


# ---- when it is told -------------------------------------------------------------------------------------------------

COUNTED = re.compile(r"^bench: newer than any tested version: transformers 5\.25\.0 .*, Python 3\.99 ", re.MULTILINE)


def newer() -> None:
    """From now on, in this process, newer versions are installed."""
    tested_versions.versions = lambda: NEWER


def newer_without_torch() -> None:
    from bench.orchestration import job_run

    newer()
    job_run.make_ready = lambda *_: None


def told(folder: Path, *arguments: str) -> list[int]:
    """Return the numbers of a command's lines that name newer versions; it must end with status 0."""
    ended = run(folder, *arguments, prepare=newer_without_torch)
    assert ended.status == 0, ended.out
    return [number for number, line in enumerate(ended.out.splitlines()) if COUNTED.match(line)]


def test_a_sweep_and_a_resumed_one_report_newer_versions_once_at_the_start(tmp_path) -> None:
    assert told(tmp_path, *SWEEP) == [0]
    assert len(told(tmp_path, *SWEEP, "sweep.resume=true")) == 1


def test_a_search_reports_newer_versions_once(tmp_path) -> None:
    assert told(tmp_path, *SWEEP, "hydra/sweeper=optuna", "search.trials=2") == [0]


def test_a_single_run_reports_newer_versions_once(tmp_path) -> None:
    assert told(tmp_path, "tracking=off", "fidelity.reference=none") == [0]


@pytest.mark.parametrize("arguments", [(*SWEEP, "sweep.dry_run=true"), ("--help",)])
def test_a_command_that_does_not_measure_reports_no_newer_versions(tmp_path, arguments: tuple[str, ...]) -> None:
    assert told(tmp_path, *arguments) == []


def test_a_refused_command_prints_only_the_refusal(tmp_path) -> None:
    ended = run(tmp_path, *SWEEP, "sweep.baseline=nobody", prepare=newer)
    assert ended.status == 2
    assert len(ended.out.splitlines()) == 1, ended.out


# ---- the file and the module -----------------------------------------------------------------------------------------


def test_the_pinned_leg_passed_with_the_versions_of_the_constraints() -> None:
    (pinned,) = [each for each in read().legs if each.name == "pinned"]
    assert pinned.result == PASSED
    lines = (ROOT / "scripts/constraints.txt").read_text(encoding="utf-8").splitlines()
    pins = dict(line.split("==") for line in lines if "==" in line and not line.startswith("#"))
    tested = {name: version.partition("+")[0] for name, version in pinned.versions.items() if name in pins}
    assert set(LIBRARIES) <= set(tested)
    assert tested == {name: pins[name] for name in tested}


def test_the_file_of_the_package_has_a_date_and_is_read_completely() -> None:
    found = json.loads(FILE.read_text(encoding="utf-8"))
    assert re.fullmatch(r"\d{4}-\d\d-\d\d", read().written or "")
    assert [each.name for each in read().legs] == [each["leg"] for each in found["legs"]]


def test_the_table_has_one_row_per_leg(tmp_path) -> None:
    legs = [leg(optuna="5.0.0"), leg("newest", result="failed", python="3.13.2", torch="nightly|x")]
    assert table(file_of(tmp_path, *legs)) == [
        "| leg | Python | torch | transformers | hydra-core | omegaconf | mlflow | optuna | result |",
        "| --- | --- | --- | --- | --- | --- | --- | --- | --- |",
        "| pinned | 3.11.7 | 2.13.0 | 5.23.0 | 1.3.8 | 2.3.1 | 3.17.2 | 5.0.0 | passed |",
        "| newest | 3.13.2 | nightly/x | 5.23.0 | 1.3.8 | 2.3.1 | 3.17.2 | – | failed |",
    ]


def test_the_module_imports_none_of_the_libraries_that_it_names() -> None:
    code = "import bench.orchestration.tested_versions as t, sys; t.newer_line(); t.table(); print(*sys.modules)"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert {"torch", "transformers", "hydra", "omegaconf", "mlflow"} & set(done.stdout.split()) == set()
