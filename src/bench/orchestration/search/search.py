"""Run a search: like a sweep, but a study chooses what is measured next (`bench.orchestration.search.study`).

A job here is a job of a sweep: planned in sweep.json, run through Hydra's launcher, recorded, published. What a study
is told is derived from the records, and those are the truth: a start that goes on tells the study what it lacks, so
that a search survives a kill at any moment and the loss of its database.

What does not come through (skipped, failed, a wrong output, a setting that the config's rules or this machine refuse)
is pruned with its reason and not tried again; only what was interrupted is asked for once more.
"""

from __future__ import annotations

import contextlib
import dataclasses
import json
import os
import secrets
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from rich.console import Console

from bench.analysis.objectives import objectives_of
from bench.config.rules import ConfigError
from bench.config.schema import BenchmarkConfig
from bench.host.atomic_files import write_whole
from bench.host.command_line import ExitStatus
from bench.host.home_folder import expanded
from bench.jobs.planning.plan import Plan, Point, check_size, short_name
from bench.jobs.planning.resume import FINISHED, Found, Resumption, look
from bench.jobs.planning.search_space import Space
from bench.jobs.unstarted import explain, is_out_of_space
from bench.orchestration.job_run import exit_status, make_ready, open_publisher, tell_untested
from bench.orchestration.publish_target import decided
from bench.orchestration.sweep import (
    Launch,
    begin,
    current_environment,
    no_run_left_running,
    own_folder,
    put_unusable_aside,
    resumable,
    run_plan,
    where_to_publish,
)
from bench.orchestration.sweep_end import Concluded, finish
from bench.orchestration.sweep_state import SweepState, records_of, resume_command
from bench.report.terminal.console import Terminal
from bench.results.file_names import SEARCH_DATABASE, SEARCH_JSON, SEARCH_MARKDOWN, file_name
from bench.results.record import Record, RecordError
from bench.results.sweep_file import Job, SweepFile

if TYPE_CHECKING:
    from bench.orchestration.search.study import Outcome, Study, Trial
    from bench.tracking.publisher import Publisher

FIXED_SECTIONS = ("sweep", "search", "tracking", "hydra")
LISTS = ("search.objectives", "search.directions")  # keys that several values belong to as one list
TRIES = 20  # settings that are composed before a value is taken for one that never can be
IDLE = 100  # settings in a row that bring no job: the space holds no more than what is known

# Composes one setting of the space; raises ConfigError or PointError for one that cannot be.
Compose = Callable[[dict[str, str]], Point]


class PointError(ValueError):
    """A setting that Hydra cannot compose. The text is one line; the cause is what Hydra raised."""


def search(space: Space, compose: Compose, *, folder: Path, launch: Launch, is_local: bool) -> int:
    """Search a space, or with `sweep.resume` go on with that, and show what was found.

    Args:
        space: what may be chosen.
        compose: see above.
        folder: the search's own, that of a sweep.
        launch: as for a sweep.
        is_local: whether the jobs run on this machine.

    Returns:
        The exit status.

    Raises:
        ConfigError: nothing was started.
    """
    _check_optuna()
    _check_space(space)
    composed = _Composed(compose)
    examples = _examples(space, composed)
    config = examples[0].config
    _check_config(config)
    decided(config)  # refused before anything is made
    console = Terminal()
    conduct = _Search(
        console=console, config=config, space=space, composed=composed, folder=folder, launch=launch, is_local=is_local
    )
    if config.sweep.dry_run:
        conduct.print_plan()
        return 0
    with own_folder(config, folder):
        return conduct.run(examples)


# ---- before anything starts ------------------------------------------------------------------------------------------


def _check_optuna() -> None:
    try:
        from bench.orchestration.search import study as _  # noqa: F401, PLC0415
    except ImportError as error:
        remedy = f"needs the extra `optuna`: pip install -e '.[optuna]' in the checkout ({error})"
        raise ConfigError("hydra/sweeper", "optuna", remedy) from error


