"""Estimates for jobs from earlier records: how long they take, and which of them this machine cannot run.

Only for planning: no result depends on it.
"""

from __future__ import annotations

import contextlib
import statistics
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from bench.config.schema import BenchmarkConfig
from bench.jobs.planning.fingerprint import changes
from bench.results.file_names import RECORD_NAME
from bench.results.record import Record, RecordError

RECORDS_READ, BYTES_READ = 500, 64 << 20  # of the newest ones, so that planning takes less time than a job


@dataclass(frozen=True, kw_only=True)
class History:
    """Earlier jobs in this environment."""

    durations_s: dict[str, list[float]] = field(default_factory=dict)  # trial id → of the jobs that were ok
    alike_s: dict[tuple[str, bool], list[float]] = field(default_factory=dict)  # (model, compiled?) → likewise
    limits: dict[str, str] = field(default_factory=dict)  # trial id → why it was skipped

    def estimate_s(self, config: BenchmarkConfig, trial_id: str | None = None) -> tuple[float | None, bool]:
        """Return the seconds that a job may take (None: unknown), and whether this very setting has run before.

        `trial_id` is the config's, where it has been computed already: there may be thousands.
        """
        if own := self.durations_s.get(trial_id or config.trial_id()):
            return statistics.median(own), True
        alike = self.alike_s.get(_kind(config.model.id, config.compile.mode))
        return (statistics.median(alike) if alike else None), False

    def total_s(self, config: BenchmarkConfig, trial_ids: Sequence[str], jobs: int) -> float | None:
        """Return the seconds that so many jobs may take together; None where nothing is known about any of them.

        Args:
            config: of one of them, for what is known of similar ones.
            trial_ids: of all of them, as far as they are known.
            jobs: how many there are; unknown ones are assumed to take as long as the others.
        """
        known_s = [statistics.median(self.durations_s[each]) for each in trial_ids if each in self.durations_s]
        own_s, known = self.estimate_s(config)
        if own_s is not None and not known:
            known_s.append(own_s)
        return statistics.mean(known_s) * jobs if known_s else None


_kept: dict[tuple[Path, ...], History] = {}


def history_of(places: list[Path], now: Mapping[str, str]) -> History:
    """Return `read_history` of these folders, read once per process; `remember` adds the jobs that have ended since."""
    key = tuple(each.absolute() for each in places)
    if key not in _kept:
        _kept[key] = read_history(places, now)
    return _kept[key]


def remember(record: Record) -> None:
    """Add a job that has just ended here to the histories that were read."""
    for history in _kept.values():
        if record.kind == "trial":
            history.limits.pop(record.trial_id, None)
            _take(history, record)


def read_history(places: list[Path], now: Mapping[str, str]) -> History:
    """Read the newest records below some folders (`multirun`, `outputs`)."""
    files: list[tuple[float, int, Path]] = []
    for place in places:
        for pattern in (f"*/{RECORD_NAME}", f"*/*/{RECORD_NAME}"):
            for path in place.glob(pattern):
                with contextlib.suppress(OSError):
                    files.append(((state := path.stat()).st_mtime, state.st_size, path))
    history, left_bytes = History(), BYTES_READ
    for _, size, path in sorted(files, reverse=True)[:RECORDS_READ]:
        if (left_bytes := left_bytes - size) < 0:
            break
        with contextlib.suppress(RecordError):
            record = Record.read(path)
            if record.kind == "trial" and not changes(record.fingerprint, now):
                _take(history, record)
    return history


def _take(history: History, record: Record) -> None:
    """Add a record. Newer ones come first: a setting that ran after it was skipped can run now."""
    if record.status == "skipped" and record.error is not None and record.trial_id not in history.durations_s:
        history.limits.setdefault(record.trial_id, record.error.message)
    elif record.status == "ok" and record.ended_at_s is not None:
        duration_s = record.ended_at_s - record.started_at_s
        history.durations_s.setdefault(record.trial_id, []).append(duration_s)
        model, compiled = (record.requested.get(section) for section in ("model", "compile"))
        if isinstance(model, dict) and isinstance(compiled, dict):
            history.alike_s.setdefault(_kind(model.get("id"), compiled.get("mode")), []).append(duration_s)


def _kind(model: object, mode: object) -> tuple[str, bool]:
    return str(model), mode is not None
