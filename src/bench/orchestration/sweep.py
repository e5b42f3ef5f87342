"""A sweep's course: plan, claim the folder, examine, launch, publish what is left, show what came of it."""

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
from bench.orchestration.job_run import exit_status, make_ready, open_publisher, tell_untested
from bench.orchestration.publish_target import decided, resumed, written_down
from bench.orchestration.restored_records import bring_back
from bench.orchestration.sweep_end import finish, import_ahead
from bench.orchestration.sweep_state import Course, records_of, resume_command
from bench.report.terminal.console import Terminal
from bench.results.file_names import EARLIER, LOCK_NAME
from bench.results.record import Record, RecordError
from bench.results.sweep_file import SweepFile
from bench.tracking.store.destination import Destination

# Takes what a job gave back, or why it gave nothing, as soon as that is known: job number, outcome.
OnReturn = Callable[[int, Returned | Exception], None]
# Runs the plan's jobs that are not done through Hydra's launcher, each of which calls `jobs.run_sweep_job` with its
# assignment.
Launch = Callable[[Plan, Mapping[int, Assignment], OnReturn], None]


def sweep(points: Sequence[Point], *, folder: Path, launch: Launch, is_local: bool) -> int:
    """Run every point of a sweep, or with `sweep.resume` those that are missing, and show what came of it.

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
        from bench.orchestration.dry_run import print_plan_of  # noqa: PLC0415

        found, left = _resumption(plan, folder, is_local=is_local)
        print_plan_of(console, left, folder)
        if found.past and not config.sweep.resume:
            console.print(f"{folder} holds a sweep: sweep.resume=true goes on with it", markup=False, soft_wrap=True)
        return 0
    return in_own_folder(config, folder, lambda: _conduct(console, config, plan, folder, launch, is_local=is_local))


def in_own_folder(config: BenchmarkConfig, folder: Path, conduct: Callable[[], int]) -> int:
    """Conduct a sweep while its folder is claimed; one that was made for a sweep that then is refused is removed."""
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
                return conduct()
            except ConfigError:
                if not had_lock:  # while it is ours: one that another start holds must stay
                    (folder / LOCK_NAME).unlink(missing_ok=True)
                raise


def _sweep_wide(points: Sequence[Point]) -> BenchmarkConfig:
    """The config of the first point, for what concerns the sweep as a whole. ConfigError where the points differ."""
    first = points[0].config
    for point in points[1:]:
        for section in ("sweep", "tracking"):
            one, other = (vars(getattr(each, section)) for each in (first, point.config))
            for name in other if other != one else ():
                if name != "arm" and other[name] != one[name]:
                    remedy = f"is one for the whole sweep (here also {one[name]}) and cannot be swept"
                    raise ConfigError(f"{section}.{name}", other[name], remedy)
    return first


@contextlib.contextmanager
def _writable(folder: Path) -> Iterator[None]:
    """The folder, made and tried out before anything else is done, and removed again where nothing came into it.

    Raises:
        ConfigError: results could not be kept there.
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
    from bench.jobs.planning.fingerprint import fingerprint, software  # noqa: PLC0415

    return fingerprint() if is_local else software(fingerprint())


def _resumption(plan: Plan, folder: Path, *, is_local: bool) -> tuple[Found, Resumption]:
    """What the folder holds, and what of the plan is left; all of it for a sweep that begins."""
    from bench.jobs.planning.resume import look, resume  # noqa: PLC0415

    found = look(folder, is_local=is_local)
    ids = [found.file.sweep_id] if found.file else [past.sweep_id for past in found.past if past.sweep_id]
    if ids:
        plan = dataclasses.replace(plan, sweep_id=ids[0])
    return found, resume(plan, found, current_environment(is_local=is_local))


