"""Test the harness's benchmark: arithmetic on known figures, table, and that it runs. No test judges this machine."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import psutil
import pytest
from overhead_bench import __main__ as command
from overhead_bench import figures, memory, outside, reading, running, start, sweep
from overhead_bench.figures import Figure, NotMeasuredError, Options, Result

import factories
from conftest import ROOT

LONG = "a name of a figure that is much longer than the column which it has to stand in"


def options(folder: Path) -> Options:
    return Options(repeats=1, quick=True, device="cpu", folder=folder)


# ---- figures --------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("figure", "verdict"),
    [
        (Figure(name="", unit="s", values=[1.0, 9.0, 2.0], at_most=2.0), "met"),
        (Figure(name="", unit="s", values=[1.0, 9.0, 2.1], at_most=2.0), "MISSED"),
        (Figure(name="", unit="s", values=[9.0]), ""),
        (Figure(name="", unit="s", values=[], at_most=2.0), "MISSED"),
        (Figure(name="", unit="%", values=[3.0], at_most=1.0, judged="noise"), "noise"),
        (Figure(name="", unit="%", values=[0.5], at_most=1.0, judged="MISSED"), "MISSED"),
    ],
)
def test_a_target_applies_to_the_median_unless_the_part_judges_itself(figure, verdict) -> None:
    assert figure.verdict == verdict


def test_a_ratio_is_computed_per_pair_not_from_the_medians() -> None:
    assert figures.ratios([2.0, 30.0, 4.0], [1.0, 20.0, 4.0]) == [2.0, 1.5, 1.0]


@pytest.mark.parametrize(("percent", "expected"), [(50, 50), (95, 95), (100, 100), (0, 1)])
def test_a_percentile_is_the_nearest_rank(percent, expected) -> None:
    assert figures.percentile(list(range(100, 0, -1)), percent) == expected


def test_each_round_has_every_arm_once_and_every_second_round_is_reversed() -> None:
    order: list[str] = []
    arms = {name: lambda name=name: float(len(order.append(name) or order)) for name in "abc"}
    assert figures.interleaved(arms, 2) == {"a": [1.0, 6.0], "b": [2.0, 5.0], "c": [3.0, 4.0]}
    assert "".join(order) == "abccba"


@pytest.mark.parametrize(
    ("value", "text"),
    [
        (0, "0"),
        (0.0002, "0.0002"),
        (0.04251, "0.0425"),
        (1.0451, "1.045"),
        (12.346, "12.35"),
        (345.6, "345.6"),
        (98765.4, "98765"),
    ],
)
def test_a_spread_has_four_digits_at_most_and_no_exponent(value, text) -> None:
    assert figures.shown(value) == text


def test_the_table_fits_its_columns_and_names_missed_targets() -> None:
    rows = [
        Figure(name=LONG, unit="MB", values=[12345.6, 99999.9, 1.0], at_most=350.0),
        Figure(name="a ratio", unit="×", values=[1.0449], at_most=1.05),
        Figure(name="nothing came", unit="s", values=[]),
    ]
    results = {"sweep": Result(figures=rows, notes=[f"{LONG} {LONG}"]), "start": Result(error=f"{LONG} {LONG}")}
    lines = figures.table(results, {"sweep": LONG, "start": LONG * 2})
    assert max(map(len, lines)) <= figures.WIDTH
    missed, ratio, empty = lines[2:5]
    assert missed.endswith("MISSED")
    assert "12346 MB" in missed
    assert ratio.split()[-4:] == ["–", "≤", "1.05×", "met"]
    assert empty.split()[-3:] == ["0", "–", "–"]
    assert any(line.strip().startswith("not measured: ") for line in lines)


@pytest.mark.parametrize(
    ("results", "expected"),
    [
        ([Result(figures=[Figure(name="", unit="s", values=[1.0], at_most=2.0)])], 0),
        ([Result(), Result(figures=[Figure(name="", unit="s", values=[3.0], at_most=2.0)])], 1),
        ([Result(error="no"), Result(figures=[Figure(name="", unit="s", values=[3.0], at_most=2.0)])], 2),
    ],
)
def test_the_exit_status_distinguishes_met_missed_and_not_run(results, expected) -> None:
    assert figures.status(dict(enumerate(results))) == expected


def test_the_json_holds_every_value_its_target_and_its_verdict() -> None:
    one = Figure(name="wall", unit="s", values=[3.0, 1.0, 2.0], at_most=1.5)
    assert Result(figures=[one]).to_dict()["figures"] == [
        {
            "name": "wall",
            "unit": "s",
            "median": 2.0,
            "spread": (1.0, 3.0),
            "values": [3.0, 1.0, 2.0],
            "at_most": 1.5,
            "verdict": "MISSED",
        }
    ]
    assert Figure(name="", unit="s", values=[]).to_dict()["median"] is None


# ---- arithmetic on records ------------------------------------------------------------------------------------------


def test_the_seconds_between_calls_are_from_an_end_to_the_next_start() -> None:
    calls = [factories.make_iteration(index, "measurement", start_s=10.0 * index) for index in range(3)]
    assert running.gaps_s(calls) == pytest.approx([10.0 - calls[0].e2e_s] * 2)


def test_seconds_per_job_run_to_the_next_start_without_loading_and_calls() -> None:
    first = factories.make_record(started_at_s=100.0, ended_at_s=150.0, phases_s={"load": 4.0})
    last = factories.make_record(started_at_s=160.0, ended_at_s=210.0, phases_s={"load": 4.0})
    calls_s = running.calls_s([first])
    assert calls_s == pytest.approx(factories.COLD_START_S + sum(factories.WARMUP_E2E_S) + factories.TOTAL_E2E_S)
    assert outside.per_job_s([first, last]) == pytest.approx([60.0 - 4.0 - calls_s, 50.0 - 4.0 - calls_s])


def test_the_time_breakdown_adds_up_to_the_wall_time() -> None:
    phases = {"start": 0.5, "import": 0.25, "load": 1.0, "measurement": 3.0, "total": 6.0}
    trial = factories.make_record(phases_s=phases)
    reference = factories.make_record(kind="reference", phases_s={"start": 0.5, "import": 0.25, "total": 2.0})
    parts = sweep.where_time_goes(20.0, [trial, trial, reference])
    assert sum(parts.values()) == pytest.approx(20.0)
    assert (parts["start"], parts["load"], parts["measurement"]) == (1.0, 2.0, 6.0)
    assert parts["rest of the jobs"] == pytest.approx(2 * (6.0 - 4.0))
    assert parts["reference run"] == pytest.approx(2.75)
    assert parts["around the jobs"] == pytest.approx(20.0 - 2 * 6.75 - 2.75)


def test_a_start_covers_the_childs_start_and_its_imports() -> None:
    assert start.start_s(factories.make_record(phases_s={"start": 0.5, "import": 0.25})) == 0.75
    with pytest.raises(NotMeasuredError, match=r"phases_s\.start"):
        start.start_s(factories.make_record(phases_s={"load": 1.0}))


def test_a_job_that_is_not_ok_gives_no_figure() -> None:
    with pytest.raises(NotMeasuredError, match="is failed"):
        running.trials([factories.make_record(), factories.make_record(status="failed")])


@pytest.mark.parametrize(
    ("line", "expected"),
    [
        ("setting         status     ms  ±%     ms     ms  tok/s", True),
        ("1/2  ok       sdpa                      E2E 534.3 ms", False),
        ("sdpa *          ok      534.3   –  99.43", False),
        ("", False),
    ],
)
def test_the_closing_table_is_recognised_by_its_columns(line, expected) -> None:
    assert outside.is_header(line) is expected


# ---- the commands that are measured ---------------------------------------------------------------------------------


def test_copied_records_are_separate_settings_or_repeats_of_one(tmp_path) -> None:
    pattern = factories.make_record().to_dict()
    reading.make_sweep(tmp_path, pattern, 10, 5)
    found = [json.loads(path.read_text()) for path in sorted(tmp_path.glob("*/record.json"))]
    assert [(each["trial_id"][-1], each["repeat"]) for each in found] == [
        (setting, repeat) for setting in "01" for repeat in (1, 2, 3, 4, 5)
    ]
    assert len({each["iterations"][-1]["e2e_s"] for each in found}) == 10


def test_a_failing_command_is_named_with_its_output(tmp_path) -> None:
    with pytest.raises(NotMeasuredError, match=r"-c .*: status 3: no luck"):
        running.timed([sys.executable, "-P", "-c", "import sys; print('no luck'); sys.exit(3)"], tmp_path)


@pytest.mark.parametrize(
    ("error", "words"),
    [(NotMeasuredError("nothing is there"), "nothing is there"), (KeyError("place"), "KeyError: 'place'")],
)
def test_a_part_that_cannot_run_affects_only_its_own_rows(error, words, tmp_path, monkeypatch) -> None:
    from overhead_bench import commands

    def fail(_options: Options) -> Result:
        raise error

    monkeypatch.setattr(commands, "measure", fail)
    assert command.run("commands", options(tmp_path)).error == words


def test_a_process_that_left_the_tree_since_it_was_read_has_no_role() -> None:
    with subprocess.Popen([sys.executable, "-c", "input()"], stdin=subprocess.PIPE) as other:
        ours, theirs = psutil.Process(), psutil.Process(other.pid)
        assert memory.role_of(ours, ours) == "parent"
        assert memory.role_of(ours, theirs) is None
        assert other.stdin is not None
        other.stdin.write(b"\n")


def test_both_loops_get_the_same_settings_calls_and_prompt(tmp_path) -> None:
    task = sweep.Task(
        label="tiny",
        model=["model=tiny"],
        checkpoint=None,
        values=sweep.EIGHT,
        prompt_tokens=8,
        new_tokens=4,
        at_most=None,
        repeats=1,
    )
    asked = sweep.asked_of_bare(task, options(tmp_path))
    assert asked["calls"] == 26
    assert [tuple(each.values()) for each in asked["settings"]] == task.settings
    assert len(task.settings) == 8
    assert (asked["prompt_tokens"], asked["new_tokens"]) == (8, 4)
    workload = {"workload.sequence_length=8", "workload.num_tokens_to_generate=4"}
    swept = {"attention=eager,sdpa", "generation.kv_cache=dynamic,static", "compile=off"}
    assert workload | swept <= set(task.overrides)


@pytest.mark.parametrize("wrong", [["--only", "everything"], ["--repeats", "0"], ["--json", "/no/such/folder/x.json"]])
def test_wrong_arguments_are_refused_in_one_line(wrong, capsys) -> None:
    with pytest.raises(SystemExit) as end:
        command.parse(wrong)
    assert end.value.code == 2
    assert wrong[1] in capsys.readouterr().err.splitlines()[-1]


def test_every_part_has_a_title_and_can_be_measured() -> None:
    import importlib

    for part in command.PARTS:
        module = importlib.import_module(f"overhead_bench.{part}")
        assert callable(module.measure)
        assert len(f"{part}: {module.TITLE}") <= figures.WIDTH


def test_neither_torch_nor_mlflow_nor_matplotlib_is_imported_before_a_part_needs_it(tmp_path) -> None:
    code = (
        "import sys, overhead_bench.__main__, overhead_bench.commands, overhead_bench.sweep, overhead_bench.publish\n"
    )
    code += "print({'torch', 'mlflow', 'matplotlib', 'transformers'} & set(sys.modules))"
    done = subprocess.run(
        [sys.executable, "-P", "-c", code],
        env=running.environment(),
        cwd=tmp_path,
        capture_output=True,
        text=True,
        check=True,
    )
    assert done.stdout.strip() == "set()", done.stderr


# ---- the whole ------------------------------------------------------------------------------------------------------


@pytest.mark.slow
@pytest.mark.parametrize("part", ["commands", "start", "memory", "outside", "publish", "observer", "reading", "sweep"])
def test_the_command_prints_a_table_and_writes_every_value(part, tmp_path) -> None:
    """Whether targets are met depends on the machine; the test checks that everything is measured."""
    file = tmp_path / "overhead.json"
    arguments = ["--quick", "--repeats", "1", "--device", "cpu", "--only", part, "--json", str(file)]
    done = subprocess.run(
        [sys.executable, "-P", "-m", "overhead_bench", *arguments],
        env=running.environment() | {"TMPDIR": str(tmp_path)},
        cwd=tmp_path,
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode in (0, 1), done.stdout + done.stderr
    assert done.stdout, done.stderr
    assert max(map(len, done.stdout.splitlines())) <= figures.WIDTH
    written = json.loads(file.read_text(encoding="utf-8"))
    assert written["status"] == done.returncode
    found = written["parts"][part]
    assert found["error"] is None
    assert all(each["values"] for each in found["figures"])
    assert ("MISSED" in {each["verdict"] for each in found["figures"]}) == bool(done.returncode)
    assert not [line for line in found["notes"] if "OTHER TOKENS" in line]
    not_ours = ("bench-mlflow-*.lock", "torchinductor_*")  # a server's lock, for all users; torch's own folder
    left = [each.name for each in tmp_path.iterdir() if not any(map(each.match, not_ours))]
    assert left == ["overhead.json"]
    assert str(ROOT) not in done.stdout
