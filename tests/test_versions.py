"""Test the legs of scripts/test-versions: installed packages, reuse of environments and results."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
import threading
from pathlib import Path
from typing import IO

import pytest
from packaging.requirements import Requirement
from packaging.version import Version

from bench.orchestration.tested_versions import table

ROOT = Path(__file__).parents[1]
sys.path.append(str(ROOT / "scripts"))
from versions import __main__ as command  # noqa: E402
from versions import legs, renewal, results  # noqa: E402

LEG = legs.LEGS["newest"]


@pytest.fixture
def environments(tmp_path, monkeypatch) -> Path:
    """An empty folder in place of that of the environments."""
    for module in (legs, renewal, command):
        monkeypatch.setattr(module, "ENVIRONMENTS", tmp_path)
    return tmp_path


def installed(leg: legs.Leg, interpreter: str) -> None:
    leg.environment.mkdir(exist_ok=True)
    legs.mark_of(leg.environment).write_text(legs.digest(leg, interpreter))


# ---- the files of versions -------------------------------------------------------------------------------------------


def test_the_oldest_versions_are_the_lower_bounds_of_pyproject() -> None:
    oldest = legs.pins((ROOT / legs.OLDEST).read_text())
    bounds = legs.lower_bounds()
    assert len(bounds) > 15
    assert {name: Version(oldest[name]) for name in bounds} == {name: Version(least) for name, least in bounds.items()}


def test_the_lower_bound_of_a_package_that_several_extras_name_is_the_highest(tmp_path, monkeypatch) -> None:
    (tmp_path / "pyproject.toml").write_text(
        '[project]\nname = "bench"\ndependencies = ["A_b>=1.2,<9", "c==3"]\n'
        '[project.optional-dependencies]\ncontract = ["bench[more]", "d[x]>=4; python_version>\'3\'"]\nmore = ["a-b>=1.10"]\n'
    )
    monkeypatch.setattr(legs, "ROOT", tmp_path)
    assert legs.lower_bounds() == {"a-b": "1.10", "c": "3", "d": "4"}


@pytest.mark.parametrize("name", [legs.PINNED, legs.NEWEST, legs.OLDEST, legs.HYDRA_NEXT])
def test_every_file_of_versions_is_within_the_ranges_of_pyproject(name: str) -> None:
    import tomllib

    found = legs.pins((ROOT / name).read_text())
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    for requirement in map(Requirement, project["dependencies"]):
        version = found.get(legs.canonical(requirement.name))
        assert version is not None or name == legs.HYDRA_NEXT, requirement
        assert version is None or requirement.specifier.contains(version, prereleases=True), (requirement, version)


@pytest.mark.parametrize("name", [legs.PINNED, legs.NEWEST, legs.OLDEST, legs.HYDRA_NEXT])
def test_a_file_of_versions_says_when_it_was_made_and_how_to_renew_it(name: str) -> None:
    head = "\n".join(line for line in (ROOT / name).read_text().splitlines() if line.startswith("#"))
    assert re.search(r"\b20\d\d-\d\d-\d\d\b", head)
    assert "Renew" in head


def test_no_file_of_versions_names_a_torch_build_or_its_own_requirements() -> None:
    for name in (legs.PINNED, legs.NEWEST, legs.OLDEST):
        found = legs.pins((ROOT / name).read_text())
        assert found == renewal.portable(found), name


def test_newest_is_not_older_than_pinned_which_is_not_older_than_oldest() -> None:
    oldest, pinned, newest = (
        {key: Version(value) for key, value in legs.pins((ROOT / name).read_text()).items()}
        for name in (legs.OLDEST, legs.PINNED, legs.NEWEST)
    )
    for name in results.SHOWN:
        assert oldest[name] <= pinned[name] <= newest[name], name


def test_a_file_is_renewed_with_its_head_kept_and_its_date_replaced() -> None:
    found = renewal.pins_of_freeze(
        "zlib-ng==1\nTorch-like==2\npip==25.1\ntorch==2.13.0+cpu\nnvidia-ml-py==13.1\nnvidia-cublas==13\n"
        "triton==3.8.0\ncuda-bindings==13\n-e git+ssh://host/bench\nbench==0.1.0\n"
    )
    text = renewal.renewed("# Made on 2020-01-02.\n# Renew: so\nold==1\n", found, "2026-11-29")
    assert text == (
        "# Made on 2026-11-29.\n# Renew: so\nnvidia-ml-py==13.1\ntorch==2.13.0\nTorch-like==2\nzlib-ng==1\n"
    )


def test_differences_are_named_in_both_directions() -> None:
    told = renewal.differences({"a": "1", "b": "2", "c": "3"}, {"a": "1", "b": "2.1", "d": "4"})
    assert told == ["b 2 -> 2.1", "c 3 -> (not there)", "d (not there) -> 4"]


# ---- environments ----------------------------------------------------------------------------------------------------


def test_a_completely_installed_environment_is_reused(environments) -> None:
    assert not legs.is_ready(LEG, "/usr/bin/python3.11")
    installed(LEG, "/usr/bin/python3.11")
    assert legs.is_ready(LEG, "/usr/bin/python3.11")


def test_an_environment_with_an_interrupted_install_is_not_reused(environments) -> None:
    LEG.environment.mkdir()
    assert not legs.is_ready(LEG, "/usr/bin/python3.11")


def test_an_environment_with_an_interrupted_removal_is_not_reused(environments, monkeypatch) -> None:
    monkeypatch.setattr(command, "interpreter_for", lambda python: "/usr/bin/python3.11")
    installed(LEG, "/usr/bin/python3.11")
    command.forget_what_is_outdated("newest")
    assert legs.is_ready(LEG, "/usr/bin/python3.11")  # nothing was outdated
    with monkeypatch.context() as patch:
        patch.setattr(legs, "merged_pins", lambda leg: {"torch": "9.9"})
        command.forget_what_is_outdated("newest")
    assert not legs.is_ready(LEG, "/usr/bin/python3.11")  # with the former versions again


def test_another_python_version_or_requirement_recreates_the_environment(environments, tmp_path, monkeypatch) -> None:
    installed(LEG, "/usr/bin/python3.11")
    assert not legs.is_ready(LEG, "/opt/python3.11")
    with monkeypatch.context() as patch:
        patch.setattr(legs, "merged_pins", lambda leg: {"torch": "9.9"})
        assert not legs.is_ready(LEG, "/usr/bin/python3.11")
    assert legs.is_ready(LEG, "/usr/bin/python3.11")
    monkeypatch.setattr(legs, "requirements", lambda: [Requirement("torch>=2.11"), Requirement("new")])
    assert not legs.is_ready(LEG, "/usr/bin/python3.11")


def test_the_newest_versions_today_are_always_looked_up(environments) -> None:
    installed(legs.LEGS["today"], "/usr/bin/python3.11")
    assert not legs.is_ready(legs.LEGS["today"], "/usr/bin/python3.11")


def test_a_later_file_of_versions_overrides_an_earlier_one() -> None:
    newest, following = legs.merged_pins(legs.LEGS["newest"]), legs.merged_pins(legs.LEGS["hydra-next"])
    assert following == newest | legs.pins((ROOT / legs.HYDRA_NEXT).read_text())
    assert following["hydra-core"] != newest["hydra-core"]


def executable(path: Path, text: str) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(f"#!/bin/sh\n{text}\n")
    path.chmod(0o755)


def test_a_python_is_found_in_path_or_among_pyenvs_and_a_shim_that_fails_is_none(tmp_path, monkeypatch) -> None:
    monkeypatch.setenv("PATH", f"{tmp_path}/shims")
    monkeypatch.setenv("PYENV_ROOT", str(tmp_path / "pyenv"))
    legs.interpreter_for.cache_clear()
    executable(tmp_path / "shims/python3.99", "exit 127")
    assert legs.interpreter_for("3.99") is None
    legs.interpreter_for.cache_clear()
    for version in ("3.99.9", "3.99.10"):
        executable(tmp_path / f"pyenv/versions/{version}/bin/python3.99", f"echo 3.99 /{version}")
    assert legs.interpreter_for("3.99") == "/3.99.10"
    legs.interpreter_for.cache_clear()
    executable(tmp_path / "shims/python3.99", "echo 3.99 /usr/bin/python3.99")
    assert legs.interpreter_for("3.99") == "/usr/bin/python3.99"
    legs.interpreter_for.cache_clear()


# ---- results ---------------------------------------------------------------------------------------------------------


def left(leg: legs.Leg, *, tests: int = 5, failures: int = 0, errors: int = 0, skipped: int = 0) -> None:
    """Leave what a leg's session leaves."""
    leg.versions.write_text(json.dumps({"python": "3.11.7", "Torch": "2.14.1+cpu", "hydra_core": "1.3.8"}))
    leg.junit.write_text(
        f'<testsuites><testsuite tests="{tests}" failures="{failures}" errors="{errors}" skipped="{skipped}"/></testsuites>'
    )


