"""Run a sweep from start to end: plan, lock the folder, examine, launch, publish the rest, show the results."""

from __future__ import annotations

import contextlib
import dataclasses
import secrets
import time
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path

from rich.console import Console

from bench.config.rules import ConfigError
from bench.config.schema import BenchmarkConfig
from bench.host.command_line import ExitStatus
from bench.jobs.assignment import Assignment, assign
from bench.jobs.engine import LostJob
from bench.jobs.launcher_return import Returned
from bench.jobs.planning.plan import Plan, Point, make_plan
from bench.jobs.planning.resume import Found, Resumption
from bench.jobs.process.fork_server import end_fork_server
from bench.jobs.unstarted import explain, is_out_of_space, write_unstarted
from bench.orchestration.job_run import exit_status, make_ready, open_publisher, print_untested
from bench.orchestration.publish_target import decided, resumed, written_down
from bench.orchestration.restored_records import bring_back
from bench.orchestration.sweep_end import finish, import_ahead
from bench.orchestration.sweep_state import SweepState, records_of, resume_command
from bench.report.terminal.console import Terminal
from bench.results.file_names import EARLIER, LOCK_NAME
from bench.results.record import Record, RecordError
from bench.results.sweep_file import SweepFile
from bench.tracking.store.destination import Destination

# Called with job number and outcome as soon as a job has returned, or with the error that prevented it.
OnReturn = Callable[[int, Returned | Exception], None]
# Runs the unfinished jobs through Hydra's launcher; each calls `job_run.run_sweep_job` with its assignment.
Launch = Callable[[Plan, Mapping[int, Assignment], OnReturn], None]


def sweep(points: Sequence[Point], *, folder: Path, launch: Launch, is_local: bool) -> int:
    """Run every point of a sweep, or with `sweep.resume` the missing ones, and show the results.

    Args:
        points: all settings, composed and checked.
        folder: the sweep's own folder.
        launch: see above.
        is_local: whether the jobs run on this machine, so that it can examine them beforehand.

    Returns:
        The exit status.

    Raises:
        ConfigError: the folder is taken, or one of the settings cannot work; nothing was started.
    """
    console = Terminal()
    config = _sweep_wide(points)
    decided(config)  # refused before anything is made
    plan = make_plan(points, config.sweep, sweep_id=f"{folder.name}-{secrets.token_hex(3)}")
    if plan.duplicates:
        console.print(f"{plan.duplicates} of {len(points)} points repeat another and are left out", markup=False)
    if config.sweep.dry_run:
        _print_dry_run(console, config, plan, folder, is_local=is_local)
        return ExitStatus.OK
    with own_folder(config, folder):
        state = _prepare(console, config, plan, folder, is_local=is_local)
        put_unusable_aside(state, current_environment(is_local=is_local))
        with resumable(state):
            return _run(state, launch)


def _print_dry_run(console: Console, config: BenchmarkConfig, plan: Plan, folder: Path, *, is_local: bool) -> None:
    from bench.orchestration.dry_run import print_plan_of  # noqa: PLC0415

    found, left = _compared_with_folder(plan, folder, is_local=is_local)
    print_plan_of(console, left, folder)
    if found.past and not config.sweep.resume:
        console.print(f"{folder} holds a sweep: sweep.resume=true goes on with it", markup=False, soft_wrap=True)


@contextlib.contextmanager
def own_folder(config: BenchmarkConfig, folder: Path) -> Iterator[None]:
    """Create and lock the folder of a sweep; if the sweep is then refused, a created folder is removed.

    Raises:
        ConfigError: its files may not be overwritten, another start has locked it, or it is not writable.
    """
    from bench.jobs.planning.resume import check_is_free, check_is_resumable, claimed  # noqa: PLC0415

    check = check_is_resumable if config.sweep.resume else check_is_free
    check(folder)
    if config.sweep.resume and config.sweep.name is None and not folder.exists():
        raise ConfigError("sweep.resume", True, "needs the name of the sweep to go on with: add sweep.name=NAME")
    with _writable(folder):
        had_lock = (folder / LOCK_NAME).exists()
        with claimed(folder):
            try:
                check(folder)
                yield
            except ConfigError:
                if not had_lock:  # while we hold it: the lock of another start must stay
                    (folder / LOCK_NAME).unlink(missing_ok=True)
                raise


