"""Test the plots of a report: their contents, the named settings, and that any record can be drawn."""

from __future__ import annotations

import copy
import dataclasses
import functools
import importlib
import itertools
import os
import re
import subprocess
import sys
from typing import Any
from xml.etree import ElementTree as ET

import pytest

from bench.analysis.break_even import break_evens
from bench.analysis.calls.steadiness import judge
from bench.analysis.settings import settings_of
from bench.report import figures
from bench.report.figures import Figure, standalone
from bench.report.figures.drawing.sheet import drawing
from bench.report.figures.drawing.shown_settings import with_calls
from bench.report.setting_view import setting_views
from bench.results.palette import colour
from bench.results.record import DeviceRates, Failure, Fidelity, Memory, MemoryUse, Record, Roofline
from factories import make_iteration, make_record

SVG = "{http://www.w3.org/2000/svg}"
ALL = [
    "warmup_curves", "e2e_distributions", "ttft_vs_itl", "throughput_vs_memory", "break_even", "roofline",
    "token_timeline", "phases",
]  # fmt: skip
RATES = DeviceRates(
    bandwidth_bytes_per_s=2e10, matmul_flops_per_s=1e11, dtype="float32", fingerprint="f", measured_at_s=1.0,
    cache_bandwidth_bytes_per_s=8e10, cache_bytes=3 * 2**20,
)  # fmt: skip
HOSTILE = "</text><script>alert('1')</script> & \"$x_1^2$\" \x1b[31m\x00\ud800\n日本語🙂"


def setting(name: str, e2e_s: float = 1.0, *, mode: str | None = None, mib: float = 512, **changes: Any) -> Record:
    """Build a record of a separate setting: a call of 30 s, five of 2 × e2e_s, twenty measured ones of about e2e_s."""
    calls = []
    for index in range(26):
        phase = "validation" if index == 0 else "warmup" if index < 6 else "measurement"
        time_s = 30.0 if index == 0 else 2 * e2e_s if index < 6 else e2e_s * (1 + 0.002 * (index % 3))
        calls.append(make_iteration(index, phase, ttft_s=time_s * 0.2, gap_s=time_s * 0.19, start_s=100.0 * index))
    fields: dict[str, Any] = {"name": name, "trial_id": name, "iterations": calls, "warmup_status": "fixed"}
    fields["memory"] = Memory(measurement_peak=MemoryUse(host_rss_bytes=round(mib * 2**20)))
    fields["roofline"] = Roofline(rates=RATES, prefill_bytes=1e7, prefill_flops=1e9, decode_bytes=1e7, decode_flops=2e7)
    made = make_record(**fields | changes)
    made.requested = copy.deepcopy(made.requested)
    made.requested["compile"]["mode"] = mode
    made.steadiness = judge(made)
    return made


def failed(name: str, calls: int = 0, status: str = "failed") -> Record:
    made = setting(name, status=status, stage="load", error=Failure(type="RuntimeError", message="no"))
    made.iterations, made.steadiness, made.memory, made.roofline = made.iterations[:calls], None, Memory(), None
    made.observed = made.observed if calls else None
    return made


def pair() -> list[Record]:
    return [setting("off", 1.0, mib=400), setting("default", 0.8, mode="default", mib=600)]


def draw_all(
    records: list[Record],
    *,
    typed: list[str] | None = None,
    baseline: str | None = None,
    faults: list[str] | None = None,
) -> list[Figure]:
    trials = [each for each in records if each.kind != "reference"]
    return figures.draw_all(trials, setting_views(trials, typed=typed, baseline=baseline), faults=faults)


@functools.cache
def drawn() -> list[Figure]:
    """Draw all figures of a compiled and an uncompiled setting."""
    return draw_all(pair())


def many(number: int) -> list[Record]:
    return [setting(f"s{index}", 1.0 + index / 100, mib=400 + (index * 37) % 90) for index in range(number)]


def draw(records: list[Record], key: str, **keywords: Any) -> ET.Element:
    """Draw one figure alone and return its element: all eight take eight times as long."""
    module = importlib.import_module(f"bench.report.figures.{key}")
    shown = records if key == "phases" else with_calls(setting_views(records, **keywords))
    with drawing():
        return ET.fromstring(module.draw(shown).svg)


