"""Run one job from its config to its record on disk and in MLflow, alone or as part of a sweep."""

from __future__ import annotations

import contextlib
import dataclasses
import os
import time
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING

from rich.console import Console

from bench.config.rules import ConfigError
from bench.config.schema import BenchmarkConfig
from bench.host.command_line import ExitStatus
from bench.jobs.engine import EngineStop
from bench.jobs.launcher_return import Returned
from bench.jobs.unstarted import explain
from bench.orchestration.publish_target import address_of, decided, handed_on
from bench.orchestration.signals import stopped_by_engine
from bench.orchestration.tested_versions import newer_line
from bench.report.terminal.console import Terminal
from bench.results.file_names import RECORD_NAME
from bench.results.record import Fidelity, Record
from bench.results.sweep_file import is_folder_of

if TYPE_CHECKING:
    from bench.jobs.assignment import Assignment
    from bench.tracking.publisher import Publisher
    from bench.tracking.store.destination import Destination


@dataclasses.dataclass(frozen=True, kw_only=True)
class Place:
    """Hold the position of a job in its sweep."""

    number: int = 0
    jobs: int = 1
    left_s: float | None = None  # estimate for this job and all later ones
    jobs_after: int | None = None  # jobs that run after it; None: unknown
    references: Path | None = None  # the folder of reference runs; None: nothing is compared


@dataclasses.dataclass(frozen=True, kw_only=True)
class Ready:
    """Hold the prepared parts of a single run."""

    console: Console
    publisher: Publisher | None  # None: not tracked


def prepare_single(config: BenchmarkConfig, folder: Path) -> Ready | None:
    """Examine one config and its output folder without changing it; return None after a dry run.

    Raises:
        ConfigError: it cannot work.
    """
    from bench.jobs.folders.output_folder import check_usable, why_taken  # noqa: PLC0415

    console = Terminal()
    for key, value in (("repeats", config.sweep.repeats > 1), ("resume", config.sweep.resume)):
        if value:
            raise ConfigError(f"sweep.{key}", getattr(config.sweep, key), "is for sweeps; add -m")
    destination = decided(config)
    if config.sweep.dry_run:
        from bench.orchestration.dry_run import print_single_plan  # noqa: PLC0415

        print_single_plan(console, config, config.trial_id(), folder)
        if (reason := why_taken(folder)) is not None:
            console.print(f"would be refused: {folder} {reason}", markup=False, highlight=False, soft_wrap=True)
        return None
    check_usable(folder)
    publisher = make_ready([config], console, destination)
    if publisher is not None:
        publisher.try_artifacts()
    return Ready(console=console, publisher=publisher)


def run_single(config: BenchmarkConfig, folder: Path, ready: Ready) -> int:
    """Run one config in its output folder, publish its record and show it; return the exit status.

    Raises:
        OSError: the folder cannot take the result; it was not started.
    """
    from bench.jobs.job import new_record  # noqa: PLC0415
    from bench.report.terminal.answer_text import answer_of_run  # noqa: PLC0415
    from bench.report.terminal.results_table import print_table  # noqa: PLC0415
    from bench.report.text.unverified import count_line  # noqa: PLC0415

    console, publisher, record = ready.console, ready.publisher, new_record(config)
    print_untested(console)
    place = Place(
        left_s=_foreseen_s(console, config, [Path("multirun"), folder.parent]),
        references=folder if config.fidelity.reference == "eager" else None,
    )
    try:
        record = run(console, config, record, folder, place)
    finally:  # after Ctrl-C, too
        if publisher is not None and (folder / RECORD_NAME).exists():
            publisher.publish(record, folder)
    print_table(console, [record])
    if publisher is not None and (hint := publisher.unpublished) is not None:
        console.print(hint, style="yellow", markup=False, highlight=False, soft_wrap=True)
    if (unseen := count_line([record])) is not None:
        console.print(unseen, style="yellow", markup=False, highlight=False, soft_wrap=True)
    console.print()
    console.print(answer_of_run(record), style="bold", markup=False, highlight=False, soft_wrap=True)
    print_links(console, publisher, folder, sweep_id=None)
    return exit_status([record])


