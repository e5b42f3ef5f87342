"""The processes of each setting, and what stands between two settings that one wants to compare.

A setting is what the repeats of a sweep have in common, and the unit of every comparison is the process: each repeat
gives one median, together with how well its own calls determine it. Judging comes later, in
``bench.analysis.comparison``; what a setting was asked to do differently (its attention, its compilation) is what one
compares and is no difference here.

Not covered: differences that a record does not hold, such as other load on the machine.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from scipy.special import bdtr, ndtri  # type: ignore[import-untyped]

from bench.analysis.calls.series import effective_n, lag1_autocorrelation, median_rank
from bench.analysis.code_sources import differing_copies, pool_ids, pool_marks
from bench.results.record import Iteration, Record, Unverified

METRICS = ("e2e", "ttft", "itl", "tpot")
# The keys that make a model another one. Its number format is a choice for speed like any other.
MODEL_KEYS = ("model.id", "model.revision", "model.gguf_file", "model.weights", "model.architecture", "model.seed")
PROMPT_KEY = "workload.prompt_file"
UNKNOWN = "–"
# Which GPU a job was given is told by the device's name; its number only tells jobs side by side apart.
_NOT_NAMED = ("CUDA_VISIBLE_DEVICES",)

# How the steadiness of a process is told: in a column, and in a sentence. What speaks against it stands first.
_STEADY = {
    "no": "unsteady",
    "yes": "steady",
    "noisy": "too noisy to tell",
    "few": "with too few calls to tell",
    UNKNOWN: "not judged",
}

_Facts = Callable[[Record], Iterator[tuple[str, Any]]]


@dataclass(frozen=True, kw_only=True)
class Process:
    """What one process of a setting has to say: one median, and how well its calls determine it."""

    repeat: int = 1  # the block of the sweep in which it ran
    median_s: float
    noise: float | None = None  # relative standard error of the median, from the calls' own noise; None for one call


@dataclass(frozen=True, kw_only=True)
class Difference:
    """Something beside the setting itself in which two settings differ."""

    key: str
    a: str  # as text, several values with commas between them; "–" where it is not known
    b: str
    bars: bool  # whether it bars a verdict; the others are only named


@dataclass(kw_only=True)
class Setting:
    """All processes of one setting; `records` are the ok ones, at most one per repeat."""

    name: str
    setting_id: str
    swept: dict[str, str] = field(default_factory=dict)
    records: list[Record] = field(default_factory=list)
    lost: dict[str, int] = field(default_factory=dict)  # status → repeats that ended so
    lost_reason: str | None = None  # how the first of them ended, in one line
    every: list[Record] = field(default_factory=list)  # of each repeat the record that counts, with any status

    @property
    def steady(self) -> tuple[int, int]:
        """Return processes that were judged steady, and all of them."""
        judged = [each.steadiness is not None and each.steadiness.steady is True for each in self.records]
        return sum(judged), len(judged)

    @property
    def unsteady(self) -> list[Record]:
        """Return the processes that were judged unsteady; one that could not be judged is not among them."""
        return [each for each in self.records if each.steadiness is not None and each.steadiness.steady is False]

    @property
    def not_warm(self) -> list[Record]:
        """Return the processes that were measured although their warm-up never became level."""
        return [each for each in self.records if each.warmup_status == "not_converged"]

    @property
    def wrong(self) -> list[Record]:
        """Return the processes whose output differs from the reference's."""
        return [each for each in self.records if each.fidelity is not None and each.fidelity.agrees is False]

    @property
    def unverified(self) -> list[Unverified]:
        """Return what its evidence could not see; with anything in it the setting is marked *unverified*."""
        return unverified_in(self.records)


def unverified_in(records: Iterable[Record]) -> list[Unverified]:
    """Return what the evidence of a setting could not see in at least one process, each key and reason once.

    A setting with any is marked *unverified*, and may be ranked with the mark. Processes that came through count, for
    the status of any other says more; a reference run is no process of a setting.

    Args:
        records: of one setting, with any status.
    """
    counted = (each for each in records if each.status == "ok" and each.kind != "reference")
    return list(dict.fromkeys(found for each in counted for found in each.unverified))


def steady_words(records: Sequence[Record]) -> str:
    """Tell whether these processes were steady, for a narrow column: one word where all agree, else counts.

    The words are "yes", "no", "noisy" (too noisy to tell), "few" (too few calls) and "–";
    counts look like "2 no 3 yes".
    """
    words = [_steady_word(each) for each in records]
    counts = {word: words.count(word) for word in _STEADY if word in words}
    if len(counts) < 2:
        return words[0] if words else UNKNOWN
    return " ".join(f"{count} {word}" for word, count in counts.items())


