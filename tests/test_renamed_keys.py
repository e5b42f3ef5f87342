"""Old names of config keys: they work for one version, a line names the new one, and old results still read."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from bench.cli.composition import renamed_keys
from bench.config.baseline import find_baselines
from bench.config.renamed import RENAMED, rename_overrides, rename_swept, with_current_names
from bench.config.rules import ConfigError
from bench.config.schema import BenchmarkConfig, SweepConfig, no_such_key, walk
from bench.orchestration.loading.record_sources import read_sources
from bench.results.record import Record, RecordError
from bench.results.sweep_file import SweepFile, read_sweep
from factories import make_record
from refusals import Answer, answer, refused

LINES = {
    "sweep.arm": "bench: sweep.arm is now named sweep.label; the old name works in this version only\n",
    "isolation.overlap": "bench: isolation.overlap is now named isolation.share_device; the old name works in this "
    "version only\n",
    "model.tp_plan": "bench: model.tp_plan is now named model.tp_size (auto: one process per GPU; or a number); the old "
    "name works in this version only\n",
}
FILE = "# @package _global_\n"


@pytest.fixture(autouse=True)
def new_command(monkeypatch):
    """Make each test a command of its own, which has printed no line yet."""
    monkeypatch.setattr(renamed_keys, "_told", set())


def typed(folder: Path, *arguments: str) -> Answer:
    found = answer(folder, *arguments)
    assert found.status == 0, found.err
    return found


def with_file(folder: Path, text: str, *arguments: str) -> Answer:
    path = folder / "mine/experiment/old.yaml"
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(FILE + text, encoding="utf-8")
    return typed(folder, "--config-dir", "mine", "experiment=old", *arguments)


def held(config: BenchmarkConfig) -> tuple[Any, ...]:
    return config.sweep.label, config.isolation.share_device, config.model.tp_size


def test_new_names_are_keys_and_old_ones_are_not() -> None:
    keys = {path for path, *_ in walk(BenchmarkConfig)}
    assert set(RENAMED.values()) <= keys
    assert not keys & set(RENAMED)
    assert no_such_key("sweep.arm") == "no such key; it is now named sweep.label"


# ---- where a key may be written ----------------------------------------------------------------------------------


def test_old_names_work_on_the_command_line_with_one_line_each(tmp_path) -> None:
    old = ("sweep.arm=1_0", "isolation.overlap=true", "model.tp_plan=auto", "sweep.arm=1_0")
    found = typed(tmp_path, *old)
    assert held(found.config) == ("1_0", True, "auto")
    assert found.err == "".join(LINES[each.partition("=")[0]] for each in old[:3])


def test_new_names_print_no_line(tmp_path) -> None:
    found = typed(tmp_path, "sweep.label=1_0", "isolation.share_device=true", "model.tp_size=auto")
    assert (held(found.config), found.err) == (("1_0", True, "auto"), "")


def test_old_names_work_in_a_file(tmp_path) -> None:
    text = "sweep: {arm: 1_0}\nisolation: {overlap: true}\nmodel: {tp_plan: auto, tp_size: 2}\n"
    found = with_file(tmp_path, text)
    assert held(found.config) == ("1_0", True, 2)
    assert sorted(found.err.splitlines(keepends=True)) == sorted(LINES.values())


def test_old_names_work_in_a_file_of_a_group(tmp_path) -> None:
    path = tmp_path / "mine/model/split.yaml"
    path.parent.mkdir(parents=True)
    path.write_text("defaults: [tiny]\ntp_plan: auto\n", encoding="utf-8")
    found = typed(tmp_path, "--config-dir", "mine", "model=split")
    assert (found.config.model.tp_size, found.err) == ("auto", LINES["model.tp_plan"])


@pytest.mark.parametrize("key", ["sweep.arm", "sweep.label"])
def test_the_command_line_wins_over_an_old_name_in_a_file(tmp_path, key: str) -> None:
    assert with_file(tmp_path, "sweep: {arm: a}\n", f"{key}=b").config.sweep.label == "b"


def test_old_names_are_swept_under_their_new_ones(tmp_path) -> None:
    points = typed(tmp_path, "-m", "sweep.arm=a,b", "isolation.overlap=true").points
    assert [each.swept for each in points] == [{"sweep.label": "a"}, {"sweep.label": "b"}]
    assert [held(each.config)[:2] for each in points] == [("a", True), ("b", True)]
    assert all("sweep.arm" not in text for each in points for text in each.overrides)


@pytest.mark.parametrize(
    "sweeper",
    [
        "params: {sweep.arm: '1_0,b'}",
        "params: {sweep: {arm: [1_0, b]}}",
        "settings: [sweep.arm=1_0, 'sweep.arm=b isolation.overlap=false']",
    ],
)
def test_old_names_work_in_a_files_sweep(tmp_path, sweeper: str) -> None:
    found = with_file(tmp_path, f"hydra: {{sweeper: {{{sweeper}}}}}\n", "-m")
    assert [each.config.sweep.label for each in found.points] == ["1_0", "b"]
    assert all("sweep.label" in each.swept for each in found.points)
    assert found.err.count(LINES["sweep.arm"]) == 1


def test_old_names_work_in_a_search(tmp_path) -> None:
    found = typed(tmp_path, "-m", "hydra/sweeper=optuna", "isolation.overlap=true,false", "sweep.arm=a")
    assert [each.key for each in found.space.parameters] == ["isolation.share_device"]
    assert found.space.fixed["sweep.label"] == "a"


def test_a_plan_and_a_number_of_processes_become_the_number() -> None:
    for order in (["model.tp_plan=auto", "model.tp_size=2"], ["model.tp_size=2", "model.tp_plan=auto"]):
        assert set(rename_overrides(order)) == {"model.tp_size=2"}
    assert rename_overrides(["model.tp_plan=auto", "model.tp_size=null"]) == ["model.tp_size=auto"]
    assert rename_overrides(["model.tp_plan=null,auto", "x=1"]) == ["model.tp_size=null,auto", "x=1"]


# ---- both names ----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("arguments", "line"),
    [
        (("sweep.arm=a", "sweep.label=b"), "sweep.arm=a: is now named sweep.label, which is also given, as b; leave "
         "sweep.arm out"),
        (("-m", "sweep.arm=a,b", "sweep.label=a"), "sweep.arm=a,b: is now named sweep.label, which is also given, as a; "
         "leave sweep.arm out"),
        (("model.tp_plan=null", "model.tp_size=2"), "model.tp_plan=null: is now named model.tp_size, which is also given, "
         "as 2; leave model.tp_plan out"),
    ],
)  # fmt: skip
def test_an_old_and_a_new_name_that_differ_are_refused(tmp_path, arguments: tuple[str, ...], line: str) -> None:
    assert refused(tmp_path, *arguments) == line


def test_an_old_and_a_new_name_that_differ_in_a_file_are_refused(tmp_path) -> None:
    (tmp_path / "experiment").mkdir()
    (tmp_path / "experiment/x.yaml").write_text(f"{FILE}isolation: {{overlap: true, share_device: false}}\n", "utf-8")
    line = refused(tmp_path, "--config-dir", str(tmp_path), "experiment=x")
    assert line.endswith(
        "isolation.overlap=true: is now named isolation.share_device, which is also given, as false; leave "
        "isolation.overlap out"
    )


def test_an_old_and_a_new_name_that_agree_are_accepted(tmp_path) -> None:
    assert typed(tmp_path, "sweep.arm=a", "sweep.label=a").config.sweep.label == "a"


# ---- what an earlier version left ----------------------------------------------------------------------------------


def of_before(config: BenchmarkConfig) -> dict[str, Any]:
    """Return the request as the version before wrote it."""
    requested = config.to_dict()
    requested["sweep"]["arm"] = requested["sweep"].pop("label")
    requested["isolation"]["overlap"] = requested["isolation"].pop("share_device")
    size = requested["model"]["tp_size"]
    requested["model"] |= {
        "tp_plan": None if size is None else "auto",
        "tp_size": size if isinstance(size, int) else None,
    }
    return requested


@pytest.mark.parametrize("size", [None, "auto", 2])
def test_an_old_request_is_the_same_setting(size: int | str | None) -> None:
    config = BenchmarkConfig(sweep=SweepConfig(label="a"))
    config.isolation.share_device, config.model.tp_size = True, size
    again = BenchmarkConfig.from_dict(of_before(config))
    assert (again.to_dict(), again.trial_id()) == (config.to_dict(), config.trial_id())


def test_renaming_does_not_modify_its_argument() -> None:
    old = of_before(BenchmarkConfig())
    before = json.dumps(old)
    with_current_names(old)
    assert json.dumps(old) == before


def old_sweep(folder: Path) -> Path:
    """Leave a sweep of two labels as the version before did."""
    jobs = []
    for number, label in enumerate("ab"):
        record = make_record(requested=of_before(BenchmarkConfig(sweep=SweepConfig(label=label))), sweep_id="s-1")
        record.name, record.swept = label, {"sweep.arm": label}
        (folder / f"{number}_{label}").mkdir(parents=True)
        record.write(folder / f"{number}_{label}")
        job = {"number": number, "repeat": 1, "trial_id": record.trial_id, "name": label, "swept": record.swept}
        jobs.append(job | {"folder": f"{number}_{label}", "arm": label, "done": False})
    plan = {"schema_version": 2, "sweep_id": "s-1", "name": "s", "started_at_s": 1.0, "launched_at_s": 1.0}
    plan |= {"settings": ["a", "b"], "baseline": None, "swept": {"sweep.arm": ["a", "b"]}, "jobs": jobs}
    (folder / "sweep.json").write_text(json.dumps(plan), encoding="utf-8")
    return folder


def test_an_old_sweep_reads_under_the_new_names(tmp_path) -> None:
    folder = old_sweep(tmp_path / "s")
    record = Record.read(folder / "1_b")
    assert record.setting_id == f"{record.trial_id}-b"
    assert (record.swept, record.requested["sweep"]["label"]) == ({"sweep.label": "b"}, "b")
    plan = SweepFile.read(folder)
    assert [each.swept for each in plan.jobs] == [{"sweep.label": "a"}, {"sweep.label": "b"}]
    assert [each.setting_id for each in plan.jobs] == [f"{record.trial_id}-a", f"{record.trial_id}-b"]
    info = read_sweep(folder)
    assert info is not None
    swept = {"sweep.label": ["a", "b"]}
    assert (plan.swept, info.swept, read_sources(str(folder), None)[0].swept) == (swept, swept, swept)


def test_a_record_with_differing_old_and_new_names_is_refused(tmp_path) -> None:
    requested = BenchmarkConfig(sweep=SweepConfig(label="a")).to_dict()
    requested["sweep"]["arm"] = "b"
    make_record(requested=requested).write(tmp_path)
    with pytest.raises(RecordError, match=r"sweep\.arm=b: is now named sweep\.label"):
        Record.read(tmp_path)


def test_a_baseline_may_be_named_by_an_old_key() -> None:
    settings = [("a", {"sweep.label": "a"}), ("b", {"sweep.label": "b"})]
    assert find_baselines(settings, "sweep.arm=b") == [1, None]


def test_of_a_swept_plan_and_number_only_the_number_is_kept() -> None:
    assert rename_swept({"model.tp_plan": "auto", "model.tp_size": "2"}) == {"model.tp_size": "2"}


def test_a_wrong_value_under_an_old_name_is_reported_with_its_file(tmp_path) -> None:
    (tmp_path / "experiment").mkdir()
    (tmp_path / "experiment/x.yaml").write_text(f"{FILE}sweep:\n  arm: a b\n", encoding="utf-8")
    err = answer(tmp_path, "--config-dir", str(tmp_path), "experiment=x").err
    assert "x.yaml:3: sweep.label=a b: must be 100 letters" in err


def test_a_value_of_the_wrong_type_is_one_error() -> None:
    with pytest.raises(ConfigError, match=r"model\.tp_size=true: must be int or str or null$"):
        BenchmarkConfig.from_dict({"model": {"tp_size": True}})