def _sweep_wide(points: Sequence[Point]) -> BenchmarkConfig:
    """Return the first point's config, for keys of the whole sweep. Raises ConfigError if the points differ in one."""
    first = points[0].config
    for point in points[1:]:
        for section in ("sweep", "tracking"):
            one, other = (vars(getattr(each, section)) for each in (first, point.config))
            for name in other if other != one else ():
                if name != "label" and other[name] != one[name]:
                    remedy = f"is one for the whole sweep (here also {one[name]}) and cannot be swept"
                    raise ConfigError(f"{section}.{name}", other[name], remedy)
    return first


@contextlib.contextmanager
def _writable(folder: Path) -> Iterator[None]:
    """Create the folder and check first of all that it is writable; remove it again if it stays empty.

    Raises:
        ConfigError: results could not be written there.
    """
    from bench.jobs.folders.created import CreatedFolders  # noqa: PLC0415
    from bench.jobs.folders.scratch import check_space  # noqa: PLC0415

    created = CreatedFolders()
    try:
        created.make(folder)
        check_space(folder)
    except OSError as error:
        created.remove_empty()
        remedy = f"results cannot be kept there ({error.strerror or error}); make room, or start in another folder"
        raise ConfigError("hydra.sweep.dir", folder, remedy) from error
    try:
        yield
    finally:
        created.remove_empty()


def current_environment(*, is_local: bool) -> dict[str, str]:
    """Return the fingerprint of this environment, without the hardware if the jobs run elsewhere."""
    from bench.jobs.planning.fingerprint import fingerprint, software  # noqa: PLC0415

    return fingerprint() if is_local else software(fingerprint())


def _compared_with_folder(plan: Plan, folder: Path, *, is_local: bool) -> tuple[Found, Resumption]:
    """Return the contents of the folder, and the jobs of the plan that are left; all of them for a new sweep."""
    from bench.jobs.planning.resume import look, resume  # noqa: PLC0415

    found = look(folder, is_local=is_local)
    plan = dataclasses.replace(plan, sweep_id=found.sweep_id or plan.sweep_id)
    return found, resume(plan, found, current_environment(is_local=is_local))


def _prepare(console: Console, config: BenchmarkConfig, plan: Plan, folder: Path, *, is_local: bool) -> SweepState:
    """Find finished jobs, fetch records that only MLflow has, and examine the jobs to run. The folder is locked.

    Raises:
        ConfigError: one of the settings cannot work; nothing was started.
    """
    found, left = _compared_with_folder(plan, folder, is_local=is_local)
    destination = where_to_publish(console, config, found, folder)
    if config.sweep.resume and bring_back(console, config, left.plan, found, folder, destination=destination):
        found, left = _compared_with_folder(plan, folder, is_local=is_local)
    state = SweepState(
        console=console, config=config, folder=folder, found=found, left=left, publisher=None,
        destination=destination, is_local=is_local,
    )  # fmt: skip
    if config.sweep.resume:
        _print_what_is_done(state)
    pairs = zip(left.plan.jobs, left.plan.points, strict=True)
    to_run = [point.config for job, point in pairs if not job.done]
    if to_run and is_local:
        publisher = make_ready(to_run, console, destination, import_ahead)
    else:
        end_fork_server()
        publisher = open_publisher(config, console, destination)
    print_untested(console)  # not before: a refusal prints only its own line
    return dataclasses.replace(state, publisher=publisher)


def where_to_publish(console: Console, config: BenchmarkConfig, found: Found, folder: Path) -> Destination:
    """Return where a new or resumed sweep is published."""

    def say(line: str) -> None:
        console.print(line, markup=False, highlight=False, soft_wrap=True)

    return resumed(config, found.file if config.sweep.resume else None, folder, say)


@contextlib.contextmanager
def resumable(state: SweepState) -> Iterator[None]:
    """Print the command that resumes the sweep if the user interrupts it outside of its jobs."""
    try:
        yield
    except KeyboardInterrupt:
        state.say(f" Resume: {resume_command(state)}")
        raise