def steadiness_counts(records: Sequence[Record]) -> str:
    """Return the same in full words: "2 of 5 processes unsteady, 3 too noisy to tell"; "" without a record."""
    words = [_steady_word(each) for each in records]
    counts = {word: words.count(word) for word in _STEADY if word in words}
    parts = [f"{count} {_STEADY[word]}" for word, count in counts.items()]
    if not parts:
        return ""
    first, count = _STEADY[next(iter(counts))], next(iter(counts.values()))
    processes = "process" if len(words) == 1 else "processes"
    return ", ".join([f"{count} of {len(words)} {processes} {first}", *parts[1:]])


def _steady_word(record: Record) -> str:
    seen = record.steadiness
    if seen is None:
        return UNKNOWN
    if seen.steady is None:
        return "few" if seen.power == "too few calls" else "noisy"
    return "yes" if seen.steady else "no"


def settings_of(records: Sequence[Record]) -> list[Setting]:
    """Return the settings of these records, in order of first appearance; reference runs are left out.

    Records from different copies of a library are of different settings (`bench.analysis.code_sources`). Where a repeat
    was run several times, its last ok record counts; it is lost only if none was ok.
    """
    groups: dict[str, dict[int, Record]] = {}
    trials = [each for each in records if each.kind != "reference"]
    for record, pool in zip(trials, pool_ids(trials), strict=True):
        repeats = groups.setdefault(pool, {})
        known = repeats.get(record.repeat)
        if known is None or record.status == "ok" or known.status != "ok":
            repeats[record.repeat] = record
    marks = pool_marks(trials)
    return [_setting(pool, list(repeats.values()), marks[pool]) for pool, repeats in groups.items()]


def processes(setting: Setting, metric: str) -> dict[int, Process]:
    """Return repeat → the process's median of one of METRICS over its measured calls.

    A process without such a time (no measured call, or no token times) is left out. ITLs are pooled over the calls;
    the gaps of one call depend on each other, so their noise is that of the calls' own medians.
    """
    assert metric in METRICS, metric
    found = {}
    for record in setting.records:
        values = _measured(record, metric)
        median_s = float(np.median([time_s for call in values for time_s in call])) if values else 0.0
        if median_s > 0:
            noise = noise_of_median(_one_a_call(values))
            found[record.repeat] = Process(repeat=record.repeat, median_s=median_s, noise=noise)
    return found


def call_times(record: Record, metric: str) -> list[float]:
    """Return one time of a metric for each measured call that has it, in seconds: of ITLs the call's own median."""
    return _one_a_call(_measured(record, metric))


def noise_of_median(values: Sequence[float], *, correlation: float | None = None) -> float | None:
    """Return the relative standard error of the median of a series of times; None for fewer than two, or times of 0.

    From 6 values on it is the width of the median's rank interval on the log scale over that of a normal law with the
    same confidence (Price and Bonett, "Estimating the variance of the sample median", 2001), which holds whatever the
    law of the values; simulated for 20 normal ones it is a tenth too large, for 6 a third. Below 6 it is √(π / 2) × SD
    / √n, as for normal noise. Successive calls that are correlated count for as many independent ones as
    `series.effective_n` has it.

    Args:
        values: the times of successive calls, in any unit.
        correlation: of successive ones, where it is known better than these few values tell it; None: from them, which
            makes the noise of 20 independent calls too large by another tenth: chance alone correlates some series.
    """
    if len(values) < 2 or min(values) <= 0:
        return None
    logs = np.log(np.asarray(values, dtype=np.float64))
    n = len(logs)
    rank = median_rank(n)
    if rank is None:
        error = math.sqrt(math.pi / 2 / n) * float(np.std(logs, ddof=1))
    else:
        ordered = np.sort(logs)
        width = float(ordered[n - rank] - ordered[rank - 1])
        error = width / (-2 * float(ndtri(bdtr(rank - 1, n, 0.5))))
    known = lag1_autocorrelation(logs) if correlation is None else correlation
    return error * math.sqrt(n / effective_n(n, known))


def differences(a: Setting, b: Setting) -> list[Difference]:
    """Return what makes two settings incomparable, or must be named beside a comparison; those that bar come first.

    Model, workload and device bar a verdict. Library versions and copies, driver, host, neighbours, environment
    variables and the class of the KV cache are named: they may be the very thing that one compares. Prompt files are
    compared by their content where the records know it. Nothing is said of a setting without an ok process.
    """
    if not a.records or not b.records:
        return []
    barring, named = (
        [
            Difference(key=key, a=left, b=right, bars=bars)
            for key, (left, right) in _side_by_side(a.records, b.records, facts).items()
            if left != right
        ]
        for facts, bars in ((_identity, True), (_circumstances, False))
    )
    return [*_with_prompts_by_content(barring, a.records, b.records), *named]


def identity(record: Record) -> dict[str, str]:
    """Return what must agree between two records for their times to be compared: key → its value as text."""
    return {key: UNKNOWN if value is None else str(value) for key, value in _identity(record)}


# ---- grouping --------------------------------------------------------------------------------------------------------


