"""Check that the statistics meet their targets on synthetic series, and that the calibration detects faulty ones."""

from __future__ import annotations

import contextlib
import io

import numpy as np
import pytest

from bench.analysis import comparison
from bench.analysis.calibration import level, rows, synthetic, verdicts, warmup
from bench.analysis.calibration.rows import MET, MISSED, WITHIN_NOISE, Case, exact_bounds, least, mean_bounds, most
from bench.analysis.calls import series, steadiness
from bench.analysis.calls.stopping import Stop, WarmupRule
from bench.analysis.settings import Process
from bench.analysis.trials.summary import stats
from bench.cli import calibrate


@pytest.fixture(scope="module")
def ordinary_run() -> tuple[int, str]:
    """Return exit status and output of the run that a user starts; it takes about half a minute."""
    output = io.StringIO()
    with contextlib.redirect_stdout(output):
        status = calibrate.main(["--trials", "300"])
    return status, output.getvalue()


@pytest.fixture
def rng() -> np.random.Generator:
    return np.random.default_rng(4)


def row(name: str, case: str) -> rows.Row:
    """Measure one row of the calibration with the current code."""
    found = [each for each in calibrate.cases() if (each.name, each.case) == (name, case)]
    assert len(found) == 1, [(each.name, each.case) for each in calibrate.cases()]
    return rows.measure(found[0], trials=300, seed=0)


# ---- the targets -----------------------------------------------------------------------------------------------------


def test_every_row_meets_its_target(ordinary_run):
    status, output = ordinary_run
    print(output)
    assert status == 0, output
    assert MISSED not in output


def test_every_row_is_printed_with_rate_bounds_and_target(ordinary_run):
    lines = ordinary_run[1].splitlines()
    assert lines[0].split() == ["property", "case", "measured", "95", "%", "bounds", "target", "result"]
    assert len([line for line in lines if line.rstrip().endswith((MET, WITHIN_NOISE))]) == len(calibrate.cases())
    more = sum(each.times > 1 for each in calibrate.cases())
    assert lines[-1].startswith(f"{len(calibrate.cases())} rows of 300 trials ({more} of 3000), seed 0: 0 missed, ")


def test_no_two_rows_share_a_name():
    """The seed depends on the name, so no two rows share one either."""
    names = [(each.name, each.case) for each in calibrate.cases()]
    assert len(set(names)) == len(names)


@pytest.mark.slow
def test_every_row_meets_its_target_in_the_long_run():
    assert [each for each in calibrate.calibrate(trials=600, seed=1) if each.verdict == MISSED] == []


def test_a_row_does_not_depend_on_the_others():
    case = level.cases()[0]
    before = rows.measure(case, trials=20, seed=0)
    rows.measure(level.cases()[1], trials=20, seed=0)
    assert rows.measure(case, trials=20, seed=0) == before


def test_another_seed_makes_other_series():
    case = next(each for each in warmup.cases() if each.signed)
    assert rows.measure(case, trials=20, seed=1).measured != rows.measure(case, trials=20, seed=2).measured


# ---- faulty statistics -----------------------------------------------------------------------------------------------


def test_counting_calls_as_processes_is_detected(monkeypatch):
    def pooled(setting: np.ndarray) -> list[Process]:
        return [Process(median_s=call) for call in setting.ravel().tolist()]

    monkeypatch.setattr(verdicts, "processes", pooled)
    assert row("identical settings differ", "process SD 1 %, R = 3").verdict == MISSED


@pytest.mark.parametrize("repeats", [1, 2])
def test_fewer_than_three_processes_give_no_verdict_however_far_apart(rng, repeats):
    sweeps = synthetic.sweeps(rng, 20, settings=3, repeats=repeats, process_sd=0.0, cv=0.001, shift=0.5)
    words = {each.word for sweep in sweeps for each in comparison.verdicts(verdicts.effects(sweep))}
    assert words.isdisjoint({"faster", "slower", "equivalent"})


def test_a_comparison_with_too_little_power_is_detected(monkeypatch):
    monkeypatch.setattr(comparison, "LEVEL", 0.005)
    assert row("a shift of 3 % found", "process SD 1 %, R = 5").verdict == MISSED


def test_treating_the_processes_of_a_block_as_independent_is_detected(monkeypatch):
    """It is wrong only with negative correlation, as is the narrower of this interval and the paired one."""
    name, case = "identical settings differ", "process SD 2 %, R = 5, correlation in blocks"
    assert row(name, f"{case} -0.6").verdict != MISSED

    def unpaired(pairs: np.ndarray) -> verdicts.Intervals:
        medians = np.log(np.median(pairs, axis=-1))
        error = np.sqrt(np.var(medians, axis=-1, ddof=1).sum(axis=-1) / pairs.shape[-2])
        reach = comparison.reach_of(error, 2 * (pairs.shape[-2] - 1))
        return verdicts.Intervals(difference=np.diff(medians.mean(axis=-1), axis=-1)[:, 0], reach=reach)

    monkeypatch.setattr(verdicts, "intervals", unpaired)
    assert row(name, f"{case} -0.6").verdict == MISSED
    assert row(name, f"{case} 0.5").verdict != MISSED


