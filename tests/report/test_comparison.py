"""Test the text of a comparison, from handmade reports: every printed figure was an input."""

from __future__ import annotations

import dataclasses
import io
import json
from typing import Any

import pytest
from rich.cells import cell_len
from rich.console import Console

from bench.analysis.break_even import BreakEven
from bench.analysis.comparison import Comparison, Effect, Verdict
from bench.analysis.noise_floor import NoiseFloor
from bench.analysis.settings import Difference, Setting
from bench.report.comparison import (
    BrokenSetting,
    ComparisonReport,
    Row,
    SlowerCheck,
    check_slower,
    in_order,
    to_json,
)
from bench.report.terminal.comparison_text import print_comparison, to_markdown


def row(name: str, median_s: float | None = 1.0, **changes: Any) -> Row:
    fields = {
        "name": name, "setting_id": f"id-{name}", "median_s": median_s, "geometric_mean_s": median_s, "processes": 5,
        "ok": 5, "lost": {}, "lost_reason": None, "steady": {"yes": 5},
    }  # fmt: skip
    return Row(**fields | changes)


def effect(ratio: float = 0.9, low: float | None = 0.88, high: float | None = 0.92, **changes: Any) -> Effect:
    fields = {
        "ratio": ratio, "geometric_mean_s": ratio, "baseline_geometric_mean_s": 1.0, "low": low, "high": high,
        "processes": 5, "left_out": 0, "paired": True, "p": 0.0001, "p_beyond": 0.0002, "inside": False,
    }  # fmt: skip
    return Effect(**fields | changes)


def comparison(setting: str = "sdpa", word: str = "faster", found: Effect | None = None, **changes: Any) -> Comparison:
    reason = changes.pop("reason", None)
    fields = {
        "setting": setting, "baseline": "eager", "setting_id": f"id-{setting}", "baseline_id": "id-eager",
        "metric": "e2e", "effect": found or effect(), "verdict": Verdict(word=word, p=0.0004, reason=reason),
        "differences": [], "steady": ("1 no 4 yes", "yes"),
    }  # fmt: skip
    return Comparison(**fields | changes)


def report(*comparisons: Comparison, **changes: Any) -> ComparisonReport:
    names = dict.fromkeys(["eager", *(each.setting for each in comparisons)])
    fields = {
        "metric": "e2e", "margin": 0.01, "settings": [row(each, 0.9 if each == "sdpa" else 1.0) for each in names],
        "comparisons": list(comparisons), "break_evens": [], "noise_floor": None,
    }  # fmt: skip
    return ComparisonReport(**fields | changes)


def break_even(**changes: Any) -> BreakEven:
    fields = {
        "setting": "default", "setting_id": "id-default", "uncompiled": "off", "uncompiled_id": "id-off",
        "cache": "cold", "processes": 5, "uncompiled_processes": 5, "paired": True, "mixed": 0, "excess_s": 12.0,
        "saved_s": 0.25, "calls": 48.0, "calls_low": 40.0, "calls_high": 60.0, "tokens": 1536.0,
        "speedup": {10: 0.4, 100: 1.3, 1000: 1.9}, "status": "established", "reason": None,
    }  # fmt: skip
    return BreakEven(**fields | changes)


@dataclasses.dataclass(frozen=True, kw_only=True)
class Floor(NoiseFloor):
    """A noise floor whose advice is known."""

    def advice(self) -> list[str]:
        return ["10 repeats find 2 %"]


def noise_floor() -> NoiseFloor:
    return Floor(
        metric="e2e", margin=0.01, paired=True, settings=2, processes=10, repeats=5, calls=20.0, process_sd=0.012, call_sd=0.008,
        median_noise=0.0022, process_share=0.968, detectable={3: 0.061, 5: 0.025, 10: 0.014},
        detectable_beyond={3: 0.072, 5: 0.035, 10: 0.024}, repeats_for={0.01: 18, 0.02: 7, 0.05: None},
        process_cost_s=30.0, call_cost_s=0.5, best_calls=12,
    )  # fmt: skip