def marks(svg: ET.Element, key: str) -> dict[str, dict[str, str]]:
    """Map each mark's name, without the figure's key, to its contents."""
    found = {}
    for each in svg.iter():
        name = each.get("id", "")
        if name.startswith(f"{key}-") and not re.fullmatch(rf"{key}-r\d+", name):
            found[name.removeprefix(f"{key}-")] = {
                data.removeprefix("data-"): value for data, value in each.items() if data.startswith("data-")
            }
    return found


def figure_marks(records: list[Record], key: str, **keywords: Any) -> dict[str, dict[str, str]]:
    return marks(draw(records, key, **keywords), key)


def texts(svg: ET.Element) -> list[str]:
    return [each.text or "" for each in svg.iter(f"{SVG}text")]


# ---- which figures there are -------------------------------------------------------------------------------------


def test_all_figures_come_in_their_order():
    assert [each.key for each in drawn()] == ALL


def test_nothing_to_draw_gives_no_figure():
    assert draw_all([]) == []
    assert draw_all([dataclasses.replace(failed(name), phases_s={}, ended_at_s=None) for name in "ab"]) == []


def test_failed_jobs_have_their_calls_as_curves_and_their_time():
    assert [each.key for each in draw_all([failed("a", calls=4)])] == ["warmup_curves", "phases"]
    assert [each.key for each in draw_all([failed("a")])] == ["phases"]


def test_reference_runs_are_in_no_figure():
    assert draw_all([setting("reference", kind="reference")]) == []


def test_without_a_compiled_setting_there_is_no_break_even():
    assert "break_even" not in [each.key for each in draw_all([setting("a"), setting("b")])]


def test_without_costs_there_is_no_roofline():
    assert "roofline" not in [each.key for each in draw_all([setting("a", roofline=None)])]


def test_without_known_memory_there_is_no_throughput_against_it():
    assert "throughput_vs_memory" not in [each.key for each in draw_all([setting("a", memory=Memory())])]


def test_calls_of_one_token_have_no_timeline_and_no_gaps():
    made = setting("a")
    made.iterations = [dataclasses.replace(each, token_times_s=each.token_times_s[:1]) for each in made.iterations]
    keys = [each.key for each in draw_all([made])]
    assert "token_timeline" not in keys
    assert "ttft_vs_itl" not in keys


ODD = [
    {"iterations": []},
    {"observed": None},
    {"memory": Memory()},
    {"roofline": Roofline(rates=None)},
    {"requested": {}},
    {"steadiness": None},
    {"iterations": [dataclasses.replace(make_iteration(0, "measurement"), token_times_s=[], e2e_s=0.0)]},
    {"iterations": [dataclasses.replace(make_iteration(0, "measurement"), token_times_s=[0.0] * 3, e2e_s=0.0)]},
    {"iterations": [dataclasses.replace(make_iteration(0, "measurement"), token_times_s=[1e-9, 1e9], e2e_s=1e9)]},
]


def odd(number: int, status: str) -> Record:
    made = setting(f"odd {number} {status}", status=status)
    for name, value in ODD[number].items():
        setattr(made, name, value)
    return made


def test_incomplete_records_beside_complete_ones_prevent_no_figure():
    records = [odd(number, status) for number in range(len(ODD)) for status in ("ok", "failed")]
    assert [each.key for each in draw_all([*pair(), *records])] == ALL


@pytest.mark.parametrize("number", range(len(ODD)))
def test_an_incomplete_record_can_be_the_only_one(number):
    keys = [each.key for each in draw_all([odd(number, "ok")])]
    assert keys == [key for key in ALL if key in keys]


# ---- marks -------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("key", ["warmup_curves", "ttft_vs_itl", "throughput_vs_memory", "token_timeline"])
def test_each_setting_has_its_mark(key):
    found = figure_marks([setting("a"), setting("b"), setting("c")], key)
    assert {"setting-0", "setting-1", "setting-2"} <= set(found)


def test_the_steady_point_is_marked_at_its_call():
    found = figure_marks([setting("a")], "warmup_curves")
    assert found["steady-0-1"] == {"call": "6", "certain": "True"}