def run_sweep_job(config: BenchmarkConfig, folder: Path) -> Returned:
    """Run the job assigned to this process, in its output folder.

    Returns:
        The value that the launcher passes to the process that started the sweep.

    Raises:
        ValueError: the assignment is missing, or is not a job of this config.
        OSError: the folder cannot take the result.
        KeyboardInterrupt: the user's; with an engine the end of the job is in its record, and nothing is raised.
    """
    from bench.analysis.objectives import objectives_of  # noqa: PLC0415
    from bench.jobs.assignment import VARIABLE, Assignment  # noqa: PLC0415
    from bench.jobs.job import new_record  # noqa: PLC0415

    if VARIABLE not in os.environ:
        raise ValueError(f"{VARIABLE} is not set: the launcher hands on no hydra.job.env_set")
    given = Assignment.from_text(os.environ[VARIABLE])
    mine = given.job
    if mine.trial_id != config.trial_id():
        raise ValueError(f"job {mine.number} was planned as {mine.trial_id} and is {config.trial_id()} here")
    record = new_record(config, sweep_id=given.sweep_id, repeat=mine.repeat, name=mine.name, swept=mine.swept)
    is_home = given.is_local or is_folder_of(given.sweep_id, folder.parent)
    publishes = given.is_local or (is_home and _is_server(given.tracking_uri))
    if given.is_local:
        _run_and_show(config, record, folder, given, publishes=publishes)
    else:
        assert record.placement is not None
        with contextlib.suppress(EngineStop), stopped_by_engine(record.placement.engine or "its launcher"):
            _run_and_show(config, record, folder, given, publishes=publishes)
    objectives = objectives_of(record, config.search.objectives)
    return Returned.of(record, folder, with_files=not is_home, objectives=objectives)


def _run_and_show(config: BenchmarkConfig, record: Record, folder: Path, given: Assignment, *, publishes: bool) -> None:
    from bench.report.terminal.progress import print_job_line  # noqa: PLC0415

    console = Terminal()
    place = _place(config, given, folder.parent)
    if place.left_s is None and given.is_local:
        left = given.to_run - given.behind
        foreseen_s = _foreseen_s(console, config, [folder.parents[1], Path("outputs")], folder.parent, left)
        place = dataclasses.replace(place, left_s=foreseen_s)
    try:
        record = run(console, config, record, folder, place)
    finally:  # after Ctrl-C, too
        if (folder / RECORD_NAME).exists():
            print_job_line(console, record, place.number + 1, place.jobs)
            destination = handed_on(config, given)
            if publishes and (publisher := open_publisher(config, console, destination)) is not None:
                publisher.publish(record, folder, given.parent_run_id)


def _is_server(uri: str | None) -> bool:
    """Tell whether many processes may write there at once. A database file is only for the process of the sweep."""
    return uri is not None and not uri.startswith(("sqlite:", "file:"))


def _place(config: BenchmarkConfig, given: Assignment, folder: Path) -> Place:
    compared = config.fidelity.reference == "eager" or (config.fidelity.reference == "auto" and given.is_compared)
    # It includes all costs of a job. Wall-clock time, because jobs may run on different machines.
    each_s = max(0.0, time.time() - given.launched_at_s) / given.behind if given.behind and given.is_local else None
    return Place(
        number=given.job.number,
        jobs=given.jobs,
        left_s=None if each_s is None else each_s * (given.to_run - given.behind),
        jobs_after=given.to_run - given.behind - 1 if given.is_local else None,
        references=folder if compared else None,
    )


def _foreseen_s(
    console: Console, config: BenchmarkConfig, places: list[Path], sweep_folder: Path | None = None, jobs: int = 1
) -> float | None:
    """Estimate from earlier records how long the jobs of a start will take; None without a terminal to show it."""
    from bench.jobs.planning.fingerprint import fingerprint  # noqa: PLC0415
    from bench.jobs.planning.history import history_of  # noqa: PLC0415
    from bench.report.text.layout import can_redraw  # noqa: PLC0415
    from bench.results.sweep_file import SweepFile  # noqa: PLC0415

    if not can_redraw(console):
        return None
    trial_ids = [config.trial_id()]
    if sweep_folder is not None:
        with contextlib.suppress(OSError, ValueError):
            trial_ids = [each.trial_id for each in SweepFile.read(sweep_folder).jobs if not each.done]
    try:
        return history_of(places, fingerprint()).total_s(config, trial_ids, jobs)
    except OSError:  # such as too many open files: that does not prevent a measurement
        return None


