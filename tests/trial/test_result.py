"""Check what a run from Python returns and logs, with records whose figures are known."""

from __future__ import annotations

import dataclasses
import json

import pytest

from bench.analysis.trials.headline import headline
from bench.analysis.trials.summary import summarize
from bench.report.rows import rows_of
from bench.results.record import CompileObserved, Failure, Fidelity, Record, Steadiness, Unverified
from bench.trial.measure import stage_log
from bench.trial.measure.result import Result, milliseconds
from factories import COLD_START_S, make_evidence, make_iterations, make_record

UNSTEADY = Steadiness(steady=False, flags=["trend", "cv_high"], shape="slowdown", power="enough")


def result(**changes) -> Result:
    return Result.of(make_record(**changes))


def test_a_summary_has_the_headline_figures_under_their_names() -> None:
    found = result(**make_evidence()).summary()
    expected = headline(record := make_record(**make_evidence()), summarize(record))
    assert list(found)[5:-1] == list(expected)
    assert {name: found[name] for name in expected if name not in ("steady", "fidelity")} == {
        name: value for name, value in expected.items() if name not in ("steady", "fidelity")
    }
    assert (found["steady"], found["fidelity"]) == (True, True)
    assert found["e2e_ms"] == pytest.approx(948.0)
    assert found["cold_s"] == pytest.approx(COLD_START_S)


def test_a_summary_says_the_same_as_the_row_of_the_record() -> None:
    one = result(**make_evidence())
    (row,) = rows_of([one])
    found = one.summary()
    assert {name: row[name] for name in found if name in row and name != "name"} == {
        name: value for name, value in found.items() if name in row and name != "name"
    }


def test_a_summary_is_plain_whatever_is_known() -> None:
    for one in (result(), result(iterations=make_iterations(0)), result(**make_evidence()), result(observed=None)):
        assert json.loads(json.dumps(one.summary(), allow_nan=False)) == one.summary()


@pytest.mark.parametrize(
    ("changes", "marks", "reason"),
    [
        ({}, "", None),
        ({"steadiness": UNSTEADY}, "!", "it was unsteady during measurement (trend)"),
        ({"warmup_status": "not_converged"}, "~", "its warm-up did not converge"),
        (
            {"fidelity": Fidelity(reference="eager", agrees=False, reason="KL"), "steadiness": UNSTEADY},
            "≠!",
            "its output differs from the reference's (KL); it was unsteady during measurement (trend)",
        ),
    ],
)
def test_a_summary_says_whether_it_may_be_ranked_and_why_not(changes, marks, reason) -> None:
    found = result(**changes).summary()
    assert (found["ranked"], found["marks"], found["reason"]) == (reason is None, marks, reason)


def test_a_summary_names_what_could_not_be_seen() -> None:
    seen = make_record().observed
    assert seen is not None
    marks = [Unverified(key="a.b", reason="nothing tells"), Unverified(key="c.d", reason="nor here")]
    found = result(observed=dataclasses.replace(seen, unverified=marks)).summary()
    assert (found["unverified"], found["marks"], found["ranked"]) == ("a.b: nothing tells; c.d: nor here", "?", True)


@pytest.mark.parametrize(
    ("changes", "text"),
    [
        ({}, "<Result org/tiny: ok, median E2E 948.0 ms of 20 calls>"),
        ({"name": "sdpa b2\n"}, "<Result sdpa b2: ok, median E2E 948.0 ms of 20 calls>"),
        ({"steadiness": UNSTEADY}, "<Result org/tiny: ok, median E2E 948.0 ms of 20 calls, marks !>"),
        ({"iterations": make_iterations(1)}, "<Result org/tiny: ok, median E2E 910.0 ms of 1 call>"),
        ({"iterations": make_iterations(0)}, "<Result org/tiny: ok, no measured call>"),
        (
            {"status": "skipped", "error": Failure(type="Skipped", message="no kernel\nfor this")},
            "<Result org/tiny: skipped: no kernel for this>",
        ),
        ({"status": "interrupted", "stage": "warmup"}, "<Result org/tiny: interrupted in warmup>"),
    ],
)
def test_the_short_form_is_one_line(changes, text) -> None:
    assert repr(result(**changes)) == text


def test_a_long_reason_is_cut_in_the_short_form() -> None:
    one = result(status="failed", error=Failure(type="RuntimeError", message="x" * 5000))
    assert len(repr(one)) < 150


def test_a_result_is_written_and_read_like_any_record(tmp_path) -> None:
    one = result(warm_start=True)
    one.write(tmp_path)
    read = Record.read(tmp_path)
    assert read.to_dict() == one.to_dict() == Result.read(tmp_path).to_dict()
    assert read.warm_start


def test_a_record_of_a_version_without_warm_starts_is_a_cold_one(tmp_path) -> None:
    path = make_record().write(tmp_path)
    data = json.loads(path.read_text(encoding="utf-8"))
    del data["warm_start"]
    path.write_text(json.dumps(data | {"schema_version": 6}), encoding="utf-8")
    assert not Record.read(tmp_path).warm_start


def test_a_warm_start_has_no_cold_start() -> None:
    warm = result(warm_start=True)
    assert summarize(warm).cold_start_s is None
    assert warm.summary()["cold_s"] is None
    assert warm.summary()["e2e_ms"] == result().summary()["e2e_ms"]


@pytest.mark.parametrize(
    ("duration_s", "text"),
    [(0.0, "0"), (0.0123456, "12.35"), (1.0, "1000"), (123.456, "123456"), (1e-6, "0.001000"), (1e-12, "0.000000")],
)
def test_milliseconds_are_never_in_exponents(duration_s, text) -> None:
    assert milliseconds(duration_s) == text


# ---- the lines of the stages ---------------------------------------------------------------------------------------


def test_the_first_call_is_a_cold_start_with_the_state_of_the_compile_cache() -> None:
    assert stage_log.validated(make_record()) == (
        "validation done: first call 5000 ms (cold start, 1 graph compiled, compile cache cold)"
    )


def test_the_first_call_of_a_warm_start_is_not_called_cold() -> None:
    record = make_record(warm_start=True)
    assert record.observed is not None
    compiled = CompileObserved(graphs=2, cache_hits=3, cache_misses=0)
    record.observed = dataclasses.replace(record.observed, compile=compiled)
    line = stage_log.validated(record)
    assert line.endswith("(no cold start: this set-up had made calls before, 2 graphs compiled, compile cache warm)")


def test_warm_up_and_measurement_tell_calls_and_median() -> None:
    record = make_record(warmup_status="fixed", warmup_stop="5 calls asked for", steadiness=UNSTEADY)
    assert stage_log.warmed_up(record) == "warm-up done: 5 calls, fixed (5 calls asked for)"
    assert stage_log.measured(record) == (
        "measurement done: median E2E 948.0 ms of 20 calls, unsteady (trend, cv_high)"
    )
    record.steadiness = dataclasses.replace(UNSTEADY, steady=None, power="too few calls")
    assert stage_log.measured(record).endswith("of 20 calls, too few calls")
    assert stage_log.measured(make_record(iterations=make_iterations(0))) == "measurement done: 0 calls"


def test_evidence_tells_kernels_output_and_what_could_not_be_seen() -> None:
    record = make_record(**make_evidence())
    assert stage_log.inspected(record) == (
        "evidence done: prefill ran flash_attention; decode ran flash_attention; "
        "output agrees with the reference's; nothing unverified"
    )
    assert stage_log.inspected(make_record()) == (
        "evidence done: prefill ran unknown attention; decode ran unknown attention; nothing unverified"
    )
