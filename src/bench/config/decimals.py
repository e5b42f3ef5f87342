"""Compute ranges of numbers in decimal arithmetic, as a user expects.

Hydra adds binary fractions: its range(1.1,1.4,0.1) contains 1.2000000000000002. The shortest decimal that rounds to a
float is the number as typed, so sums of these decimals are the intended numbers.
"""

from __future__ import annotations

import math
import sys
from collections.abc import Sequence
from decimal import Decimal, localcontext
from typing import overload

DIGITS = 60  # precision of the sums: enough for floats of comparable magnitude


def decimal(number: float) -> Decimal:
    """Return the shortest decimal that rounds to this number."""
    return Decimal(repr(number))


def term(start: float, step: float, position: int) -> float:
    """Return the term of an arithmetic series at a position, counted from 0."""
    if isinstance(start, int) and isinstance(step, int):
        return start + position * step
    with localcontext(prec=DIGITS):
        return float(decimal(start) + position * decimal(step))


class Series(Sequence[float]):
    """Compute the numbers of range(start, stop, step) on access, because there may be very many.

    Raises:
        ValueError: a step of 0, or a bound or step that is not finite.
    """

    def __init__(self, start: float, stop: float, step: float) -> None:
        if not all(map(math.isfinite, (start, stop, step))):
            raise ValueError("a range needs finite numbers")
        if step == 0:
            raise ValueError("a range needs a step other than 0")
        if isinstance(start, int) and isinstance(stop, int) and isinstance(step, int):
            count = -((start - stop) // step)
        else:
            start, stop, step = float(start), float(stop), float(step)
            with localcontext(prec=DIGITS):
                count = math.ceil((decimal(stop) - decimal(start)) / decimal(step))
        self._start, self._step = start, step
        self._length = min(max(0, count), sys.maxsize)

    def __len__(self) -> int:
        return self._length

    @overload
    def __getitem__(self, position: int) -> float: ...

    @overload
    def __getitem__(self, position: slice) -> Sequence[float]: ...

    def __getitem__(self, position: int | slice) -> float | Sequence[float]:
        places = range(self._length)[position]
        return [self._at(each) for each in places] if isinstance(places, range) else self._at(places)

    def _at(self, position: int) -> float:
        return term(self._start, self._step, position)
