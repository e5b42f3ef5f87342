"""Test `python -m bench.compare` on sweeps with known times: its output and exit status."""

from __future__ import annotations

import dataclasses
import json
import math
import re
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest

from bench.analysis.settings import METRICS as KNOWN_METRICS
from bench.cli.compare import METRICS, main
from bench.results.file_names import SWEEP_NAME
from bench.results.record import Failure, Fidelity, Record
from bench.tracking.runs.trial_run import publish
from bench.tracking.store.opening import open_store
from factories import STARTED_AT_S, make_config, make_record
from sweeps import EAGER, NEAR, SDPA, job, jobs, sweep

RATIO = math.exp(sum(math.log(b / a) for a, b in zip(EAGER, SDPA, strict=True)) / 5)


@pytest.fixture
def two(tmp_path: Path) -> Path:
    """Write a sweep over eager and sdpa, five repeats each."""
    return sweep(tmp_path / "two", jobs({"eager": EAGER, "sdpa": SDPA}), settings=["eager", "sdpa"], baseline=None)


@pytest.fixture
def compared(capsys: pytest.CaptureFixture[str]) -> Any:
    """Run the command, expect a status, and return its output: JSON as values, otherwise the text."""

    def run(*arguments: object, status: int = 0, form: str | None = "json") -> Any:
        options = ["--format", form] if form else []
        assert main([*map(str, arguments), *options]) == status
        out, err = capsys.readouterr()
        run.said = err
        return json.loads(out) if form == "json" else out

    return run


@pytest.fixture
def refused(capsys: pytest.CaptureFixture[str]) -> Any:
    """Run the command, expect it to end with status 2 and one line, and return that."""

    def run(*arguments: object) -> str:
        assert main(list(map(str, arguments))) == 2
        out, err = capsys.readouterr()
        assert out == ""
        assert err.count("\n") == 1
        assert err.startswith("bench.compare: ")
        return err.removeprefix("bench.compare: ").rstrip("\n")

    return run


def facts(report: dict[str, Any]) -> list[tuple[str, str, str]]:
    """Return setting, baseline and verdict of each comparison."""
    return [(each["setting"], each["baseline"], each["verdict"]["word"]) for each in report["comparisons"]]


# ---- one sweep ---------------------------------------------------------------------------------------------------


def test_each_setting_is_compared_with_the_first(two, compared):
    assert facts(compared(two)) == [("sdpa", "eager", "faster")]


def test_the_ratio_is_that_of_the_geometric_means(two, compared):
    found = compared(two)["comparisons"][0]
    assert found["effect"]["ratio"] == pytest.approx(RATIO)
    assert found["effect"]["low"] < RATIO < found["effect"]["high"]
    means = [math.prod(side) ** (1 / 5) for side in (SDPA, EAGER)]
    assert [found["geometric_mean_s"], found["baseline_geometric_mean_s"]] == pytest.approx(means)
    assert found["geometric_mean_s"] / found["baseline_geometric_mean_s"] == pytest.approx(RATIO)


def test_the_text_has_the_same_figures(two, compared):
    lines = compared(two, form=None).splitlines()
    assert lines[0].startswith("E2E of 1 setting against eager; margin ±1 %, 5 processes a side, paired by block")
    eager, sdpa = (next(each.split() for each in lines if each.startswith(name)) for name in ("eager", "sdpa"))
    assert sdpa[2:4] == [f"{RATIO:.4f}", f"{(RATIO - 1) * 100:+.2f}".replace("-", "\N{MINUS SIGN}")]
    assert f"{float(sdpa[1]) / float(eager[1]):.4f}" == sdpa[2]
    assert "faster" in sdpa


def test_times_of_a_setting_that_lost_a_repeat_divide_to_its_ratio(tmp_path, compared):
    """The baseline's sixth process, twice as slow, is in no pair."""
    records = jobs({"eager": (*EAGER, 2.0), "sdpa": SDPA, "near": (*NEAR, 1.9)})
    lines = compared(sweep(tmp_path / "night", records), form=None).splitlines()
    rows = {
        name: next(each.split() for each in lines if each.startswith(f"{name} ")) for name in ("eager", "sdpa", "near")
    }
    assert f"{float(rows['sdpa'][1]) / float(rows['sdpa'][2]):.4f}" == rows["sdpa"][3] == f"{RATIO:.4f}"
    assert f"{float(rows['near'][1]) / float(rows['near'][2]):.4f}" == rows["near"][3]
    assert rows["near"][2] == rows["eager"][1] != rows["sdpa"][2]