def _setting(setting_id: str, records: list[Record], mark: str) -> Setting:
    lost: dict[str, int] = {}
    reasons = []
    for record in records:
        if record.status != "ok":
            lost[record.status] = lost.get(record.status, 0) + 1
            reasons.append(ending_of(record))
    return Setting(
        name=title_of(records[0]) + mark,
        setting_id=setting_id,
        swept=records[0].swept,
        records=[each for each in records if each.status == "ok"],
        lost=lost,
        lost_reason=reasons[0] if reasons else None,
        every=records,
    )


def title_of(record: Record) -> str:
    """Return the setting's name; for a single run, which has none, its model's."""
    return record.name or asked(record, "model.id") or "model without a name"


def ending_of(record: Record) -> str:
    """Say how a job ended that is not ok, in one line."""
    if record.error is None:
        return f"{record.status} in {record.stage or 'no known stage'}"
    if record.status == "skipped":
        return " ".join(f"skipped: {record.error.message}".split())
    where = f" in {record.stage}" if record.stage else ""
    return " ".join(f"{record.status}{where}: {record.error.type}: {record.error.message}".split())


def asked(record: Record, key: str) -> Any:
    """Return the requested value of a dotted config key; None where the request does not say."""
    section, leaf = key.split(".")
    values = record.requested.get(section)
    return values.get(leaf) if isinstance(values, dict) else None


# ---- times -----------------------------------------------------------------------------------------------------------


def _measured(record: Record, metric: str) -> list[list[float]]:
    return [each for each in (_times(call, metric) for call in record.calls("measurement")) if each]


def _one_a_call(values: list[list[float]]) -> list[float]:
    return [call[0] if len(call) == 1 else float(np.median(call)) for call in values]


def _times(call: Iteration, metric: str) -> list[float]:
    """Return one call's times of a metric, in seconds; [] where it has none."""
    if metric == "e2e":
        return [call.e2e_s]
    if metric == "ttft":
        return call.token_times_s[:1]
    if len(call.token_times_s) < 2:
        return []
    return call.itl_s if metric == "itl" else [call.tpot_s]


# ---- differences -----------------------------------------------------------------------------------------------------


def _side_by_side(a: Iterable[Record], b: Iterable[Record], facts: _Facts) -> dict[str, tuple[str, str]]:
    """Return key → its values in both settings, as text."""
    sides: tuple[dict[str, set[str]], dict[str, set[str]]] = ({}, {})
    for side, records in zip(sides, (a, b), strict=True):
        for record in records:
            for key, value in facts(record):
                side.setdefault(key, set()).add(UNKNOWN if value is None else str(value))
    left, right = sides
    return {key: (_text(left.get(key)), _text(right.get(key))) for key in left | right}


def _with_prompts_by_content(found: list[Difference], a: Sequence[Record], b: Sequence[Record]) -> list[Difference]:
    """Replace the difference of the prompt files' paths by that of their contents.

    The paths must do where a record does not know the content of its prompt file.
    """
    if any(asked(each, PROMPT_KEY) is not None and prompt_digest_of(each) is None for each in (*a, *b)):
        return found
    others = [each for each in found if each.key != PROMPT_KEY]
    if {prompt_digest_of(each) for each in a} == {prompt_digest_of(each) for each in b}:
        return others
    left, right = (_text({_prompt(each) for each in side}) for side in (a, b))
    return [*others, Difference(key=PROMPT_KEY, a=left, b=right, bars=True)]


def prompt_digest_of(record: Record) -> str | None:
    """Return the SHA-256 of the prompt file's content; None for the built-in text and where it is not known."""
    return record.observed.prompt_digest if record.observed is not None else None


def _prompt(record: Record) -> str:
    digest = prompt_digest_of(record)
    return UNKNOWN if digest is None else f"{asked(record, PROMPT_KEY)} (SHA-256 {digest[:12]})"


def _text(values: set[str] | None) -> str:
    return ", ".join(sorted(values)) if values else UNKNOWN


def _identity(record: Record) -> Iterator[tuple[str, Any]]:
    """Return what must agree: the model, the work, the device."""
    for key in MODEL_KEYS:
        yield key, asked(record, key)
    workload = record.requested.get("workload")
    for name, value in workload.items() if isinstance(workload, dict) else ():
        yield f"workload.{name}", value
    if record.observed is not None:
        yield "device", record.observed.device_name
        yield "model commit", record.observed.revision


def _circumstances(record: Record) -> Iterator[tuple[str, Any]]:
    """Return what is named where it does not agree."""
    environment = record.environment
    yield from (environment.get("versions") or {}).items()
    yield from differing_copies(record).items()
    yield "driver", (environment.get("gpu") or {}).get("driver")
    yield "host", environment.get("hostname")
    beside = record.neighbours
    # Of an earlier version, or on a host that could not be asked, there are none known either.
    yield "jobs beside it", beside.count if beside is not None and beside.count else "none known"
    for variable, value in (environment.get("variables") or {}).items():
        if variable not in _NOT_NAMED:
            yield variable, value
    if record.observed is not None:
        yield "KV cache", record.observed.kv_cache
