"""Which figures there are, in the order in which a report shows them.

Not covered: text around the figures, and where they are written.
"""

from __future__ import annotations

import importlib
import logging
import os
from collections.abc import Sequence

from bench.report.figures.figure import Figure
from bench.report.setting_view import SettingView
from bench.results.record import Record


def import_figures() -> None:
    """Import all that draws: matplotlib takes half a second to load, and what imports this package may not draw."""
    os.environ.pop("MPLBACKEND", None)  # only files are drawn; a name that matplotlib does not know would end it
    # A home folder that is read-only costs it a cache and nothing else: no matter for the terminal.
    logging.getLogger("matplotlib").setLevel(logging.ERROR)
    importlib.import_module("bench.report.figures.drawing.sheet")


def draw_all(
    trials: Sequence[Record], settings: Sequence[SettingView], *, faults: list[str] | None = None
) -> list[Figure]:
    """Draw every figure for which these records hold data.

    Args:
        trials: all records of one sweep, whatever their status, without reference runs.
        settings: theirs.
        faults: takes a line for each figure that could not be drawn, whatever the reason.
    """
    import_figures()
    from bench.report.figures import (  # noqa: PLC0415
        break_even,
        e2e_distributions,
        phases,
        roofline,
        throughput_vs_memory,
        token_timeline,
        ttft_vs_itl,
        warmup_curves,
    )
    from bench.report.figures.drawing.sheet import drawing  # noqa: PLC0415
    from bench.report.figures.drawing.shown_settings import with_calls  # noqa: PLC0415

    shown = with_calls(settings)
    of_settings = (
        warmup_curves, e2e_distributions, ttft_vs_itl, throughput_vs_memory, break_even, roofline, token_timeline,
    )  # fmt: skip
    drawn = []
    for figure, data in (*((each, shown) for each in of_settings), (phases, trials)):
        try:
            with drawing():
                drawn.append(figure.draw(data))
        except Exception as error:  # noqa: BLE001 - whatever a plotting library raises costs that one figure
            if faults is not None:
                faults.append(f"{figure.KEY}: {type(error).__name__}: {error}")
    return [each for each in drawn if each is not None]