def test_markdown_is_a_table(two, compared):
    lines = compared(two, form="markdown").splitlines()
    assert [each.count("|") for each in lines[2:6]] == [9] * 4
    assert re.match(r"\| eager \| \d+\.?\d* \| 1 \|", lines[4])


def test_the_folder_needs_no_plan(tmp_path, compared):
    folder = sweep(tmp_path / "bare", jobs({"eager": EAGER, "sdpa": SDPA}))
    assert facts(compared(folder)) == [("sdpa", "eager", "faster")]


def test_the_first_setting_is_the_first_as_typed(tmp_path, compared):
    records = jobs({"eager": EAGER, "sdpa": SDPA})
    folder = sweep(tmp_path / "night", records, settings=["sdpa", "eager"])
    assert facts(compared(folder)) == [("eager", "sdpa", "slower")]


def test_the_plan_declares_the_baseline(tmp_path, compared):
    records = jobs({"eager": EAGER, "sdpa": SDPA})
    folder = sweep(tmp_path / "night", records, settings=["eager", "sdpa"], baseline="sdpa")
    assert facts(compared(folder)) == [("eager", "sdpa", "slower")]


def test_without_a_plan_the_records_declare_the_baseline(tmp_path, compared):
    requested = make_config().to_dict() | {"sweep": {"baseline": "sdpa"}}
    folder = sweep(tmp_path / "night", jobs({"eager": EAGER, "sdpa": SDPA}, requested=requested))
    assert facts(compared(folder)) == [("eager", "sdpa", "slower")]


@pytest.mark.parametrize("baseline", ["eager", "attention=eager"])
def test_an_option_overrides_the_declared_baseline(tmp_path, compared, baseline):
    records = jobs({"eager": EAGER, "sdpa": SDPA})
    folder = sweep(tmp_path / "night", records, settings=["eager", "sdpa"], baseline="sdpa")
    assert facts(compared(folder, "--baseline", baseline)) == [("sdpa", "eager", "faster")]


def test_a_reference_run_is_no_setting(tmp_path, compared):
    records = [*jobs({"eager": EAGER, "sdpa": SDPA}), job("reference", 2.0, kind="reference")]
    assert facts(compared(sweep(tmp_path / "night", records))) == [("sdpa", "eager", "faster")]


def test_another_metric_is_compared_by_its_own_times(tmp_path, compared):
    records = [
        job(name, e2e_s, at + 1, ttft_s=ttft_s * (1 + at / 1000))
        for name, times, ttft_s in (("eager", EAGER, 0.1), ("sdpa", SDPA, 0.2))
        for at, e2e_s in enumerate(times)
    ]
    found = compared(sweep(tmp_path / "night", records), "--metric", "ttft")
    assert facts(found) == [("sdpa", "eager", "slower")]
    assert found["comparisons"][0]["effect"]["ratio"] == pytest.approx(2.0)


def test_a_wider_threshold_makes_equivalent(two, compared):
    found = compared(two, "--threshold", "20%")
    assert facts(found) == [("sdpa", "eager", "equivalent")]
    assert found["margin"] == 0.2


def test_one_process_each_names_no_winner(tmp_path, compared):
    folder = sweep(tmp_path / "once", jobs({"eager": EAGER[:1], "sdpa": SDPA[:1]}))
    assert facts(compared(folder)) == [("sdpa", "eager", "inconclusive")]


def test_a_failed_setting_is_inconclusive_with_its_reason(tmp_path, compared):
    error = Failure(type="RuntimeError", message="no such layer")
    failed = [job("flex", 1.0, repeat, status="failed", stage="load", error=error) for repeat in (1, 2, 3)]
    for each in failed:
        each.iterations = []
    folder = sweep(tmp_path / "night", [*jobs({"eager": EAGER}), *failed])
    found = compared(folder)
    assert facts(found) == [("flex", "eager", "inconclusive")]
    assert "no such layer" in found["comparisons"][0]["verdict"]["reason"]


# ---- some settings -----------------------------------------------------------------------------------------------


