"""The space of a search: which override keys are free, and which values each may take.

Values are kept as typed, because Hydra composes them so and they name a setting. How values are chosen is not part of
this module.
"""

from __future__ import annotations

import dataclasses
import itertools
import math
import random
from collections.abc import Iterator, Mapping

from bench.config.decimals import term

DIGITS, EXACT = 6, 18  # significant digits: enough to tell numbers apart; one more than any float needs
MILLIONTH = 1e-6
LISTED = 20  # values of a range that are written out; a longer range is shown by its bounds


@dataclasses.dataclass(frozen=True, kw_only=True)
class Choice:
    """A key that has one of several unordered values."""

    key: str
    values: tuple[str, ...]  # as typed, all different

    def __len__(self) -> int:
        return len(self.values)

    def text(self, position: int) -> str:
        """Return the value at a position."""
        return self.values[position]

    def shown(self) -> list[str]:
        """Return the values for people."""
        return list(self.values)


@dataclasses.dataclass(frozen=True, kw_only=True)
class Range:
    """A key that has a number from `low` to `high`, both included."""

    key: str
    low: float
    high: float
    step: float | None  # None: any number between
    is_int: bool
    is_log: bool = False  # distances are those of logarithms; only without a step

    def __len__(self) -> int:
        assert self.step is not None
        return round((self.high - self.low) / self.step) + 1

    def text(self, position: int) -> str:
        """Return the value at a position of a range with a step."""
        assert self.step is not None
        return str(term(self.low, self.step, position))

    def written(self, value: float) -> str:
        """Return a value as an override: with a step the nearest value of the range, else a short one.

        Without a step it has at least six digits, and as many as resolve a millionth of the range; the bounds are as
        typed.
        """
        if self.step is not None and self.step > 0:
            # Sums of 0.1 lead to 0.30000000000000004, which nobody would type.
            return self.text(min(max(0, round((value - self.low) / self.step)), len(self) - 1))
        if value in (self.low, self.high):
            return repr(float(value))
        shortest = (float(f"{value:.{digits}g}") for digits in range(DIGITS, EXACT))
        fine = abs(self.high - self.low) * MILLIONTH
        return repr(
            next((each for each in shortest if abs(each - value) <= fine and self.low <= each <= self.high), value)
        )

    def shown(self) -> list[str]:
        """Return the values for people; where there are many or infinitely many, their bounds."""
        if self.step is not None and len(self) <= LISTED:
            return [self.text(position) for position in range(len(self))]
        step = f" step {self.step!r}" if self.step is not None else " log" if self.is_log else ""
        return [f"{self.written(self.low)}..{self.written(self.high)}{step}"]


@dataclasses.dataclass(frozen=True, kw_only=True)
class Space:
    """All settings that a search may choose from."""

    fixed: dict[str, str]  # override key → value, the same in all
    parameters: tuple[Choice | Range, ...]

    def size(self) -> int | None:
        """Return how many settings there are; None: infinitely many."""
        if any(isinstance(each, Range) and each.step is None for each in self.parameters):
            return None
        return math.prod(len(each) for each in self.parameters)

    def shown(self) -> dict[str, list[str]]:
        """Return override key without its + → its values for people."""
        return {each.key.lstrip("+"): each.shown() for each in self.parameters}

    def holds(self, swept: Mapping[str, str]) -> bool:
        """Whether these values, by key without its +, form one of the settings."""
        if set(swept) != {each.key.lstrip("+") for each in self.parameters}:
            return False
        return all(_holds(each, swept[each.key.lstrip("+")]) for each in self.parameters)

    def examples(self) -> Iterator[dict[str, str]]:
        """Yield a few settings in which each value of each choice and the bounds of each range occur at least once."""
        columns = [_telling(each) for each in self.parameters]
        for row in range(max((len(column) for column in columns), default=1)):
            values = [column[row % len(column)] for column in columns]
            yield {each.key: value for each, value in zip(self.parameters, values, strict=True)}

    def examples_with(self, key: str, value: str, tries: int) -> Iterator[dict[str, str]]:
        """Yield other settings with one value, drawn at random from a fixed seed."""
        draw = random.Random(f"{key}={value}")  # noqa: S311 - reproducible, not a secret
        columns = {each.key: _telling(each) for each in self.parameters}
        several = math.prod(len(column) for each, column in columns.items() if each != key)
        if several <= tries:
            others = [each for each in columns if each != key]
            for row in itertools.product(*(columns[each] for each in others)):
                yield {**dict(zip(others, row, strict=True)), key: value}
            return
        for _ in range(tries):
            yield {each: draw.choice(column) for each, column in columns.items()} | {key: value}


def _telling(parameter: Choice | Range) -> list[str]:
    if isinstance(parameter, Choice):
        return list(parameter.values)
    return list(dict.fromkeys([parameter.written(parameter.low), parameter.written(parameter.high)]))


def _holds(parameter: Choice | Range, text: str) -> bool:
    if isinstance(parameter, Choice):
        return text in parameter.values
    try:
        value = float(text)
    except ValueError:
        return False
    if not parameter.low <= value <= parameter.high or (parameter.is_int and value != round(value)):
        return False
    if parameter.step is None:
        return True
    steps = (value - parameter.low) / parameter.step
    return math.isclose(steps, round(steps), abs_tol=1e-6)