def text(shown: ComparisonReport, *, width: int | None = None, check: SlowerCheck | None = None) -> list[str]:
    """Return the printed lines with plain minus signs; a width makes the output a terminal without colours."""
    file = io.StringIO()
    if width is None:
        console = Console(file=file, _environ={})
    else:
        console = Console(file=file, width=width, force_terminal=True, color_system=None, _environ={"TERM": "xterm"})
    print_comparison(console, shown, check=check)
    return file.getvalue().replace("\N{MINUS SIGN}", "-").splitlines()


def said(shown: ComparisonReport, *, check: SlowerCheck | None = None) -> str:
    """Return the whole text in one line, without its wrapping."""
    return " ".join(" ".join(text(shown, check=check)).split())


def line_of(lines: list[str], start: str) -> str:
    return next(each for each in lines if each.startswith(start))


# ---- the table ---------------------------------------------------------------------------------------------------


def test_the_first_line_says_what_is_compared_and_how():
    assert said(report(comparison("sdpa"), comparison("flex"))).startswith(
        "E2E of 2 settings against eager; margin ±1 %, 5 processes a side, paired by block, Holm-corrected for 2 "
        "comparisons setting "
    )


def test_untested_comparisons_do_not_count_in_the_correction():
    barred = comparison("flex", word="inconclusive", verdict=Verdict(word="inconclusive", p=None, reason="failed"))
    assert "Holm" not in said(report(comparison(), barred))


def test_times_and_ratios_of_several_processes_are_explained():
    legend = "E2E ms: geometric mean of the processes' medians; ratio: the setting's over the baseline's"
    assert legend in said(report(comparison()))
    assert legend not in said(report(comparison(found=effect(processes=1))))


def test_one_comparison_needs_no_correction():
    assert "Holm" not in "".join(text(report(comparison())))


def test_a_row_holds_time_ratio_change_interval_p_verdict_and_steadiness():
    found = line_of(text(report(comparison())), "sdpa").split()
    assert found == ["sdpa", "900.0", "0.9000", "-10.0", "-12.0", "…", "-8.00", "<0.001", "faster", "yes"]


def test_the_baseline_comes_first_and_is_marked():
    lines = text(report(comparison()))
    assert lines[2].split() == ["eager", "1000", "1", "baseline", "1", "no", "4", "yes"]
    assert lines[3].startswith("sdpa")


def test_each_baseline_heads_its_own_group():
    other = comparison("sdpa4", baseline="eager4", baseline_id="id-eager4")
    shown = report(comparison(), other)
    shown = dataclasses.replace(shown, settings=[*shown.settings, row("eager4")])
    lines = text(shown)
    first = [each.split()[0] if each else "" for each in lines]
    start = first.index("setting") + 1
    assert first[start : start + 5] == ["eager", "sdpa", "", "eager4", "sdpa4"]
    assert "against the baseline of each" in lines[0]


def test_a_comparison_without_result_has_dashes_and_no_zeros():
    failed = comparison(word="inconclusive", reason="failed: no such layer", effect=None)
    failed = dataclasses.replace(failed, effect=None, verdict=dataclasses.replace(failed.verdict, p=None))
    shown = report(failed, settings=[row("eager"), row("sdpa", None, processes=0)])
    assert line_of(text(shown), "sdpa").split()[:6] == ["sdpa", "–", "–", "–", "–", "–"]


def test_one_process_each_gives_a_ratio_but_no_interval():
    found = effect(0.9, None, None, processes=1, p=None, p_beyond=None, inside=None)
    single = comparison(word="inconclusive", found=found, reason="one process each: repeats are needed")
    cells = line_of(text(report(single)), "sdpa").split()
    assert cells[2:5] == ["0.9000", "-10.0", "–"]