@pytest.fixture
def three(tmp_path: Path) -> Path:
    return sweep(tmp_path / "three", jobs({"eager": EAGER, "sdpa": SDPA, "near": NEAR}))


def test_one_setting_is_compared_only_with_its_baseline(three, compared):
    found = compared(three, "--setting", "sdpa")
    assert facts(found) == [("sdpa", "eager", "faster")]
    # No other comparison is corrected for.
    assert found["comparisons"][0]["verdict"]["p"] == pytest.approx(found["comparisons"][0]["effect"]["p_beyond"])


def test_the_first_of_two_settings_is_the_baseline(three, compared):
    assert facts(compared(three, "--setting", "sdpa", "--setting", "eager")) == [("eager", "sdpa", "slower")]


def test_two_settings_need_no_declared_baseline(tmp_path, compared):
    records = jobs({"eager": EAGER, "sdpa": SDPA, "near": NEAR})
    folder = sweep(tmp_path / "night", records, settings=["eager", "sdpa", "near"], baseline="near")
    assert facts(compared(folder, "--setting", "eager", "--setting", "sdpa")) == [("sdpa", "eager", "faster")]


def test_swapping_two_settings_inverts_ratio_and_verdict(three, compared):
    there = compared(three, "--setting", "eager", "--setting", "sdpa")["comparisons"][0]
    back = compared(three, "--setting", "sdpa", "--setting", "eager")["comparisons"][0]
    assert there["effect"]["ratio"] * back["effect"]["ratio"] == pytest.approx(1.0)
    assert there["effect"]["low"] * back["effect"]["high"] == pytest.approx(1.0)
    assert [there["verdict"]["word"], back["verdict"]["word"]] == ["faster", "slower"]


def test_a_setting_may_be_named_by_its_id(three, compared):
    assert facts(compared(three, "--setting", "t-sdpa")) == [("sdpa", "eager", "faster")]


# ---- two sweeps --------------------------------------------------------------------------------------------------


@pytest.fixture
def after(tmp_path: Path) -> Path:
    """Write the same settings as in `two`, with eager slower by 5 %."""
    return sweep(tmp_path / "after", jobs({"eager": [each * 1.05 for each in EAGER], "sdpa": SDPA}))


def test_two_sweeps_are_matched_by_setting(two, after, compared):
    found = compared(two, after)
    assert facts(found)[0] == ("eager", "eager", "slower")
    assert found["comparisons"][0]["effect"]["ratio"] == pytest.approx(1.05)
    assert not found["comparisons"][0]["effect"]["paired"]
    assert found["sources"] == [str(two), str(after)]


def test_swapping_two_sweeps_inverts_ratio_and_verdict(two, after, compared):
    there, back = (compared(*each)["comparisons"][0] for each in ((two, after), (after, two)))
    assert there["effect"]["ratio"] * back["effect"]["ratio"] == pytest.approx(1.0)
    assert [there["verdict"]["word"], back["verdict"]["word"]] == ["slower", "faster"]


def test_one_setting_of_each_sweep_is_compared_whatever_it_is(two, after, compared):
    found = compared(two, after, "--setting", "sdpa", "--setting", "eager")
    assert facts(found) == [("eager", "sdpa", "slower")]


def test_two_records_are_compared_as_they_are(two, compared):
    found = compared(two / "0_eager", two / "1_sdpa" / "record.json")
    assert facts(found) == [("sdpa", "eager", "inconclusive")]
    assert found["comparisons"][0]["effect"]["ratio"] == pytest.approx(SDPA[0] / EAGER[0])


def test_a_setting_in_only_one_sweep_is_named(two, three, compared):
    assert compared(two, three)["unmatched"] == ["near (only after)"]


# ---- statuses ----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("limit", ["3%", "3 %", "0.03"])
def test_slower_than_allowed_is_status_1(two, after, compared, limit):
    printed = compared(two, after, "--fail-if-slower", limit, status=1, form=None)
    assert "SLOWER by 3 % or more: eager\n" in printed


def test_slower_by_less_than_allowed_is_status_0(two, after, compared):
    printed = compared(two, after, "--fail-if-slower", "6%", form=None)
    assert "no setting was found to be slower by 6 % or more" in printed


