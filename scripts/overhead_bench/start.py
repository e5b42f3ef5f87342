"""Time the start of a job: from the parent's decision to the child's first instruction that concerns the model.

That is `start` (decision to the child's first instruction) and `import` (until its modules are imported) of the record.
Sweeps with isolation.mode=forkserver and spawn alternate; a sweep's figure is the median over its jobs. The first job
of a fork server waits for the server itself, which starts while MLflow is imported and settings are examined: it counts
as one of the jobs, and also has a row of its own.
"""

from __future__ import annotations

import statistics
from collections.abc import Sequence

from bench.results.record import Record
from overhead_bench import running
from overhead_bench.figures import Figure, NotMeasuredError, Options, Result, ratios

TITLE = "job start, forked from the server against a fresh interpreter"
AT_MOST = 1 / 20
JOBS = 5  # per sweep
FEW = ("warmup.iterations=0", "measurement.iterations=2", "workload.num_tokens_to_generate=4", "tracking=off")


def measure(options: Options) -> Result:
    """Time sweeps of both kinds in turn."""
    jobs = 2 if options.quick else JOBS
    rounds = 1 if options.quick else max(2, options.repeats // 2)
    found: dict[str, list[list[float]]] = {"forkserver": [], "spawn": []}
    imports: list[float] = []
    for number in range(rounds):
        for mode, each_sweep in found.items():
            name = f"{mode}-{number}"
            own = (f"isolation.mode={mode}", f"sweep.repeats={jobs}", "attention=sdpa", *FEW)
            records = running.trials(running.sweep(options.folder, name, options, *own)[1])
            each_sweep.append([start_s(each) for each in records])
            imports += [each.phases_s["import"] for each in records if mode == "forkserver"]
    forked, fresh = ([statistics.median(each) for each in found[mode]] for mode in ("forkserver", "spawn"))
    figures = [
        Figure(name="fork server / fresh", unit="×", values=ratios(forked, fresh), at_most=AT_MOST),
        Figure(name="fork server, each job", unit="s", values=_flat(found["forkserver"])),
        Figure(name="fork server, import alone", unit="s", values=imports),
        Figure(name="fork server, first job of a sweep", unit="s", values=[each[0] for each in found["forkserver"]]),
        Figure(name="fresh interpreter, each job", unit="s", values=_flat(found["spawn"])),
    ]
    return Result(figures=figures, raw=found)


def start_s(record: Record) -> float:
    """Return the seconds from the decision to start to the first instruction for the model."""
    phases = record.phases_s
    if "start" not in phases or "import" not in phases:
        raise NotMeasuredError("the records lack phases_s.start and phases_s.import")
    return phases["start"] + phases["import"]


def _flat(several: Sequence[Sequence[float]]) -> list[float]:
    return [value for each in several for value in each]
