"""Decide which settings of a sweep may be ranked, with which marks, for which reasons, and in which order.

A setting is *ranked*, and may then be called fastest, if at least one process is ok, no output differs from the
reference's, and in more than half of the processes the warm-up converged and the measured calls were steady. Fewer
doubtful processes only widen the interval of a comparison. A process that is too noisy or too short to judge does not
count as doubtful, and incomplete evidence gives a mark and no reason.

Every view (terminal, report, CSV, MLflow, Python, search, comparison) shows this decision and makes no other. The same
rules apply to one trial, which is a setting of one process.

Not covered: whether one ranked setting is faster than another; `bench.analysis.comparison` judges that.
"""

from __future__ import annotations

import statistics
from collections.abc import Sequence
from dataclasses import dataclass

from bench.analysis.calls.steadiness import deciding_flags
from bench.analysis.settings import (
    PROMPT_KEY,
    UNKNOWN,
    Setting,
    ending_of,
    identity,
    prompt_digest_of,
    steadiness_counts,
)
from bench.results.record import STATUSES, Record

# Kinds of reasons in deciding order, and the mark of each. A status needs no mark: every view shows it as a word.
MARKS = {"status": "", "output": "≠", "warm-up": "~", "unsteady": "!", "no calls": ""}
DIGEST_SHOWN = 12  # characters
UNVERIFIED = "?"  # the mark of a setting with incomplete evidence; it may be ranked
LOWEST = "*"  # the mark of the lowest median among comparable ranked settings
# If only the amount of work differs, the rate stays comparable; other prompts or models are different work.
FAIR_ON_RATE = frozenset({"workload.batch_size", "workload.num_tokens_to_generate"})


@dataclass(frozen=True, kw_only=True)
class Reason:
    """Hold one reason why a setting is not ranked."""

    kind: str  # one of MARKS
    title: str  # the same words for every setting with a reason of this kind
    text: str  # with the details of this setting, in one line


@dataclass(frozen=True, kw_only=True)
class Standing:
    """State whether the processes of one setting, or one trial, may be ranked."""

    status: str  # "ok" if any process is ok, otherwise the worst status
    reasons: tuple[Reason, ...]  # in deciding order; empty if ranked
    is_unverified: bool

    @property
    def is_ranked(self) -> bool:
        """Tell whether it may be called fastest."""
        return not self.reasons

    @property
    def marks(self) -> str:
        """Return the marks of the reasons in deciding order, then that of unverified, e.g. "≠!"; "" for none."""
        found = [MARKS[each.kind] for each in self.reasons]
        return "".join(found) + UNVERIFIED * (self.is_unverified and self.status == "ok")

    def has(self, kind: str) -> bool:
        """Tell whether one of the reasons is of this kind."""
        return any(each.kind == kind for each in self.reasons)


@dataclass(frozen=True, kw_only=True)
class RankedSetting:
    """Hold one setting at its position in the order of a sweep, whether ranked or not."""

    setting: Setting
    standing: Standing
    e2e_s: float | None  # median over the ok processes of each one's median E2E; None without a measured call


def rank(settings: Sequence[Setting]) -> list[RankedSetting]:
    """Put the settings of a sweep in order: ranked ones by E2E, then the others by status, kind of reason and E2E.

    Args:
        settings: as `bench.analysis.settings.settings_of` makes them. Equal ones keep their order.
    """
    return sorted(
        (RankedSetting(setting=each, standing=standing_of_setting(each), e2e_s=e2e_of(each)) for each in settings),
        key=_order,
    )


def standing_of_setting(setting: Setting) -> Standing:
    """Decide whether a setting may be ranked, over all its processes."""
    return standing_of(setting.every or setting.records)


def standing_of(records: Sequence[Record]) -> Standing:
    """Decide whether the processes of one setting may be ranked; for one trial the sequence holds its record alone.

    Args:
        records: with any status, at least one; each repeat once.
    """
    counted = [each for each in records if each.status == "ok"]
    status = "ok" if counted else max((each.status for each in records), key=STATUSES.index, default="skipped")
    reasons = _reasons(counted) if counted else [_of_status(status, records)]
    return Standing(
        status=status,
        reasons=tuple(reasons),
        is_unverified=any(each.unverified for each in counted),
    )


def e2e_of(setting: Setting) -> float | None:
    """Return the headline figure, which orders settings: the median of the ok processes' median E2E, in s."""
    series = [[call.e2e_s for call in each.calls("measurement")] for each in setting.records]
    medians_s = [statistics.median(each) for each in series if each]
    return statistics.median(medians_s) if medians_s else None


def lowest(ranking: Sequence[RankedSetting]) -> list[RankedSetting]:
    """Return the setting with the lowest median, or all of them if several have it.

    Returns:
        [] if fewer than two settings are ranked, or if those did not all do the same work.
    """
    ranked = [each for each in ranking if each.standing.is_ranked]
    if len(ranked) < 2 or len(comparable_groups([each.setting for each in ranked])) > 1:
        return []
    return [each for each in ranked if each.e2e_s == ranked[0].e2e_s]