def ended(session: str = "success") -> results.Result:
    return results.read_result(LEG, session=session, reason="no Python 3.11 was found", seconds=12.3)


def test_a_leg_whose_tests_passed_has_passed(environments) -> None:
    left(LEG, tests=5, skipped=2)
    assert (ended().result, ended().counts) == ("passed", results.Counts(passed=3, failed=0, skipped=2))
    assert ended().versions == {"torch": "2.14.1+cpu", "hydra-core": "1.3.8"}


@pytest.mark.parametrize(
    ("session", "counts"),
    [
        ("failed", {"tests": 5}),
        ("success", {"tests": 5, "failures": 1}),
        ("success", {"tests": 5, "errors": 1}),
        ("success", {"tests": 0}),
        ("success", {"tests": 2, "skipped": 2}),
    ],
)
def test_a_leg_that_failed_or_ran_no_test_has_not_passed(environments, session: str, counts: dict[str, int]) -> None:
    left(LEG, **counts)
    assert ended(session).result == "failed"


def test_a_leg_whose_install_failed_says_so(environments) -> None:
    assert (ended("failed").result, ended("failed").reason) == ("failed", "could not be installed")


def test_a_suite_that_left_no_result_says_so(environments) -> None:
    left(LEG)
    LEG.junit.write_text("<testsuites><testsui")
    assert (ended().result, ended().reason) == ("failed", "pytest left no result")


