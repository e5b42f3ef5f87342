"""The processes of each setting, and what stands between two settings that one wants to compare."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field

from bench.record import Record

METRICS = ("e2e", "ttft", "itl", "tpot")


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
    a: str  # as text; "–" where it is not known
    b: str
    bars: bool  # whether it bars a verdict; the others are only named


@dataclass(kw_only=True)
class Setting:
    """All processes of one setting; `records` are the ok ones, at most one a repeat."""

    name: str
    setting_id: str
    swept: dict[str, str] = field(default_factory=dict)
    records: list[Record] = field(default_factory=list)
    lost: dict[str, int] = field(default_factory=dict)  # status → repeats that ended so
    lost_reason: str | None = None  # how the first of them ended, in one line

    @property
    def steady(self) -> tuple[int, int]:
        """Processes that were judged steady, and all."""
        return sum(each.steadiness is not None and each.steadiness.steady is True for each in self.records), len(
            self.records
        )


def settings_of(records: Sequence[Record]) -> list[Setting]:
    """The settings of these records, in order of first appearance; reference runs are left out."""
    raise NotImplementedError


def processes(setting: Setting, metric: str) -> dict[int, Process]:
    """Repeat → the process's median of one of METRICS over its measured calls; without those that have none."""
    raise NotImplementedError


def differences(a: Setting, b: Setting) -> list[Difference]:
    """What makes two settings incomparable, or must be named beside a comparison; those that bar come first."""
    raise NotImplementedError
