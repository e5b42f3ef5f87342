"""Measure how often the statistics are right: `python -m bench.analysis.calibrate`.

For each property that the statistics must hold, many series or sweeps are made whose truth is known, and a row says
how often the statistic was right, the 95 % bounds of that rate (exact, Clopper-Pearson; of a mean by Student's t), the
target, and whether it is met. A row is MISSED when its bounds lie wholly beyond the target (where n rows measure one
property, its bounds at 1 - 5 %/n); where the rate alone is beyond, it is "met (within noise)": more trials tell. A bias
is the mean over all trials of a signed deviation, for its chance part comes from the calls measured and not from the
rule. Rows that are computed at once have ten times the trials. Seeds are fixed row by row.

The trials are synthetic: that the statistics suit a real machine, a sweep of a setting beside itself shows there.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Callable, Iterator, Sequence

from bench.analysis.calibration import level, verdicts, warmup
from bench.analysis.calibration.rows import MISSED, WITHIN_NOISE, Case, Row, measure
from bench.cli.subcommands import Parser, run

WORD = "calibrate"
TRIALS = 300
HEADER = ("property", "case", "measured", "95 % bounds", "target", "result")


def cases() -> list[Case]:
    """Return all cases, one per row, before they are measured."""
    return [*verdicts.cases(), *level.cases(), *warmup.cases()]


def calibrate(*, trials: int = TRIALS, seed: int = 0) -> Iterator[Row]:
    """Measure the rows one by one."""
    return (measure(case, trials=trials, seed=seed) for case in cases())


def cells(row: Row) -> tuple[str, ...]:
    """Return the cells of a row as text."""
    show = row.target.show
    bounds = f"{show(row.low)} … {show(row.high)}"
    return (row.name, row.case, show(row.measured), bounds, str(row.target), row.verdict)


def as_text(rows: Sequence[Row]) -> str:
    """Return the rows as a text table with aligned columns."""
    table = [HEADER, *map(cells, rows)]
    widths = [max(len(line[column]) for line in table) for column in range(len(HEADER))]
    lines = ("  ".join(text.ljust(width) for text, width in zip(line, widths, strict=True)) for line in table)
    return "\n".join(line.rstrip() for line in lines)


def as_markdown(rows: Sequence[Row]) -> str:
    """Return the rows as a Markdown table."""
    lines = [HEADER, ("---",) * len(HEADER), *map(cells, rows)]
    return "\n".join(f"| {' | '.join(line)} |" for line in lines)


def conclusion(rows: Sequence[Row], trials: int, seed: int) -> str:
    """Return the last line: the number of rows, their trials and seed, and the number of missed rows."""
    missed = sum(row.verdict == MISSED for row in rows)
    near = sum(row.verdict == WITHIN_NOISE for row in rows)
    more = [row.trials for row in rows if row.trials > trials]
    exceptions = f" ({len(more)} of {max(more)})" if more else ""
    return f"{len(rows)} rows of {trials} trials{exceptions}, seed {seed}: {missed} missed, {near} met within noise"


def main(arguments: Sequence[str] | None = None) -> int:
    """Print the table; return 0 if every target is met, 1 if one is missed, 2 for wrong arguments."""
    return run(WORD, lambda: _run(_parser().parse_args(arguments)))


def _parser() -> argparse.ArgumentParser:
    parser = Parser(WORD, description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("--trials", type=_at_least(2), default=TRIALS, help="of each row (default %(default)s)")
    parser.add_argument("--seed", type=_at_least(0), default=0, help="default %(default)s")
    parser.add_argument("--format", choices=("text", "markdown"), default="text", help="default %(default)s")
    return parser


def _run(asked: argparse.Namespace) -> int:
    rows = list(calibrate(trials=asked.trials, seed=asked.seed))
    print((as_markdown if asked.format == "markdown" else as_text)(rows))
    print(f"\n{conclusion(rows, asked.trials, asked.seed)}")
    return int(any(row.verdict == MISSED for row in rows))


def _at_least(fewest: int) -> Callable[[str], int]:
    def number(text: str) -> int:
        value = int(text)
        if value < fewest:
            raise argparse.ArgumentTypeError(f"at least {fewest}")
        return value

    return number


if __name__ == "__main__":
    sys.exit(main())