# ---- comparable work -------------------------------------------------------------------------------------------------


def comparable_groups(settings: Sequence[Setting]) -> list[list[Setting]]:
    """Return settings of the same model, work and device, in order of first appearance."""
    groups: dict[tuple[tuple[str, str], ...], list[Setting]] = {}
    for each in settings:
        groups.setdefault(tuple(sorted(work_of(each).items())), []).append(each)
    return list(groups.values())


def work_of(setting: Setting) -> dict[str, str]:
    """Return model, work and device of the ok processes: key → value, several separated by commas, known ones only."""
    texts = {key: ", ".join(sorted(values)) for key, values in work_values(setting).items()}
    return {key: text for key, text in texts.items() if text != UNKNOWN}


def work_values(setting: Setting) -> dict[str, set[str]]:
    """Return the same as sets of values. A prompt file counts by its content if the record has it, not by its path."""
    found: dict[str, set[str]] = {}
    for record in setting.records:
        for key, value in identity(record).items():
            digest = prompt_digest_of(record) if key == PROMPT_KEY else None
            found.setdefault(key, set()).add(value if digest is None else f"SHA-256 {digest[:DIGEST_SHOWN]}")
    return found


def shown_work(setting: Setting, key: str) -> str:
    """Return the value of one key of the work for display: of a prompt file its path."""
    values = {identity(record).get(key, UNKNOWN) for record in setting.records}
    return ", ".join(sorted(values)) or UNKNOWN


def differing_keys(settings: Sequence[Setting]) -> list[str]:
    """Return the keys of model, work and device in which these settings differ; [] if they are comparable."""
    works = [work_of(each) for each in settings]
    keys = dict.fromkeys(key for work in works for key in work)
    return [key for key in keys if len({work.get(key, UNKNOWN) for work in works}) > 1]


# ---- reasons ---------------------------------------------------------------------------------------------------------


def _reasons(counted: Sequence[Record]) -> list[Reason]:
    """Return the reasons against ranking processes that are all ok."""
    wrong = [each for each in counted if each.fidelity is not None and each.fidelity.agrees is False]
    cold = [each for each in counted if each.warmup_status == "not_converged"]
    unsteady = [each for each in counted if each.steadiness is not None and each.steadiness.steady is False]
    doubtful = {id(each) for each in (*cold, *unsteady)}
    is_doubtful = bool(doubtful) and 2 * len(doubtful) >= len(counted)
    found = []
    if wrong:
        found.append(_of_output(wrong, counted))
    if is_doubtful and cold:
        found.append(_of_warmup(cold, counted))
    if is_doubtful and unsteady:
        found.append(_of_unsteadiness(unsteady, counted))
    if not any(each.calls("measurement") for each in counted):
        found.append(_reason("no calls", "it has no measured call"))
    return found


def _of_status(status: str, records: Sequence[Record]) -> Reason:
    ended = [each for each in records if each.status == status]
    return Reason(kind="status", title=status, text=ending_of(ended[0]) if ended else status)


def _of_output(wrong: Sequence[Record], counted: Sequence[Record]) -> Reason:
    why = next((each.fidelity.reason for each in wrong if each.fidelity is not None), None)
    return _reason("output", "its output differs from the reference's", _share(wrong, counted), why)


def _of_warmup(cold: Sequence[Record], counted: Sequence[Record]) -> Reason:
    return _reason("warm-up", "its warm-up did not converge", _share(cold, counted), cold[0].warmup_stop)


def _of_unsteadiness(unsteady: Sequence[Record], counted: Sequence[Record]) -> Reason:
    judged = [each.steadiness for each in unsteady if each.steadiness is not None]
    flags = ", ".join(dict.fromkeys(flag for each in judged for flag in deciding_flags(each)))
    counts = steadiness_counts(counted) if len(counted) > 1 else ""
    return _reason("unsteady", "it was unsteady during measurement", counts, flags)


def _share(some: Sequence[Record], counted: Sequence[Record]) -> str:
    return f"in {len(some)} of {len(counted)} processes" if len(counted) > 1 else ""


def _reason(kind: str, title: str, *details: str | None) -> Reason:
    told = "; ".join(" ".join(each.split()) for each in details if each)
    return Reason(kind=kind, title=title, text=f"{title} ({told})" if told else title)


# ---- order -----------------------------------------------------------------------------------------------------------


def _order(place: RankedSetting) -> tuple[int, int, float]:
    """Return the sort key: ranked ones come first, because they are ok and have no first reason."""
    first = next((list(MARKS).index(each.kind) for each in place.standing.reasons), -1)
    e2e_s = float("inf") if place.e2e_s is None else place.e2e_s
    return STATUSES.index(place.standing.status), first, e2e_s