def test_the_vectorised_intervals_equal_those_of_the_comparison(rng):
    pairs = synthetic.correlated_pairs(
        rng, 40, repeats=4, process_sds=(0.001, 0.01), rho=-0.3, cv=0.01, calls=9, shift=0.03
    )
    found = verdicts.intervals(pairs)
    for at, pair in enumerate(pairs):
        (each,) = verdicts.effects(pair)
        assert np.log([each.low, each.high]) == pytest.approx(
            found.difference[at] + found.reach[at] * np.array([-1, 1])
        )
        assert found.slower[at] == (comparison.verdicts([each])[0].word == "slower")
        assert found.differ[at] == (not each.low <= 1 <= each.high)


def test_a_changepoint_penalty_that_is_too_low_is_detected(monkeypatch):
    monkeypatch.setattr(steadiness, "PENALTY_PER_LOG_N", 2.0)
    assert row("a level series called unsteady", "flat, CV 2 %").verdict == MISSED


def test_a_changepoint_penalty_that_is_too_high_finds_too_few_steps(monkeypatch, rng):
    """With 15 ln n, Barrett's penalty for 2,000 calls, at a CV of 2 %, where steps are hard to find."""
    stepped = synthetic.step(rng, 300, 20, cv=0.02).tolist()

    def found() -> float:
        return float(np.mean([len(steadiness.levels(each)) > 1 for each in stepped]))

    assert found() > 0.7
    monkeypatch.setattr(steadiness, "PENALTY_PER_LOG_N", 15.0)
    assert found() < 0.4


@pytest.mark.parametrize(
    ("test", "case"), [("is_cycle", "10 % fast smooth cycle, CV 1 %"), ("is_bimodal", "10 % bimodal, CV 1 %")]
)
def test_a_disabled_steadiness_test_is_detected(monkeypatch, test, case):
    monkeypatch.setattr(steadiness, test, lambda _: False)
    assert row("an unsteady series found", case).verdict == MISSED


def test_an_interval_that_treats_calls_as_independent_is_detected(monkeypatch):
    monkeypatch.setattr(series, "effective_n", lambda n, _: n)
    assert row("the median's interval holds the median", "AR(0.6), n = 50").verdict == MISSED


@pytest.mark.parametrize(("percent", "calls"), [(90, 26), (95, 50), (99, 260)])
def test_a_quantile_from_too_few_calls_is_detected(monkeypatch, percent, calls):
    needs = {90: 36, 95: 72, 99: 368, percent: calls}
    monkeypatch.setattr("bench.analysis.trials.summary.QUANTILE_NEEDS", needs)
    assert row(f"the slowest call lies beyond the p{percent}", "n = the fewest that give one").verdict == MISSED


def test_a_warm_up_that_ends_too_early_is_detected(monkeypatch):
    def after_five(self: WarmupRule, e2e_s: list[float], disturbed: set[int]) -> Stop | None:
        return Stop(status="converged", reason="five") if len(e2e_s) == 5 else None

    monkeypatch.setattr(WarmupRule, "decide", after_five)
    assert row("bias after auto warm-up", "decay, τ = 4, 30 %").verdict == MISSED


def test_a_warm_up_that_waits_for_low_variance_is_detected(monkeypatch):
    def until_quiet(self: WarmupRule, e2e_s: list[float], disturbed: set[int]) -> Stop | None:
        window = np.array(e2e_s[-8:])
        quiet = len(window) == 8 and np.std(window, ddof=1) < 0.006 * np.mean(window)
        return Stop(status="converged", reason="quiet") if quiet or len(e2e_s) == 50 else None

    monkeypatch.setattr(WarmupRule, "decide", until_quiet)
    assert row("auto warm-up ends in 20 calls", "step").verdict == MISSED


# ---- rows ------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("hits", "trials", "expected"),
    # Without a hit the upper bound is 1 - 0.025^(1/n); for 2 of 10 Clopper and Pearson's table has 2.5 to 55.6 %.
    [(0, 300, (0.0, 0.01222)), (300, 300, (0.98778, 1.0)), (2, 10, (0.0252, 0.5561))],
)
def test_bounds_of_a_rate_are_exact(hits, trials, expected):
    assert exact_bounds(hits, trials) == pytest.approx(expected, abs=5e-5)


