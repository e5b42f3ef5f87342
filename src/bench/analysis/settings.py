"""Group processes by setting, and find the differences that prevent or qualify a comparison of two settings.

A setting is the common part of the repeats of a sweep, and the unit of every comparison is the process: each repeat
gives one median and its uncertainty from the process's own calls. ``bench.analysis.comparison`` judges them; the
requested settings (attention, compilation) are the object of the comparison and no difference here.

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
# The keys that identify a model. Its number format is a choice for speed like any other.
MODEL_KEYS = ("model.id", "model.revision", "model.gguf_file", "model.weights", "model.architecture", "model.seed")
PROMPT_KEY = "workload.prompt_file"
UNKNOWN = "–"
# The device's name identifies the GPU of a job; its number only distinguishes jobs that run at the same time.
_NOT_NAMED = ("CUDA_VISIBLE_DEVICES",)

# The words for the steadiness of a process: in a column, and in a sentence. Unsteady ones come first.
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
    """Hold the median of one process of a setting, and its uncertainty."""

    repeat: int = 1  # the block of the sweep in which it ran
    median_s: float
    noise: float | None = None  # relative standard error of the median, from the noise of the calls; None for one call


@dataclass(frozen=True, kw_only=True)
class Difference:
    """Describe a difference of two settings apart from the setting itself."""

    key: str
    a: str  # as text, several values with commas between them; "–" if not known
    b: str
    bars: bool  # whether it prevents a verdict; the others are only named


@dataclass(kw_only=True)
class Setting:
    """Hold all processes of one setting; `records` are the ok ones, at most one per repeat."""

    name: str
    setting_id: str
    swept: dict[str, str] = field(default_factory=dict)
    records: list[Record] = field(default_factory=list)
    lost: dict[str, int] = field(default_factory=dict)  # status → repeats that ended so
    lost_reason: str | None = None  # how the first of them ended, in one line
    every: list[Record] = field(default_factory=list)  # the record that counts for each repeat, with any status

    @property
    def steady(self) -> tuple[int, int]:
        """Return the number of processes judged steady, and of all processes."""
        judged = [each.steadiness is not None and each.steadiness.steady is True for each in self.records]
        return sum(judged), len(judged)

    @property
    def unsteady(self) -> list[Record]:
        """Return the processes judged unsteady; one that could not be judged is not included."""
        return [each for each in self.records if each.steadiness is not None and each.steadiness.steady is False]

    @property
    def not_warm(self) -> list[Record]:
        """Return the processes that were measured although their warm-up did not converge."""
        return [each for each in self.records if each.warmup_status == "not_converged"]

    @property
    def wrong(self) -> list[Record]:
        """Return the processes whose output differs from the reference's."""
        return [each for each in self.records if each.fidelity is not None and each.fidelity.agrees is False]

    @property
    def unverified(self) -> list[Unverified]:
        """Return what the evidence could not confirm; if not empty, the setting is marked *unverified*."""
        return unverified_in(self.records)


def unverified_in(records: Iterable[Record]) -> list[Unverified]:
    """Return what the evidence of a setting could not confirm in at least one process, each key and reason once.

    A setting with any is marked *unverified*, and may be ranked with the mark. Only ok processes count, because the
    status of any other says more; a reference run is not a process of a setting.

    Args:
        records: of one setting, with any status.
    """
    counted = (each for each in records if each.status == "ok" and each.kind != "reference")
    return list(dict.fromkeys(found for each in counted for found in each.unverified))