def test_slower_names_the_settings_on_stderr_beside_json(two, after, compared):
    found = compared(two, after, "--fail-if-slower", "3%", status=1)
    assert found["slower_check"]["slower"] == ["eager"]
    assert compared.said == "bench.compare: slower by 3 % or more: eager\n"


def test_without_a_limit_slower_is_no_failure(two, after, compared):
    assert compared(two, after)["slower_check"] is None


def test_an_inconclusive_comparison_says_if_its_interval_excludes_the_limit(three, compared):
    arguments = [three, "--setting", "near", "--fail-if-slower"]
    high = compared(*arguments, "50%")["comparisons"][0]["effect"]["high"]
    assert 1.005 < high < 1.1
    out, within = compared(*arguments, "10%")["slower_check"], compared(*arguments, "0.5%")["slower_check"]
    assert (out["ruled_out"], out["undecided"]) == (["near"], [])
    assert (within["ruled_out"], within["undecided"]) == ([], ["near"])


def test_inconclusive_is_status_3_only_when_asked_for(three, compared):
    compared(three)
    compared(three, "--fail-if-inconclusive", status=3)


def test_verdicts_throughout_are_status_0(two, compared):
    compared(two, "--fail-if-inconclusive")


def test_slower_takes_precedence_over_inconclusive(three, compared):
    options = ["--baseline", "sdpa", "--threshold", "10%", "--fail-if-inconclusive"]
    words = [word for _, _, word in facts(compared(three, *options, status=3))]
    assert sorted(words) == ["inconclusive", "slower"]
    compared(three, *options, "--fail-if-slower", "3%", status=1)


# ---- the gate ----------------------------------------------------------------------------------------------------

STEADY = (1.0000, 1.0010, 0.9990, 1.0005, 0.9995)
GATE = ("--fail-if-slower", "3%", "--fail-if-inconclusive")


def crashed(name: str, repeats: Sequence[int] = (1, 2, 3, 4, 5), status: str = "crashed") -> list[Record]:
    error = Failure(type="Killed", message="no such kernel")
    return [job(name, 1.0, each, status=status, stage="load", error=error, iterations=[]) for each in repeats]


def unlike(name: str, **changes: Any) -> list[Record]:
    """Build records of a setting whose output differs from the reference's by default."""
    fidelity = Fidelity(reference="eager", agrees=False, reason="mean KL 0.3")
    return jobs({name: STEADY}, **{"fidelity": fidelity} | changes)


SLOW = [each * 1.05 for each in STEADY]
WORKS = jobs({"sdpa": STEADY})
CPU = make_record().observed
OUTPUT = make_record().output


@pytest.mark.parametrize(
    ("after", "status", "told"),
    [
        (jobs({"eager": STEADY}), 0, ""),
        (jobs({"eager": SLOW}), 1, "slower by 3 % or more: eager"),
        (crashed("eager"), 4, "cannot be compared: eager: 5 crashed of 5 repeats: crashed in load: Killed: no such"),
        (jobs({"eager": STEADY[:4]}) + crashed("eager", [5]), 4, "cannot be compared: eager: 1 crashed of 5 repeats"),
        (crashed("eager", status="timeout"), 4, "cannot be compared: eager: 5 timeout of 5 repeats"),
        (crashed("eager", status="skipped"), 4, "cannot be compared: eager: 5 skipped of 5 repeats"),
        ([], 4, "cannot be compared: eager: is not in "),
        (unlike("eager"), 4, "cannot be compared: eager: its output differs from the reference's (in 5 of 5 processes;"),
        (unlike("eager", fidelity=None, output=dataclasses.replace(OUTPUT, token_ids=[[9]])), 4,
         "cannot be compared: eager: its generated tokens changed (0 of 10 equal to the baseline's) and no reference"),
        (unlike("eager", fidelity=None, observed=dataclasses.replace(CPU, device_name="other")), 4,
         "cannot be compared: eager: not comparable: device is other, in the baseline Test CPU"),
        (jobs({"eager": NEAR}), 3, "inconclusive: eager: the interval"),
        (jobs({"eager": STEADY[:1]}), 3, "inconclusive: eager: one process on a side"),
    ],
    ids=["equal", "slower", "crashed", "one repeat crashed", "timeout", "skipped", "vanished", "unlike", "other tokens",
         "other device", "inconclusive", "one process"],
)  # fmt: skip
def test_the_gate_fails_closed(tmp_path, compared, after, status, told):
    """Statuses as documented; the other setting, sdpa, is equal throughout."""
    before = sweep(tmp_path / "before", jobs({"eager": STEADY, "sdpa": STEADY}))
    found = compared(before, sweep(tmp_path / "after", [*after, *WORKS]), *GATE, status=status)
    assert compared.said.startswith(f"bench.compare: {told}" if told else "")
    assert compared.said.count("\n") == (1 if told else 0)
    assert [each["setting"] for each in found["slower_check"]["broken"]] == (["eager"] if status == 4 else [])


