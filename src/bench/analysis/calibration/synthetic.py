"""Generate series and sweeps with known truth, to measure the error rates of this package's statistics.

All trials of a family are generated at once, from a generator that the caller seeds. Times are relative: the true level
is 1, noise is normal, and a CV is its standard deviation as a fraction of the level. Real machines are less regular: a
statistic that fails here also fails there, but success here does not imply success there.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from bench.analysis.calls.series import Array

Generator = np.random.Generator

SPIKE_SHARE, SPIKE_HEIGHT = 0.05, 0.5
STEP, RAMP, CYCLE, SECOND_LEVEL = 0.05, 0.05, 0.10, 0.10  # as fractions of the level; the cycle is peak to peak


@dataclass(frozen=True, kw_only=True)
class WarmUps:
    """Hold the first calls of many processes, each level from some call on."""

    times: Array  # trials × calls
    disturbed: list[set[int]]  # for each trial the positions of calls with an event


# ---- series of measured calls ----------------------------------------------------------------------------------------


def flat(rng: Generator, trials: int, n: int, *, cv: float) -> Array:
    """Generate one level with independent noise."""
    return 1 + cv * rng.standard_normal((trials, n))


def spikes(rng: Generator, trials: int, n: int, *, cv: float) -> Array:
    """Generate one level; each call is 50 % slower with a probability of 5 %, as when another program runs."""
    return flat(rng, trials, n, cv=cv) * (1 + SPIKE_HEIGHT * (rng.random((trials, n)) < SPIKE_SHARE))


def autoregressive(rng: Generator, trials: int, n: int, *, cv: float, rho: float) -> Array:
    """Generate one level with AR(1) noise of coefficient ρ, stationary from the first call."""
    shocks = rng.standard_normal((trials, n))
    noise = np.empty_like(shocks)
    noise[:, 0] = shocks[:, 0]
    for call in range(1, n):
        noise[:, call] = rho * noise[:, call - 1] + np.sqrt(1 - rho**2) * shocks[:, call]
    return 1 + cv * noise


def step(rng: Generator, trials: int, n: int, *, cv: float) -> Array:
    """Generate a step of 5 %, up or down, at a call in the middle half of the series."""
    at = rng.integers(n // 4, n - n // 4 + 1, (trials, 1))
    return flat(rng, trials, n, cv=cv) * (1 + STEP * _signs(rng, trials) * (np.arange(n) >= at))


def ramp(rng: Generator, trials: int, n: int, *, cv: float) -> Array:
    """Generate a linear drift of 5 % from the first call to the last, up or down, as when a machine heats up."""
    return flat(rng, trials, n, cv=cv) * (1 + RAMP * _signs(rng, trials) * np.arange(n) / (n - 1))


def cycle(rng: Generator, trials: int, n: int, *, cv: float, periods: tuple[float, float], square: bool) -> Array:
    """Generate a cycle of 10 % peak to peak with a random phase and a period in calls: a sine or a square wave.

    Periods are drawn uniformly from the range. A sine with a period of two calls may be invisible, depending on its
    phase; fast cycles therefore have longer periods.
    """
    turns = np.arange(n) / rng.uniform(*periods, (trials, 1)) + rng.random((trials, 1))
    wave = np.where(turns % 1 < 0.5, 1.0, -1.0) if square else np.sin(2 * np.pi * turns)
    return flat(rng, trials, n, cv=cv) * (1 + CYCLE / 2 * wave)


def bimodal(rng: Generator, trials: int, n: int, *, cv: float) -> Array:
    """Generate two levels 10 % apart; each call is at either level with probability 0.5."""
    return flat(rng, trials, n, cv=cv) * (1 + SECOND_LEVEL * (rng.random((trials, n)) < 0.5))


# ---- first calls -----------------------------------------------------------------------------------------------------


def settled(rng: Generator, trials: int, n: int, *, cv: float) -> WarmUps:
    """Generate series that are level from the first call on."""
    return WarmUps(times=flat(rng, trials, n, cv=cv), disturbed=[set() for _ in range(trials)])


def step_down(rng: Generator, trials: int, n: int, *, cv: float) -> WarmUps:
    """Generate series whose first 2 to 6 calls are 30 % slower, without a reported event."""
    slow = np.arange(n) < rng.integers(2, 7, (trials, 1))
    return WarmUps(times=flat(rng, trials, n, cv=cv) * (1 + 0.3 * slow), disturbed=[set() for _ in range(trials)])


def graph_capture(rng: Generator, trials: int, n: int, *, cv: float) -> WarmUps:
    """Generate a CUDA graph capture: the first two calls take 3 and 2 times as long, the third 10 % (cold caches)."""
    excess = np.zeros(n)
    excess[:3] = (2.0, 1.0, 0.1)
    return WarmUps(times=flat(rng, trials, n, cv=cv) * (1 + excess), disturbed=[{0, 1} for _ in range(trials)])


def autotune(rng: Generator, trials: int, n: int, *, cv: float) -> WarmUps:
    """Generate an autotuning first call, which takes twenty times as long."""
    excess = np.zeros(n)
    excess[0] = 19.0
    return WarmUps(times=flat(rng, trials, n, cv=cv) * (1 + excess), disturbed=[{0} for _ in range(trials)])


def late_recompile(rng: Generator, trials: int, n: int, *, cv: float) -> WarmUps:
    """Generate a recompilation in one of calls 3 to 8, which takes 10 times as long; earlier calls are 5 % slower."""
    at = rng.integers(2, 8, (trials, 1))
    excess = 0.05 * (np.arange(n) < at) + 9.0 * (np.arange(n) == at)
    return WarmUps(times=flat(rng, trials, n, cv=cv) * (1 + excess), disturbed=[{int(each)} for each in at[:, 0]])


def decay(rng: Generator, trials: int, n: int, *, cv: float) -> WarmUps:
    """Generate an excess of 30 % that decays by a factor of e every four calls, without a reported event."""
    excess = 0.3 * np.exp(-np.arange(n) / 4)
    return WarmUps(times=flat(rng, trials, n, cv=cv) * (1 + excess), disturbed=[set() for _ in range(trials)])


# ---- sweeps ----------------------------------------------------------------------------------------------------------


def sweeps(
    rng: Generator,
    trials: int,
    *,
    settings: int,
    repeats: int,
    process_sd: float,
    cv: float,
    calls: int = 20,
    shift: float = 0.0,
    drift: float = 0.0,
) -> Array:
    """Generate settings with equal times, except the last one; each repeat is a process with its own level.

    Args:
        rng: seeded by the caller.
        trials: number of sweeps.
        settings: number of settings per sweep.
        repeats: processes per setting; repeat i of all settings is block i, which runs in a random order.
        process_sd: standard deviation of the processes' levels, as a fraction.
        cv: CV of the calls of a process.
        calls: measured calls per process.
        shift: slowdown of the last setting, as a fraction.
        drift: growth of all times from the first process of the sweep to the last, a fraction, linear in run order.

    Returns:
        Trials × settings × repeats × calls.
    """
    shape = (trials, settings, repeats)
    levels = 1 + process_sd * rng.standard_normal(shape)
    levels[:, -1] *= 1 + shift
    places = rng.permuted(np.broadcast_to(np.arange(settings)[:, None], shape), axis=1)
    levels *= 1 + drift * (places + settings * np.arange(repeats)) / max(1, settings * repeats - 1)
    return levels[..., None] * (1 + cv * rng.standard_normal((*shape, calls)))


def correlated_pairs(
    rng: Generator,
    trials: int,
    *,
    repeats: int,
    process_sds: tuple[float, float],
    rho: float = 0.0,
    cv: float,
    calls: int = 20,
    shift: float = 0.0,
) -> Array:
    """Generate two settings whose processes in a block are correlated; each repeat is a process with its own level.

    A positive correlation models conditions shared by a block; a negative one models processes that disturb each
    other, or an effect of the position in the block. Levels are log-normal, so that both settings have the same
    geometric mean for any standard deviations.

    Args:
        rng: seeded by the caller.
        trials: number of pairs.
        repeats: processes per setting; repeat i of both is block i.
        process_sds: standard deviations of the log levels of each setting's processes.
        rho: correlation of the two log levels of a block.
        cv: CV of the calls of a process.
        calls: measured calls per process.
        shift: slowdown of the second setting, as a fraction.

    Returns:
        Trials × 2 × repeats × calls.
    """
    shared, own = rng.standard_normal((2, trials, repeats))
    scores = np.stack([shared, rho * shared + np.sqrt(1 - rho**2) * own], axis=1)
    levels = np.exp(scores * np.asarray(process_sds)[:, None])
    levels[:, 1] *= 1 + shift
    return np.asarray(levels[..., None] * (1 + cv * rng.standard_normal((trials, 2, repeats, calls))))


def _signs(rng: Generator, trials: int) -> Array:
    return rng.choice([-1.0, 1.0], (trials, 1))