def steady_words(records: Sequence[Record]) -> str:
    """Tell whether these processes were steady, for a narrow column: one word if all agree, otherwise counts.

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

    Records from different copies of a library belong to different settings (`bench.analysis.code_sources`). If a repeat
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
    the gaps of one call depend on each other, so their noise is computed from the medians of the calls.
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
    """Return one time of a metric for each measured call that has it, in seconds: for ITL the median of the call."""
    return _one_a_call(_measured(record, metric))


def noise_of_median(values: Sequence[float], *, correlation: float | None = None) -> float | None:
    """Return the relative standard error of the median of a series of times; None for fewer than two or for zeros.

    From 6 values on it is the width of the median's rank interval on the log scale divided by that of a normal
    distribution with the same confidence (Price and Bonett, "Estimating the variance of the sample median", 2001),
    which is valid for any distribution; in simulations it is a tenth too large for 20 normal values and a third for 6.
    Below 6 it is √(π / 2) × SD / √n, as for normal noise. Correlated successive calls count as the number of
    independent ones that `series.effective_n` gives.

    Args:
        values: the times of successive calls, in any unit.
        correlation: of successive values, if known better than from these few; None: estimated from them, which makes
            the noise of 20 independent calls too large by another tenth, because some series correlate by chance.
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
    """Return differences that make two settings incomparable, then those to name beside a comparison.

    Model, workload and device prevent a verdict. Library versions and copies, driver, host, neighbours, environment
    variables and the class of the KV cache are named: they may be the object of the comparison. Prompt files are
    compared by content if the records have it. A setting without an ok process has no differences.
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
    """Return the properties that two records must share to be compared: key → its value as text."""
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
    """Return the setting's name; for a single run, which has none, its model's name."""
    return record.name or asked(record, "model.id") or "model without a name"


def ending_of(record: Record) -> str:
    """Say in one line how a job ended that is not ok."""
    if record.error is None:
        return f"{record.status} in {record.stage or 'no known stage'}"
    if record.status == "skipped":
        return " ".join(f"skipped: {record.error.message}".split())
    where = f" in {record.stage}" if record.stage else ""
    return " ".join(f"{record.status}{where}: {record.error.type}: {record.error.message}".split())


def asked(record: Record, key: str) -> Any:
    """Return the requested value of a dotted config key; None if the request does not contain it."""
    section, leaf = key.split(".")
    values = record.requested.get(section)
    return values.get(leaf) if isinstance(values, dict) else None


# ---- times -----------------------------------------------------------------------------------------------------------


def _measured(record: Record, metric: str) -> list[list[float]]:
    return [each for each in (_times(call, metric) for call in record.calls("measurement")) if each]


def _one_a_call(values: list[list[float]]) -> list[float]:
    return [call[0] if len(call) == 1 else float(np.median(call)) for call in values]


def _times(call: Iteration, metric: str) -> list[float]:
    """Return one call's times of a metric, in seconds; [] if it has none."""
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
    """Replace the difference of the prompt files' paths with that of their contents.

    The paths are compared if a record lacks the content of its prompt file.
    """
    if any(asked(each, PROMPT_KEY) is not None and prompt_digest_of(each) is None for each in (*a, *b)):
        return found
    others = [each for each in found if each.key != PROMPT_KEY]
    if {prompt_digest_of(each) for each in a} == {prompt_digest_of(each) for each in b}:
        return others
    left, right = (_text({_prompt(each) for each in side}) for side in (a, b))
    return [*others, Difference(key=PROMPT_KEY, a=left, b=right, bars=True)]


def prompt_digest_of(record: Record) -> str | None:
    """Return the SHA-256 of the prompt file's content; None for the built-in text, or if not known."""
    return record.observed.prompt_digest if record.observed is not None else None


def _prompt(record: Record) -> str:
    digest = prompt_digest_of(record)
    return UNKNOWN if digest is None else f"{asked(record, PROMPT_KEY)} (SHA-256 {digest[:12]})"


def _text(values: set[str] | None) -> str:
    return ", ".join(sorted(values)) if values else UNKNOWN


def _identity(record: Record) -> Iterator[tuple[str, Any]]:
    """Return the properties that must agree: model, work and device."""
    for key in MODEL_KEYS:
        yield key, asked(record, key)
    workload = record.requested.get("workload")
    for name, value in workload.items() if isinstance(workload, dict) else ():
        yield f"workload.{name}", value
    if record.observed is not None:
        yield "device", record.observed.device_name
        yield "model commit", record.observed.revision


def _circumstances(record: Record) -> Iterator[tuple[str, Any]]:
    """Return the properties that are named if they differ."""
    environment = record.environment
    yield from (environment.get("versions") or {}).items()
    yield from differing_copies(record).items()
    yield "driver", (environment.get("gpu") or {}).get("driver")
    yield "host", environment.get("hostname")
    beside = record.neighbours
    # Records of an earlier version, or of a host that could not be queried, have none either.
    yield "jobs beside it", beside.count if beside is not None and beside.count else "none known"
    for variable, value in (environment.get("variables") or {}).items():
        if variable not in _NOT_NAMED:
            yield variable, value
    if record.observed is not None:
        yield "KV cache", record.observed.kv_cache