@pytest.mark.parametrize("option", [GATE[:2], GATE[2:]], ids=["slower", "inconclusive"])
def test_either_option_fails_on_a_setting_that_vanished(tmp_path, compared, option):
    before = sweep(tmp_path / "before", jobs({"eager": STEADY, "sdpa": STEADY}))
    compared(before, sweep(tmp_path / "after", WORKS), *option, status=4, form=None)
    assert "cannot be compared: eager: is not in " in compared.said


def test_without_an_option_nothing_is_a_failure(tmp_path, compared):
    before = sweep(tmp_path / "before", jobs({"eager": STEADY, "sdpa": STEADY}))
    assert compared(before, sweep(tmp_path / "after", WORKS))["slower_check"] is None
    assert compared.said == ""


def test_inconclusive_is_a_warning_unless_it_must_fail(tmp_path, compared):
    sources = [sweep(tmp_path / name, jobs({"eager": times})) for name, times in (("before", STEADY), ("after", NEAR))]
    compared(*sources, "--fail-if-slower", "3%")
    assert compared.said.startswith("bench.compare: warning: inconclusive: eager: the interval")


def test_slower_precedes_broken_and_broken_precedes_inconclusive(tmp_path, compared):
    times = {"eager": STEADY, "sdpa": STEADY, "flex": STEADY}
    before = sweep(tmp_path / "before", jobs(times))
    broken = [*jobs({"eager": NEAR}), *crashed("flex")]
    compared(before, sweep(tmp_path / "broken", [*broken, *WORKS]), *GATE, status=4)
    assert compared.said.count("\n") == 2  # each is still reported
    compared(before, sweep(tmp_path / "slower", [*broken, *jobs({"sdpa": SLOW})]), *GATE, status=1)
    assert compared.said.count("\n") == 3


def test_an_unreadable_source_precedes_all_other_statuses(tmp_path, refused):
    before = sweep(tmp_path / "before", jobs({"eager": STEADY}))
    assert refused(before, tmp_path / "after", *GATE).startswith(f"{tmp_path / 'after'}: no such file or folder")


def test_a_setting_that_never_worked_is_inconclusive(tmp_path, compared):
    sources = [sweep(tmp_path / name, [*crashed("flex"), *WORKS]) for name in ("before", "after")]
    compared(*sources, *GATE, status=3)


def test_all_settings_that_vanished_are_listed(tmp_path, compared):
    before = sweep(tmp_path / "before", jobs({"eager": STEADY, "sdpa": STEADY}))
    after = sweep(tmp_path / "after", jobs({"flex": STEADY, "near": STEADY}))
    printed = compared(before, after, *GATE, status=4, form=None)
    assert "CANNOT BE COMPARED: eager: is not in" in printed
    assert compared.said.count("\n") == 2


def test_a_new_setting_does_not_change_the_status(tmp_path, compared):
    before = sweep(tmp_path / "before", jobs({"sdpa": STEADY}))
    after = sweep(tmp_path / "after", jobs({"sdpa": STEADY, "flex": STEADY}))
    assert compared(before, after, *GATE)["unmatched"] == ["flex (only after)"]


def test_one_sweep_fails_on_a_crashed_setting_and_warns_of_a_skipped_one(tmp_path, compared):
    fine = jobs({"eager": STEADY, "sdpa": STEADY})
    folder = sweep(tmp_path / "crashed", [*fine, *crashed("flex")])
    compared(folder, *GATE[:2], status=4)
    assert compared.said.startswith("bench.compare: cannot be compared: flex: 5 crashed of 5 repeats")
    skipped = sweep(tmp_path / "skipped", [*fine, *crashed("flex", status="skipped")])
    compared(skipped, *GATE[:2])
    assert compared.said.startswith("bench.compare: warning: inconclusive: flex: ")
    compared(skipped, *GATE, status=3)


