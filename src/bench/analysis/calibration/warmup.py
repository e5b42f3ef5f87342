"""Define the rows on the automatic warm-up: the remaining bias of the measurement, and the number of calls."""

from __future__ import annotations

import functools
from collections.abc import Callable

import numpy as np

from bench.analysis.calibration import synthetic
from bench.analysis.calibration.rows import Case, least, most
from bench.analysis.calibration.synthetic import WarmUps
from bench.analysis.calls.series import Array
from bench.analysis.calls.stopping import WarmupRule

MEASURED = 20  # calls after the warm-up
MOST_CALLS = 50
CV = 0.01
FEW = 10  # maximum number of calls if no warm-up is needed
PROMPT = 20  # calls within which it must end
Make = Callable[..., WarmUps]


def cases() -> list[Case]:
    """Return all cases of this group."""
    curves: list[tuple[str, Make, float]] = [
        ("step", synthetic.step_down, 0.005),
        ("graph capture", synthetic.graph_capture, 0.005),
        ("autotune", synthetic.autotune, 0.005),
        ("late recompile", synthetic.late_recompile, 0.005),
        ("decay, τ = 4, 30 %", synthetic.decay, 0.003),
    ]
    bias = [
        Case(
            name="bias after auto warm-up",
            case=case,
            target=most(target),
            run=functools.partial(_biases, make=make),
            signed=True,
        )
        for case, make, target in curves
    ]
    prompt = [
        Case(
            name=f"auto warm-up ends in {PROMPT} calls",
            case=case,
            target=least(0.95),
            run=functools.partial(_prompt, make=make),
        )
        for case, make, _ in curves
        if make is not synthetic.decay  # takes longer in 10 % of trials: its only target is the bias
    ]
    return [*bias, *prompt, *_settled()]


def _settled() -> list[Case]:
    """Return the cases of a setting without warm-up effects: auto must take few calls, and add no bias."""
    case = f"settled, CV {100 * CV:g} %"
    auto = functools.partial(_biases, make=synthetic.settled)
    return [
        Case(name="calls of the auto warm-up", case=case, target=most(FEW, "calls"), run=_calls),
        Case(name="bias after auto warm-up", case=case, target=most(0.003), run=auto, signed=True),
    ]


def _ends(warm_ups: WarmUps) -> list[int]:
    """Return for each trial the number of calls of the automatic warm-up."""
    rule = WarmupRule(max_calls=MOST_CALLS)
    return [
        next(n for n in range(1, len(times)) if rule.decide(times[:n], {each for each in events if each < n}))
        for times, events in zip(warm_ups.times.tolist(), warm_ups.disturbed, strict=True)
    ]


def _make(make: Make, rng: np.random.Generator, trials: int) -> WarmUps:
    return make(rng, trials, 2 * MOST_CALLS + MEASURED, cv=CV)


def _biases(rng: np.random.Generator, trials: int, *, make: Make) -> Array:
    """Return for each trial the median of the calls after the warm-up, relative to the true level, minus 1."""
    warm_ups = _make(make, rng, trials)
    after = [each[end : end + MEASURED] for each, end in zip(warm_ups.times, _ends(warm_ups), strict=True)]
    return np.asarray(np.median(after, axis=1) - 1)


def _prompt(rng: np.random.Generator, trials: int, *, make: Make) -> list[bool]:
    return [end <= PROMPT for end in _ends(_make(make, rng, trials))]


def _calls(rng: np.random.Generator, trials: int) -> Array:
    return np.asarray(_ends(_make(synthetic.settled, rng, trials)), dtype=np.float64)