@pytest.mark.parametrize(
    ("ratio", "shown"), [(0.99121, "-0.88"), (1.0, "+0.00"), (1.105, "+10.5"), (3.5, "+250"), (0.99, "-1.00")]
)
def test_changes_have_a_sign_and_as_many_digits_as_matter(ratio, shown):
    assert line_of(text(report(comparison(found=effect(ratio)))), "sdpa").split()[3] == shown


def printed(lines: list[str]) -> list[tuple[float, float, str]]:
    """Read the setting's time, its baseline's time and the ratio from each row below a baseline."""
    header = next(each for each in lines if each.startswith("setting"))
    rows = [each.split() for each in lines[lines.index(header) + 1 :]]
    rows = rows[: next((at for at, each in enumerate(rows) if not each), len(rows))]
    base = float(next(each[1] for each in rows if "baseline" in each))
    has_column = "baseline E2E ms" in header
    others = [each for each in rows if "baseline" not in each]
    if has_column:
        return [(float(each[1]), float(each[2]), each[3]) for each in others]
    return [(float(each[1]), base, each[2]) for each in others]


RATIOS = (0.89615, 0.99995, 1.000049, 0.5, 12.3456, 0.896249999, 1.10049999)


@pytest.mark.parametrize("base_s", [0.001, 0.48421, 0.9999, 7.77])
@pytest.mark.parametrize("ratio", RATIOS)
def test_the_two_printed_times_divide_to_the_printed_ratio(base_s, ratio):
    found = effect(ratio, geometric_mean_s=base_s * ratio, baseline_geometric_mean_s=base_s)
    shown = report(comparison(found=found), settings=[row("eager", base_s), row("sdpa", base_s * 2)])
    ((own, base, told),) = printed(text(shown))
    digits = len(told.replace(".", "").lstrip("0"))
    assert f"{own / base:.{len(told.partition('.')[2])}f}" == told
    assert digits >= 4


def test_times_have_no_more_digits_than_the_division_needs():
    assert line_of(text(report(comparison())), "sdpa").split()[1] == "900.0"


def test_the_baselines_time_in_other_blocks_is_printed_beside_the_ratio():
    """A setting that lost a repeat is compared only with the baseline's other repeats."""
    own = effect(0.75, geometric_mean_s=0.9, baseline_geometric_mean_s=1.2)
    lines = text(report(comparison("flex", found=own), comparison("sdpa", found=effect(0.9))))
    assert "baseline E2E ms" in line_of(lines, "setting")
    assert printed(lines) == [(900.0, 1200.0, "0.7500"), (900.0, 1000.0, "0.9000")]


def test_a_baseline_time_equal_for_all_settings_has_no_column():
    assert "baseline E2E ms" not in "\n".join(text(report(comparison("flex"), comparison("sdpa"))))


@pytest.mark.parametrize(("metric", "name"), [("e2e", "E2E"), ("ttft", "TTFT"), ("itl", "ITL"), ("tpot", "TPOT")])
def test_the_metric_has_its_name_in_title_and_header(metric, name):
    lines = text(report(comparison(), metric=metric))
    assert lines[0].startswith(f"{name} of ")
    assert f" {name} ms " in lines[1]


def test_two_sweeps_name_their_sources_and_are_not_paired():
    shown = report(
        comparison("eager", found=effect(paired=False)),
        settings=[row("eager", 0.8)],
        before=[row("eager", 1.0)],
        sources=("multirun/a", "multirun/b"),
    )
    lines = text(shown)
    assert lines[0].startswith("E2E: multirun/b against multirun/a, the baseline; ")
    assert ", not paired" in lines[0]
    assert [each.split()[:3] for each in lines[2:4]] == [["eager", "(before)", "1000"], ["eager", "(after)", "900.0"]]


# ---- below the table ---------------------------------------------------------------------------------------------


