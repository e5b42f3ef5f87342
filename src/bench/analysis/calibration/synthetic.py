"""Series and sweeps whose truth is known, for measuring how often the statistics of this package are right.

All trials of a family are made at once, from a generator that the caller seeds. Times are relative: the true level is
1, noise is normal, and a CV is its standard deviation as a fraction of the level. What real machines do is less tidy;
a test that fails here will fail there, and not the other way round.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from bench.analysis.calls.series import Array

Generator = np.random.Generator

SPIKE_SHARE, SPIKE_HEIGHT = 0.05, 0.5
STEP, RAMP, CYCLE, SECOND_LEVEL = 0.05, 0.05, 0.10, 0.10  # as fractions of the level; the cycle's from peak to peak


@dataclass(frozen=True, kw_only=True)
class WarmUps:
    """First calls of many processes, level from some call on."""

    times: Array  # trials × calls
    disturbed: list[set[int]]  # for each trial the positions of calls with an event


# ---- series of measured calls ----------------------------------------------------------------------------------------


def flat(rng: Generator, trials: int, n: int, *, cv: float) -> Array:
    """One level and independent noise."""
    return 1 + cv * rng.standard_normal((trials, n))


def spikes(rng: Generator, trials: int, n: int, *, cv: float) -> Array:
    """One level, and each call with a probability of 5 % half as slow again, as when another program runs."""
    return flat(rng, trials, n, cv=cv) * (1 + SPIKE_HEIGHT * (rng.random((trials, n)) < SPIKE_SHARE))


def autoregressive(rng: Generator, trials: int, n: int, *, cv: float, rho: float) -> Array:
    """One level and noise of which each call keeps the share ρ of the call before: AR(1), stationary from the start."""
    shocks = rng.standard_normal((trials, n))
    noise = np.empty_like(shocks)
    noise[:, 0] = shocks[:, 0]
    for call in range(1, n):
        noise[:, call] = rho * noise[:, call - 1] + np.sqrt(1 - rho**2) * shocks[:, call]
    return 1 + cv * noise


def step(rng: Generator, trials: int, n: int, *, cv: float) -> Array:
    """A change of level by 5 %, up or down, at a call in the middle half of the series."""
    at = rng.integers(n // 4, n - n // 4 + 1, (trials, 1))
    return flat(rng, trials, n, cv=cv) * (1 + STEP * _signs(rng, trials) * (np.arange(n) >= at))


def ramp(rng: Generator, trials: int, n: int, *, cv: float) -> Array:
    """A straight drift of 5 % from the first call to the last, up or down, as when a machine grows warm."""
    return flat(rng, trials, n, cv=cv) * (1 + RAMP * _signs(rng, trials) * np.arange(n) / (n - 1))


def cycle(rng: Generator, trials: int, n: int, *, cv: float, periods: tuple[float, float], square: bool) -> Array:
    """A cycle of 10 % from peak to peak, at any phase, with a period of so many calls; a sine or a square wave.

    Periods are drawn from the range evenly. A sine of two calls a period may show nothing at all, according to its
    phase; fast ones begin above that.
    """
    turns = np.arange(n) / rng.uniform(*periods, (trials, 1)) + rng.random((trials, 1))
    wave = np.where(turns % 1 < 0.5, 1.0, -1.0) if square else np.sin(2 * np.pi * turns)
    return flat(rng, trials, n, cv=cv) * (1 + CYCLE / 2 * wave)


def bimodal(rng: Generator, trials: int, n: int, *, cv: float) -> Array:
    """Two levels 10 % apart, and each call by the toss of a coin on one or the other."""
    return flat(rng, trials, n, cv=cv) * (1 + SECOND_LEVEL * (rng.random((trials, n)) < 0.5))


# ---- first calls -----------------------------------------------------------------------------------------------------


def settled(rng: Generator, trials: int, n: int, *, cv: float) -> WarmUps:
    """Level from the first call on."""
    return WarmUps(times=flat(rng, trials, n, cv=cv), disturbed=[set() for _ in range(trials)])


def step_down(rng: Generator, trials: int, n: int, *, cv: float) -> WarmUps:
    """The first 2 to 6 calls are 30 % slower, and nothing reports why."""
    slow = np.arange(n) < rng.integers(2, 7, (trials, 1))
    return WarmUps(times=flat(rng, trials, n, cv=cv) * (1 + 0.3 * slow), disturbed=[set() for _ in range(trials)])


def graph_capture(rng: Generator, trials: int, n: int, *, cv: float) -> WarmUps:
    """The first two calls record CUDA graphs and take three times and twice as long; one more finds cold caches."""
    excess = np.zeros(n)
    excess[:3] = (2.0, 1.0, 0.1)
    return WarmUps(times=flat(rng, trials, n, cv=cv) * (1 + excess), disturbed=[{0, 1} for _ in range(trials)])


def autotune(rng: Generator, trials: int, n: int, *, cv: float) -> WarmUps:
    """The first call tries kernels and takes twenty times as long."""
    excess = np.zeros(n)
    excess[0] = 19.0
    return WarmUps(times=flat(rng, trials, n, cv=cv) * (1 + excess), disturbed=[{0} for _ in range(trials)])


def late_recompile(rng: Generator, trials: int, n: int, *, cv: float) -> WarmUps:
    """A call from the third to the eighth compiles again, ten times as slow; those before it are 5 % slower."""
    at = rng.integers(2, 8, (trials, 1))
    excess = 0.05 * (np.arange(n) < at) + 9.0 * (np.arange(n) == at)
    return WarmUps(times=flat(rng, trials, n, cv=cv) * (1 + excess), disturbed=[{int(each)} for each in at[:, 0]])


def decay(rng: Generator, trials: int, n: int, *, cv: float) -> WarmUps:
    """30 % slower at first, and closer to the level by a factor e every four calls; nothing reports why."""
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
    """Settings that take the same time but for the last one, each repeat a process with a level of its own.

    Args:
        rng: seeded by the caller.
        trials: sweeps to make.
        settings: of each sweep.
        repeats: processes of each setting; repeat i of all settings is block i, which runs in a random order.
        process_sd: standard deviation of the processes' levels, as a fraction.
        cv: of the calls of a process.
        calls: measured in each process.
        shift: by which the last setting is slower, as a fraction.
        drift: growth of all times from the first process of the sweep to the last, linear in the order of running.

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
    """Two settings whose processes in one block are correlated, each repeat a process with a level of its own.

    A positive correlation is what a block shares; a negative one is that of processes that disturb each other, or of
    an effect of the position in the block. Levels are log-normal, so that both settings have the same geometric mean
    whatever their deviations.

    Args:
        rng: seeded by the caller.
        trials: pairs to make.
        repeats: processes of each setting; repeat i of both is block i.
        process_sds: standard deviations of the log levels of each setting's processes.
        rho: correlation of the two log levels of a block.
        cv: of the calls of a process.
        calls: measured in each process.
        shift: by which the second setting is slower, as a fraction.

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
