"""Ranges of numbers counted in decimals, as a user does it.

Hydra adds up binary fractions: range(1.1,1.4,0.1) holds 1.2000000000000002 there. The shortest decimal that makes a
float is what was typed, so sums of those decimals are what was meant.
"""

from __future__ import annotations

import math
import sys
from collections.abc import Sequence
from decimal import Decimal, localcontext
from typing import overload

DIGITS = 60  # of the sums: no two floats within reach of each other need more


def decimal(number: float) -> Decimal:
    """The shortest decimal that stands for this number."""
    return Decimal(repr(number))


def term(start: float, step: float, position: int) -> float:
    """The number at a position, from 0, of an arithmetic series."""
    if isinstance(start, int) and isinstance(step, int):
        return start + position * step
    with localcontext(prec=DIGITS):
        return float(decimal(start) + position * decimal(step))


class Series(Sequence[float]):
    """The numbers of range(start, stop, step), computed as they are asked for: there may be very many.

    Raises:
        ValueError: a step of 0, or a bound that is no finite number.
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