def test_settings_that_share_a_reason_share_a_line():
    reason = "one process each: repeats are needed"
    lines = text(report(*(comparison(each, word="inconclusive", reason=reason) for each in ("sdpa", "flex"))))
    assert lines[-1] == f"sdpa, flex: inconclusive: {reason}"


def test_a_decided_verdict_has_no_reason():
    assert "inconclusive" not in "".join(text(report(comparison())))


def test_differences_are_named_with_the_baselines_value_last():
    named = Difference(key="torch", a="2.11", b="2.12", bars=False)
    assert text(report(comparison(differences=[named])))[-1] == "sdpa: torch differs: 2.12, in the baseline 2.11"


def test_a_difference_that_prevents_a_verdict_says_so():
    barring = Difference(key="device", a="A100", b="H100", bars=True)
    lines = text(report(comparison(differences=[barring])))
    assert lines[-1] == "sdpa: device differs: H100, in the baseline A100 (no verdict)"


def test_lost_repeats_are_reported_with_the_first_reason():
    lost = row("sdpa", lost={"timeout": 1, "oom": 2}, lost_reason="timeout in warmup")
    lines = text(report(comparison(), settings=[row("eager"), lost]))
    assert lines[-1] == "sdpa: repeats without a result: 1 timeout, 2 oom: timeout in warmup"


def test_a_setting_without_a_counterpart_is_named():
    shown = report(comparison(), settings=[row("eager"), row("sdpa"), row("batch 4")])
    assert text(shown)[-1] == "compared with nothing: batch 4"


def test_settings_in_only_one_of_two_sweeps_are_named_with_their_side():
    shown = report(comparison("eager"), settings=[row("eager"), row("new")], before=[row("eager"), row("old")])
    assert text(shown)[-1] == "compared with nothing: old (only before), new (only after)"


def test_an_empty_report_prints_nothing():
    assert text(report(settings=[])) == []


# ---- the user's limit --------------------------------------------------------------------------------------------


def judged(word: str, ratio: float, high: float | None, **changes: Any) -> tuple[list[str], list[str], list[str]]:
    found = check_slower(report(comparison(word=word, found=effect(ratio, 0.9, high), **changes)), 0.03)
    return found.slower, found.ruled_out, found.undecided


def test_slower_by_just_the_limit_is_too_slow():
    assert judged("slower", 1.03, 1.04) == (["sdpa"], [], [])


def test_slower_by_less_than_the_limit_is_allowed():
    assert judged("slower", 1.0299, 1.04) == ([], [], [])


def test_an_inconclusive_interval_below_the_limit_rules_it_out():
    assert judged("inconclusive", 1.0, 1.0299) == ([], ["sdpa"], [])


@pytest.mark.parametrize("high", [1.03, 1.2, None])
def test_an_inconclusive_interval_that_reaches_the_limit_is_undecided(high):
    assert judged("inconclusive", 1.0, high) == ([], [], ["sdpa"])


def test_without_a_possible_verdict_an_interval_rules_nothing_out():
    barred = Verdict(word="inconclusive", p=None, reason="the setting is unsteady in 3 of 5 processes")
    assert judged("inconclusive", 0.5, 0.6, verdict=barred) == ([], [], ["sdpa"])


def test_a_ratio_above_the_limit_without_the_verdict_slower_is_no_failure():
    assert judged("inconclusive", 1.1, 1.3)[0] == []


def test_the_text_distinguishes_all_four_cases():
    broken = [BrokenSetting(setting="e", reason="is not in after")]
    check = SlowerCheck(limit=0.03, slower=["a"], ruled_out=["b"], undecided=["c", "d"], broken=broken)
    assert text(report(comparison()), check=check)[-4:] == [
        "SLOWER by 3 % or more: a",
        "CANNOT BE COMPARED: e: is not in after",
        "not slower by 3 % or more, though inconclusive: b",
        "cannot tell whether slower by 3 % or more: c, d",
    ]