def _check_space(space: Space) -> None:
    if not space.parameters:
        remedy = "has nothing to choose from: give a key several values (a=1,2), a range or an interval"
        raise ConfigError("hydra/sweeper", "optuna", remedy)
    for each in space.parameters:
        key = each.key.lstrip("+")
        if key.replace("/", ".").partition(".")[0] in FIXED_SECTIONS:
            values = ",".join(each.shown())
            remedy = "is one for the whole search and cannot be searched"
            if key in LISTS:
                remedy = f"with commas alone it is a key to search; several of them are a list: '{key}=[{values}]'"
            raise ConfigError(key, values, remedy)


def _check_config(config: BenchmarkConfig) -> None:
    """What a search does not do, said before anything is started."""
    if config.sweep.repeats > 1:
        remedy = "a search measures each setting once; sweep what it finds with repeats, for verdicts"
        raise ConfigError("sweep.repeats", config.sweep.repeats, remedy)
    if config.sweep.baseline is not None:
        raise ConfigError("sweep.baseline", config.sweep.baseline, "a search compares with none; leave it null")
    check_size(config.search.trials, config.sweep.max_jobs)


class _Composed:
    """Composing takes a tenth of a second: each setting is composed once."""

    def __init__(self, compose: Compose) -> None:
        self._compose = compose
        self._known: dict[tuple[tuple[str, str], ...], Point | ConfigError | PointError] = {}

    def __call__(self, values: Mapping[str, str]) -> Point:
        """The setting. Raises ConfigError or PointError where it cannot be."""
        key = tuple(sorted(values.items()))
        if key not in self._known:
            try:
                self._known[key] = self._compose(dict(values))
            except (ConfigError, PointError) as error:
                self._known[key] = error
        if isinstance(found := self._known[key], Exception):
            raise found
        return found


def _examples(space: Space, compose: Callable[[Mapping[str, str]], Point]) -> list[Point]:
    """Settings that hold each value of each key.

    Two values may well exclude each other; but one that goes with none of the others is a slip of the keyboard, and
    refused as in a sweep.
    """
    found: dict[str, Point] = {}
    good: dict[str, set[str]] = {each.key: set() for each in space.parameters}

    def fits(values: dict[str, str]) -> Exception | None:
        try:
            point = compose(values)
        except (ConfigError, PointError) as error:
            return error
        found.setdefault(point.config.trial_id(), point)
        for key, value in values.items():
            good[key].add(value)
        return None

    failed = [(values, error) for values in space.examples() if (error := fits(values)) is not None]
    for values, error in failed:
        for key, value in values.items():
            others = space.examples_with(key, value, TRIES)
            if value not in good[key] and all(fits(other) is not None for other in others):
                raise error.__cause__ if isinstance(error, PointError) and error.__cause__ is not None else error
    return list(found.values())


# ---- the search ------------------------------------------------------------------------------------------------------


@dataclasses.dataclass(frozen=True, kw_only=True)
class _Asked:
    """A job to come, and the trials of the study that it answers."""

    job: Job
    point: Point
    trials: list[int]