def test_rows_of_two_sweeps_are_labelled_before_and_after(tmp_path, compared):
    sources = [sweep(tmp_path / name, jobs({"eager": STEADY})) for name in ("before", "after")]
    lines = compared(*sources, form=None).splitlines()
    starts = [" ".join(each.split()[:2]) for each in lines if each.startswith("eager (")]
    assert starts == ["eager (before)", "eager (after)"]


# ---- prompt files ------------------------------------------------------------------------------------------------


def prompted(path: str, digest: str | None) -> list[Record]:
    """Build a setting with a prompt file; its trial id does not include the content."""
    requested = make_config().to_dict()
    requested["workload"]["prompt_file"] = path
    return jobs({"eager": STEADY}, requested=requested, observed=dataclasses.replace(CPU, prompt_digest=digest))


@pytest.mark.parametrize(
    ("prompts", "status", "differing"),
    [
        ([("a/prompt.txt", "12ab" * 16), ("b/prompt.txt", "12ab" * 16)], 0, []),
        ([("prompt.txt", "12ab" * 16), ("prompt.txt", "34cd" * 16)], 4,
         [("prompt.txt (SHA-256 12ab12ab12ab)", "prompt.txt (SHA-256 34cd34cd34cd)")]),
        # Records of an earlier version know the path alone.
        ([("a/prompt.txt", None), ("b/prompt.txt", "12ab" * 16)], 4, [("a/prompt.txt", "b/prompt.txt")]),
        ([("prompt.txt", None), ("prompt.txt", "12ab" * 16)], 0, []),
    ],
    ids=["moved", "edited", "moved, not known", "not known"],
)  # fmt: skip
def test_prompt_files_are_compared_by_content(tmp_path, compared, prompts, status, differing):
    sources = [sweep(tmp_path / str(at), prompted(*each)) for at, each in enumerate(prompts)]
    found = compared(*sources, *GATE, status=status)["comparisons"][0]["differences"]
    assert [(each["a"], each["b"]) for each in found] == differing
    assert all(each["key"] == "workload.prompt_file" for each in found)


# ---- what is wrong with the arguments ----------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("arguments", "complaint"),
    [
        ([], "SOURCE"),
        (["a", "b", "c"], "3 sources: name one, or two"),
        (["a", "b", "--baseline", "x"], "of two the first is the baseline"),
        (["a", "--baseline", "x", "--setting", "y", "--setting", "z"], "of two the first is the baseline"),
        (["a", "--setting", "x", "--setting", "y", "--setting", "z"], "3 times --setting"),
        (["a", "--metric", "e3e"], "'e3e'"),
        (["a", "--format", "html"], "'html'"),
        (["a", "--threshold", "3"], "'3' is no share below 100 %: write 3% or 0.03"),
        (["a", "--threshold", "nan"], "'nan' is no share"),
        (["a", "--threshold", "-1%"], "--threshold"),
        (["a", "--fail-if-slower", "much"], "'much' is no share"),
        (["a", "--fail-if-slower", "3%x"], "'3%x' is no share"),
        (["a", "--fail-if"], "--fail-if"),
    ],
)
def test_wrong_arguments_are_one_line(refused, arguments, complaint):
    assert complaint in refused(*arguments)


def test_an_unknown_baseline_names_the_settings(two, refused):
    assert refused(two, "--baseline", "flash").startswith("--baseline flash: no such setting; ")


def test_an_unknown_declared_baseline_names_the_sweep(tmp_path, refused):
    records = jobs({"eager": EAGER, "sdpa": SDPA})
    folder = sweep(tmp_path / "night", records, settings=["eager", "sdpa"], baseline="flash")
    assert refused(folder).startswith(f"the baseline of {folder}, flash: no such setting; ")


def test_an_unknown_setting_lists_the_existing_ones(two, refused):
    assert refused(two, "--setting", "flash") == f"--setting flash: no such setting in {two}; settings: eager, sdpa"


def test_a_baseline_cannot_be_compared_with_itself(two, refused):
    assert "is the baseline itself" in refused(two, "--setting", "eager")