def test_a_leg_without_its_python_is_skipped_and_not_recorded(environments) -> None:
    skipped = ended("skipped")
    assert (skipped.result, skipped.reason) == ("skipped", "no Python 3.11 was found")
    left(LEG)
    told = json.loads(results.as_json([ended(), skipped], "2026-11-29"))
    versions = {"torch": "2.14.1+cpu", "hydra-core": "1.3.8"}
    leg = {"leg": "newest", "python": "3.11.7", "result": "passed", "versions": versions}
    assert told == {"written": "2026-11-29", "legs": [leg]}


def test_the_table_has_a_row_for_each_leg_and_the_reasons_below(environments) -> None:
    left(LEG, tests=5, failures=1, skipped=1)
    lines = results.table([ended("failed"), ended("skipped")]).splitlines()
    assert lines[0].split() == ["leg", "result", "Python", *results.SHOWN, "passed", "failed", "skipped", "s"]
    assert lines[1].split() == [
        "newest",
        "failed",
        "3.11.7",
        "2.14.1+cpu",
        "-",
        "1.3.8",
        "-",
        "-",
        "-",
        "3",
        "1",
        "1",
        "12",
    ]
    assert lines[3] == "newest: no Python 3.11 was found"


# ---- the command -----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("arguments", "line"),
    [
        (["newset"], "test-versions: no leg 'newset'; there are oldest, pinned, newest, py312, py313, hydra-next"),
        (["--list", "oldest"], "test-versions: --list takes no LEG; leave out 'oldest'"),
        (["--renew", "newest", "oldest"], "test-versions: --renew takes no LEG; leave out 'oldest'"),
        (["oldest", "--write", "--", "-x"], "test-versions: --write takes no arguments for pytest"),
    ],
)
def test_a_mistake_is_one_line_and_starts_nothing(capsys, monkeypatch, arguments: list[str], line: str) -> None:
    monkeypatch.setattr(command, "run_nox", lambda *_, **__: pytest.fail("nox was started"))
    with pytest.raises(SystemExit) as raised:
        command.main(arguments)
    assert raised.value.code == 2
    (told,) = capsys.readouterr().err.splitlines()
    assert told.startswith(line)


def test_without_a_name_all_legs_but_those_on_request_run(environments, monkeypatch, capsys) -> None:
    started = []

    def nox(session: str, *options: str, output: IO[str] | None = None) -> tuple[str, str]:
        started.append(session)
        left(legs.LEGS[session], failures=int(session == "newest"))
        return ("failed" if session == "newest" else "success"), ""

    monkeypatch.setattr(command, "run_nox", nox)
    monkeypatch.setattr(results, "FILE", environments / "tested.json")
    assert command.main([]) == 1
    assert started == ["oldest", "pinned", "newest", "py312", "py313"]
    assert not results.FILE.exists()
    assert "newest  failed" in capsys.readouterr().out
    assert command.main(["oldest", "oldest", "py313"]) == 0
    assert started[5:] == ["oldest", "py313"]