@contextlib.contextmanager
def no_run_left_running(state: SweepState, run_id: str | None, records: Callable[[], list[Record]]) -> Iterator[None]:
    """End the sweep's run in MLflow if the block raises.

    Args:
        state: the sweep.
        run_id: of the sweep's own run.
        records: returns the records of its jobs.
    """
    try:
        yield
    except (Exception, KeyboardInterrupt):
        if state.publisher is not None:
            state.publisher.end_sweep(run_id, records(), interrupted=True)
        raise


def _run(state: SweepState, launch: Launch) -> int:
    """Run the remaining jobs, publish and show all of them; return the exit status."""
    file = begin(state)
    with no_run_left_running(state, file.parent_run_id, lambda: records_of(state)):
        interrupted, stopped = run_plan(state, file, launch)
        try:
            records = records_of(state)
        except KeyboardInterrupt:  # all jobs have ended: they are shown anyway
            interrupted, records = True, records_of(state)
        missing = len(state.plan.jobs) - len(records)
        if missing and not interrupted:
            state.say(f"{missing} of {len(state.plan.jobs)} jobs left no record")
        interrupted = finish(state, file.parent_run_id, records, interrupted=interrupted) or interrupted
        status = max(exit_status(records), 1 if missing or stopped else 0)
        if interrupted or status:
            state.say(f" Resume: {resume_command(state)}")
        return ExitStatus.INTERRUPTED if interrupted else status


def _print_what_is_done(state: SweepState) -> None:
    for line in state.found.broken:
        state.say(line)
    if state.found.file is None and not state.found.past:
        state.say(f"{state.folder} holds no sweep yet: it begins")
    else:
        jobs = state.plan.jobs
        state.say(f"Resuming {state.plan.sweep_id}: {sum(job.done for job in jobs)} of {len(jobs)} jobs are done")
    if state.left.changed:
        state.say(
            f"the environment has changed ({'; '.join(state.left.changed)}): what ran in the former one is measured "
            f"again, and its records are kept in {state.folder / EARLIER}"
        )
    for missing, count in Counter(state.left.lacking.values()).items():
        jobs_run = "1 finished job runs" if count == 1 else f"{count} finished jobs run"
        kept = f"kept in {state.folder / EARLIER}"
        state.say(f"{jobs_run} again: {missing}; {'its record is' if count == 1 else 'their records are'} {kept}")
    if state.left.kept:
        state.say(f"{len(state.left.kept)} finished jobs are none of these points: kept, and not shown")


def put_unusable_aside(state: SweepState, environment: dict[str, str]) -> None:
    """Move folders of records that do not count, and of references of another environment, to `earlier/`."""
    from bench.jobs.planning.resume import put_aside, unusable_references  # noqa: PLC0415

    put_aside(state.folder, state.left.put_aside)
    put_aside(state.folder, unusable_references(state.folder, environment, is_local=state.is_local))


def begin(state: SweepState, *, space: dict[str, list[str]] | None = None) -> SweepFile:
    """Write the plan, and create the sweep's run in MLflow; return the written contents.

    A search gives its `space`, override key → values, because it has not planned its jobs yet.
    """
    before, plan = state.found.file, state.plan
    swept = plan.swept() if space is None else space
    now_s = time.time()
    file = SweepFile(
        sweep_id=plan.sweep_id,
        name=state.config.sweep.name or plan.sweep_id,
        parent_run_id=before.parent_run_id if before else None,
        started_at_s=before.started_at_s if before else now_s,
        launched_at_s=now_s,
        settings=plan.settings,
        baseline=plan.baseline,
        swept=swept,
        tracking=written_down(state.config, state.publisher, state.folder),
        jobs=plan.jobs,
        kept=state.left.kept,
        trials=None if space is None else state.config.search.trials,
    )
    file.write(state.folder)  # before the run is created: after a kill here the same sweep can still be resumed
    if state.publisher is None:
        return file
    run_id = state.publisher.begin_sweep(
        sweep_id=plan.sweep_id, name=file.name, swept=swept, settings=plan.settings, baseline=plan.baseline
    )
    file = dataclasses.replace(file, parent_run_id=run_id, launched_at_s=time.time())
    file.write(state.folder)
    return file


