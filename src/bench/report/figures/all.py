"""Draw all figures, in the order of the report.

Not covered: the text around the figures, and writing them to files.
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
    """Import all drawing modules: matplotlib loads in half a second, and importers of this package may not draw."""
    os.environ.pop("MPLBACKEND", None)  # only files are drawn; an unknown name would make matplotlib fail
    # With a read-only home folder matplotlib only lacks its cache, which the terminal need not show.
    logging.getLogger("matplotlib").setLevel(logging.ERROR)
    importlib.import_module("bench.report.figures.drawing.sheet")


def draw_all(
    trials: Sequence[Record], settings: Sequence[SettingView], *, faults: list[str] | None = None
) -> list[Figure]:
    """Draw every figure for which these records hold data.

    Args:
        trials: all records of one sweep, with any status, without reference runs.
        settings: of these records.
        faults: takes a line for each figure that could not be drawn, for any reason.
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
        except Exception as error:  # noqa: BLE001 - an error of a plotting library loses only that figure
            if faults is not None:
                faults.append(f"{figure.KEY}: {type(error).__name__}: {error}")
    return [each for each in drawn if each is not None]