def broken(comparison_changes: dict[str, Any], old: dict[str, Any], new: dict[str, Any]) -> list[str]:
    """Return why the setting eager counts as broken between two sweeps."""
    shown = report(
        comparison("eager", **comparison_changes),
        settings=[row("eager", **new)],
        before=[row("eager", **old)],
        sources=("a", "b"),
    )
    return [each.reason for each in check_slower(shown, 0.03).broken]


CRASHED = {"processes": 4, "ok": 4, "lost": {"crashed": 1}, "lost_reason": "crashed in load: Killed: no memory"}


def test_a_setting_that_works_as_before_is_not_broken():
    assert broken({}, {}, {}) == []


def test_a_repeat_that_crashed_breaks_a_setting():
    assert broken({}, {}, CRASHED) == ["1 crashed of 5 repeats: crashed in load: Killed: no memory"]


def test_a_setting_that_never_worked_cannot_break():
    assert broken({}, {"processes": 0, "ok": 0, "lost": {"failed": 5}}, CRASHED) == []


def test_only_an_output_that_became_wrong_breaks_a_setting():
    wrong = {"wrong_output": "its output differs from the reference's"}
    assert broken({}, {}, wrong) == ["its output differs from the reference's"]
    assert broken({}, wrong, wrong) == []


def test_another_device_breaks_a_setting_and_another_library_does_not():
    device, library = (Difference(key=key, a="A", b="B", bars=key == "device") for key in ("device", "torch"))
    assert broken({"differences": [device, library]}, {}, {}) == ["not comparable: device is B, in the baseline A"]
    assert broken({"differences": [library]}, {}, {}) == []


def test_other_tokens_break_a_setting_unless_a_reference_confirms_them():
    tokens = {"differences": [Difference(key="generated tokens", a="5", b="3 of 5 equal", bars=False)]}
    (reason,) = broken(tokens, {}, {})
    assert reason.startswith("its generated tokens changed (3 of 5 equal) and no reference run confirms them: set fid")
    assert broken(tokens, {}, {"agrees": True}) == []


def test_a_setting_that_vanished_is_broken_and_a_new_one_is_not():
    shown = report(comparison("eager"), settings=[row("eager"), row("new")], before=[row("eager"), row("old")])
    assert check_slower(shown, 0.03).broken == [BrokenSetting(setting="old", reason="is not in the second sweep")]


def test_a_slower_setting_is_in_no_other_list():
    slow = report(
        comparison("eager", word="slower", found=effect(1.1, 1.05, 1.2)),
        settings=[row("eager", **CRASHED)],
        before=[row("eager")],
    )
    found = check_slower(slow, 0.03)
    assert (found.slower, found.broken, found.undecided) == (["eager"], [], [])


def test_in_one_sweep_a_skip_is_undecided_and_a_crashed_baseline_breaks_all():
    unjudged = Verdict(word="inconclusive", p=None, reason="no process of the setting is ok")
    skipped = comparison("flex", word="inconclusive", verdict=unjudged)
    found = check_slower(report(skipped, settings=[row("eager"), row("flex", lost={"skipped": 5}, ok=0)]), 0.03)
    assert (found.broken, found.undecided) == ([], ["flex"])
    found = check_slower(report(comparison(), settings=[row("eager", **CRASHED), row("sdpa")]), 0.03)
    assert [each.reason.partition(":")[0] for each in found.broken] == ["its baseline eager"]


def test_in_one_sweep_a_device_other_than_the_baselines_breaks_a_setting():
    """This happens on a cluster whose nodes differ."""
    device = Difference(key="device", a="A", b="B", bars=True)
    found = check_slower(report(comparison(differences=[device])), 0.03)
    assert [each.reason for each in found.broken] == ["not comparable: device is B, in the baseline A"]


def test_in_one_sweep_a_setting_without_a_baseline_is_undecided():
    found = check_slower(report(comparison(), settings=[row("eager"), row("sdpa"), row("batch 4")]), 0.03)
    assert found.undecided == ["batch 4"]


