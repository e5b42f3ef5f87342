"""Which figures there are, in the order in which a report shows them.

Not covered: text around the figures, and where they are written.
"""

from __future__ import annotations

from collections.abc import Sequence

from bench.record import Record
from bench.report.figures.figure import Figure


def draw_all(
    records: Sequence[Record], *, typed: Sequence[str] | None = None, baseline: str | None = None
) -> list[Figure]:
    """Every figure for which these records hold data.

    Args:
        records: all of one sweep, whatever their status.
        typed: names of the settings in the order in which they were typed, which gives each its colour; None: in order
            of first appearance.
        baseline: name or swept values of the setting that others are compared with; its line in a legend says so.
    """
    # Here, because matplotlib takes a second to load and what imports this package may not draw at all.
    from bench.report.figures import (  # noqa: PLC0415
        break_even,
        e2e_distributions,
        roofline,
        throughput_vs_memory,
        token_timeline,
        ttft_vs_itl,
        warmup_curves,
    )
    from bench.report.figures.sheet import drawing  # noqa: PLC0415
    from bench.report.figures.shown import settings_shown  # noqa: PLC0415

    settings = settings_shown(records, typed=typed, baseline=baseline)
    with drawing():
        drawn = [
            warmup_curves.draw(settings),
            e2e_distributions.draw(settings),
            ttft_vs_itl.draw(settings),
            throughput_vs_memory.draw(settings),
            break_even.draw(settings),
            roofline.draw(settings),
            token_timeline.draw(settings),
        ]
    return [each for each in drawn if each is not None]
