"""Draw the plots of a sweep's report, as SVG for a page or for a separate file.

``draw_all`` returns those with data. matplotlib is loaded at its first call and not before.
"""

from bench.report.figures.all import draw_all
from bench.report.figures.figure import Figure, standalone

__all__ = ["Figure", "draw_all", "standalone"]
