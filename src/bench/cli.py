"""The Hydra door: overrides in, BenchmarkConfig out. Nothing past it knows Hydra.

It is also where the rooms meet: a job is run by `bench.sweep`, published by `bench.tracking` and shown by
`bench.report`, and none of the three knows the others. They are imported where they are used, so that `--help` and a
refused config answer at once.

Two entries: `job` runs one composed config, whatever launcher called it; `sweep` (called by the sweeper plugin) runs
many.
"""

from __future__ import annotations

import contextlib
import difflib
import os
import secrets
import shutil
import signal
import sys
import time
from collections.abc import Iterator, Sequence
from datetime import datetime
from pathlib import Path
from typing import Any, NoReturn

import hydra
from hydra.core.config_store import ConfigStore
from hydra.core.hydra_config import HydraConfig
from hydra.errors import HydraException, MissingConfigException
from hydra.types import RunMode
from omegaconf import DictConfig, OmegaConf
from omegaconf.errors import ConfigAttributeError, ConfigKeyError, OmegaConfBaseException
from rich.console import Console

from bench.config import BenchmarkConfig, ConfigError, nearest_key, walk
from bench.record import Record, RecordError
from bench.sweep.plan import Plan, Point, make_plan, read_plan, write_plan

REFUSED, INTERRUPTED = 2, 130


def conf_folder() -> Path:
    """The folder of the YAML files: inside the package once installed, beside `src` in a checkout."""
    packaged = Path(__file__).parent / "conf"
    return packaged if packaged.is_dir() else Path(__file__).parents[2] / "conf"


def main() -> None:
    """Parse the command line with Hydra and run. A user's mistake costs one line and exit status 2."""
    show_traceback = os.environ.get("HYDRA_FULL_ERROR") == "1"
    os.environ["HYDRA_FULL_ERROR"] = "1"  # makes Hydra raise its errors instead of printing several lines each
    _register()
    signal.signal(signal.SIGTERM, _on_sigterm)
    try:
        hydra.main(version_base="1.3", config_path=str(conf_folder()), config_name="config")(job)()
    except (ConfigError, HydraException, OmegaConfBaseException) as error:
        if show_traceback:
            raise
        _refuse(error)
    except KeyboardInterrupt:
        sys.exit(INTERRUPTED)


def _refuse(error: Exception) -> NoReturn:
    print(f"bench: {explain(error, sys.argv[1:])}", file=sys.stderr)
    sys.exit(REFUSED)


def _on_sigterm(*_: object) -> None:
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


def to_config(composed: DictConfig) -> BenchmarkConfig:
    """The composed config as ours. Raises ConfigError, or OmegaConf's own errors for what does not fit a type."""
    plain = OmegaConf.to_container(composed, resolve=True, throw_on_missing=True)
    assert isinstance(plain, dict)
    config = BenchmarkConfig.from_dict({str(key): value for key, value in plain.items()})
    if config.model.id is None:
        raise ConfigError("model.id", None, "name a model: a group (model=tiny), a hub id or a folder")
    if config.workload.prompt_file is not None and not Path(config.workload.prompt_file).is_file():
        raise ConfigError("workload.prompt_file", config.workload.prompt_file, "no such file")
    return config


# ---- one job -----------------------------------------------------------------------------------------------------


def job(composed: DictConfig) -> None:
    """Hydra's task: run one composed config in its output folder, publish the record, show the line."""
    settings = HydraConfig.get()
    folder = Path(settings.runtime.output_dir)
    in_sweep = settings.mode == RunMode.MULTIRUN
    try:
        config = to_config(composed)
    except (ConfigError, OmegaConfBaseException) as error:
        if in_sweep:
            raise
        shutil.rmtree(folder, ignore_errors=True)  # Hydra has made it already, and nothing will come into it
        _refuse(error)
    if in_sweep:
        _sweep_job(config, folder, folder.parent, settings.job.num)
        return
    sys.exit(_single_job(config, folder))


def _single_job(config: BenchmarkConfig, folder: Path) -> int:
    from bench.report.table import print_table  # noqa: PLC0415
    from bench.sweep.job import new_record  # noqa: PLC0415

    console = Console()
    if config.sweep.dry_run:
        shutil.rmtree(folder, ignore_errors=True)
        console.print(f"1 job: {config.trial_id()}", markup=False)
        return 0
    store = _open_store(config, console)
    record = _run(console, config, new_record(config), folder)
    _publish(console, store, record, folder, parent_run_id=None)
    print_table(console, [record])
    _print_ways_on(console, store, folder)
    return exit_status([record])


def _sweep_job(config: BenchmarkConfig, folder: Path, sweep_folder: Path, number: int) -> None:
    from bench.report.progress import estimate_left  # noqa: PLC0415
    from bench.sweep.job import new_record  # noqa: PLC0415

    console = Console()
    plan = read_plan(sweep_folder)
    jobs = plan["jobs"]
    mine = jobs[number]
    folder.mkdir(parents=True, exist_ok=True)
    record = new_record(config, sweep_id=plan["sweep_id"], repeat=mine.repeat, name=mine.name, swept=mine.swept)
    durations = [
        each.ended_at_s - each.started_at_s for each in _records_of(sweep_folder, jobs) if each.ended_at_s is not None
    ]
    left_s = estimate_left(durations, len(jobs) - number)
    store = _open_store(config, console)
    try:
        record = _run(console, config, record, folder, number=number, jobs=len(jobs), left_s=left_s)
    finally:
        _publish(console, store, record, folder, plan["parent_run_id"])


