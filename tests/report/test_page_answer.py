"""Test the page's answer from records with known times: it never claims more than they support."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Sequence
from typing import Any

import pytest

from bench.report.comparison import build_report_of_records
from bench.report.page.answer import Answer, build_answer, to_markdown
from bench.report.page.build import Sweep, build_page
from bench.report.page.content import SettingRow
from bench.report.setting_view import setting_views
from bench.results.record import CompileObserved, Energy, Failure, Fidelity, Record, Steadiness
from factories import make_config, make_record
from sweeps import EAGER, NEAR, SDPA, job, jobs

UNSTEADY = Steadiness(steady=False, flags=["trend", "cv_high"], shape="slowdown", power="enough")
STEADY = Steadiness(steady=True, flags=[], shape="flat", power="enough")
DIFFERS = Fidelity(reference="eager", agrees=False, reason="kl_mean_nats 2 exceeds 1e-05 (float32)")
SAME = Fidelity(reference="eager", agrees=True)


def answer(
    records: Sequence[Record],
    *,
    typed: list[str] | None = None,
    baseline: str | None = None,
    jobs_planned: int | None = None,
) -> Answer:
    settings = setting_views(records, typed=typed)
    report = build_report_of_records(records, typed=typed, baseline=baseline)
    return build_answer(settings, report, jobs=jobs_planned)


def rows(records: Sequence[Record]) -> list[SettingRow]:
    """Return the rows of the table beside the answer."""
    found = build_page(records, Sweep(), build_report_of_records(records)).settings
    assert found is not None
    return found.rows


def text(found: Answer) -> str:
    """Return the whole text of the answer."""
    return to_markdown(found)


def failed(name: str, status: str = "failed", message: str = "no such layer") -> Record:
    record = job(name, 1.0, status=status, stage="load", error=Failure(type="RuntimeError", message=message))
    record.iterations = []
    return record


def on_device(record: Record, name: str) -> Record:
    assert record.observed is not None
    record.observed = dataclasses.replace(record.observed, device_name=name)
    return record


def with_workload(record: Record, **changes: Any) -> Record:
    requested = make_config().to_dict()
    record.requested = requested | {"workload": requested["workload"] | changes}
    return record


# ---- verdicts ------------------------------------------------------------------------------------------------------


def test_a_setting_with_the_verdict_faster_is_the_answer() -> None:
    found = answer(jobs({"eager": EAGER, "sdpa": SDPA}))
    assert (found.kind, found.setting, found.headline) == ("verdict", "sdpa", "sdpa is faster than eager")
    ratio = math.exp(sum(math.log(b / a) for a, b in zip(EAGER, SDPA, strict=True)) / 5)
    assert found.sentences[0].startswith(f"A call takes {(1 - ratio) * 100:.2f} % less time than with eager (95 % ")
    assert "5 processes a side, p < 0.001" in found.sentences[0]


def test_the_interval_is_that_of_the_comparison() -> None:
    records = jobs({"eager": EAGER, "sdpa": SDPA})
    effect = build_report_of_records(records).comparisons[0].effect
    assert effect is not None
    assert effect.low is not None
    assert effect.high is not None
    low, high = ((1 - each) * 100 for each in (effect.high, effect.low))
    assert f"(95 % interval {low:.2f} to {high:.1f} %)" in answer(records).sentences[0]


def test_other_faster_settings_are_named_as_not_judged() -> None:
    found = answer(jobs({"eager": EAGER, "sdpa": SDPA, "flex": tuple(0.99 * each for each in SDPA)}))
    assert found.headline == "flex is faster than eager"
    assert "sdpa is faster than eager, too: which of them is fastest is not judged here" in text(found)
    assert "Holm-corrected for 2 comparisons" in text(found)


def test_a_baseline_faster_than_all_others_is_the_fastest() -> None:
    found = answer(jobs({"sdpa": SDPA, "eager": EAGER, "flex": tuple(2 * each for each in EAGER)}))
    assert (found.setting, found.headline) == ("sdpa", "sdpa is the fastest")
    assert found.sentences[0].startswith("Each of the 2 others is slower; the nearest, eager, by 11.1 %")


def test_equivalent_settings_have_no_winner() -> None:
    found = answer(jobs({"eager": EAGER, "same": tuple(1.0001 * each for each in EAGER)}))
    assert found.headline == "No setting is faster than eager"
    assert "1 equivalent" in found.sentences[0]


def test_an_undecided_answer_gives_the_detectable_difference() -> None:
    found = answer(jobs({"eager": EAGER, "near": NEAR}))
    assert found.headline == "No setting was found to be faster than eager"
    assert "1 inconclusive" in text(found)
    assert "The lowest median is that of" not in found.headline
    assert "With 5 repeats, 80 % power needs a difference of" in text(found)


def test_settings_with_baselines_of_their_own_have_no_common_winner() -> None:
    names = {"eager off": EAGER, "eager on": SDPA, "sdpa off": SDPA, "sdpa on": tuple(0.8 * each for each in SDPA)}
    records = [
        job(name, e2e_s, repeat + 1, swept=dict(zip(("attention", "compile"), name.split(), strict=True)))
        for name, times in names.items()
        for repeat, e2e_s in enumerate(times)
    ]
    found = answer(records, baseline="compile=off")
    assert found.headline == "2 of 2 settings are faster than the baseline"
    assert "sdpa on takes 20.0 % less time than with sdpa off" in text(found)
    assert "Which of all is fastest was not judged: the lowest median is that of sdpa on" in text(found)


def test_an_untested_faster_setting_leaves_no_fastest() -> None:
    found = answer(jobs({"eager": EAGER[:3], "slow": (1.2, 1.21, 1.19), "fast": (0.5, 0.505)}))
    assert found.headline == "No setting was found to be faster than eager"
    assert "fastest" not in text(found)
    assert "The lowest median is that of fast, which is no verdict." in found.sentences


def test_an_untested_faster_setting_prevents_the_answer_equivalent() -> None:
    same = tuple(1.0001 * each for each in EAGER)
    found = answer(jobs({"eager": EAGER, "same": same, "fast": (0.5, 0.505)}))
    assert found.headline == "No setting was found to be faster than eager"


@pytest.mark.parametrize(
    "third",
    [(1.2, 1.21, 1.19), (0.8, 0.81, 0.79), (1.0, 1.03, 0.96), (1.0001, 1.0101, 0.9901)],
    ids=["slower", "faster", "inconclusive", "the same"],
)
def test_untested_settings_are_named_with_the_reason_for_any_verdicts(third) -> None:
    found = answer(jobs({"eager": EAGER[:3], "third": third, "fast": (0.5, 0.5)}))
    (caution,) = [each for each in found.cautions if each.startswith("not judged")]
    assert "verdicts from 3 on): fast (500.0 ms)" in caution


def test_untested_settings_are_named_with_several_baselines_too() -> None:
    names = {"a off": EAGER, "a on": SDPA, "b off": SDPA, "b on": EAGER, "c off": EAGER[:1], "c on": SDPA[:2]}
    records = [
        job(name, e2e_s, repeat + 1, swept=dict(zip(("attention", "compile"), name.split(), strict=True)))
        for name, times in names.items()
        for repeat, e2e_s in enumerate(times)
    ]
    cautions = answer(records, baseline="compile=off").cautions
    assert any(each.startswith("not judged (") and "c on (904.5 ms)" in each for each in cautions)


def test_with_all_settings_tested_none_is_named_as_not_judged() -> None:
    assert "not judged (" not in text(answer(jobs({"sdpa": SDPA, "eager": EAGER})))


@pytest.mark.parametrize("other", [1.2, 1.0001], ids=["slower", "the same"])
def test_a_noisy_baseline_without_competitors_is_a_caveat(other) -> None:
    noisy = Steadiness(steady=None, flags=[], shape="flat", power="too noisy to tell")
    found = answer(jobs({"eager": EAGER, "other": tuple(other * each for each in EAGER)}, steadiness=noisy))
    assert "eager: its calls are too noisy to tell whether they were steady" in found.cautions


def test_the_correction_counts_the_tests_of_all_groups() -> None:
    records = [with_workload(job(f"{name} b{size}", e2e_s * size, repeat + 1, swept={"attention": name, "workload.batch_size": str(size)}), batch_size=size)
               for repeat in range(5) for size in (1, 4) for name, e2e_s in (("eager", EAGER[repeat]), ("sdpa", SDPA[repeat]))]  # fmt: skip
    found = answer(records, baseline="attention=eager")
    assert [each.headline.partition(": ")[2] for each in found.groups] == [
        "sdpa b1 is faster than eager b1",
        "sdpa b4 is faster than eager b4",
    ]
    assert all("Holm-corrected for 2 comparisons" in each.sentences[0] for each in found.groups)


# ---- no verdicts ---------------------------------------------------------------------------------------------------


def test_one_process_each_gives_a_lowest_median_and_no_verdict() -> None:
    found = answer(jobs({"eager": EAGER[:1], "sdpa": SDPA[:1]}))
    assert (found.kind, found.setting) == ("no verdict", "sdpa")
    assert found.headline == "Lowest median, no verdict: sdpa"
    assert found.sentences[0] == "Median E2E 902.0 ms, 9.8 % below the next, eager (1000 ms)."
    assert "Descriptive, not a verdict: each setting ran in one process" in found.sentences[1]
    assert "sweep.repeats=5" in found.sentences[1]


def test_two_processes_each_are_too_few() -> None:
    found = answer(jobs({"eager": EAGER[:2], "sdpa": SDPA[:2]}))
    assert found.headline == "Lowest median, no verdict: sdpa"
    assert "verdicts from 3 on" in text(found)


@pytest.mark.parametrize(("repeats", "remedy"), [(1, "sweep.repeats=5"), (2, "sweep.repeats=5"), (5, "resume=true")])
def test_an_unfinished_sweep_with_repeats_should_be_resumed(repeats, remedy) -> None:
    records = jobs({"eager": EAGER[:1], "sdpa": SDPA[:1]})
    for each in records:
        each.requested["sweep"] = {"repeats": repeats}
    said = text(answer(records))
    assert remedy in said
    assert ("would tell" in said, said.count("sweep.re")) == (True, 1)


@pytest.mark.parametrize("words", ["fastest", "faster", "best", "wins", "winner"])
def test_one_process_never_wins(words) -> None:
    assert words not in text(answer(jobs({"eager": EAGER[:1], "sdpa": SDPA[:1]})))


@pytest.mark.parametrize(
    ("changes", "why"),
    [
        ({"steadiness": UNSTEADY}, "it was unsteady during measurement"),
        ({"fidelity": DIFFERS}, "its output differs from the reference's"),
        ({"warmup_status": "not_converged"}, "its warm-up did not converge"),
        ({"status": "failed", "stage": "fidelity"}, "came to nothing"),
    ],
)
@pytest.mark.parametrize("repeats", [1, 5])
def test_an_untrusted_setting_is_never_the_answer(changes, why, repeats) -> None:
    records = jobs({"eager": EAGER[:repeats], "slow": tuple(1.5 * each for each in EAGER[:repeats])})
    records += jobs({"fast": tuple(each / 2 for each in EAGER[:repeats])}, **changes)
    found = answer(records)
    assert found.setting == "eager"
    assert "fast" not in found.headline.replace("fastest", "")
    assert why in text(found)


def test_without_trusted_settings_none_is_named() -> None:
    found = answer(jobs({"eager": EAGER[:1], "sdpa": SDPA[:1]}, steadiness=UNSTEADY))
    assert (found.headline, found.setting, found.tiles) == ("No setting can be called fastest", None, [])
    assert found.cautions == ["not ranked (it was unsteady during measurement): eager, sdpa"]


def test_a_lone_setting_among_untrusted_ones_has_no_lowest_median() -> None:
    records = [*jobs({"eager": EAGER[:1]}), *jobs({"sdpa": SDPA[:1]}, fidelity=DIFFERS)]
    assert answer(records).headline == "Only eager can be ranked: 1000 ms a call"


def test_too_noisy_calls_are_a_caveat() -> None:
    noisy = Steadiness(steady=None, flags=[], shape="flat", power="too noisy to tell")
    found = answer(jobs({"eager": EAGER[:1], "sdpa": SDPA[:1]}, steadiness=noisy))
    assert found.setting == "sdpa"
    assert "sdpa: its calls are too noisy to tell whether they were steady" in found.cautions


def test_partly_steady_processes_are_a_caveat() -> None:
    records = jobs({"eager": EAGER, "sdpa": SDPA}, steadiness=STEADY)
    records[1].steadiness = UNSTEADY
    assert "sdpa: 1 of 5 processes unsteady, 4 steady" in answer(records).cautions


def test_a_single_setting_is_compared_with_nothing() -> None:
    found = answer([job("eager", 1.0)])
    assert (found.kind, found.headline) == ("alone", "eager: 1000 ms a call")
    assert "nothing to compare it with" in text(found)


def test_a_baseline_without_a_record_allows_only_a_description() -> None:
    records = jobs({"eager": EAGER, "sdpa": SDPA})
    settings = setting_views(records)
    assert build_answer(settings, None).headline == "Lowest median, no verdict: sdpa"


# ---- incomparable or no settings -----------------------------------------------------------------------------------


def test_settings_with_different_work_are_answered_separately() -> None:
    records = [with_workload(job(f"{name} b{size}", e2e_s * size, swept={"attention": name, "workload.batch_size": str(size)}), batch_size=size)
               for size in (1, 4) for name, e2e_s in (("eager", 1.0), ("sdpa", 0.9))]  # fmt: skip
    found = answer(records)
    assert (found.kind, found.setting) == ("several", None)
    assert found.headline == "The settings are not all comparable"
    assert "They differ in workload.batch_size" in found.sentences[0]
    assert [each.headline for each in found.groups] == [
        "workload.batch_size=1: Lowest median, no verdict: sdpa b1",
        "workload.batch_size=4: Lowest median, no verdict: sdpa b4",
    ]
    assert "Output throughput stays comparable: it is highest with sdpa b1" in found.sentences[1]


def test_with_different_prompts_not_even_the_rate_is_compared() -> None:
    records = [with_workload(job(f"s{size}", 1.0), sequence_length=size) for size in (8, 16)]
    assert "stays comparable" not in text(answer(records))


def test_another_device_is_named() -> None:
    records = [job("here", 1.0), job("there", 0.5)]
    assert records[1].observed is not None
    records[1].observed = dataclasses.replace(records[1].observed, device_name="Other CPU")
    assert "They differ in device" in text(answer(records))


def test_settings_whose_repeats_ran_on_the_same_two_devices_are_compared() -> None:
    records = jobs({"eager": EAGER, "sdpa": SDPA})
    # The first record of a setting is arbitrary: here eager's is from one device, sdpa's from the other.
    records = [on_device(each, "A" if each.repeat < 3 else "B") for each in [*records[::2], *records[1::2][::-1]]]
    found = answer(records)
    assert found.headline == "sdpa is faster than eager"
    assert "processes of one setting differ (device A and B): eager, sdpa" in found.cautions


def test_settings_of_which_one_used_a_second_device_are_answered_separately() -> None:
    records = jobs({"eager": EAGER, "sdpa": SDPA})
    on_device(records[-1], "B")
    found = answer(records)
    assert found.kind == "several"
    assert "They differ in device" in text(found)
    assert "processes of one setting differ (device B and Test CPU): sdpa" in text(found)


def test_a_report_of_failures_says_how_they_failed() -> None:
    found = answer([failed("a"), failed("b"), failed("c", "skipped", "flash is not installed")])
    assert (found.kind, found.headline, found.setting) == ("nothing", "No setting came through", None)
    assert found.sentences[0] == "3 jobs: 2 failed, 1 skipped."
    assert any("no such layer (2 settings)" in each for each in found.sentences)


def test_a_report_without_records_says_so() -> None:
    found = build_answer([], None, jobs=6)
    assert found.headline == "Nothing was measured: no job left a record"
    assert found.sentences == ["6 of 6 jobs left no record"]


def test_jobs_without_a_record_and_settings_that_failed_are_counted() -> None:
    found = answer([*jobs({"eager": EAGER[:1], "sdpa": SDPA[:1]}), failed("flex")], jobs_planned=5)
    assert "1 of 3 settings came to nothing: 1 failed; the reasons are below" in found.cautions
    assert "2 of 5 jobs left no record" in found.cautions


# ---- the costs -----------------------------------------------------------------------------------------------------


def test_the_costs_are_printed_beside_the_answer() -> None:
    energy = Energy(source="nvml", joules=[3.0] * 20)
    found = answer(jobs({"eager": EAGER[:1], "sdpa": SDPA[:1]}, fidelity=SAME, energy=energy, steadiness=STEADY))
    assert found.sentences[-1] == (
        "sdpa: cold start 5.810 s, peak memory 512.0 MiB, 0.3000 J a token, output as the reference's."
    )
    assert {tile.label: (tile.value, tile.unit) for tile in found.tiles} == {
        "E2E": ("902.0", "ms"),
        "Throughput": ("11.09", "tok/s"),
        "TTFT": ("100.0", "ms"),
        "Cold start": ("5.810", "s"),
        "Peak memory": ("512.0", "MiB"),
        "Energy": ("0.3000", "J/token"),
        "Output": ("same", ""),
    }


def test_unknown_costs_are_not_shown_as_0() -> None:
    found = answer(jobs({"eager": EAGER[:1], "sdpa": SDPA[:1]}))
    assert "energy not known" in found.sentences[-1]
    assert "output not compared with a reference" in found.sentences[-1]
    assert next(tile.value for tile in found.tiles if tile.label == "Energy") == "–"


def test_a_start_from_a_cache_is_no_cold_start() -> None:
    records = jobs({"eager": EAGER[:1], "sdpa": SDPA[:1]})
    for each in records:
        assert each.observed is not None
        each.observed = dataclasses.replace(each.observed, compile=CompileObserved(graphs=1, cache_hits=2))
    assert "first call (from a warm compile cache) 5.810 s" in text(answer(records))


# ---- the table beside the answer ---------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "changes", [{"steadiness": UNSTEADY}, {"fidelity": DIFFERS}, {"warmup_status": "not_converged"}]
)
def test_unranked_settings_are_below_the_ranked_ones(changes) -> None:
    found = rows([job("fast", 0.1, **changes), *jobs({"eager": EAGER[:1], "sdpa": SDPA[:1]}), failed("flex")])
    assert [row.name for row in found] == ["sdpa", "eager", "fast", "flex"]


def test_the_lowest_median_is_marked_if_the_answer_compares_the_settings() -> None:
    records = jobs({"eager": EAGER[:2], "sdpa": SDPA[:2]})
    for record, device in zip(records, "ABBA", strict=True):
        on_device(record, device)
    assert answer(records).kind == "no verdict"
    assert {row.name: row.marks for row in rows(records)} == {"eager": [], "sdpa": ["lowest median"]}


# ---- Markdown ------------------------------------------------------------------------------------------------------


def test_markdown_holds_headline_sentences_and_figures() -> None:
    lines = text(answer(jobs({"eager": EAGER[:1], "sdpa": SDPA[:1]}))).splitlines()
    assert lines[0] == "**Lowest median, no verdict: sdpa**"
    assert any(line.startswith("| E2E ms |") for line in lines)


def test_markdown_treats_names_as_text() -> None:
    record = make_record(name="a|b <script> **x**", trial_id="t1")
    written = text(answer([record]))
    assert "<script>" not in written.replace("\\<script>", "")
    assert "a\\|b \\<script>" in written