def _conduct(
    console: Console, config: BenchmarkConfig, plan: Plan, folder: Path, launch: Launch, *, is_local: bool
) -> int:
    found, left = _resumption(plan, folder, is_local=is_local)
    destination = going_on(console, config, found, folder)
    if config.sweep.resume and bring_back(console, config, left.plan, found, folder, destination=destination):
        found, left = _resumption(plan, folder, is_local=is_local)
    course = Course(
        console=console, config=config, folder=folder, found=found, left=left, publisher=None,
        destination=destination, is_local=is_local,
    )  # fmt: skip
    if config.sweep.resume:
        _tell_what_is_done(course)
    pairs = zip(left.plan.jobs, left.plan.points, strict=True)
    to_run = [point.config for job, point in pairs if not job.done]
    if to_run and is_local:
        publisher = make_ready(to_run, console, destination, import_ahead)
    else:
        end_fork_server()
        publisher = open_publisher(config, console, destination)
    course = dataclasses.replace(course, publisher=publisher)
    tell_untested(console)  # not before: what is refused costs one line
    put_unusable_aside(course, current_environment(is_local=is_local))
    try:
        return _run_and_show(course, launch)
    except KeyboardInterrupt:  # outside of the jobs
        course.say(f" Resume: {resume_command(course)}")
        raise


def going_on(console: Console, config: BenchmarkConfig, found: Found, folder: Path) -> Destination:
    """Where a sweep is published that begins, or goes on."""

    def say(line: str) -> None:
        console.print(line, markup=False, highlight=False, soft_wrap=True)

    return resumed(config, found.file if config.sweep.resume else None, folder, say)


def _run_and_show(course: Course, launch: Launch) -> int:
    file = begin(course)
    with no_run_left_running(course, file.parent_run_id):
        return _run_and_finish(course, file, launch)


@contextlib.contextmanager
def no_run_left_running(course: Course, run_id: str | None) -> Iterator[None]:
    """End the sweep's run in MLflow, should what is done within be broken off."""
    try:
        yield
    except (Exception, KeyboardInterrupt):
        if course.publisher is not None:
            course.publisher.end_sweep(run_id, records_of(course), interrupted=True)
        raise


def _run_and_finish(course: Course, file: SweepFile, launch: Launch) -> int:
    interrupted, stopped = run_plan(course, file, launch)
    try:
        records = records_of(course)
    except KeyboardInterrupt:  # all jobs have ended: they are shown all the same
        interrupted, records = True, records_of(course)
    missing = len(course.plan.jobs) - len(records)
    if missing and not interrupted:
        course.say(f"{missing} of {len(course.plan.jobs)} jobs left no record")
    interrupted = finish(course, file.parent_run_id, records, interrupted=interrupted) or interrupted
    status = max(exit_status(records), 1 if missing or stopped else 0)
    if interrupted or status:
        course.say(f" Resume: {resume_command(course)}")
    return ExitStatus.INTERRUPTED if interrupted else status


def _tell_what_is_done(course: Course) -> None:
    for line in course.found.broken:
        course.say(line)
    if course.found.file is None and not course.found.past:
        course.say(f"{course.folder} holds no sweep yet: it begins")
    else:
        jobs = course.plan.jobs
        course.say(f"Resuming {course.plan.sweep_id}: {sum(job.done for job in jobs)} of {len(jobs)} jobs are done")
    if course.left.changed:
        course.say(
            f"the environment has changed ({'; '.join(course.left.changed)}): what ran in the former one is measured "
            f"again, and its records are kept in {course.folder / EARLIER}"
        )
    for missing, count in Counter(course.left.lacking.values()).items():
        jobs_run = "1 finished job runs" if count == 1 else f"{count} finished jobs run"
        kept = f"kept in {course.folder / EARLIER}"
        course.say(f"{jobs_run} again: {missing}; {'its record is' if count == 1 else 'their records are'} {kept}")
    if course.left.kept:
        course.say(f"{len(course.left.kept)} finished jobs are none of these points: kept, and not shown")


def put_unusable_aside(course: Course, environment: dict[str, str]) -> None:
    from bench.jobs.planning.resume import put_aside, unusable_references  # noqa: PLC0415

    put_aside(course.folder, course.left.put_aside)
    put_aside(course.folder, unusable_references(course.folder, environment, is_local=course.is_local))


