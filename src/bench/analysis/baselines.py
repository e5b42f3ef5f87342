"""Find the settings of a sweep with which others are compared."""

from __future__ import annotations

from collections.abc import Sequence

from bench.analysis.settings import Setting
from bench.config.baseline import find_baselines


def baseline_ids(settings: Sequence[Setting], wanted: str | None) -> set[str]:
    """Return the `setting_id` of each setting that is a baseline; empty if `wanted` is None or names nothing.

    Args:
        settings: in the order in which they were typed.
        wanted: as in `bench.config.baseline.find_baselines`.
    """
    if wanted is None:
        return set()
    try:
        found = find_baselines([(each.name, each.swept) for each in settings], wanted)
    except ValueError:
        return set()
    return {settings[position].setting_id for position in found if position is not None}