def _run(
    console: Console,
    config: BenchmarkConfig,
    record: Record,
    folder: Path,
    *,
    number: int = 0,
    jobs: int = 1,
    left_s: float | None = None,
) -> Record:
    from bench.report.progress import JobProgress, print_job_line  # noqa: PLC0415
    from bench.sweep.job import run_job  # noqa: PLC0415

    title = record.name or str(config.model.id)
    try:
        with JobProgress(console, title=title, job=number + 1, jobs=jobs, left_s=left_s) as progress:
            record = run_job(config, record, folder, progress.update)
    finally:
        print_job_line(console, record, number + 1, jobs)
    return record


# ---- a sweep -----------------------------------------------------------------------------------------------------


def sweep(points: Sequence[Point], *, folder: Path, launch: Any) -> int:
    """Run every point of a sweep and show what came of it.

    Args:
        points: all settings, composed and checked.
        folder: the sweep's own folder; it may not hold another sweep.
        launch: takes the plan and runs its jobs through Hydra's launcher, each of which calls `job`.

    Returns:
        The exit status.

    Raises:
        ConfigError: the folder is taken.
    """
    from bench.report.table import print_plan, print_table  # noqa: PLC0415

    console = Console()
    first = points[0].config
    plan = make_plan(points, first.sweep, sweep_id=f"{folder.name}-{secrets.token_hex(3)}")
    if plan.duplicates:
        console.print(f"{plan.duplicates} of {len(points)} points repeat another and are left out", markup=False)
    if first.sweep.dry_run:
        print_plan(console, [(each.number, each.name, each.trial_id, each.folder) for each in plan.jobs])
        return 0
    if (folder / "sweep.json").exists():
        name = first.sweep.name or folder.name
        raise ConfigError("sweep.name", name, f"{folder} holds a sweep of this name already; choose another name")
    if first.isolation.mode == "forkserver":
        _start_fork_server()  # torch is imported there while MLflow is imported here
    store = _open_store(first, console)
    folder.mkdir(parents=True, exist_ok=True)
    parent_run_id = _begin_sweep(console, store, plan, first)
    write_plan(folder, plan, parent_run_id)
    interrupted = False
    try:
        launch(plan)
    except KeyboardInterrupt:
        interrupted = True
        console.print("Interrupted: what had finished is kept.")
    records = _records_of(folder, plan.jobs)
    _end_sweep(console, store, parent_run_id, records, interrupted=interrupted)
    print_table(console, records)
    missing = len(plan.jobs) - len(records)
    if missing:
        console.print(f"{missing} of {len(plan.jobs)} jobs left no record", markup=False)
    _print_ways_on(console, store, folder)
    if interrupted:
        return INTERRUPTED
    return max(exit_status(records), 1 if missing else 0)


def _start_fork_server() -> None:
    from bench.sweep.job import start_fork_server  # noqa: PLC0415

    start_fork_server()


def _records_of(folder: Path, jobs: Sequence[Any]) -> list[Record]:
    records = []
    for each in jobs:
        with contextlib.suppress(RecordError):
            records.append(Record.read(folder / each.folder))
    return records


def exit_status(records: Sequence[Record]) -> int:
    """0 when every trial is ok or skipped with its reason, 1 otherwise."""
    return 0 if all(record.status in ("ok", "skipped") for record in records) else 1


# ---- tracking: never in the way of a measurement -----------------------------------------------------------------


@contextlib.contextmanager
def _unpublished(console: Console) -> Iterator[None]:
    """A tracking server that fails costs one line; the record is on disk."""
    from bench.tracking.store import TrackingError  # noqa: PLC0415

    try:
        yield
    except TrackingError as error:
        console.print(f"not published: {error}", markup=False, highlight=False)


def _open_store(config: BenchmarkConfig, console: Console) -> Any:
    """The MLflow store, made on first use; None when tracking is off or out of reach."""
    if not config.tracking.enabled:
        return None
    from bench.tracking.store import open_store  # noqa: PLC0415

    with _unpublished(console):
        return open_store(config.tracking.uri, config.tracking.experiment, Path.cwd())
    return None


def _tags(config: BenchmarkConfig) -> dict[str, str]:
    return {name: str(value) for name, value in config.tracking.tags.items()}


def _begin_sweep(console: Console, store: Any, plan: Plan, config: BenchmarkConfig) -> str | None:
    if store is None:
        return None
    from bench.tracking.publish import begin_sweep  # noqa: PLC0415

    swept: dict[str, list[str]] = {}
    for each in plan.jobs:
        for key, value in each.swept.items():
            if value not in swept.setdefault(key, []):
                swept[key].append(value)
    with _unpublished(console):
        return begin_sweep(
            store,
            sweep_id=plan.sweep_id,
            name=config.sweep.name or plan.sweep_id,
            swept=swept,
            tags=_tags(config),
            started_at_s=time.time(),
        )
    return None


