"""Time the commands that measure nothing: help, the config, a refusal, a dry run of a thousand points.

Each is timed as a separate process, from its start to its end. All run once per round, because drift then affects all
alike. `python -c pass`, the minimum for any such command, is timed beside them.
"""

from __future__ import annotations

import sys
from collections.abc import Callable, Sequence

from overhead_bench import running
from overhead_bench.figures import Figure, Options, Result, interleaved

TITLE = "latency of commands that measure nothing"
REFUSED = 2  # expected exit status
POINTS = ("workload.batch_size=range(1,41)", "workload.sequence_length=range(1,26)")  # 40 × 25
# name: arguments, exit status, seconds at most
COMMANDS: dict[str, tuple[Sequence[str], int, float]] = {
    "--help": (["--help"], 0, 1.0),
    "--cfg job": (["--cfg", "job"], 0, 1.0),
    "a config error: compile.mode=defualt": (["compile.mode=defualt"], REFUSED, 1.0),
    "dry run of 1,000 points": (["-m", "sweep.dry_run=true", *POINTS], 0, 15.0),
}
FLOOR = "python -c pass"


def measure(options: Options) -> Result:
    """Time all commands in every round."""

    def run(command: Sequence[str], status: int) -> Callable[[], float]:
        return lambda: running.timed(command, options.folder, status=status)[0]

    arms = {name: run(running.bench(*arguments), status) for name, (arguments, status, _) in COMMANDS.items()}
    arms[FLOOR] = run([sys.executable, "-P", "-c", "pass"], 0)
    for name, arm in arms.items():  # once, to load the files into the page cache
        if not name.startswith("dry run"):
            arm()
    found = interleaved(arms, 2 if options.quick else 2 * options.repeats)
    figures = [
        Figure(name=name, unit="s", values=values, at_most=COMMANDS[name][2] if name in COMMANDS else None)
        for name, values in found.items()
    ]
    return Result(figures=figures)