def test_bounds_of_a_mean_follow_students_t():
    # t for 3 degrees of freedom 3.18245, standard deviation 1.29099 over the root of 4.
    assert mean_bounds(np.array([1.0, 2.0, 3.0, 4.0])) == pytest.approx((2.5 - 2.05426, 2.5 + 2.05426), abs=1e-5)


@pytest.mark.parametrize(
    ("measured", "low", "high", "verdict"),
    [(0.05, 0.03, 0.08, MET), (0.06, 0.04, 0.09, WITHIN_NOISE), (0.08, 0.051, 0.1, MISSED)],
)
def test_a_row_misses_its_target_when_its_bounds_are_wholly_beyond_it(measured, low, high, verdict):
    assert rows.judge(measured, low, high, most(0.05)) == verdict
    assert rows.judge(1 - measured, 1 - high, 1 - low, least(0.95)) == verdict


def test_several_rows_of_one_property_are_judged_by_wider_bounds():
    """26 of 300 at 5 % occurs by chance once in 90 times, so one of 48 rows does in every second run."""
    hits = [True] * 26 + [False] * 274
    alone, one_of_many = (
        rows.measure(
            Case(name="a", case="b", target=most(0.05), run=lambda _, __: hits, family=family), trials=300, seed=0
        )
        for family in (1, 48)
    )
    assert (alone.verdict, one_of_many.verdict) == (MISSED, WITHIN_NOISE)
    assert (alone.low, alone.high) == (one_of_many.low, one_of_many.high)


@pytest.mark.parametrize(
    ("measured", "low", "high", "verdict"),
    [
        (-0.004, -0.006, -0.002, MET),
        (-0.006, -0.007, -0.004, WITHIN_NOISE),
        (-0.006, -0.042, 0.03, WITHIN_NOISE),
        (-0.006, -0.007, -0.0051, MISSED),
        (0.006, 0.0051, 0.007, MISSED),
    ],
)
def test_a_bias_counts_in_both_directions(measured, low, high, verdict):
    assert rows.judge(measured, low, high, most(0.005), signed=True) == verdict


def a_case(hits: bool) -> Case:
    return Case(name="planted", case="always", target=most(0.05), run=lambda _, trials: [hits] * trials)


@pytest.mark.parametrize(("hits", "status"), [(False, 0), (True, 1)])
def test_the_exit_status_says_whether_a_target_is_missed(hits, status, monkeypatch, capsys):
    monkeypatch.setattr(calibrate, "cases", lambda: [a_case(False), a_case(hits)])
    assert calibrate.main(["--trials", "40"]) == status
    assert f"2 rows of 40 trials, seed 0: {status} missed, 0 met within noise" in capsys.readouterr().out


@pytest.mark.parametrize(
    "arguments", [["--trials", "1"], ["--trials", "many"], ["--seed", "-1"], ["--format", "csv"], ["more"]]
)
def test_wrong_arguments_give_status_2(arguments, capsys):
    assert calibrate.main(arguments) == 2
    said = capsys.readouterr().err
    assert said.startswith("bench.analysis.calibrate: ")
    assert said.endswith("; see python -m bench.analysis.calibrate --help\n")
    assert said.count("\n") == 1


def test_help_says_when_a_target_is_missed(capsys):
    with pytest.raises(SystemExit) as ended:
        calibrate.main(["--help"])
    assert ended.value.code == 0
    assert "MISSED when its bounds lie wholly beyond the target" in capsys.readouterr().out