def test_a_setting_that_never_settles_has_no_steady_point_and_says_so():
    made = setting("a")
    made.warmup_status = "not_converged"
    svg = draw([made], "warmup_curves")
    assert not [name for name in marks(svg, "warmup_curves") if name.startswith("steady")]
    assert "never settled" in texts(svg)


def test_the_measured_range_is_highlighted():
    assert figure_marks([setting("a")], "warmup_curves")["measured"] == {"start": "6"}


def test_settings_measured_from_different_calls_have_no_common_range():
    other = setting("b")
    other.iterations = [
        dataclasses.replace(each, phase="measurement") if each.index == 5 else each for each in other.iterations
    ]
    assert "measured" not in figure_marks([setting("a"), other], "warmup_curves")


def test_each_process_has_its_strip_and_its_interval():
    repeats = [setting("a", repeat=repeat) for repeat in (1, 2, 3)]
    found = figure_marks(repeats, "e2e_distributions")
    assert {"setting-0-1", "setting-0-2", "setting-0-3", "interval-0-1", "interval-0-2", "interval-0-3"} <= set(found)


def test_distributions_are_sorted_by_their_medians():
    svg = draw([setting("slow", 3.0), setting("fast", 1.0), setting("middle", 2.0)], "e2e_distributions")
    assert [each for each in texts(svg) if each in ("slow", "fast", "middle")] == ["fast", "middle", "slow"]


def test_the_pareto_front_has_its_members():
    records = [setting("slow small", 2.0, mib=100), setting("bad", 2.5, mib=300), setting("fast big", 1.0, mib=300)]
    found = figure_marks(records, "throughput_vs_memory")
    assert found["front"]["members"] == "0 2"
    assert [found[f"setting-{position}"]["front"] for position in range(3)] == ["True", "False", "True"]


def test_a_setting_with_a_different_output_is_not_on_the_front_and_says_why():
    wrong = setting("wrong", 0.5, mib=100, fidelity=Fidelity(reference="eager", agrees=False))
    svg = draw([setting("right", 1.0, mib=300), wrong], "throughput_vs_memory")
    assert marks(svg, "throughput_vs_memory")["setting-1"]["front"] == "False"
    assert "wrong (output differs)" in texts(svg)


def test_the_break_even_point_is_where_the_lines_meet():
    off, compiled = pair()
    compiled.iterations[0] = dataclasses.replace(compiled.iterations[0], e2e_s=50.0, token_times_s=[45.0, 49.0])
    found = figure_marks([off, compiled], "break_even")
    known = break_evens(settings_of([off, compiled]))[0]
    assert known.calls is not None
    assert float(found["even-1-cold"]["calls"]) == pytest.approx(known.calls, rel=1e-5)
    assert found["line-1-cold"] == {"status": "descriptive"}


def test_an_established_break_even_point_has_an_interval():
    records = []
    for repeat in (1, 2, 3):
        off, compiled = setting("off", 1.0 + repeat / 1000), setting("default", 0.8 + repeat / 900, mode="default")
        slow = dataclasses.replace(compiled.iterations[0], e2e_s=50.0 + repeat, token_times_s=[45.0, 49.0])
        compiled.iterations[0] = slow
        records += [dataclasses.replace(off, repeat=repeat), dataclasses.replace(compiled, repeat=repeat)]
    found = figure_marks(records, "break_even")
    assert found["line-1-cold"] == {"status": "established"}
    low, high = float(found["interval-1-cold"]["low"]), float(found["interval-1-cold"]["high"])
    assert low < float(found["even-1-cold"]["calls"]) < high


def test_a_break_even_that_is_not_established_says_so_in_words():
    records = []
    for repeat in (1, 2, 3):
        off, compiled = pair()
        swing = (1.0, 2.0, 0.5)[repeat - 1]
        calls = [
            make_iteration(each.index, each.phase, gap_s=0.2 * swing, start_s=each.start_s) for each in off.iterations
        ]
        off.iterations = calls
        records += [dataclasses.replace(off, repeat=repeat), dataclasses.replace(compiled, repeat=repeat)]
    svg = draw(records, "break_even")
    assert "not established" in texts(svg)
    assert not [name for name in marks(svg, "break_even") if name.startswith("interval")]


