"""The Hydra door: overrides in, BenchmarkConfig out. Nothing past it knows Hydra.

It is also where the rooms meet: a job is run by `bench.sweep`, published by `bench.tracking` and shown by
`bench.report`, and none of the three knows the others. They are imported where they are used, so that `--help` and a
refused config answer at once.

Two entries: `job` runs one composed config, whatever launcher called it; `sweep` (called by the sweeper plugin) runs
many.
"""

from __future__ import annotations

import contextlib
import dataclasses
import io
import json
import os
import secrets
import shutil
import signal
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from datetime import datetime
from pathlib import Path
from typing import TYPE_CHECKING, NoReturn

import hydra
from hydra.core.config_store import ConfigStore
from hydra.core.hydra_config import HydraConfig
from hydra.errors import HydraException
from hydra.types import RunMode
from omegaconf import DictConfig, OmegaConf
from omegaconf.errors import OmegaConfBaseException
from rich.console import Console

from bench.config import BenchmarkConfig
from bench.record import Fidelity, Record, RecordError
from bench.rules import ConfigError
from bench.sweep.plan import Job, Plan, Point, claim, make_plan, read_plan, write_plan
from bench.wording import explain, help_text

if TYPE_CHECKING:
    from bench.tracking.publisher import Publisher

REFUSED, INTERRUPTED = 2, 130


def conf_folder() -> Path:
    """The folder of the YAML files: inside the package once installed, beside `src` in a checkout."""
    packaged = Path(__file__).parent / "conf"
    return packaged if packaged.is_dir() else Path(__file__).parents[2] / "conf"


def main() -> None:
    """Parse the command line with Hydra and run. A user's mistake costs one line and exit status 2."""
    _set_up_process()
    show_traceback = os.environ.get("HYDRA_FULL_ERROR") == "1"
    os.environ["HYDRA_FULL_ERROR"] = "1"  # makes Hydra raise its errors instead of printing several lines each
    _register()
    try:
        hydra.main(version_base="1.3", config_path=str(conf_folder()), config_name="config")(job)()
    except (ConfigError, HydraException, OmegaConfBaseException) as error:
        if show_traceback:
            raise
        _refuse(error)
    except BrokenPipeError:  # whoever read our output has read enough
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())  # else the end of Python tries once more
        sys.exit(1)
    except (OSError, ValueError) as error:
        if show_traceback:
            raise
        print(f"bench: {type(error).__name__}: {' '.join(str(error).split())}", file=sys.stderr)
        sys.exit(1)
    except KeyboardInterrupt:
        print("bench: interrupted", file=sys.stderr)
        sys.exit(INTERRUPTED)


def _set_up_process() -> None:
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(errors="replace")  # a pipe that cannot write a "–" is no reason to fail
    for number in (signal.SIGTERM, signal.SIGHUP):
        if signal.getsignal(number) is not signal.SIG_IGN:  # below nohup a sweep outlives its terminal
            signal.signal(number, _on_signal)


def _refuse(error: Exception) -> NoReturn:
    print(f"bench: {explain(error, sys.argv[1:])}", file=sys.stderr)
    sys.exit(REFUSED)


def _on_signal(*_: object) -> None:
    """End as after Ctrl-C: the job's processes are killed, what is done is kept."""
    raise KeyboardInterrupt


def _register() -> None:
    schema = OmegaConf.structured(BenchmarkConfig)
    for open_ended in (schema.compile.options, schema.tracking.tags):
        OmegaConf.set_struct(open_ended, False)  # any key may be set there, without a + in front
    ConfigStore.instance().store(name="schema", node=schema)
    OmegaConf.register_new_resolver("bench_help", help_text, replace=True)
    OmegaConf.register_new_resolver("bench_sweep_folder", _sweep_folder, use_cache=True, replace=True)


def _sweep_folder(name: str | None) -> str:
    return name or datetime.now().astimezone().strftime("%Y-%m-%d_%H-%M-%S")