def test_markdown_is_a_table(monkeypatch, capsys):
    monkeypatch.setattr(calibrate, "cases", lambda: [a_case(False)])
    assert calibrate.main(["--trials", "40", "--format", "markdown"]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert lines[:3] == [
        "| property | case | measured | 95 % bounds | target | result |",
        "| --- | --- | --- | --- | --- | --- |",
        "| planted | always | 0 % | 0 % … 8.81 % | ≤ 5 % | met |",
    ]


# ---- synthetic series ------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("rho", [0.0, 0.3, 0.6])
def test_an_autoregressive_series_has_the_requested_variation_and_correlation(rng, rho):
    made = synthetic.autoregressive(rng, 5, 20_000, cv=0.01, rho=rho) - 1
    assert np.std(made) == pytest.approx(0.01, rel=0.03)
    assert np.mean(made[:, 1:] * made[:, :-1]) / np.mean(made**2) == pytest.approx(rho, abs=0.02)


def test_a_step_is_in_the_middle_half_and_goes_up_or_down(rng):
    made = synthetic.step(rng, 500, 20, cv=0.0)
    assert set(np.round(made[:, -1], 9)) == {0.95, 1.05}
    assert set(np.sum(made == 1.0, axis=1)) == set(range(5, 16))


@pytest.mark.parametrize("square", [False, True])
def test_a_cycle_is_ten_percent_from_peak_to_peak(rng, square):
    made = synthetic.cycle(rng, 50, 200, cv=0.0, periods=(7.1, 9.3), square=square)
    assert np.ptp(made, axis=1) == pytest.approx(0.10, abs=0.002)


def test_slow_first_calls_end_at_the_true_level(rng):
    for make in (synthetic.step_down, synthetic.graph_capture, synthetic.autotune, synthetic.late_recompile):
        made = make(rng, 50, 40, cv=0.0)
        assert np.all(made.times[:, 8:] == 1.0)
        assert np.all(made.times[:, 0] > 1.0)
        assert all(made.times[trial, call] >= 2.0 for trial, calls in enumerate(made.disturbed) for call in calls)


def test_a_sweep_drifts_in_running_order(rng):
    made = synthetic.sweeps(rng, 3, settings=4, repeats=5, process_sd=0.0, cv=0.0, drift=0.04)
    for sweep in made[..., 0]:
        blocks = np.sort(sweep, axis=0).T.ravel()
        assert blocks == pytest.approx(1 + 0.04 * np.arange(20) / 19)
    assert not np.array_equal(np.argsort(made[0, :, 0, 0]), np.argsort(made[1, :, 0, 0]))


@pytest.mark.parametrize("rho", [-0.6, 0.0, 0.8])
def test_a_pair_of_settings_has_the_requested_deviations_and_correlation(rng, rho):
    made = synthetic.correlated_pairs(rng, 20_000, repeats=2, process_sds=(0.01, 0.1), rho=rho, cv=0.0, shift=0.03)
    logs = np.log(made[..., 0])
    first, second = logs[:, 0].ravel(), logs[:, 1].ravel()
    assert (np.std(first), np.std(second)) == pytest.approx((0.01, 0.1), rel=0.02)
    assert np.corrcoef(first, second)[0, 1] == pytest.approx(rho, abs=0.02)
    assert np.mean(second) - np.mean(first) == pytest.approx(np.log(1.03), abs=0.002)


def test_only_the_last_setting_is_shifted(rng):
    made = synthetic.sweeps(rng, 2, settings=3, repeats=2, process_sd=0.0, cv=0.0, shift=0.03)
    assert np.all(made[:, :2] == 1.0)
    assert np.all(made[:, 2] == 1.03)


# ---- invariance under units and order --------------------------------------------------------------------------------


def test_seconds_and_milliseconds_give_the_same_verdicts(rng):
    made = synthetic.sweeps(rng, 40, settings=3, repeats=5, process_sd=0.005, cv=0.01, shift=0.03)
    for sweep in made:
        seconds, milliseconds = (comparison.verdicts(verdicts.effects(sweep * unit)) for unit in (1, 1000))
        assert [each.word for each in seconds] == [each.word for each in milliseconds]


def test_seconds_and_milliseconds_are_equally_steady(rng):
    for make in (synthetic.flat, synthetic.spikes, synthetic.step, synthetic.ramp, synthetic.bimodal):
        for values in make(rng, 40, 20, cv=0.02):
            seconds, milliseconds = (steadiness.judge_series((values * unit).tolist()) for unit in (1, 1000))
            assert (seconds.steady, seconds.flags, seconds.power) == (
                milliseconds.steady,
                milliseconds.flags,
                milliseconds.power,
            )


def test_seconds_and_milliseconds_give_the_same_warm_up(rng):
    made = synthetic.decay(rng, 20, 40, cv=0.01)
    rule = WarmupRule(max_s=1e9)
    for values in made.times:
        ends = [
            next(n for n in range(1, 41) if rule.decide((values[:n] * unit).tolist(), set())) for unit in (1, 0.001)
        ]
        assert ends[0] == ends[1]


def test_swapping_the_settings_inverts_the_ratio(rng):
    sweep = synthetic.sweeps(rng, 1, settings=2, repeats=5, process_sd=0.005, cv=0.01, shift=0.03)[0]
    forth, back = verdicts.effects(sweep)[0], verdicts.effects(sweep[::-1])[0]
    assert (forth.ratio, forth.low, forth.high) == pytest.approx((1 / back.ratio, 1 / back.high, 1 / back.low))


def test_the_order_of_the_calls_does_not_change_the_median(rng):
    values = synthetic.step(rng, 1, 20, cv=0.01)[0]
    assert stats(rng.permutation(values).tolist()).median == stats(values.tolist()).median


@pytest.mark.parametrize("n", [1, 367])
def test_p99_is_null_below_368_calls(rng, n):
    assert stats(synthetic.flat(rng, 1, n, cv=0.01)[0].tolist()).p99 is None


def test_p99_is_given_from_368_calls_on(rng):
    assert stats(synthetic.flat(rng, 1, 368, cv=0.01)[0].tolist()).p99 is not None