def test_the_ceilings_have_the_measured_rates():
    svg = draw([setting("a")], "roofline")
    found = marks(svg, "roofline")
    assert found["ceiling-matmul-float32"] == {"rate": "1e+11"}
    assert found["ceiling-memory-float32"] == {"rate": "2e+10"}
    assert found["ceiling-cache-float32"] == {"rate": "8e+10"}
    assert {"100.0 GFLOP/s", "20.00 GB/s", "80.00 GB/s"} <= set(texts(svg))


def test_prefill_and_decoding_have_a_point_each():
    found = figure_marks([setting("a")], "roofline")
    assert found["prefill-0"]["intensity"] == "100"
    assert found["decode-0"]["intensity"] == "2"
    assert float(found["prefill-0"]["flops"]) == pytest.approx(5e9, rel=0.01)


def test_the_first_token_is_separate_in_the_timeline():
    found = figure_marks([setting("a")], "token_timeline")
    assert float(found["ttft-0"]["ttft"]) == pytest.approx(0.2, rel=0.01)
    assert found["setting-0"] == {"tokens": "5"}


def timed(name: str, **changes: Any) -> Record:
    """Build a trial of 12 s, 2 s of them in no named phase, after a wait of 1 s; its calls took 6 s."""
    calls = [make_iteration(index, "measurement", ttft_s=1.0, gap_s=0.2475, start_s=2.0 * index) for index in range(3)]
    phases_s = {"wait": 1.0, "start": 0.5, "load": 2.0, "measurement": 7.0, "fidelity": 0.3, "roofline": 0.2}
    fields: dict[str, Any] = {"iterations": calls, "phases_s": phases_s, "started_at_s": 100.0, "ended_at_s": 112.0}
    return make_record(**{"name": name, "trial_id": name} | fields | changes)


def test_each_trial_has_a_bar_of_its_phases_whatever_its_status():
    lost = failed("lost")
    lost.phases_s, lost.started_at_s, lost.ended_at_s = {"start": 0.5}, 100.0, 104.0
    root = draw([timed("a"), lost], "phases")
    found = marks(root, "phases")
    parts = {"wait": 1.0, "start": 0.5, "load": 2.0, "measurement": 7.0, "evidence": 0.5, "other": 2.0}
    assert {name: float(value) for name, value in found["trial-0"].items()} == pytest.approx(parts)
    assert found["trial-1"] == {"start": "0.5", "other": "3.5"}
    assert {"a", "13.0 s, 6.00 s", "lost (failed)", "4.00 s, 4.00 s"} <= set(texts(root))


def test_trials_are_in_the_order_of_the_records():
    shown = texts(draw([timed("b"), timed("c"), timed("a")], "phases"))
    assert [each for each in shown if each in ("a", "b", "c")] == ["b", "c", "a"]


def test_a_trial_without_times_keeps_its_place():
    lost = dataclasses.replace(failed("lost"), phases_s={}, ended_at_s=None)
    root = draw([timed("a"), lost, timed("b")], "phases")
    assert "–" in texts(root)
    assert {"trial-0", "trial-2"} == {each for each in marks(root, "phases") if each.startswith("trial")}


def test_the_legend_names_the_existing_phases_with_their_medians():
    root = draw([timed("a"), timed("b", phases_s={"load": 4.0, "measurement": 8.0})], "phases")
    shown = texts(root)
    assert [each for each in shown if each in ("wait", "start", "load", "measure", "evidence", "other", "publish")] == [
        "wait", "start", "load", "measure", "evidence", "other",
    ]  # fmt: skip
    assert "median 3.00 s" in shown  # of 2 and 4 s of loading


def test_no_two_phases_share_a_colour():
    names = ("wait", "start", "import", "load", "validation", "warmup", "measurement", "evidence", "publish")
    root = draw([timed("a", phases_s=dict.fromkeys(names, 1.0))], "phases")
    part_of = {each.get("id", ""): each for each in root.iter(f"{SVG}g") if "-part-" in each.get("id", "")}
    fills = {next(path.get("fill") for path in each.iter(f"{SVG}path")) for each in part_of.values()}
    assert len(part_of) == len(fills) == 10