def test_concurrent_legs_wait_for_each_other_and_are_printed_in_sequence(environments, monkeypatch, capsys) -> None:
    meet = threading.Barrier(2, timeout=20)

    def nox(session: str, *_: str, output: IO[str] | None = None) -> tuple[str, str]:
        meet.wait()  # breaks where one leg runs before the other
        for part in ("first", "second"):
            subprocess.run(["echo", f"{session} {part}"], stdout=output, check=True)
        left(legs.LEGS[session])
        return "success", ""

    monkeypatch.setattr(command, "run_nox", nox)
    assert command.main(["oldest", "newest", "--together"]) == 0
    said = capsys.readouterr().out
    for name in ("oldest", "newest"):
        told = f"=== {name}: {legs.LEGS[name].what}\n{name} first\n{name} second\n=== {name}: passed\n"
        assert said.count(told) == 1


def test_results_are_written_to_their_file_and_the_pages_when_asked_for(environments, monkeypatch, capsys) -> None:
    monkeypatch.setattr(command, "run_nox", lambda session, *_, **__: (left(legs.LEGS[session]), ("success", ""))[1])
    for name in ("README", "PAGE", "FILE"):
        place = environments / getattr(results, name).name
        if name != "FILE":
            place.write_text(getattr(results, name).read_text())
        monkeypatch.setattr(results, name, place)
    assert command.main(["oldest", "--write"]) == 0
    tested = json.loads(results.FILE.read_text())
    assert [each["leg"] for each in tested["legs"]] == ["oldest"]
    assert results.sentence(tested) in results.README.read_text()
    page = results.PAGE.read_text()
    assert f"\n\n{chr(10).join(table(results.FILE))}\n\n" in page
    assert "\n| oldest | 3.11.7 | 2.14.1 |" in page


def test_the_pages_agree_with_the_file_of_tested_versions() -> None:
    tested = json.loads(results.FILE.read_text())
    assert results.sentence(tested) in results.README.read_text()
    assert "\n".join(table(results.FILE)) in results.PAGE.read_text()


def test_only_passed_legs_are_called_tested() -> None:
    legs_of = [("a", "passed", "2.9.1"), ("b", "failed", "2.1"), ("c", "passed", "2.14.0"), ("d", "passed", "2.10.0")]
    tested = {
        "written": "2026-11-29",
        "legs": [
            {"leg": leg, "python": "3.11.7", "result": result, "versions": {"torch": version}}
            for leg, result, version in legs_of
        ],
    }
    assert results.sentence(tested) == (
        "Tested on 2026-11-29 with torch 2.9.1 to 2.14.0, Python 3.11.7: [which with which](docs/versions.md)."
    )


def test_an_earlier_result_does_not_count_for_a_leg_that_cannot_be_installed(environments, monkeypatch) -> None:
    left(LEG)
    monkeypatch.setattr(command, "run_nox", lambda *_, **__: ("failed", ""))
    assert command.run_leg("newest", []).reason == "could not be installed"


def test_todays_newest_versions_are_printed_beside_the_recorded_ones(environments, monkeypatch, capsys) -> None:
    newest = legs.pins((ROOT / legs.NEWEST).read_text())

    def nox(session: str, *options: str, output: IO[str] | None = None) -> tuple[str, str]:
        left(legs.LEGS[session])
        now = newest | {"transformers": "99.0", "python": "3.11.7", "pip": "26", "bench": "0.1", "triton": "3.8.0"}
        legs.LEGS[session].versions.write_text(json.dumps(now))
        return "success", ""

    monkeypatch.setattr(command, "run_nox", nox)
    assert command.main(["today"]) == 0
    out = capsys.readouterr().out
    assert "differs from what is newest today in 1 packages:\n" in out
    assert f"  transformers {newest['transformers']} -> 99.0\n" in out
    assert "--renew newest" in out


def test_nox_knows_a_session_for_each_leg_and_each_file(tmp_path) -> None:
    """In a process of its own, as scripts/test-versions starts it."""
    environment = os.environ | {"PYTHONPATH": str(ROOT / "scripts")}
    listed = [sys.executable, "-P", "-m", "nox", "--noxfile", command.NOXFILE, "--list"]
    done = subprocess.run(listed, env=environment, capture_output=True, text=True, check=False, cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    names = {line.split()[1] for line in done.stdout.splitlines() if line.startswith(("* ", "- "))}
    assert names == {*legs.LEGS, *(f"renew-{name}" for name in renewal.TARGETS)}