def to_config(composed: DictConfig, overrides: Sequence[str]) -> BenchmarkConfig:
    """The composed config as ours. Raises ConfigError, or OmegaConf's own errors for what does not fit a type.

    `overrides` are those that it was composed from.
    """
    plain = OmegaConf.to_container(composed, resolve=True, throw_on_missing=True)
    assert isinstance(plain, dict)
    config = BenchmarkConfig.from_dict({str(key): value for key, value in plain.items()})
    if config.model.id is None:
        raise ConfigError("model.id", None, "name a model: a group (model=tiny), a hub id or a folder")
    _check_model_name(config, overrides)
    if config.workload.prompt_file is not None and not Path(config.workload.prompt_file).is_file():
        raise ConfigError("workload.prompt_file", config.workload.prompt_file, "no such file")
    return config


def _check_model_name(config: BenchmarkConfig, overrides: Sequence[str]) -> None:
    """Refuse a model's name on another model: with random weights of a group's architecture it is a mere label."""
    keys = [each.lstrip("+").partition("=")[0] for each in overrides]
    spelt_out = any(key.startswith(("model.architecture", "model.weights")) for key in keys)
    if "model.id" in keys and config.model.weights == "random" and config.model.architecture and not spelt_out:
        remedy = "is only a label here, for the group makes a small model with random weights; choose a group with it, "
        remedy += "such as model=smollm2-135m, or add model.weights=pretrained model.architecture=null"
        raise ConfigError("model.id", config.model.id, remedy)


# ---- one job -----------------------------------------------------------------------------------------------------


def job(composed: DictConfig) -> None:
    """Hydra's task: run one composed config in its output folder, publish the record, show the line."""
    settings = HydraConfig.get()
    folder = Path(settings.runtime.output_dir)
    in_sweep = settings.mode == RunMode.MULTIRUN
    try:
        config = to_config(composed, settings.overrides.task)
    except (ConfigError, OmegaConfBaseException) as error:
        if in_sweep:
            raise
        _remove(folder)  # Hydra has made it already, and nothing will come into it
        _refuse(error)
    if in_sweep:
        _sweep_job(config, folder, settings.job.num)
    else:
        sys.exit(_single_job(config, folder))


def _remove(folder: Path) -> None:
    shutil.rmtree(folder, ignore_errors=True)
    with contextlib.suppress(OSError):
        folder.parent.rmdir()  # only if nothing else is in it


def _single_job(config: BenchmarkConfig, folder: Path) -> int:
    from bench.report.table import print_plan, print_table  # noqa: PLC0415
    from bench.sweep.job import new_record  # noqa: PLC0415

    console = Console()
    if config.sweep.repeats > 1:
        _remove(folder)
        _refuse(ConfigError("sweep.repeats", config.sweep.repeats, "repeats are for sweeps; add -m"))
    record = new_record(config)
    if config.sweep.dry_run:
        _remove(folder)
        print_plan(console, [(0, str(config.model.id), record.trial_id, str(folder))])
        return 0
    _start_fork_server(config)
    publisher = _publisher(config, console)
    place = Place(references=folder if config.fidelity.reference == "eager" else None)
    try:
        record = _run(console, config, record, folder, place)
    finally:  # after Ctrl-C, too
        if publisher is not None:
            publisher.publish(record, folder)
    print_table(console, [record])
    _print_ways_on(console, publisher, folder, sweep_id=None)
    return exit_status([record])