def test_the_caption_of_the_time_has_the_median_outside_generate():
    (figure,) = [each for each in draw_all([timed("a"), timed("b"), timed("c")]) if each.key == "phases"]
    assert "the median of 3 trials is 13.0 s, and outside generate 6.00 s" in figure.caption


def test_many_trials_are_named_on_hover():
    root = draw([timed(f"s{index}") for index in range(60)], "phases")
    assert "s41" not in texts(root)
    assert [each.text for each in root.iter(f"{SVG}title") if (each.text or "").startswith("s41: 13.0 s (wait 1.00")]


def test_a_thousand_trials_have_two_hundred_bars_of_means():
    records = [timed(f"s{index}", phases_s={"load": 2.0 + index % 5}) for index in range(1000)]
    (figure,) = [each for each in draw_all(records) if each.key == "phases"]
    found = marks(ET.fromstring(figure.svg), "phases")
    assert len([each for each in found if each.startswith("trial-")]) == 200
    assert found["part-load"] == {"bars": "200"}
    assert "mean of trials 996 to 1000: 12.0 s (load 4.00, other 8.00)" in figure.svg
    assert "mean of 5 trials" in figure.caption
    assert float(ET.fromstring(figure.svg).get("viewBox", "").split()[3]) < 700


# ---- colours and names -------------------------------------------------------------------------------------------


def test_a_setting_has_the_colour_of_its_typed_position_whatever_failed():
    svg = draw([setting("c")], "ttft_vs_itl", typed=["a", "b", "c"])
    used = {each.get("fill") for each in svg.iter()}
    assert colour(2) in used
    assert colour(0) not in used


def test_an_untyped_setting_comes_after_the_typed_ones():
    found = figure_marks([setting("new"), setting("b")], "ttft_vs_itl", typed=["a", "b"])
    assert {"setting-1", "setting-2"} <= set(found)


def test_markers_differ_without_colour():
    svg = draw(many(12), "ttft_vs_itl")
    shapes = {each.get("id"): each.get("d") for each in svg.iter(f"{SVG}path") if each.get("id")}
    used = []
    for each in svg.iter(f"{SVG}g"):
        if re.fullmatch(r"ttft_vs_itl-setting-\d+", each.get("id", "")):
            used += [shapes[use.get("href", "").removeprefix("#")] for use in each.iter(f"{SVG}use")]
    assert len(used) == 12
    assert len(set(used)) == 12


def test_settings_beyond_a_dozen_are_grey_and_the_caption_says_so():
    figures = {each.key: each for each in draw_all(many(20))}
    for key in (
        "warmup_curves",
        "e2e_distributions",
        "ttft_vs_itl",
        "throughput_vs_memory",
        "roofline",
        "token_timeline",
    ):
        svg = ET.fromstring(figures[key].svg)
        assert "others" in marks(svg, key), key
        assert len([name for name in marks(svg, key) if name.startswith("name-")]) == 12, key
        assert "12 settings" in figures[key].caption, key
        assert "the 8 others are grey" in figures[key].caption, key


def test_the_fastest_settings_are_named():
    found = figure_marks(list(reversed(many(20))), "ttft_vs_itl", typed=[f"s{index}" for index in range(20)])
    assert {name for name in found if name.startswith("setting-")} == {f"setting-{index}" for index in range(12)}


def test_members_of_the_front_are_named_before_faster_ones():
    records = [*many(14), setting("small", 5.0, mib=10)]
    assert "setting-14" in figure_marks(records, "throughput_vs_memory")


def test_the_baseline_is_labelled_as_such():
    svg = draw([setting("a", swept={"x": "1"}), setting("b", swept={"x": "2"})], "warmup_curves", baseline="a")
    assert "a (baseline)" in texts(svg)


def test_a_baseline_that_matches_nothing_is_no_error():
    assert draw_all(pair(), baseline="nobody")


def test_a_long_name_is_shortened_in_the_legend_and_complete_on_hover():
    name = "attention=flex_attention " * 8 + "end"
    svg = draw([setting(name)], "warmup_curves")
    shown = next(each for each in texts(svg) if "…" in each)
    assert shown.startswith("attention=flex")
    assert shown.endswith("end")
    assert len(shown) < 50
    assert name in [each.text for each in svg.iter(f"{SVG}title")]


