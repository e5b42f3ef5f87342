"""Write the mark *unverified*: after a name, below a table, in a row, and in the last lines of a sweep.

``bench.analysis.settings`` decides which settings have the mark, and why.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence

from bench.analysis.ranking import UNVERIFIED
from bench.analysis.settings import settings_of
from bench.report.text.format import listed, one_line, plural
from bench.results.record import Record, Unverified

MARK, WORD = UNVERIFIED, "unverified"
REASON_SHOWN = 200  # characters, in the last line of a sweep


def words(found: Iterable[Unverified]) -> str | None:
    """Return the keys and reasons of one setting in a line, grouped by reason; None if there are none."""
    texts = [f"{', '.join(keys)}: {reason}" for reason, keys in _by_reason(found).items()]
    return "; ".join(texts) or None


def notes(settings: Sequence[tuple[str, Sequence[Unverified]]]) -> list[str]:
    """Return the lines that explain the mark: one for each reason, with its keys and the names of the settings.

    Args:
        settings: name and unconfirmed keys of all settings that have figures.
    """
    reasons: dict[str, dict[str, list[str]]] = {}
    for name, found in settings:
        for reason, keys in _by_reason(found).items():
            for key in keys:
                reasons.setdefault(reason, {}).setdefault(key, []).append(name)
    return [f"{MARK} {WORD}: {_keys_with_names(keys, len(settings))}: {why}" for why, keys in reasons.items()]


def count_line(records: Sequence[Record]) -> str | None:
    """Say how many settings are unverified, and in which keys, for the last lines of a sweep; None if none is.

    Args:
        records: of the sweep, with any status.
    """
    marked = [found for each in settings_of(records) if (found := each.unverified)]
    if not marked:
        return None
    reasons = _by_reason(each for found in marked for each in found)
    keys = ", ".join(dict.fromkeys(key for keys in reasons.values() for key in keys))
    why = next(iter(reasons)) if len(reasons) == 1 else f"{len(reasons)} reasons, below the table"
    cut = why if len(why) <= REASON_SHOWN else f"{why[:REASON_SHOWN]} …"
    return f"{plural(len(marked), 'setting')} {WORD}: {keys}: {cut}"


def _by_reason(found: Iterable[Unverified]) -> dict[str, list[str]]:
    """Return reason → keys, each once."""
    reasons: dict[str, dict[str, None]] = {}
    for each in found:
        reasons.setdefault(one_line(each.reason) or "no reason is known", {})[one_line(each.key)] = None
    return {reason: list(keys) for reason, keys in reasons.items()}


def _keys_with_names(keys: Mapping[str, Sequence[str]], settings: int) -> str:
    """Return keys with their settings, grouped by equal settings; without names if there is one setting."""
    together: dict[tuple[str, ...], list[str]] = {}
    for key, names in keys.items():
        together.setdefault(tuple(names), []).append(key)
    parts = []
    for names, alike in together.items():
        where = "" if settings == 1 else " in all settings" if len(names) == settings else f" in {listed(names)}"
        parts.append(f"{', '.join(alike)}{where}")
    return "; ".join(parts)
