from __future__ import annotations

import pytest

from bench.config.rules import ConfigError
from bench.config.schema import BenchmarkConfig, SweepConfig
from bench.jobs.planning.plan import Point, make_plan, short_name
from bench.results.file_names import file_name
from bench.results.sweep_file import SweepFile


def points(count: int) -> list[Point]:
    return [
        Point(
            overrides=(f"workload.batch_size={size}",),
            swept={"workload.batch_size": str(size)},
            config=BenchmarkConfig(batch_size=size),
        )
        for size in range(1, count + 1)
    ]


def test_each_block_holds_every_setting_once() -> None:
    plan = make_plan(points(6), SweepConfig(repeats=4), "s")
    everything = {point.config.trial_id() for point in points(6)}
    for repeat in range(1, 5):
        block = [job.trial_id for job in plan.jobs[(repeat - 1) * 6 : repeat * 6]]
        assert set(block) == everything
        assert {job.repeat for job in plan.jobs[(repeat - 1) * 6 : repeat * 6]} == {repeat}


def test_each_block_has_its_own_order() -> None:
    plan = make_plan(points(6), SweepConfig(repeats=4), "s")
    orders = {tuple(job.trial_id for job in plan.jobs[start : start + 6]) for start in range(0, 24, 6)}
    assert len(orders) > 1


def test_the_seed_decides_the_order() -> None:
    def order(seed: int) -> list[str]:
        return [job.trial_id for job in make_plan(points(8), SweepConfig(seed=seed), "s").jobs]

    assert order(1) == order(1)
    assert order(1) != order(2)


def test_the_given_order_is_kept() -> None:
    plan = make_plan(points(5), SweepConfig(order="given", repeats=2), "s")
    assert [job.swept["workload.batch_size"] for job in plan.jobs] == ["1", "2", "3", "4", "5"] * 2


def test_a_setting_typed_twice_runs_once() -> None:
    plan = make_plan([*points(3), *points(2)], SweepConfig(), "s")
    assert len(plan.jobs) == 3
    assert plan.duplicates == 2


def test_each_job_carries_the_point_that_it_runs() -> None:
    plan = make_plan(points(5), SweepConfig(repeats=2), "s")
    assert [job.trial_id for job in plan.jobs] == [point.config.trial_id() for point in plan.points]


def test_folders_are_distinct_and_sorted_in_running_order() -> None:
    folders = [job.folder for job in make_plan(points(12), SweepConfig(repeats=2), "s").jobs]
    assert len(set(folders)) == 24
    assert folders == sorted(folders)


@pytest.mark.parametrize(
    ("swept", "name"),
    [
        ({"compile.mode": "max-autotune"}, "max-autotune"),
        ({"attention": "sdpa", "compile": "off"}, "sdpa off"),
        ({"workload.batch_size": "8"}, "batch_size=8"),
        ({"compile.mode": "null"}, "mode=null"),
        ({"compile.fullgraph": "true"}, "fullgraph=true"),
        ({"model.id": "'meta/llama'"}, "meta/llama"),
        ({}, ""),
    ],
)
def test_names_are_the_swept_values(swept: dict[str, str], name: str) -> None:
    assert short_name(swept) == name


@pytest.mark.parametrize("text", ["meta-llama/Llama-3.1-8B", "../../etc", "a b*c?d", "ünïcode", "…", "x" * 500])
def test_folder_names_stay_inside_the_sweep(text: str) -> None:
    name = file_name(text)
    assert set(name) <= set("abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789._=-")
    assert name.strip(".")
    assert len(name) <= 100


def sweep_file(plan, **changes) -> SweepFile:
    given = {
        "sweep_id": plan.sweep_id,
        "name": "n",
        "started_at_s": 1.0,
        "launched_at_s": 2.0,
        "settings": plan.settings,
    }
    return SweepFile(**given | {"swept": plan.swept(), "jobs": plan.jobs, "baseline": plan.baseline} | changes)


def test_the_sweep_file_is_read_back_unchanged(tmp_path) -> None:
    plan = make_plan(points(3), SweepConfig(repeats=2), "sweep-1")
    file = sweep_file(plan, parent_run_id="run-1", tracking={"uri": "sqlite:////x.db"}, kept=["0_old"])
    file.write(tmp_path)
    assert SweepFile.read(tmp_path) == file


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        ("", "Expecting value"),
        ("[]", "schema version None"),
        ('{"schema_version": 1}', "schema version 1; this version of bench reads 2"),
        ('{"schema_version": 2, "jobs": 3}', "sweep.jobs is int, not list"),
        ('{"schema_version": 2, "surprise": 3}', "no field surprise"),
        ('{"schema_version": 2}', "missing"),
    ],
)
def test_an_unusable_sweep_file_is_refused(tmp_path, text: str, reason: str) -> None:
    (tmp_path / "sweep.json").write_text(text, encoding="utf-8")
    with pytest.raises(ValueError, match=reason):
        SweepFile.read(tmp_path)


def test_more_jobs_than_confirmed_are_refused_with_the_key_that_confirms_them() -> None:
    with pytest.raises(ConfigError) as refused:
        make_plan(points(6), SweepConfig(repeats=4, max_jobs=23), "s")
    assert str(refused.value) == "sweep.max_jobs=23: this sweep has 24 jobs; sweep.max_jobs=24 runs them"
    assert len(make_plan(points(6), SweepConfig(repeats=4, max_jobs=24), "s").jobs) == 24


def test_labels_distinguish_equal_settings() -> None:
    arms = [
        Point(
            overrides=(f"sweep.label={arm}",),
            swept={"sweep.label": arm},
            config=BenchmarkConfig(sweep=SweepConfig(label=arm)),
        )
        for arm in ("a", "b", "a")
    ]
    plan = make_plan(arms, SweepConfig(repeats=2), "s")
    assert sorted(job.name for job in plan.jobs) == ["a", "a", "b", "b"]
    assert len({job.trial_id for job in plan.jobs}) == 1
    assert plan.duplicates == 1


def test_the_plan_keeps_the_settings_as_typed_and_the_baseline(tmp_path) -> None:
    plan = make_plan(points(4), SweepConfig(baseline="batch_size=3"), "s")
    assert plan.settings == [f"batch_size={size}" for size in range(1, 5)]
    sweep_file(plan).write(tmp_path)
    kept = SweepFile.read(tmp_path)
    assert (kept.settings, kept.baseline) == (plan.settings, "batch_size=3")


def test_a_baseline_outside_the_settings_is_refused() -> None:
    with pytest.raises(ConfigError, match=r"sweep\.baseline=nonsense"):
        make_plan(points(2), SweepConfig(baseline="nonsense"), "s")