def run_plan(state: SweepState, file: SweepFile, launch: Launch) -> tuple[bool, bool]:
    """Run the jobs; return whether the user interrupted them, and whether the disk is full.

    Any other error fails the job in which it was raised.

    Raises:
        ConfigError: the launcher refuses all jobs; none has run.
    """
    assignments = assign(state.plan, file, is_local=state.is_local)
    configs = {job.number: point.config for job, point in zip(state.plan.jobs, state.plan.points, strict=True)}
    taken: set[int] = set()

    def take(number: int, outcome: Returned | Exception) -> None:
        taken.add(number)
        _take(state, assignments[number], configs[number], outcome)

    try:
        try:
            launch(state.plan, assignments, take)
        except Exception as error:
            if is_out_of_space(error) or (isinstance(error, ConfigError) and not taken):
                raise
            for number in [each for each in assignments if each not in taken]:
                take(number, error)
    except KeyboardInterrupt:
        return True, False
    except OSError as error:
        where = f" ({error.filename})" if error.filename else ""
        state.say(f"Stopped: {error.strerror}{where}: no further job could keep its result")
        return False, True
    return False, False


def _take(state: SweepState, given: Assignment, config: BenchmarkConfig, outcome: Returned | Exception) -> None:
    """Ensure that the record of an ended job is in the sweep's folder, published and shown.

    Raises:
        OSError: the disk is full.
    """
    folder = state.folder / given.job.folder
    try:
        if isinstance(outcome, Returned):
            outcome.deliver(folder)
            if outcome.left_there:
                names = ", ".join(outcome.left_there)
                state.say(f"job {given.job.number}: {names} stays in {outcome.left_in} on {outcome.host}")
            is_shown = state.is_local  # the job has published and shown itself
        else:
            is_shown = not _take_lost(state, given, config, outcome) and state.is_local
    except Exception as error:
        if is_out_of_space(error):
            raise
        is_shown = False
        state.say(f"job {given.job.number}: its record is not written: {explain(error)}", "yellow")
    if not is_shown:
        _show(state, given, folder)


def _show(state: SweepState, given: Assignment, folder: Path) -> None:
    """Show and publish a job that could not do so itself; an error is printed in one line."""
    from bench.report.terminal.progress import print_job_line  # noqa: PLC0415

    try:
        record = Record.read(folder)
        print_job_line(state.console, record, given.job.number + 1, given.jobs)
        if state.publisher is not None:
            state.publisher.publish_missing([folder], given.parent_run_id)
    except RecordError:
        pass
    except Exception as error:  # noqa: BLE001 - the record is there, and is published when the sweep ends
        state.say(f"job {given.job.number}: {explain(error)}", "yellow")


def _take_lost(state: SweepState, given: Assignment, config: BenchmarkConfig, error: Exception) -> bool:
    """Write the record of a job that returned nothing, unless the job has written one; return whether that was needed.

    Raises:
        OSError: the record cannot be written.
    """
    from bench.jobs.job import new_record, write_lost  # noqa: PLC0415
    from bench.jobs.planning.resume import look  # noqa: PLC0415

    if state.is_local and is_out_of_space(error):  # from another machine, the error is about that machine's disk
        raise error
    job, folder = given.job, state.folder / given.job.folder
    if not state.is_local:  # its record may be in MLflow, though the engine returned nothing
        found = look(state.folder, is_local=False)
        bring_back(state.console, state.config, state.plan, found, state.folder, destination=state.destination)
    with contextlib.suppress(RecordError):
        left = Record.read(folder)
        if left.status != "interrupted" or left.error is not None:
            return False
    record = new_record(
        config, trial_id=job.trial_id, sweep_id=given.sweep_id, repeat=job.repeat, name=job.name, swept=job.swept
    )
    if isinstance(error, LostJob):
        write_lost(record, folder, error)
    else:
        write_unstarted(record, folder, error, time.time())
    return True