def begin(course: Course, *, space: dict[str, list[str]] | None = None) -> SweepFile:
    """Write down the plan, and make the sweep's run in MLflow; returns what is written.

    A search gives its `space`, override key → values: of its jobs it has planned none yet.
    """
    before, plan = course.found.file, course.plan
    swept = plan.swept() if space is None else space
    now_s = time.time()
    file = SweepFile(
        sweep_id=plan.sweep_id,
        name=course.config.sweep.name or plan.sweep_id,
        parent_run_id=before.parent_run_id if before else None,
        started_at_s=before.started_at_s if before else now_s,
        launched_at_s=now_s,
        settings=plan.settings,
        baseline=plan.baseline,
        swept=swept,
        tracking=written_down(course.config, course.publisher, course.folder),
        jobs=plan.jobs,
        kept=course.left.kept,
        trials=None if space is None else course.config.search.trials,
    )
    file.write(course.folder)  # before the run is made: who is killed now can still go on with the same sweep
    if course.publisher is None:
        return file
    run_id = course.publisher.begin_sweep(
        sweep_id=plan.sweep_id, name=file.name, swept=swept, settings=plan.settings, baseline=plan.baseline
    )
    file = dataclasses.replace(file, parent_run_id=run_id, launched_at_s=time.time())
    file.write(course.folder)
    return file


def run_plan(course: Course, file: SweepFile, launch: Launch) -> tuple[bool, bool]:
    """Run the jobs; returns whether the user interrupted them, and whether the disk took no more.

    Whatever else is raised costs the job that it hit.

    Raises:
        ConfigError: the launcher refuses all of them; none has run.
    """
    assignments = assign(course.plan, file, is_local=course.is_local)
    configs = {job.number: point.config for job, point in zip(course.plan.jobs, course.plan.points, strict=True)}
    taken: set[int] = set()

    def take(number: int, outcome: Returned | Exception) -> None:
        taken.add(number)
        _take(course, assignments[number], configs[number], outcome)

    try:
        try:
            launch(course.plan, assignments, take)
        except Exception as error:
            if is_out_of_space(error) or (isinstance(error, ConfigError) and not taken):
                raise
            for number in [each for each in assignments if each not in taken]:
                take(number, error)
    except KeyboardInterrupt:
        return True, False
    except OSError as error:
        where = f" ({error.filename})" if error.filename else ""
        course.say(f"Stopped: {error.strerror}{where}: no further job could keep its result")
        return False, True
    return False, False


def _take(course: Course, given: Assignment, config: BenchmarkConfig, outcome: Returned | Exception) -> None:
    """See to it that a job that has ended lies in the sweep's folder with its record, and is published and shown.

    Raises:
        OSError: the disk takes no more.
    """
    folder = course.folder / given.job.folder
    try:
        if isinstance(outcome, Returned):
            outcome.deliver(folder)
            if outcome.left_there:
                names = ", ".join(outcome.left_there)
                course.say(f"job {given.job.number}: {names} stays in {outcome.left_in} on {outcome.host}")
            is_shown = course.is_local  # the job has published and shown itself
        else:
            is_shown = not _take_lost(course, given, config, outcome) and course.is_local
    except Exception as error:
        if is_out_of_space(error):
            raise
        is_shown = False
        course.say(f"job {given.job.number}: its record is not written: {explain(error)}", "yellow")
    if not is_shown:
        _show(course, given, folder)


def _show(course: Course, given: Assignment, folder: Path) -> None:
    """Show and publish a job that could not do so itself; what cannot be done costs a line."""
    from bench.report.terminal.progress import print_job_line  # noqa: PLC0415

    try:
        record = Record.read(folder)
        print_job_line(course.console, record, given.job.number + 1, given.jobs)
        if course.publisher is not None:
            course.publisher.publish_missing([folder], given.parent_run_id)
    except RecordError:
        pass
    except Exception as error:  # noqa: BLE001 - the record is there, and what is not published is so in the end
        course.say(f"job {given.job.number}: {explain(error)}", "yellow")


def _take_lost(course: Course, given: Assignment, config: BenchmarkConfig, error: Exception) -> bool:
    """End a job that gave nothing back in a record, unless it has written a whole one; returns whether that was done.

    Raises:
        OSError: the record cannot be written.
    """
    from bench.jobs.job import new_record, write_lost  # noqa: PLC0415
    from bench.jobs.planning.resume import look  # noqa: PLC0415

    if course.is_local and is_out_of_space(error):  # of another machine it is the disk there
        raise error
    job, folder = given.job, course.folder / given.job.folder
    if not course.is_local:  # its record may have reached MLflow, though nothing came back from the engine
        found = look(course.folder, is_local=False)
        bring_back(course.console, course.config, course.plan, found, course.folder, destination=course.destination)
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
