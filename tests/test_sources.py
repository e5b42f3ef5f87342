"""Test the sources of records: folders, files and their plans. tests/test_compare.py tests MLflow as a source."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from omegaconf import OmegaConf

from bench.orchestration.loading.record_sources import SourceError, read_source, read_sources
from bench.report.page.reproduce import command_of
from bench.results.file_names import HYDRA_NAME, OVERRIDES_NAME, RECORD_NAME, SWEEP_NAME
from factories import make_config
from sweeps import EAGER, SDPA, job, jobs, sweep


@pytest.fixture
def night(tmp_path: Path) -> Path:
    """Write a sweep over eager and sdpa, with its plan."""
    records = jobs({"eager": EAGER[:2], "sdpa": SDPA[:2]})
    swept = {"attention": ["eager", "sdpa"]}
    return sweep(tmp_path / "night", records, settings=["sdpa", "eager"], baseline="eager", swept=swept)


def test_a_sweep_is_read_with_the_declarations_of_its_plan(night) -> None:
    found = read_source(str(night), None)
    assert [(each.name, each.repeat) for each in found.records] == [
        ("eager", 1),
        ("sdpa", 1),
        ("eager", 2),
        ("sdpa", 2),
    ]
    assert (found.typed, found.baseline, found.swept) == (["sdpa", "eager"], "eager", {"attention": ["eager", "sdpa"]})
    assert (found.folder, found.jobs, found.notes) == (night, 4, [])


def test_one_record_is_a_source_by_file_and_by_folder(night) -> None:
    for path in (night / "0_eager", night / "0_eager" / RECORD_NAME):
        found = read_source(str(path), None)
        assert [each.name for each in found.records] == ["eager"]
        assert (found.folder, found.jobs) == (night / "0_eager", None)


def test_the_overrides_of_a_job_are_read(night) -> None:
    path = night / "0_eager/.hydra" / OVERRIDES_NAME
    path.parent.mkdir()
    path.write_text("- attention=eager\n- model.id='it''s'\n- \"workload.prompt_file=a: b\"\n", encoding="utf-8")
    assert read_source(str(night), None).overrides == [
        "attention=eager",
        "model.id='it''s'",
        "workload.prompt_file=a: b",
    ]


def test_an_override_of_several_yaml_lines_is_read_completely(night) -> None:
    lines = [f"workload.prompt_file='{'a long path/' * 20}'", "model.id='two\nlines'", "tracking.tags.a=7", "a=null"]
    path = night / "0_eager/.hydra" / OVERRIDES_NAME
    path.parent.mkdir()
    OmegaConf.save(OmegaConf.create(lines), path)  # as Hydra writes it
    assert read_source(str(night), None).overrides == lines


@pytest.mark.parametrize("text", ["a: b", "- [a]", "- a\n- {b: c}", "'", "7", ""])
def test_overrides_that_are_no_list_of_texts_are_ignored(night, text: str) -> None:
    path = night / "0_eager/.hydra" / OVERRIDES_NAME
    path.parent.mkdir()
    path.write_text(text, encoding="utf-8")
    assert read_source(str(night), None).overrides is None


def test_without_one_in_the_plan_the_baseline_is_found_in_the_records(tmp_path) -> None:
    requested = make_config().to_dict() | {"sweep": {"baseline": "sdpa"}}
    folder = sweep(tmp_path / "bare", jobs({"eager": EAGER[:1], "sdpa": SDPA[:1]}, requested=requested))
    assert read_source(str(folder), None).baseline == "sdpa"


def test_missing_and_broken_records_are_noted(night) -> None:
    (night / "0_eager" / RECORD_NAME).write_text("{}", encoding="utf-8")
    (night / "1_sdpa" / RECORD_NAME).unlink()
    found = read_source(str(night), None)
    assert len(found.records) == 2
    assert [each.partition(":")[0] for each in found.notes] == ["left out", "1 of 4 jobs left no record"]


@pytest.mark.parametrize(
    "plan",
    [
        {"jobs": [{"folder": "../elsewhere"}]},
        {"jobs": [{"folder": "/etc"}]},
        {"jobs": "all"},
        {"settings": [1]},
        {"swept": {"attention": "eager"}},
        {"swept": ["attention"]},
        {"baseline": 3},
    ],
)
def test_unreadable_parts_of_a_plan_are_ignored(night, plan) -> None:
    (night / SWEEP_NAME).write_text(json.dumps(plan), encoding="utf-8")
    found = read_source(str(night), None)
    assert len(found.records) == 4
    assert (found.typed, found.swept, found.baseline) == (None, {}, None)


@pytest.mark.parametrize("text", ["[]", "{", "[" * 100_000, "\ud800"])
def test_an_invalid_plan_is_ignored(night, text) -> None:
    (night / SWEEP_NAME).write_bytes(text.encode("utf-8", "surrogatepass"))
    assert len(read_source(str(night), None).records) == 4


def test_a_folder_of_sweeps_gives_all_of_them(tmp_path, night) -> None:
    sweep(tmp_path / "another", [job("flex", 1.0)], settings=["flex"])
    found = read_sources(str(tmp_path), None)
    assert [(Path(each.label).name, len(each.records)) for each in found] == [("another", 1), ("night", 4)]


def test_a_just_started_sweep_among_others_is_ignored(tmp_path, night) -> None:
    (tmp_path / "begun").mkdir()
    (tmp_path / "begun" / SWEEP_NAME).write_text(json.dumps({"jobs": [{"folder": "0_a"}]}), encoding="utf-8")
    assert [Path(each.label).name for each in read_sources(str(tmp_path), None)] == ["night"]


def test_a_sweep_is_one_source_of_several(night) -> None:
    assert [len(each.records) for each in read_sources(str(night), None)] == [4]


@pytest.mark.parametrize(
    ("name", "said"),
    [
        ("nowhere/night", "no such file or folder; name a sweep's folder"),
        ("night.json", "no such file or folder; name a sweep's folder"),
        (".", "holds no record.json, nor does a folder in it"),
        ("mlflow:", "name a sweep behind it, as in mlflow:ID"),
    ],
)
@pytest.mark.parametrize("read", [read_source, read_sources])
def test_a_source_without_records_is_refused_in_one_line(tmp_path, monkeypatch, name, said, read) -> None:
    monkeypatch.chdir(tmp_path)
    with pytest.raises(SourceError) as refused:
        read(name, None)
    assert said in str(refused.value)
    assert "\n" not in str(refused.value)


def test_a_folder_of_sweeps_is_no_single_source(tmp_path, night) -> None:
    with pytest.raises(SourceError, match=r"holds no records itself; name a sweep in it, such as .*night"):
        read_source(str(tmp_path), None)


def test_an_unreadable_sweep_is_named_beside_the_readable_ones(tmp_path) -> None:
    for name in ("one", "two"):
        sweep(tmp_path / "multirun" / name, jobs({"eager": EAGER[:1]}), settings=["eager"])
    for record in (tmp_path / "multirun/two").glob(f"*/{RECORD_NAME}"):
        record.write_text("half")
    (source,) = read_sources(str(tmp_path / "multirun"), None)
    (note,) = source.notes
    assert note.startswith("left out: ")
    assert "two" in note


@pytest.mark.parametrize("text", ["x" * 5000, "a\0b"])
def test_a_path_that_the_system_refuses_is_one_line(text: str) -> None:
    with pytest.raises(SourceError, match=r"cannot be read|no such") as raised:
        read_sources(text, None)
    assert "\n" not in str(raised.value)
    assert len(str(raised.value)) < 600


def test_a_search_is_no_command_of_its_jobs_overrides(night) -> None:
    path = night / "0_eager/.hydra" / OVERRIDES_NAME
    path.parent.mkdir()
    path.write_text("- warmup.max_s=0.1\n", encoding="utf-8")
    plan = json.loads((night / SWEEP_NAME).read_text(encoding="utf-8"))
    (night / SWEEP_NAME).write_text(json.dumps(plan | {"trials": 20}), encoding="utf-8")
    assert read_source(str(night), None).overrides is None


def test_typed_overrides_of_hydra_are_part_of_the_command(night) -> None:
    typed = ["hydra/launcher=ray", "hydra.launcher.num_gpus=0", "hydra.sweep.dir='x'", "+hydra.job.env_set.A='b'"]
    sources = [{"path": "hydra.conf", "provider": "hydra"}, {"path": "/my conf", "provider": "command-line"}]
    hydra = {"overrides": {"hydra": [*typed, "hydra.mode=MULTIRUN"]}, "runtime": {"config_sources": sources}}
    path = night / "0_eager/.hydra" / HYDRA_NAME
    path.parent.mkdir()
    OmegaConf.save(OmegaConf.create({"hydra": hydra}), path)
    found = read_source(str(night), None)
    assert found.for_hydra == ["--config-dir", "/my conf", "hydra/launcher=ray", "hydra.launcher.num_gpus=0"]
    assert command_of(["attention=eager"], {"attention": ["eager", "sdpa"]}, found.for_hydra) == (
        "python -m bench -m --config-dir '/my conf' hydra/launcher=ray hydra.launcher.num_gpus=0 attention=eager,sdpa"
    )


@pytest.mark.parametrize(
    "text", ["hydra: 1", "hydra: {overrides: {hydra: x}, runtime: {config_sources: [1, {a: b}]}}", "["]
)
def test_an_unusable_config_of_hydra_adds_nothing_to_the_command(night, text: str) -> None:
    path = night / "0_eager/.hydra" / HYDRA_NAME
    path.parent.mkdir()
    path.write_text(text, encoding="utf-8")
    assert read_source(str(night), None).for_hydra == []