# ---- break-even and noise floor ----------------------------------------------------------------------------------


def test_a_break_even_row_holds_calls_interval_tokens_and_speed_ups():
    found = line_of(text(report(comparison(), break_evens=[break_even()])), "default ").split()
    expected = ["default", "cold", "48.0", "40.0", "…", "60.0", "1540", "0.400", "1.30", "1.90", "established"]
    assert found == expected


def test_an_interval_without_upper_end_says_so():
    found = break_even(calls_high=None)
    assert "40.0 or more" in line_of(text(report(break_evens=[found])), "default ")


def test_a_compilation_that_never_pays_has_no_calls_and_says_why():
    never = break_even(
        calls=None, calls_low=None, calls_high=None, tokens=None, saved_s=-0.002, status="never", reason="it is slower"
    )
    shown = report(break_evens=[never])
    assert line_of(text(shown), "default ").split()[2:5] == ["–", "–", "–"]
    assert said(shown).endswith(
        "default (cold): starting takes 12.0 s more than off, each call costs 2.00 ms more; it is slower"
    )


def test_processes_with_a_mixed_cache_are_reported():
    assert "1 process with a mixed cache not counted" in said(report(break_evens=[break_even(mixed=1)]))


def test_the_noise_floor_marks_the_current_repeats_and_ends_with_the_advice():
    lines = text(report(noise_floor=noise_floor()))
    assert line_of(lines, "5 (here)").split() == ["5", "(here)", "2.5", "3.5"]
    assert lines[-1] == "10 repeats find 2 %"


def test_negative_numbers_have_a_minus_sign_not_a_hyphen():
    """The reasons printed beside the figures use it too."""
    assert "| \N{MINUS SIGN}10.0 |" in to_markdown(report(comparison()))


def test_the_noise_floor_is_split_in_its_title():
    assert said(report(noise_floor=noise_floor())).startswith(
        "Noise floor of E2E (10 processes of 2 settings): processes differ by 1.2 %, calls by 0.80 % (standard "
        "deviations) repeats "
    )


# ---- width -------------------------------------------------------------------------------------------------------


def full() -> ComparisonReport:
    """Build a report with every possible part and long names."""
    long = "flash_attention_2 max-autotune-no-cudagraphs"
    reason = "the interval -0.8 % … +2.1 % holds both no difference and one of more than 1 %"
    return report(
        comparison(long),
        comparison("sdpa", word="inconclusive", reason=reason),
        break_evens=[break_even(setting=long, status="not established", reason="the interval holds 0")],
        noise_floor=noise_floor(),
    )


@pytest.mark.parametrize("width", [None, 80, 100, 140])
def test_no_line_is_longer_than_the_width(width):
    lines = text(full(), width=width)
    assert max(map(cell_len, lines)) <= (width or 100)


@pytest.mark.parametrize("width", [None, 80])
def test_a_narrow_console_keeps_interval_and_verdict(width):
    joined = "\n".join(text(full(), width=width))
    assert "-12.0 … -8.00" in joined
    assert "inconclusive" in joined


def test_control_characters_in_names_do_not_reach_the_terminal():
    lines = text(report(comparison("sd\x1b[31mpa\npb")))
    assert any(each.startswith("sdpa pb") for each in lines)
    assert "\x1b" not in "".join(lines)


def test_brackets_in_names_are_not_markup():
    assert "[red]sdpa" in "\n".join(text(report(comparison("[red]sdpa"))))


# ---- Markdown ----------------------------------------------------------------------------------------------------


def cells_of(line: str) -> list[str]:
    """Split a row into cells as GitHub does."""
    return [each.strip() for each in line.replace("\\|", "\0").strip("|").split("|")]


def test_markdown_tables_have_a_rule_and_as_many_cells_in_each_row():
    blocks = [each.splitlines() for each in to_markdown(full()).split("\n\n") if each.startswith("|")]
    assert len(blocks) == 3
    for header, rule, *rows in blocks:
        assert {len(cells_of(each)) for each in (header, rule, *rows)} == {len(cells_of(header))}
        assert all(set(each) <= set("-:") and "---" in each for each in cells_of(rule))
        assert rows