def test_settings_without_a_name_are_named_by_their_model():
    assert "org/tiny" in texts(draw([setting("")], "warmup_curves"))


# ---- the SVG -----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("number", [2, 20])
def test_element_ids_are_unique_across_figures_and_all_references_resolve(number):
    seen: set[str] = set()
    for figure in draw_all([*pair(), *many(number)]):
        root = ET.fromstring(figure.svg)
        names = [each.get("id") for each in root.iter() if each.get("id")]
        assert len(names) == len(set(names))
        assert all(name.startswith(f"{figure.key}-") for name in names if name)
        assert not seen & set(names)
        seen |= set(names)
        wanted = set(re.findall(r'(?:href="#|url\(#)([^")]+)', figure.svg))
        assert wanted <= set(names)


def test_hostile_names_remain_plain_text():
    for figure in draw_all([setting(HOSTILE), setting(HOSTILE + "2", mode="default")], typed=[HOSTILE]):
        root = ET.fromstring(figure.svg)
        assert not [each for each in root.iter() if each.tag.endswith("script")]
        assert not re.search(r"[\x00-\x08\x0b-\x1f\ud800-\udfff]", figure.svg + figure.alt + figure.caption)
        ET.fromstring(standalone(figure).encode())


def test_a_dollar_sign_starts_no_formula():
    assert "a $x_1$ b" in texts(draw([setting("a $x_1$ b")], "warmup_curves"))


def test_text_and_axes_take_the_pages_colour_and_font():
    for figure in drawn():
        assert "#000000" not in figure.svg
        assert "#010203" not in figure.svg
        assert "currentColor" in figure.svg
        assert "font-family" not in figure.svg


def test_the_pages_width_decides_the_size():
    for figure in drawn():
        root = ET.fromstring(figure.svg)
        assert root.get("width") == "100%"
        assert root.get("height") is None
        assert root.get("viewBox", "").startswith("0 0 400 ")


def test_nothing_is_fetched_run_or_styled_for_the_whole_page():
    for figure in drawn():
        assert not re.search(r"<(script|style|metadata|image|foreignObject|!DOCTYPE|\?xml)", figure.svg)
        assert set(re.findall(r"https?://[^\"]*", figure.svg)) == {"http://www.w3.org/2000/svg"}


def test_no_mark_is_outside_the_drawing():
    for figure in draw_all([*pair(), *many(20)]):
        root = ET.fromstring(figure.svg)
        _, _, width, height = map(float, root.get("viewBox", "").split())
        for each in itertools.chain(root.iter(f"{SVG}use"), root.iter(f"{SVG}text")):
            assert 0 <= float(each.get("x", "0")) <= width
            assert 0 <= float(each.get("y", "0")) <= height


def test_names_and_figures_in_a_legend_do_not_overlap():
    for figure in draw_all([*pair(), setting("W" * 80), setting("i" * 200)]):
        rows: dict[str, list[ET.Element]] = {}
        for each in ET.fromstring(figure.svg).iter(f"{SVG}text"):
            rows.setdefault(each.get("y", ""), []).append(each)
        for left, right in (row for row in rows.values() if len(row) == 2):
            ends = float(left.get("x", "0")) + 7.0 * len(left.text or "") * ("W" in (left.text or ""))
            assert ends < float(right.get("x", "0")) - 5.0 * len(right.text or "")


def test_the_same_records_give_the_same_bytes():
    assert draw_all([*pair(), *many(12)]) == draw_all([*pair(), *many(12)])


def test_each_figure_has_a_text_alternative():
    for figure in drawn():
        assert figure.title
        assert "default" in figure.alt
        assert figure.svg.count('role="img"') == 1
        assert ET.fromstring(figure.svg).get("aria-label") == figure.alt


def test_a_single_figure_is_a_complete_file_for_light_and_dark():
    text = standalone(drawn()[0])
    root = ET.fromstring(text.encode())
    assert text.startswith("<?xml")
    assert root.findtext(f"{SVG}title") == "Every call, from cold to steady"
    assert "default" in (root.findtext(f"{SVG}desc") or "")
    assert "prefers-color-scheme:dark" in (root.findtext(f"{SVG}style") or "")


