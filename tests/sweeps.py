"""Build sweeps with known times, as records and as a sweep folder."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from bench.results.file_names import SWEEP_NAME
from bench.results.record import Record
from factories import STARTED_AT_S, make_iteration, make_record

EAGER = (1.000, 1.010, 0.990, 1.005, 0.995)
SDPA = (0.902, 0.907, 0.893, 0.903, 0.897)  # about 10 % less
NEAR = (1.000, 1.030, 0.960, 1.020, 0.985)  # not distinguishable from EAGER


def job(name: str, e2e_s: float, repeat: int = 1, *, ttft_s: float = 0.1, **changes: Any) -> Record:
    """Build the record of one process with 20 calls that all take `e2e_s`."""
    gap_s = (e2e_s - 0.01 - ttft_s) / 4
    iterations = [make_iteration(0, "validation", ttft_s=5.0)]
    iterations += [make_iteration(index, "measurement", ttft_s=ttft_s, gap_s=gap_s) for index in range(1, 21)]
    fields = {
        "name": name,
        "trial_id": f"t-{name}",
        "swept": {"attention": name},
        "repeat": repeat,
        "iterations": iterations,
        "started_at_s": STARTED_AT_S + 100 * repeat,
    }
    return make_record(**fields | changes)


def jobs(times: Mapping[str, Sequence[float]], **changes: Any) -> list[Record]:
    """Build the records block by block."""
    repeats = range(max(map(len, times.values())))
    return [job(name, each[at], at + 1, **changes) for at in repeats for name, each in times.items() if at < len(each)]


def sweep(folder: Path, records: Sequence[Record], **plan: Any) -> Path:
    """Write a sweep folder as `python -m bench -m` does, without a plan if none is given."""
    names = [f"{number}_{each.name}" for number, each in enumerate(records)]
    for name, record in zip(names, records, strict=True):
        (folder / name).mkdir(parents=True)
        record.write(folder / name)
    if plan:
        data = {"sweep_id": "night-1", "parent_run_id": None, "jobs": [{"folder": name} for name in names]}
        (folder / SWEEP_NAME).write_text(json.dumps(data | plan))
    return folder