@dataclasses.dataclass(kw_only=True)
class _Search:
    """A search under way."""

    console: Console
    config: BenchmarkConfig  # for what concerns the search as a whole
    space: Space
    composed: _Composed
    folder: Path
    launch: Launch
    is_local: bool
    study: Study = dataclasses.field(init=False)
    state: SweepState = dataclasses.field(init=False)
    file: SweepFile = dataclasses.field(init=False)
    jobs: list[Job] = dataclasses.field(default_factory=list)  # that left a record
    known: dict[str, Outcome] = dataclasses.field(default_factory=dict)  # trial id → what came of it
    examined: dict[str, str | None] = dataclasses.field(default_factory=dict)  # question → why it is refused
    lost: int = 0  # jobs of this start that left no record
    interrupted_jobs: int = 0

    @property
    def names(self) -> list[str]:
        """The objectives."""
        return self.config.search.objectives

    @property
    def ran(self) -> int:
        """The jobs that count, of all starts."""
        return len(self.jobs) - self.interrupted_jobs + self.lost

    def print_plan(self) -> None:
        """The space, what is done and what is left. Nothing is made."""
        found = look(self.folder, is_local=self.is_local)
        self._take_in(found)
        size, wanted = self.space.size(), self.config.search.trials
        self._say(f"Search for {self._wanted()}; hydra/sweeper=optuna")
        for key, values in self.space.shown().items():
            self._say(f"  {key}: {', '.join(values)}")
        for key, value in self.space.fixed.items():
            self._say(f"  {key}={value} in all")
        most = wanted if size is None else min(wanted, size)
        of = "no end of settings" if size is None else f"{size} settings"
        left = max(0, most - self.ran)
        self._say(f"{of}, {wanted} jobs at most: {self.ran} done, {left} to run, {self.config.search.parallel} at once")
        if found.past and not self.config.sweep.resume:
            self._say(f"{self.folder} holds a sweep: sweep.resume=true goes on with it")

    def run(self, examples: Sequence[Point]) -> int:
        """Measure, and show what came of it. The folder is claimed. ConfigError: nothing was started."""
        found = look(self.folder, is_local=self.is_local)
        environment = current_environment(is_local=self.is_local)
        kept = self._take_in(found)
        self._check_environment(found, environment)
        self._check_outputs(found)
        put_aside = [past.folder for past in found.past if past.status == "interrupted" and past.sweep_id is not None]
        sweep_id = found.sweep_id or f"{self.folder.name}-{secrets.token_hex(3)}"
        self.state = SweepState(
            console=self.console,
            config=self.config,
            folder=self.folder,
            found=found,
            left=Resumption(
                plan=self._plan(sweep_id, [], []),
                again={},
                kept=kept,
                changed=[],
                put_aside=[*put_aside, *found.without_record],
            ),
            publisher=None,
            destination=where_to_publish(self.console, self.config, found, self.folder),
            is_local=self.is_local,
        )
        if self.config.sweep.resume:
            self._tell_what_is_done(found, kept)
        publisher = self._make_ready(examples)
        self.state = dataclasses.replace(self.state, publisher=publisher)
        self.study = self._open_study(sweep_id)
        tell_untested(self.console)  # not before: what is refused costs one line
        with resumable(self.state):
            put_unusable_aside(self.state, environment)
            return self._run_and_show()

    # ---- what is there -----------------------------------------------------------------------------------------------

    def _take_in(self, found: Found) -> list[str]:
        """Take over the jobs of this search that left a record; returns the folders of finished ones that are others'.

        A record is of this search when its values are in the space and make the very setting that was measured.
        """
        planned = {job.folder: job for job in found.file.jobs} if found.file is not None else {}
        kept = []
        # Those that the plan knows first, for they have their numbers.
        for past in sorted(found.past, key=lambda each: each.folder not in planned):
            if past.status == "interrupted":
                continue
            record = Record.read(self.folder / past.folder)
            trial_id = self._trial_id(record.swept)
            if record.trial_id != trial_id or trial_id in self.known:
                kept.append(past.folder)
                continue
            job = planned.get(past.folder) or self._job(record.swept, trial_id)
            self.jobs.append(dataclasses.replace(job, folder=past.folder, trial_id=trial_id, done=True))
            self.known[trial_id] = objectives_of(record, self.names)
        self.jobs.sort(key=lambda job: job.number)
        return kept

    def _trial_id(self, swept: Mapping[str, str]) -> str | None:
        """That of the setting with these values; None where it is none of the space."""
        if not self.space.holds(swept):
            return None
        with contextlib.suppress(ConfigError, PointError):
            return self.composed(self._values(swept)).config.trial_id()
        return None

    def _values(self, swept: Mapping[str, str]) -> dict[str, str]:
        return {each.key: swept[each.key.lstrip("+")] for each in self.space.parameters}

    def _check_environment(self, found: Found, environment: dict[str, str]) -> None:
        """What was measured under other versions or on another machine cannot steer this search."""
        from bench.jobs.planning.fingerprint import changes  # noqa: PLC0415

        mine = {job.folder for job in self.jobs}
        changed = [
            text for past in found.past if past.folder in mine for text in changes(past.fingerprint, environment)
        ]
        if self.config.sweep.resume and changed:
            what = "; ".join(dict.fromkeys(changed))
            remedy = f"the environment has changed ({what}), and a search lives in one: start another sweep.name"
            raise ConfigError("sweep.resume", True, remedy)

    def _check_outputs(self, found: Found) -> None:
        """Refuse to ask for more than the jobs that are done were asked for: no setting is measured twice here."""
        mine = {job.folder for job in self.jobs}
        lacking = [
            missing
            for past in found.past
            if past.folder in mine and past.status in FINISHED
            if (missing := past.outputs.missing(self.config, past.status))
        ]
        if self.config.sweep.resume and lacking:
            what = "; ".join(dict.fromkeys(lacking))
            remedy = (
                f"of the jobs that are done {len(lacking)} would have to run again ({what}), and a search measures "
            )
            remedy += "each setting once: ask for what they were asked for, or start another sweep.name"
            raise ConfigError("sweep.resume", True, remedy)

    def _tell_what_is_done(self, found: Found, kept: Sequence[str]) -> None:
        for line in found.broken:
            self._say(line)
        if found.file is None and not found.past:
            self._say(f"{self.folder} holds no sweep yet: it begins")
        else:
            self._say(f"Resuming {self.state.plan.sweep_id}: {self.ran} of {self.config.search.trials} jobs are done")
        if kept:
            self._say(f"{len(kept)} finished jobs are none of this search: kept, and not shown")

    # ---- the study ---------------------------------------------------------------------------------------------------

    def _open_study(self, sweep_id: str) -> Study:
        """Open the study, and tell it what it lacks. ConfigError where it cannot be used."""
        from bench.orchestration.search.study import Study, StudyError  # noqa: PLC0415

        typed = self.config.search.storage
        storage = expanded(typed) if typed else f"sqlite:///{self.folder / SEARCH_DATABASE}"
        try:
            study = Study(
                space=self.space,
                goals=self.config.search.goals(),
                storage=storage,
                name=sweep_id,
                seed=self.config.search.seed,
                parallel=self.config.search.parallel,
            )
            self._agree(study)
        except StudyError as error:
            from bench.host.secrets import without_credentials  # noqa: PLC0415

            raise ConfigError("search.storage", without_credentials(storage), str(error)) from error
        return study

    def _agree(self, study: Study) -> None:
        """Bring the study to what the records say."""
        told = set()
        for trial in study.trials():
            trial_id = trial.notes.get("trial_id")
            if trial.is_running:
                if trial_id in self.known:
                    study.tell(trial.number, self.known[trial_id])
                    told.add(trial_id)
                else:  # its job was killed, or never begun
                    study.give_back(trial.number, "no record: the search ended before its job did")
            elif trial.outcome is not None and trial_id is not None:
                self._check_same(trial)
                told.add(trial_id)
        for job in self.jobs:
            if job.trial_id not in told:
                study.add(self._values(job.swept), self.known[job.trial_id], trial_id=job.trial_id)

    def _check_same(self, trial: Trial) -> None:
        """Refuse to go on under other fixed overrides: their values are not those of this search."""
        with contextlib.suppress(ConfigError, PointError):
            if self.composed(trial.values).config.trial_id() == trial.notes["trial_id"]:
                return
        name = short_name({key.lstrip("+"): value for key, value in trial.values.items()})
        remedy = f"what is fixed differs from what this search measured in {name}; go on with the same overrides"
        raise ConfigError("sweep.resume", True, f"{remedy}, or take another sweep.name")

    # ---- examining ---------------------------------------------------------------------------------------------------

    def _make_ready(self, examples: Sequence[Point]) -> Publisher | None:
        """Examine each value once, and connect to MLflow. ConfigError when not one of these settings can work."""
        from bench.jobs.planning.preflight import question  # noqa: PLC0415

        if not self.is_local:
            return open_publisher(self.config, self.console, self.state.destination)
        good = [point.config for point in examples]
        try:
            publisher = make_ready(good, self.console, self.state.destination)
        except ConfigError:
            good = [each for each in good if self._refusal(each) is None]
            if not good:
                raise
            publisher = make_ready(good, self.console, self.state.destination)
        self.examined |= dict.fromkeys(map(question, good))
        return publisher

    def _refusal(self, config: BenchmarkConfig) -> str | None:
        """Why this machine cannot run a setting, as far as that can be told beforehand."""
        from bench.jobs.planning.preflight import preflight, question  # noqa: PLC0415

        asked = question(config)
        if self.is_local and asked not in self.examined:
            try:
                if (unexamined := preflight([config])) is not None:
                    self._say(f"not examined beforehand: {unexamined}")
                self.examined[asked] = None
            except ConfigError as error:
                self.examined[asked] = str(error)
        return self.examined.get(asked)

    # ---- asking and telling ------------------------------------------------------------------------------------------

    def _run_and_show(self) -> int:
        from bench.report.terminal.results_table import print_table as _  # noqa: F401, PLC0415 - before the first job, not after the last

        self.file = begin(self._state_of_all(), space=self.space.shown())
        with no_run_left_running(self.state, self.file.parent_run_id, self._records):
            return self._run_and_finish(self.file.parent_run_id)

    def _run_and_finish(self, run_id: str | None) -> int:
        interrupted, stopped = self._measure()
        records = self._records()
        state = self._state_of_all()
        if self.lost:
            self._say(f"{self.lost} jobs left no record")
        cut = finish(state, run_id, records, interrupted=interrupted, conclude=self._conclude)
        interrupted = interrupted or cut
        found_none = all(isinstance(each, str) for each in self.known.values())
        status = max(exit_status(records), int(self.lost > 0 or stopped or found_none))
        if interrupted or stopped or self.lost:
            self._say(f" Resume: {resume_command(self.state)}")
        return ExitStatus.INTERRUPTED if interrupted else status

    def _measure(self) -> tuple[bool, bool]:
        """Ask, run and tell up to the last trial; whether the user interrupted it, and whether it had to stop."""
        from bench.orchestration.search.study import StudyError  # noqa: PLC0415

        try:
            while (left := self.config.search.trials - self.ran) > 0:
                batch = self._ask(min(left, self.config.search.parallel))
                if not batch:
                    return False, False
                interrupted, stopped = self._run_batch(batch)
                if interrupted or stopped:
                    return interrupted, stopped
        except KeyboardInterrupt:  # while it was asked or told
            return True, False
        except StudyError as error:
            self._say(f"Stopped: {error}")
            return False, True
        return False, False

    def _ask(self, count: int) -> list[_Asked]:
        """So many jobs; fewer when the space holds no more, which is said."""
        batch: dict[str, _Asked] = {}
        idle = 0
        while len(batch) < count:
            if idle == IDLE:
                self._say(f"the search ends: {IDLE} settings in a row were known or refused")
                break
            trial = self.study.ask()
            if trial is None:
                if not batch:
                    self._say(f"the search ends: all {self.space.size()} settings of the space are measured or refused")
                break
            idle += 1
            point = self._fit(trial)
            if point is None:
                continue
            trial_id = point.config.trial_id()
            if trial_id in batch:  # another spelling of the same setting
                batch[trial_id].trials.append(trial.number)
                continue
            job = self._job(point.swept, trial_id, [each.job for each in batch.values()])
            batch[trial_id] = _Asked(job=job, point=point, trials=[trial.number])
            idle = 0
        return list(batch.values())

    def _fit(self, trial: Trial) -> Point | None:
        """The setting of a trial that is to be measured; None when it was told of at once."""
        try:
            point = self.composed(trial.values)
            trial_id = point.config.trial_id()
        except (ConfigError, PointError) as error:
            self.study.tell(trial.number, f"refused: {error}")
            return None
        except OSError as error:  # the prompt file is gone
            self.study.tell(trial.number, f"refused: {explain(error)}")
            return None
        self.study.note(trial.number, trial_id=trial_id)
        if trial_id in self.known:
            self.study.tell(trial.number, self.known[trial_id])
            return None
        if (reason := self._refusal(point.config)) is not None:
            self.study.tell(trial.number, f"refused: {reason}")
            return None
        return point

    def _run_batch(self, batch: Sequence[_Asked]) -> tuple[bool, bool]:
        """Run jobs and tell the study of them; whether the user interrupted it, and whether the disk took no more."""
        for each in batch:
            for number in each.trials:
                self.study.note(number, folder=each.job.folder)
        jobs = [each.job for each in batch]
        self.file = dataclasses.replace(
            self.file,
            launched_at_s=time.time(),
            settings=[job.name for job in [*self.jobs, *jobs]],
            jobs=[*self.jobs, *jobs],
        )
        try:
            self.file.write(self.folder)
        except OSError as error:
            if is_out_of_space(error):
                self._say(f"Stopped: {explain(error)}: no further job could keep its result")
                for each in batch:
                    self._tell(each, ended=True)
                return False, True
            self._say(f"sweep.json lacks the jobs to come: {explain(error)}")  # written again before the next ones
        plan = self._plan(self.file.sweep_id, jobs, [each.point for each in batch])
        left = dataclasses.replace(self.state.left, plan=plan)
        interrupted, stopped = run_plan(dataclasses.replace(self.state, left=left), self.file, self.launch)
        for each in batch:
            self._tell(each, ended=interrupted or stopped)
        return interrupted, stopped

    def _tell(self, asked: _Asked, *, ended: bool) -> None:
        try:
            record = Record.read(self.folder / asked.job.folder)
        except RecordError as error:
            if ended:  # not begun
                for number in asked.trials:
                    self.study.give_back(number, "no record: the search was stopped")
                return
            self.lost += 1
            outcome: Outcome = f"no record: {error}"
        else:
            self.jobs.append(dataclasses.replace(asked.job, done=True))
            if record.status == "interrupted":
                self.interrupted_jobs += 1
                for number in asked.trials:
                    self.study.give_back(number, "interrupted by the user")
                return
            outcome = objectives_of(record, self.names)
        self.known[asked.job.trial_id] = outcome
        for number in asked.trials:
            self.study.tell(number, outcome)

    # ---- forms -------------------------------------------------------------------------------------------------------

    def _job(self, swept: dict[str, str], trial_id: str, beside: Sequence[Job] = ()) -> Job:
        """A job under the lowest number that is free: those of jobs that came to nothing are used again."""
        taken = {job.number for job in [*self.jobs, *beside]}
        number = next(each for each in range(len(taken) + 1) if each not in taken)
        name = short_name(swept)
        stem = file_name(f"{number:0{len(str(self.config.search.trials - 1))}}_{name}")
        folder, again = stem, 2
        while os.path.lexists(self.folder / folder):
            folder, again = f"{stem}-{again}", again + 1
        return Job(number=number, repeat=1, trial_id=trial_id, name=name, swept=dict(swept), folder=folder)

    def _plan(self, sweep_id: str, jobs: Sequence[Job], points: Sequence[Point]) -> Plan:
        names = [job.name for job in jobs]
        return Plan(
            sweep_id=sweep_id, jobs=list(jobs), points=list(points), duplicates=0, settings=names, baseline=None
        )

    def _state_of_all(self) -> SweepState:
        plan = self._plan(self.state.plan.sweep_id, self.jobs, [])
        return dataclasses.replace(self.state, left=dataclasses.replace(self.state.left, plan=plan))

    def _records(self) -> list[Record]:
        return records_of(self._state_of_all())

    def _conclude(self, records: list[Record]) -> Concluded:
        """Show what was found, and keep it as files."""
        from bench.orchestration.search.study import StudyError  # noqa: PLC0415
        from bench.report.search import (  # noqa: PLC0415
            build_search_report,
            print_search,
            search_answer,
            search_section,
            search_to_json,
            search_to_markdown,
        )

        refused: list[str] = []
        with contextlib.suppress(StudyError):
            reasons = [trial.outcome for trial in self.study.trials() if isinstance(trial.outcome, str)]
            refused = [each for each in reasons if each.startswith("refused: ")]
        report = build_search_report(
            [each for each in records if each.status != "interrupted"],
            goals=self.config.search.goals(),
            space=self.space.shown(),
            size=self.space.size(),
            refused=refused,
            lost=self.lost,
        )
        print_search(self.console, report)
        files = [self.folder / SEARCH_JSON, self.folder / SEARCH_MARKDOWN]
        try:
            write_whole(files[0], json.dumps(search_to_json(report), indent=1, allow_nan=False))
            write_whole(files[1], search_to_markdown(report).encode(errors="replace"))
        except OSError as error:
            self._say(f"what was found is not kept: {error}")
            files = []
        return Concluded(files=files, sections=[search_section(report)], answer=search_answer(report))

    def _wanted(self) -> str:
        return ", ".join(f"{name} ({goal})" for name, goal in self.config.search.goals().items())

    def _say(self, line: str) -> None:
        """One line as it is, whatever the width and the characters in it."""
        self.console.print(line, markup=False, highlight=False, soft_wrap=True)