def _publish(console: Console, store: Any, record: Record, folder: Path, parent_run_id: str | None) -> None:
    if store is None:
        return
    from bench.tracking.publish import publish  # noqa: PLC0415

    tags = _tags(BenchmarkConfig.from_dict(record.requested))
    with _unpublished(console):
        publish(store, record, folder, parent_run_id=parent_run_id, tags=tags)


def _end_sweep(
    console: Console, store: Any, parent_run_id: str | None, records: Sequence[Record], *, interrupted: bool
) -> None:
    if store is None or parent_run_id is None:
        return
    from bench.tracking.publish import end_sweep  # noqa: PLC0415

    statuses = [record.status for record in records]
    with _unpublished(console):
        end_sweep(store, parent_run_id, statuses=statuses, ended_at_s=time.time(), interrupted=interrupted)


def _print_ways_on(console: Console, store: Any, folder: Path) -> None:
    console.print(f"Records: {folder}", markup=False, highlight=False, soft_wrap=True)
    if store is None:
        return
    from bench.tracking.store import experiment_address, ui_command  # noqa: PLC0415

    console.print(f"Compare: {ui_command(store)}", markup=False, highlight=False, soft_wrap=True)
    console.print(f"   then: {experiment_address(store)}", markup=False, highlight=False, soft_wrap=True)


# ---- words for people --------------------------------------------------------------------------------------------

HELP = """\
bench measures which settings generate fastest with Transformers, on this model and this machine.

  bench                                            one setting: the tiny model, sdpa, not compiled
  bench -m compile=off,default,max-autotune        sweep the compile mode, a process for each
  bench -m attention=eager,sdpa warmup.iterations=10
  bench -m experiment=attention_x_compile          a sweep kept under conf/experiment
  bench model=smollm2-135m workload.batch_size=8   another model, another workload
  bench model.id=PATH_OR_HUB_ID model.weights=pretrained model.architecture=null
  bench -m sweep.dry_run=true compile=off,default  print the jobs, run none
  mlflow ui --backend-store-uri sqlite:///mlflow.db    compare what ran

Groups (group=choice)
$APP_CONFIG_GROUPS
Keys (key=value; default, meaning)
{keys}
`bench --cfg job` shows the composed config, `bench --hydra-help` Hydra's own flags.
"""


def help_text() -> str:
    """The help page. Defaults, meanings and allowed values are those of the config's own declaration."""
    lines = []
    section = ""
    for path, value, rule, _ in walk(BenchmarkConfig):
        if path.partition(".")[0] != section:
            section = path.partition(".")[0]
            lines.append("")
        shown = "null" if value is None else str(value).lower() if isinstance(value, bool) else str(value)
        allowed = f" [{'|'.join(str(each) for each in rule.allowed)}]" if rule.allowed else ""
        reserved = " (nothing else in this version)" if rule.reserved else ""
        lines.append(f"  {path}={shown}".ljust(40) + f" {rule.doc}{allowed}{reserved}")
    # Hydra substitutes $NAMES; a dollar of our own would have to be doubled.
    return HELP.format(keys="\n".join(lines[1:]))


def explain(error: Exception, arguments: Sequence[str] = ()) -> str:
    """One line for a refused config: key, value, remedy.

    Args:
        error: what Hydra, OmegaConf or the config's own rules raised.
        arguments: the command line, to tell the value that was typed.
    """
    for each in _chain(error):
        if isinstance(each, ConfigError):
            return str(each)
        if isinstance(each, MissingConfigException) and each.options is not None:
            group, _, choice = str(each.missing_cfg_file).rpartition("/")
            near = difflib.get_close_matches(choice, each.options, 1)
            hint = f"; did you mean {near[0]}?" if near else ""
            return f"{group}={choice}: no such choice; allowed: {', '.join(each.options)}{hint}"
        path = getattr(each, "full_key", None)
        if isinstance(each, OmegaConfBaseException) and path:
            reason = (getattr(each, "msg", None) or str(each)).splitlines()[0]
            typed = _as_typed(path, arguments)
            if isinstance(each, ConfigAttributeError | ConfigKeyError):
                near = nearest_key(path)
                return f"{typed}: no such key; " + (f"did you mean {near}?" if near else "bench --help lists the keys")
            return f"{typed}: {reason[0].lower()}{reason[1:]}"
    return " ".join(line.strip() for line in str(error).splitlines() if line.strip())


def _chain(error: BaseException) -> Iterator[BaseException]:
    """The error and what caused it, outermost first."""
    link: BaseException | None = error
    while link is not None:
        yield link
        link = link.__cause__ or link.__context__


def _as_typed(path: str, arguments: Sequence[str]) -> str:
    for each in arguments:
        if each.lstrip("+").startswith(path):
            return each.lstrip("+")
    return path