def _sweep_job(config: BenchmarkConfig, folder: Path, number: int) -> None:
    from bench.report.progress import estimate_left, print_job_line  # noqa: PLC0415
    from bench.sweep.job import new_record  # noqa: PLC0415

    console = Console()
    plan = read_plan(folder.parent)
    jobs, mine = plan["jobs"], plan["jobs"][number]
    if mine.trial_id != config.trial_id():
        raise ValueError(f"{folder.parent} holds the plan of another sweep")
    durations_s = [
        each.ended_at_s - each.started_at_s
        for each in _records_of(folder.parent, jobs)
        if each.status == "ok" and each.ended_at_s is not None
    ]
    publisher = _publisher(config, console)
    record = new_record(config, sweep_id=plan["sweep_id"], repeat=mine.repeat, name=mine.name, swept=mine.swept)
    several = len({each.trial_id for each in jobs}) > 1
    compared = config.fidelity.reference == "eager" or (config.fidelity.reference == "auto" and several)
    place = Place(
        number=number,
        jobs=len(jobs),
        left_s=estimate_left(durations_s, len(jobs) - number),
        references=folder.parent if compared else None,
    )
    try:
        record = _run(console, config, record, folder, place)
    finally:  # after Ctrl-C, too
        print_job_line(console, record, number + 1, len(jobs))
        if publisher is not None:
            publisher.publish(record, folder, plan["parent_run_id"])


@dataclasses.dataclass(frozen=True, kw_only=True)
class Place:
    """Where a job stands in its sweep."""

    number: int = 0
    jobs: int = 1
    left_s: float | None = None  # the estimate for it and all after it
    references: Path | None = None  # the folder that keeps reference runs; None: nothing is compared


def _run(console: Console, config: BenchmarkConfig, record: Record, folder: Path, place: Place) -> Record:
    from bench.report.progress import JobProgress, print_reference_line  # noqa: PLC0415
    from bench.sweep.job import run_job  # noqa: PLC0415
    from bench.sweep.reference import Reference, ensure_reference  # noqa: PLC0415

    title = record.name or str(config.model.id)
    file = None
    with JobProgress(console, title=title, job=place.number + 1, jobs=place.jobs, left_s=place.left_s) as progress:
        if place.references is not None:
            try:
                reference = ensure_reference(config, place.references, record.sweep_id, progress.update)
            except (OSError, NotImplementedError) as error:  # the folder cannot be written, or not be locked
                reference = Reference(file=None, reason=f"no reference could be kept: {error}")
            record.started_at_s = time.time()  # the reference's time is not the job's
            if reference.made is not None:
                print_reference_line(console, reference.made)
            if reference.file is None:
                record.fidelity = Fidelity(reference="eager", reason=reference.reason)
            file = reference.file
        return run_job(config, record, folder, progress.update, file)


# ---- a sweep -----------------------------------------------------------------------------------------------------


def sweep(points: Sequence[Point], *, folder: Path, launch: Callable[[Plan], Mapping[int, Exception]]) -> int:
    """Run every point of a sweep and show what came of it.

    Args:
        points: all settings, composed and checked.
        folder: the sweep's own folder; it may not hold another sweep.
        launch: runs the plan's jobs through Hydra's launcher, each of which calls `job`; returns what they raised.

    Returns:
        The exit status.

    Raises:
        ConfigError: the folder is taken.
    """
    from bench.report.table import print_plan, print_table  # noqa: PLC0415

    console = Console()
    config = points[0].config  # what concerns the sweep as a whole is the same in all points
    plan = make_plan(points, config.sweep, sweep_id=f"{folder.name}-{secrets.token_hex(3)}")
    if plan.duplicates:
        console.print(f"{plan.duplicates} of {len(points)} points repeat another and are left out", markup=False)
    if config.sweep.dry_run:
        print_plan(console, [(each.number, each.name, each.trial_id, each.folder) for each in plan.jobs])
        return 0
    folder.mkdir(parents=True, exist_ok=True)
    if not claim(folder):
        raise ConfigError("sweep.name", config.sweep.name, f"{folder} holds a sweep already; choose another name")
    _start_fork_server(config)  # torch is imported there while MLflow is imported here
    publisher = _publisher(config, console)
    name = config.sweep.name or plan.sweep_id
    run_id = _begin(publisher, plan, name)
    try:
        write_plan(folder, plan, run_id)
        interrupted = _launch(console, plan, launch)
    except Exception:
        if publisher is not None:  # no run stays RUNNING
            publisher.end_sweep(run_id, [], interrupted=True)
        raise
    records = _records_of(folder, plan.jobs)
    if publisher is not None:
        publisher.end_sweep(run_id, records, interrupted=interrupted)
    print_table(console, records)
    files = _compare(console, plan, records, folder)
    if publisher is not None:
        publisher.upload(run_id, files)
    if missing := len(plan.jobs) - len(records):
        console.print(f"{missing} of {len(plan.jobs)} jobs left no record", markup=False)
    _print_ways_on(console, publisher, folder, sweep_id=plan.sweep_id)
    if interrupted:
        return INTERRUPTED
    return max(exit_status(records), 1 if missing else 0)


