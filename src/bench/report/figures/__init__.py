"""The plots of a sweep's report, as SVG that stands in a page or alone.

``draw_all`` gives those for which there is data. matplotlib is loaded when it is called and not before.
"""

from bench.report.figures.all import draw_all
from bench.report.figures.figure import Figure, standalone

__all__ = ["Figure", "draw_all", "standalone"]