def test_markdown_escapes_what_would_end_a_cell():
    found = to_markdown(report(comparison("a|b")))
    assert "| a\\|b |" in found
    assert len(cells_of(line_of(found.splitlines(), "| a"))) == 8


def test_markdown_has_reasons_as_a_list():
    assert "\n- sdpa: inconclusive: the interval" in to_markdown(full())


def test_markdown_of_an_empty_report_is_empty():
    assert to_markdown(report(settings=[])) == ""


# ---- JSON --------------------------------------------------------------------------------------------------------


def test_json_is_plain_and_complete():
    found = json.loads(json.dumps(to_json(full()), allow_nan=False))
    assert set(found) == {
        "schema_version", "metric", "margin", "settings", "before", "comparisons", "break_evens", "noise_floor",
        "sources", "unmatched", "slower_check",
    }  # fmt: skip
    assert found["schema_version"] == 2


def test_json_has_full_precision_and_seconds():
    found = to_json(report(comparison(found=effect(0.912345678901))))["comparisons"][0]
    assert found["effect"]["ratio"] == 0.912345678901
    assert (found["geometric_mean_s"], found["baseline_geometric_mean_s"]) == (0.912345678901, 1.0)


def test_json_has_no_times_where_there_is_no_ratio():
    failed = dataclasses.replace(comparison(word="inconclusive", reason="failed"), effect=None)
    found = to_json(report(failed))["comparisons"][0]
    assert (found["geometric_mean_s"], found["baseline_geometric_mean_s"]) == (None, None)


def test_json_distinguishes_steady_unsteady_and_unjudged_processes():
    shown = report(comparison(), settings=[row("eager"), row("sdpa", steady={"no": 2, "noisy": 3})])
    assert to_json(shown)["settings"][1]["steady"] == {"no": 2, "noisy": 3}


def test_json_keys_are_strings_throughout():
    found = to_json(report(break_evens=[break_even()], noise_floor=noise_floor()))
    assert found["break_evens"][0]["speedup"] == {"10": 0.4, "100": 1.3, "1000": 1.9}
    assert found["noise_floor"]["repeats_for"] == {"0.01": 18, "0.02": 7, "0.05": None}


def test_json_has_the_advice():
    assert to_json(report(noise_floor=noise_floor()))["noise_floor"]["advice"] == ["10 repeats find 2 %"]


def test_json_has_null_for_numbers_that_are_undefined():
    found = to_json(report(break_evens=[break_even(calls=float("inf"))]))
    assert found["break_evens"][0]["calls"] is None


def test_json_holds_the_check():
    check = SlowerCheck(limit=0.03, slower=["a"], ruled_out=[], undecided=[])
    assert to_json(report(comparison()), check=check)["slower_check"] == {
        "limit": 0.03, "slower": ["a"], "ruled_out": [], "undecided": [], "broken": [],
    }  # fmt: skip


# ---- order -------------------------------------------------------------------------------------------------------


def test_settings_are_in_typed_order_with_unknown_ones_last():
    settings = [Setting(name=each, setting_id=each) for each in ("new", "sdpa", "eager")]
    assert [each.name for each in in_order(settings, ["eager", "sdpa"])] == ["eager", "sdpa", "new"]


def test_a_name_typed_twice_keeps_its_first_position():
    settings = [Setting(name=each, setting_id=each) for each in ("eager", "sdpa")]
    assert [each.name for each in in_order(settings, ["sdpa", "eager", "sdpa"])] == ["sdpa", "eager"]


def test_without_a_typed_order_settings_keep_their_order():
    settings = [Setting(name=each, setting_id=each) for each in ("sdpa", "eager")]
    assert in_order(settings, None) == settings