def _begin(publisher: Publisher | None, plan: Plan, name: str) -> str | None:
    if publisher is None:
        return None
    return publisher.begin_sweep(
        sweep_id=plan.sweep_id, name=name, swept=plan.swept(), settings=plan.settings, baseline=plan.baseline
    )


def _compare(console: Console, plan: Plan, records: Sequence[Record], folder: Path) -> list[Path]:
    """Verdicts on the settings: shown where there are repeats to base them on, and kept as files in any case."""
    from bench.report.comparison import build_report_of_records, to_json  # noqa: PLC0415
    from bench.report.comparison_text import print_comparison, to_markdown  # noqa: PLC0415

    try:
        report = build_report_of_records(records, typed=plan.settings, baseline=plan.baseline)
    except ConfigError:  # checked before; but a sweep that was interrupted may have no job of its baseline
        console.print(f"not compared: {plan.baseline} left no record", markup=False)
        return []
    if not report.comparisons and report.noise_floor is None:
        return []
    if max(each.repeat for each in plan.jobs) > 1:
        console.print()
        print_comparison(console, report)
    files = [folder / "comparison.json", folder / "comparison.md"]
    files[0].write_text(json.dumps(to_json(report), indent=1, allow_nan=False), encoding="utf-8")
    files[1].write_text(to_markdown(report), encoding="utf-8")
    return files


def _launch(console: Console, plan: Plan, launch: Callable[[Plan], Mapping[int, Exception]]) -> bool:
    """Run the jobs; True when the user interrupted them."""
    try:
        for number, error in launch(plan).items():
            console.print(f"job {number}: {type(error).__name__}: {error}", markup=False, soft_wrap=True)
    except KeyboardInterrupt:
        console.print("Interrupted: what had finished is kept.")
        return True
    return False


def _start_fork_server(config: BenchmarkConfig) -> None:
    from bench.sweep.job import start_fork_server  # noqa: PLC0415

    if config.isolation.mode == "forkserver":
        start_fork_server()


def _records_of(folder: Path, jobs: Sequence[Job]) -> list[Record]:
    records = []
    for each in jobs:
        with contextlib.suppress(RecordError):
            records.append(Record.read(folder / each.folder))
    return records


def exit_status(records: Sequence[Record]) -> int:
    """0 when every trial is ok or skipped with its reason, 1 otherwise."""
    return 0 if all(record.status in ("ok", "skipped") for record in records) else 1


def _publisher(config: BenchmarkConfig, console: Console) -> Publisher | None:
    """MLflow, made on first use; None when tracking is off."""
    if not config.tracking.enabled:
        return None
    from bench.tracking.publisher import Publisher  # noqa: PLC0415

    return Publisher(
        uri=config.tracking.uri,
        experiment=config.tracking.experiment,
        tags={name: str(value) for name, value in config.tracking.tags.items()},
        folder=Path.cwd(),
        warn=lambda line: console.print(line, style="yellow", markup=False, highlight=False, soft_wrap=True),
    )


def _print_ways_on(console: Console, publisher: Publisher | None, folder: Path, *, sweep_id: str | None) -> None:
    lines = [f"Records: {folder}", *(publisher.ways_on(sweep_id) if publisher is not None else [])]
    console.print("\n".join(lines), markup=False, highlight=False, soft_wrap=True)
