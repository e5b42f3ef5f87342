"""Format figures, names and reasons for readers: four significant digits, and one line per reason.

It changes no figure: an undefined one (None) is written as a dash, never as 0. Text from users and libraries is made
safe for a terminal here (one line, no control characters), and callers print it as ``rich.text.Text``, in which
brackets are no markup.
"""

from __future__ import annotations

import math
import re
from collections.abc import Sequence

from bench.analysis.settings import asked, title_of
from bench.results.record import Record

UNDEFINED = "–"
STATUS_STYLES = {"ok": "green", "skipped": "yellow"}  # all others are red; the word says it without colour too
FAILURE_STYLE = "red"

_ANSI = re.compile(r"\x1b(\[[0-?]*[ -/]*[@-~]|\][^\x07\x1b]*(\x07|\x1b\\)?)")


def bare(value: str) -> str:
    """Return a swept value without the quotes of Hydra's grammar."""
    quote = value[:1]
    if len(value) < 2 or quote not in ("'", '"') or not value.endswith(quote):
        return value
    return value[1:-1].replace(f"\\{quote}", quote)


def significant(value: float | None, digits: int = 4) -> str:
    """Write so many significant digits, never in exponents: 0.01234, 98.10, 12350."""
    if value is None or not math.isfinite(value):
        return UNDEFINED
    if value == 0:
        return "0"
    rounded = float(f"{value:.{digits - 1}e}")
    decimals = digits - 1 - math.floor(math.log10(abs(rounded)))
    return f"{rounded:.{max(decimals, 0)}f}"


def milliseconds(duration_s: float | None, digits: int = 4) -> str:
    """Write seconds as a number of milliseconds."""
    return significant(None if duration_s is None else duration_s * 1e3, digits)


def mebibytes(size: float | None) -> str:
    """Write bytes as a number of MiB; integers from 1000 on."""
    if size is None:
        return UNDEFINED
    mib = size / 2**20
    return f"{mib:.0f}" if mib >= 1000 else significant(mib)


def percent(fraction: float | None, digits: int = 2) -> str:
    """Write a fraction as a number of percent."""
    return significant(None if fraction is None else fraction * 100, digits)


def plural(number: int, one: str, several: str = "") -> str:
    """Write a number with its noun; `several` is the plural if it is irregular."""
    return f"{number} {one if number == 1 else several or one + 's'}"


def listed(names: Sequence[str], most: int = 4) -> str:
    """Write the first names with commas between them, and how many more there are."""
    shown = ", ".join(names[:most])
    return shown if len(names) <= most else f"{shown} and {len(names) - most} more"


def clock(duration_s: float) -> str:
    """Write seconds as on a stopwatch: 0:31, 12:05, 1:02:03."""
    minutes, seconds = divmod(int(duration_s), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours}:{minutes:02}:{seconds:02}" if hours else f"{minutes}:{seconds:02}"


def one_line(text: str) -> str:
    """Return the text in one line, without escape sequences and control characters."""
    bare = _ANSI.sub("", text)
    return " ".join("".join(each if each.isprintable() else " " for each in bare).split())


def title(record: Record) -> str:
    """Return the setting's name; for a single run, which has none, its model."""
    return one_line(title_of(record))


def run_title(record: Record) -> str:
    """Return the setting's name, with the repeat if there are several."""
    several = record.repeat > 1 or (asked(record, "sweep.repeats") or 1) > 1
    return f"{title(record)} #{record.repeat}" if several else title(record)


def reason(record: Record) -> str:
    """Say in one line why a job is not ok; a skip's message suffices, other endings add stage and type."""
    if record.error is None:
        return f"ended in {record.stage or 'no known stage'}"
    if record.status == "skipped":
        return one_line(record.error.message)
    where = f"in {record.stage}: " if record.stage else ""
    return one_line(f"{where}{record.error.type}: {record.error.message}")


def status_style(status: str) -> str:
    """Return the colour of a status."""
    return STATUS_STYLES.get(status, FAILURE_STYLE)
