"""Say in lines why settings are not ranked or judged: different work, no verdict, unreliable figures, doubts.

Two settings are comparable if ``bench.analysis.settings.differences`` prevents no verdict: all processes of both ran
the same work, key by key. Nothing is judged here.

Not covered: which setting is best, and how much faster; ``answer`` says that.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence

from bench.analysis.comparison import FEWEST_PROCESSES, Comparison
from bench.analysis.ranking import comparable_groups, differing_keys, work_values
from bench.analysis.settings import asked, steadiness_counts
from bench.report.quantities import E2E
from bench.report.setting_view import SettingView
from bench.report.text import unverified
from bench.report.text.format import listed, one_line

NAMES_SHOWN = 4

# ---- comparable work -----------------------------------------------------------------------------------------------


def groups_of(settings: Sequence[SettingView]) -> list[list[SettingView]]:
    """Return settings of the same model, work and device, in order of first appearance."""
    by_id = {each.setting.setting_id: each for each in settings}
    groups = comparable_groups([each.setting for each in settings])
    return [[by_id[each.setting_id] for each in group] for group in groups]


def differing_between(groups: Sequence[Sequence[SettingView]]) -> list[str]:
    """Return the keys in which the groups differ."""
    return differing_keys([group[0].setting for group in groups]) or ["what is known of them"]


def unlike_processes(settings: Sequence[SettingView]) -> list[str]:
    """Return settings whose own processes did not all run the same model and work on the same device."""
    kinds: dict[str, list[str]] = {}
    for each in settings:
        several = {key: sorted(values) for key, values in work_values(each.setting).items() if len(values) > 1}
        if several:
            kinds.setdefault("; ".join(f"{key} {_listed(values)}" for key, values in several.items()), []).append(
                each.name
            )
    return [f"processes of one setting differ ({one_line(kind)}): {listed(names)}" for kind, names in kinds.items()]


def _listed(values: Sequence[str]) -> str:
    return f"{', '.join(values[:-1])} and {values[-1]}"


# ---- omissions with reasons ----------------------------------------------------------------------------------------


def not_ranked(settings: Sequence[SettingView]) -> list[str]:
    """Name settings left out of the ranking, one line per kind of reason; the table has the details."""
    kinds: dict[str, list[str]] = {}
    for each in settings:
        kinds.setdefault(each.standing.reasons[0].title, []).append(each.name)
    return [f"not ranked ({reason}): {listed(names)}" for reason, names in kinds.items()]


def not_judged(ranked: Sequence[SettingView], comparisons: Sequence[Comparison]) -> list[str]:
    """Name ranked settings that were not tested although others were, one line per reason, with their E2E."""
    judged = [each for each in comparisons if each.verdict.p is not None]
    done = {each.setting_id for each in judged} | {each.baseline_id for each in judged}
    reasons = {each.setting_id: one_line(each.verdict.reason or "no verdict") for each in comparisons}
    kinds: dict[str, list[str]] = {}
    for each in ranked:
        if each.setting.setting_id not in done:
            reason = reasons.get(each.setting.setting_id, "no baseline to compare it with")
            kinds.setdefault(reason, []).append(f"{each.name} ({each.text(E2E)} ms)")
    return [f"not judged ({reason}): {listed(names)}" for reason, names in kinds.items()]


def why_no_verdict(settings: Sequence[SettingView], comparisons: Sequence[Comparison]) -> str:
    """Say why there is only a lowest median, and what would give a verdict."""
    if max(each.processes for each in settings) == 1:
        repeats = max(_repeats_asked(each) for each in settings)
        remedy = "sweep.repeats=5 would tell"
        if repeats >= FEWEST_PROCESSES:
            remedy = f"{repeats} were asked for, and going on with the sweep (sweep.resume=true) would tell"
        return f"Descriptive, not a verdict: each setting ran in one process, and processes differ; {remedy}."
    reasons = Counter(one_line(each.verdict.reason) for each in comparisons if each.verdict.reason).most_common(1)
    why = reasons[0][0] if reasons else "nothing was compared"
    return f"Descriptive, not a verdict: {why}."


def _repeats_asked(setting: SettingView) -> int:
    return max(repeats if isinstance(repeats := asked(each, "sweep.repeats"), int) else 1 for each in setting.records)


def doubts(setting: SettingView) -> list[str]:
    """Say which doubts there are about the figures of a setting that is named anyway."""
    found = []
    if setting.steady in ("few", "noisy"):
        why = "too few" if setting.steady == "few" else "too noisy"
        found.append(f"{setting.name}: its calls are {why} to tell whether they were steady")
    elif " " in setting.steady:
        found.append(f"{setting.name}: {steadiness_counts(setting.counted)}")
    if (unseen := unverified.words(setting.unverified)) is not None:
        found.append(f"{setting.name} is {unverified.WORD}: {unseen}")
    return found