def test_a_bracket_in_an_attribute_does_not_end_the_first_tag():
    figure = Figure(key="k", title="a > b", caption="", alt="x", svg='<svg aria-label="1 &gt; 2"><g/></svg>')
    assert standalone(figure).endswith("<g/></svg>\n")


def test_matplotlib_is_loaded_only_by_drawing():
    code = (
        "import bench.report.figures, bench.report.terminal.results_table, sys\n"
        "assert not [name for name in sys.modules if name.startswith('matplotlib')]\n"
        "assert bench.report.figures.draw_all([], []) == []\n"
        "assert 'matplotlib.pyplot' not in sys.modules"
    )
    subprocess.run([sys.executable, "-c", code], check=True)


def test_a_figure_file_has_its_own_size() -> None:
    for each in drawn():
        root = ET.fromstring(standalone(each).encode())
        _, _, width, height = map(float, root.attrib["viewBox"].split())
        assert float(root.attrib["width"]) == pytest.approx(2 * width, abs=1)
        assert float(root.attrib["height"]) == pytest.approx(2 * height, abs=1)


# ---- settings that cannot be compared --------------------------------------------------------------------------------


def unsteady(name: str, e2e_s: float, **changes: Any) -> Record:
    made = setting(name, e2e_s, **changes)
    assert made.steadiness is not None
    made.steadiness = dataclasses.replace(made.steadiness, steady=False, flags=["trend"])
    return made


def test_a_setting_unstable_during_measurement_is_on_no_front():
    root = draw(
        [unsteady("fast", 0.5, mib=300), setting("slow", 1.0), setting("slower", 1.2, mib=400)], "throughput_vs_memory"
    )
    (front,) = [each for each in root.iter() if each.get("id") == "throughput_vs_memory-front"]
    assert front.get("data-members") == "2 1"


def test_settings_of_two_models_have_no_front():
    records = pair()
    records[1].requested["model"]["id"] = "org/other"
    (figure,) = [each for each in draw_all(records) if each.key == "throughput_vs_memory"]
    assert "throughput_vs_memory-front" not in figure.svg
    assert "there is no Pareto front" in figure.caption


def test_points_of_two_devices_share_no_roofline():
    records = pair()
    seen = records[1].observed
    assert seen is not None
    records[1].observed = dataclasses.replace(seen, device_name="another")
    assert "roofline" not in {each.key for each in draw_all(records)}
    assert "roofline" in {each.key for each in draw_all(pair())}


def test_a_users_matplotlib_settings_change_nothing(tmp_path):
    (tmp_path / "matplotlibrc").write_text("text.usetex: True\nlines.linewidth: 9\n", encoding="utf-8")
    for number, record in enumerate(pair()):
        (tmp_path / str(number)).mkdir()
        record.write(tmp_path / str(number))
    code = (
        "import hashlib, sys\nfrom bench.results.record import Record\nfrom bench.report.figures import draw_all\n"
        "from bench.report.setting_view import setting_views\n"
        "from pathlib import Path\nrecords = [Record.read(Path(sys.argv[1], each)) for each in '01']\n"
        "print(hashlib.sha256(''.join(each.svg for each in draw_all(records, setting_views(records))).encode()).hexdigest())"
    )
    (plain := tmp_path / "plain").mkdir()
    digests = {
        subprocess.run(
            [sys.executable, "-c", code, str(tmp_path)],
            cwd=folder,
            env=os.environ | variables,
            capture_output=True,
            text=True,
            check=True,
        ).stdout
        for folder, variables in ((tmp_path, {"MPLBACKEND": "nonsense"}), (plain, {}))
    }
    assert len(digests) == 1


def test_a_figure_that_cannot_be_drawn_does_not_affect_the_others(monkeypatch):
    def fail(_: object) -> None:
        raise ZeroDivisionError("of a plot")

    monkeypatch.setattr("bench.report.figures.roofline.draw", fail)
    faults: list[str] = []
    assert [each.key for each in draw_all(pair(), faults=faults)] == [each for each in ALL if each != "roofline"]
    assert faults == ["roofline: ZeroDivisionError: of a plot"]