def run(console: Console, config: BenchmarkConfig, record: Record, folder: Path, place: Place) -> Record:
    """Run a job with a progress line at its turn on this host, after the reference run that it is compared with.

    Raises:
        KeyboardInterrupt: the user's.
        OSError: its folder cannot take the result; it was not started.
    """
    from bench.jobs.job import run_job  # noqa: PLC0415
    from bench.jobs.planning.history import remember  # noqa: PLC0415
    from bench.jobs.process.neighbours import among_neighbours  # noqa: PLC0415
    from bench.jobs.reference import Reference, ensure_reference  # noqa: PLC0415
    from bench.report.terminal.progress import JobProgress, print_reference_line  # noqa: PLC0415

    title = record.name or str(config.model.id)
    file = None
    with (
        JobProgress(
            console,
            title=title,
            job=place.number + 1,
            jobs=place.jobs,
            left_s=place.left_s,
            to_measure=config.measurement.iterations if config.measurement.policy == "fixed" else 0,
            jobs_after=place.jobs_after,
        ) as progress,
        among_neighbours(config, record, folder, progress.wait),  # the reference and the job: one turn for both
    ):
        if place.references is not None:
            try:
                reference = ensure_reference(config, place.references, record.sweep_id, progress.update)
            except Exception as error:  # noqa: BLE001 - its folder cannot be written or locked, or no process started
                reference = Reference(file=None, reason=f"no reference could be kept: {explain(error)}")
            record.started_at_s = time.time()  # the reference's time does not count as the job's
            if reference.made is not None:
                print_reference_line(console, reference.made)
            if reference.file is None:
                record.fidelity = Fidelity(reference="eager", reason=reference.reason)
            file = reference.file
            progress.begin()
        record = run_job(config, record, folder, progress.update, file)
        remember(record)
        return record


# ---- around a job --------------------------------------------------------------------------------------------------


def make_ready(
    configs: list[BenchmarkConfig],
    console: Console,
    destination: Destination,
    meanwhile: Callable[[], None] | None = None,
) -> Publisher | None:
    """Examine settings before anything starts, and connect to MLflow meanwhile.

    Args:
        configs: the settings.
        console: for a line about settings that could not be examined.
        destination: where they are published.
        meanwhile: called while the fork server imports torch on another core.

    Raises:
        ConfigError: one of the settings cannot work.
    """
    from bench.jobs.folders.scratch import remove_stale_caches  # noqa: PLC0415
    from bench.jobs.planning.preflight import preflight  # noqa: PLC0415
    from bench.jobs.process.fork_server import end_fork_server, start_fork_server  # noqa: PLC0415

    if any(each.isolation.mode == "forkserver" for each in configs):
        with contextlib.suppress(OSError, EOFError):  # the job that needs it starts it, or reports why it cannot
            start_fork_server()  # torch is imported there while MLflow is imported here
    else:
        end_fork_server()  # it was started before its need was known
    if configs[0].tracking.enabled:
        _publisher_of(configs[0], console, destination, ahead=True)
    if meanwhile is not None:
        meanwhile()
    if (unexamined := preflight(configs)) is not None:
        console.print(f"not examined beforehand: {unexamined}", markup=False, soft_wrap=True)
    with contextlib.suppress(OSError):
        remove_stale_caches()
    return open_publisher(configs[0], console, destination)


_publishers: dict[tuple[str | None, str | None], Publisher] = {}
_opened_ahead: list[Publisher] = []  # that are not open yet


def open_publisher(config: BenchmarkConfig, console: Console, destination: Destination) -> Publisher | None:
    """Return the publisher, opened at its first use and kept for all jobs of this process; None if tracking is off."""
    if not config.tracking.enabled:
        return None
    publisher = _publisher_of(config, console, destination)
    if publisher in _opened_ahead:
        _opened_ahead.remove(publisher)
        publisher.open()
    return publisher


def _publisher_of(
    config: BenchmarkConfig, console: Console, destination: Destination, *, ahead: bool = False
) -> Publisher:
    from bench.tracking.publisher import Publisher  # noqa: PLC0415

    # A job of this process has the address without credentials; it finds the publisher that has them.
    where = (address_of(destination) or destination.uri, destination.experiment_id or destination.experiment)
    if where not in _publishers:
        _publishers[where] = Publisher(
            uri=destination.uri,
            experiment=destination.experiment,
            experiment_id=destination.experiment_id,
            artifact_location=destination.artifact_location,
            origin=destination.origin,
            tags={name: str(value) for name, value in config.tracking.tags.items()},
            folder=Path.cwd(),
            warn=lambda line: console.print(line, style="yellow", markup=False, highlight=False, soft_wrap=True),
            ahead=ahead,
        )
        if ahead:
            _opened_ahead.append(_publishers[where])
    return _publishers[where]


def print_untested(console: Console) -> None:
    """Print one line that names the libraries that are newer here than any tested version."""
    if (line := newer_line()) is not None:
        console.print(line, style="yellow", markup=False, highlight=False, soft_wrap=True)


def print_links(console: Console, publisher: Publisher | None, folder: Path, *, sweep_id: str | None) -> None:
    """Print where the records are, and how to show them."""
    lines = [f"Records: {folder}", *(publisher.ways_on(sweep_id) if publisher is not None else [])]
    console.print("\n".join(lines), markup=False, highlight=False, soft_wrap=True)


def exit_status(records: list[Record]) -> int:
    """Return 0 if every trial is ok or skipped with its reason, otherwise 1."""
    return ExitStatus.OK if all(record.status in ("ok", "skipped") for record in records) else ExitStatus.FAILED