def test_an_ambiguous_name_asks_for_an_id(tmp_path, refused):
    records = [job("sdpa", 1.0), job("sdpa", 0.9, trial_id="other")]
    assert "give an id: t-sdpa, other" in refused(sweep(tmp_path / "night", records), "--setting", "sdpa")


def test_two_settings_with_different_work_are_not_comparable(tmp_path, refused):
    records = [
        job(f"sdpa {size}", 1.0, swept={"attention": "sdpa", "workload.batch_size": size}) for size in ("1", "4")
    ]
    text = refused(sweep(tmp_path / "night", records), "--setting", "sdpa 1", "--setting", "sdpa 4")
    assert "no setting has a baseline" in text


# ---- sources that cannot be used ---------------------------------------------------------------------------------


def test_a_missing_path_does_not_query_mlflow(tmp_path, refused, monkeypatch):
    monkeypatch.chdir(tmp_path)
    assert refused("multirun/night").startswith("multirun/night: no such file or folder; ")


def test_a_folder_of_sweeps_lists_them(tmp_path, two, refused):
    assert str(two) in refused(tmp_path)


def test_an_empty_folder_says_what_is_missing(tmp_path, refused):
    assert refused(tmp_path).startswith(f"{tmp_path}: holds no record.json, nor does a folder in it")


def test_a_sweep_that_has_just_begun_says_so(tmp_path, refused):
    (tmp_path / SWEEP_NAME).write_text(json.dumps({"jobs": [{"folder": "0"}, {"folder": "1"}]}))
    assert refused(tmp_path) == f"{tmp_path}: none of its 2 jobs left a record yet"


def test_a_truncated_plan_is_ignored(tmp_path, compared):
    folder = sweep(tmp_path / "night", jobs({"eager": EAGER, "sdpa": SDPA}))
    (folder / SWEEP_NAME).write_text("{")
    assert facts(compared(folder)) == [("sdpa", "eager", "faster")]


def test_a_single_setting_has_no_comparison(tmp_path, refused):
    folder = sweep(tmp_path / "night", jobs({"eager": EAGER[:2]}))
    assert "one setting, and nothing to compare it with; name a second source" in refused(folder)


def test_a_single_setting_with_repeats_shows_its_noise(tmp_path, compared):
    folder = sweep(tmp_path / "night", jobs({"eager": EAGER}))
    assert compared(folder)["noise_floor"]["processes"] == 5
    assert compared(folder, form=None).startswith("Noise floor of E2E (5 processes of 1 setting): ")


@pytest.mark.parametrize("option", [["--fail-if-slower", "3%"], ["--fail-if-inconclusive"]])
def test_a_gate_without_comparisons_is_refused(tmp_path, refused, option):
    folder = sweep(tmp_path / "night", jobs({"eager": EAGER}))
    assert "nothing to compare it with" in refused(folder, *option)


def test_two_sweeps_without_a_setting_in_common_are_refused(tmp_path, three, refused):
    other = sweep(tmp_path / "other", jobs({"flex": EAGER, "flash": EAGER}))
    text = refused(three, other)
    assert "no setting of one is in the other" in text
    assert "eager (only before)" in text


def as_version(version: int, folder: Path) -> None:
    path = folder / "record.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | {"schema_version": version}))


def test_a_record_of_another_schema_version_is_named_and_omitted(two, compared):
    as_version(2, two / "9_sdpa")
    assert compared(two)["comparisons"][0]["effect"]["processes"] == 4
    assert f"{two}/9_sdpa/record.json: schema version 2" in compared.said
    assert compared.said.count("\n") == 1


def test_sources_without_readable_records_are_refused_with_the_first_reason(two, refused):
    for folder in two.iterdir():
        if folder.is_dir():
            as_version(2, folder)
    assert refused(two).startswith(f"{two}: not one of 10 records can be read; the first: {two}/0_eager/record.json: ")


def test_a_file_that_is_no_record_is_refused(tmp_path, refused):
    (tmp_path / "notes.json").write_text("[]")
    assert "notes.json: not a record" in refused(tmp_path / "notes.json")


def test_jobs_without_a_record_are_counted(two, compared):
    (two / "9_sdpa" / "record.json").unlink()
    compared(two)
    assert compared.said == f"bench.compare: {two}: 1 of 10 jobs left no record\n"


# ---- MLflow ------------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def started_in(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Create a folder whose mlflow.db holds the sweep night-1, which declares sdpa its baseline."""
    folder = tmp_path_factory.mktemp("started-in")
    store = open_store(None, "bench", folder)
    tags = {"kind": "sweep", "sweep_id": "night-1", "baseline": "sdpa", "settings": '["eager", "sdpa"]'}
    store.create_run("night", STARTED_AT_S, tags)
    for number, record in enumerate(jobs({"eager": EAGER[:3], "sdpa": SDPA[:3]}, sweep_id="night-1")):
        job_folder = folder / str(number)
        job_folder.mkdir()
        record.write(job_folder)
        publish(store, record, job_folder, parent_run_id=None, tags={})
    return folder


@pytest.mark.parametrize("source", ["night-1", "mlflow:night-1"])
def test_a_sweep_id_is_found_in_mlflow_with_its_declared_baseline(started_in, compared, monkeypatch, source):
    monkeypatch.chdir(started_in)
    found = compared(source)
    assert facts(found) == [("eager", "sdpa", "slower")]
    assert found["comparisons"][0]["effect"]["processes"] == 3


def test_the_tracking_address_may_be_elsewhere(started_in, compared, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    found = compared("night-1", "--tracking-uri", f"sqlite:///{started_in}/mlflow.db")
    assert facts(found) == [("eager", "sdpa", "slower")]


def test_a_folder_of_that_name_comes_before_mlflow(started_in, compared, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    sweep(tmp_path / "night-1", jobs({"eager": EAGER, "sdpa": SDPA}))
    assert facts(compared("night-1")) == [("sdpa", "eager", "faster")]


def test_a_sweep_in_a_folder_and_one_in_mlflow_are_compared(started_in, two, compared, monkeypatch):
    monkeypatch.chdir(started_in)
    found = compared(two, "mlflow:night-1")
    assert [(each["setting"], each["effect"]["processes"]) for each in found["comparisons"]] == [
        ("eager", 3),
        ("sdpa", 3),
    ]


def test_an_unknown_id_lists_the_existing_ones(started_in, refused, monkeypatch):
    monkeypatch.chdir(started_in)
    text = refused("nihgt-1")
    assert text.startswith("nihgt-1: no such file or folder, and MLflow at ")
    assert "the newest are night-1; " in text


def test_reading_creates_no_database(refused, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    assert f"no MLflow database at {tmp_path}/mlflow.db" in refused("mlflow:night-1")
    assert list(tmp_path.iterdir()) == []


def test_a_prefix_without_an_id_is_refused(refused):
    assert refused("mlflow:") == "mlflow:: name a sweep behind it, as in mlflow:ID"


# ---- the program -------------------------------------------------------------------------------------------------


def test_the_module_runs_as_a_program(two):
    command = [sys.executable, "-m", "bench.compare", str(two)]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert (done.returncode, done.stderr) == (0, "")
    assert "faster" in done.stdout
    assert max(map(len, done.stdout.splitlines())) <= 100


def test_a_program_without_arguments_ends_with_status_2(tmp_path):
    done = subprocess.run([sys.executable, "-m", "bench.compare"], capture_output=True, text=True, check=False)
    assert (done.returncode, done.stdout, done.stderr.count("\n")) == (2, "", 1)


def test_a_closed_output_pipe_is_no_error(two):
    command = f"{sys.executable} -m bench.compare {two} --format json | head -c 1 > /dev/null; echo ${{PIPESTATUS[0]}}"
    done = subprocess.run(["bash", "-c", command], capture_output=True, text=True, check=False)
    assert done.stderr == ""


def test_help_needs_no_heavy_library():
    code = "import sys, bench.cli.compare\ntry: bench.cli.compare.main(['--help'])\nfinally: print(*sys.modules, file=sys.stderr)"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert done.returncode == 0
    assert "--fail-if-slower 3%" in done.stdout
    assert {"numpy", "scipy", "rich", "mlflow", "torch", "hydra", "omegaconf"} & set(done.stderr.split()) == set()


def test_the_available_metrics_are_those_of_the_analysis():
    assert METRICS == KNOWN_METRICS
