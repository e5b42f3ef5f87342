"""Run a search: like a sweep, but a study chooses the next setting (`bench.orchestration.search.study`).

A job of a search is a job of a sweep: planned in sweep.json, run through Hydra's launcher, recorded, published. The
outcomes in the study are derived from the records: a resumed search adds those that the study lacks, so it can be
resumed after a kill at any moment and after the loss of its database.

A setting without a result (skipped, failed, with wrong output, refused by the config's rules or by this machine) is
pruned with its reason and not tried again; only an interrupted setting runs again.
"""

from __future__ import annotations

import contextlib
import dataclasses
import os
import secrets
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from rich.console import Console

from bench.analysis.objectives import objectives_of
from bench.config.rules import ConfigError
from bench.config.schema import BenchmarkConfig
from bench.host.command_line import ExitStatus
from bench.jobs.planning.plan import Plan, Point, short_name
from bench.jobs.planning.resume import Found, Resumption, look
from bench.jobs.planning.search_space import Space
from bench.jobs.unstarted import explain, is_out_of_space
from bench.orchestration.job_run import exit_status, open_publisher, print_untested
from bench.orchestration.publish_target import decided
from bench.orchestration.search.dry_run import lines_of_plan
from bench.orchestration.search.earlier_jobs import check_environment, check_outputs
from bench.orchestration.search.examination import Examination
from bench.orchestration.search.settings import (
    Compose,
    ComposedSettings,
    PointError,
    check_config,
    check_optuna,
    check_space,
    examples_of,
)
from bench.orchestration.search.study_of_records import open_study, values_of
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
from bench.results.file_names import file_name
from bench.results.record import Record, RecordError
from bench.results.sweep_file import Job, SweepFile

if TYPE_CHECKING:
    from bench.orchestration.search.study import Outcome, Study, Trial

IDLE = 100  # successive settings without a job to run: the space is then exhausted


def search(space: Space, compose: Compose, *, folder: Path, launch: Launch, is_local: bool) -> int:
    """Search a space, or continue with `sweep.resume`, and show the results.

    Args:
        space: the possible values.
        compose: see above.
        folder: the search's own, that of a sweep.
        launch: as for a sweep.
        is_local: whether the jobs run on this machine.

    Returns:
        The exit status.

    Raises:
        ConfigError: nothing was started.
    """
    check_optuna()
    check_space(space)
    composed = ComposedSettings(compose)
    examples = examples_of(space, composed)
    config = examples[0].config
    check_config(config)
    decided(config)  # refused before anything is made
    console = Terminal()
    under_way = _Search(
        console=console, config=config, space=space, composed=composed, folder=folder, launch=launch, is_local=is_local
    )
    if config.sweep.dry_run:
        under_way.print_plan()
        return 0
    with own_folder(config, folder):
        return under_way.run(examples)


# ---- the search ------------------------------------------------------------------------------------------------------


@dataclasses.dataclass(frozen=True, kw_only=True)
class _Asked:
    """Hold a job to run, and the trials of the study whose setting it measures."""

    job: Job
    point: Point
    trials: list[int]


@dataclasses.dataclass(kw_only=True)
class _Search:
    """Run a search and hold its state."""

    console: Console
    config: BenchmarkConfig  # for keys of the whole search
    space: Space
    composed: ComposedSettings
    folder: Path
    launch: Launch
    is_local: bool
    study: Study = dataclasses.field(init=False)
    state: SweepState = dataclasses.field(init=False)
    file: SweepFile = dataclasses.field(init=False)
    jobs: list[Job] = dataclasses.field(default_factory=list)  # jobs that left a record
    known: dict[str, Outcome] = dataclasses.field(default_factory=dict)  # trial id → its outcome
    examination: Examination | None = None  # None: the jobs run on other machines
    lost: int = 0  # jobs of this start that left no record
    interrupted_jobs: int = 0

    @property
    def names(self) -> list[str]:
        """Return the names of the objectives."""
        return self.config.search.objectives

    @property
    def ran(self) -> int:
        """Return the jobs that count, of all starts."""
        return len(self.jobs) - self.interrupted_jobs + self.lost

    def print_plan(self) -> None:
        """Print the space, and which jobs are done and left. Nothing is created or changed."""
        found = look(self.folder, is_local=self.is_local)
        self._take_in(found)
        for line in lines_of_plan(self.space, self.config.search, self.ran):
            self._say(line)
        if found.past and not self.config.sweep.resume:
            self._say(f"{self.folder} holds a sweep: sweep.resume=true goes on with it")

    def run(self, examples: Sequence[Point]) -> int:
        """Measure, and show the results. The folder is locked. Raises ConfigError if nothing was started."""
        found = look(self.folder, is_local=self.is_local)
        environment = current_environment(is_local=self.is_local)
        kept = self._take_in(found)
        if self.config.sweep.resume:
            mine = {job.folder for job in self.jobs}
            done = [past for past in found.past if past.folder in mine]
            check_environment(done, environment)
            check_outputs(done, self.config)
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
            self._print_what_is_done(found, kept)
        if self.is_local:
            self.examination = Examination(self._say)
            configs = [point.config for point in examples]
            publisher = self.examination.make_ready(configs, self.console, self.state.destination)
        else:
            publisher = open_publisher(self.config, self.console, self.state.destination)
        self.state = dataclasses.replace(self.state, publisher=publisher)
        self.study = open_study(
            self.config.search,
            self.space,
            self.folder,
            sweep_id=sweep_id,
            jobs=self.jobs,
            known=self.known,
            compose=self.composed,
        )
        print_untested(self.console)  # not before: a refusal prints only its own line
        with resumable(self.state):
            put_unusable_aside(self.state, environment)
            return self._run_and_show()

    # ---- earlier jobs ------------------------------------------------------------------------------------------------

    def _take_in(self, found: Found) -> list[str]:
        """Take over the jobs of this search that have a record; return the folders of finished jobs of other searches.

        A record belongs to this search when its values are in the space and give the setting that was measured.
        """
        planned = {job.folder: job for job in found.file.jobs} if found.file is not None else {}
        kept = []
        # Those in the plan come first, because they have their numbers.
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
        """Return the trial id of the setting with these values; None if it is not in the space."""
        if not self.space.holds(swept):
            return None
        with contextlib.suppress(ConfigError, PointError):
            return self.composed(values_of(self.space, swept)).config.trial_id()
        return None

    def _print_what_is_done(self, found: Found, kept: Sequence[str]) -> None:
        for line in found.broken:
            self._say(line)
        if found.file is None and not found.past:
            self._say(f"{self.folder} holds no sweep yet: it begins")
        else:
            self._say(f"Resuming {self.state.plan.sweep_id}: {self.ran} of {self.config.search.trials} jobs are done")
        if kept:
            self._say(f"{len(kept)} finished jobs are none of this search: kept, and not shown")

    # ---- asking and telling ------------------------------------------------------------------------------------------

    def _run_and_show(self) -> int:
        from bench.report.terminal.results_table import print_table as _  # noqa: F401, PLC0415 - before the first job, not after the last

        self.file = begin(self._state_of_all(), space=self.space.shown())
        run_id = self.file.parent_run_id
        with no_run_left_running(self.state, run_id, self._records):
            interrupted, stopped = self._measure()
            records = self._records()
            if self.lost:
                self._say(f"{self.lost} jobs left no record")
            state = self._state_of_all()
            interrupted |= finish(state, run_id, records, interrupted=interrupted, conclude=self._conclude)
            found_none = all(isinstance(each, str) for each in self.known.values())
            status = max(exit_status(records), int(self.lost > 0 or stopped or found_none))
            if interrupted or stopped or self.lost:
                self._say(f" Resume: {resume_command(self.state)}")
            return ExitStatus.INTERRUPTED if interrupted else status

    def _measure(self) -> tuple[bool, bool]:
        """Ask, run and tell up to the last trial; return whether the user interrupted, and whether it had to stop."""
        from bench.orchestration.search.study import StudyError  # noqa: PLC0415

        try:
            while (left := self.config.search.trials - self.ran) > 0:
                batch = self._ask(min(left, self.config.search.parallel))
                if not batch:
                    return False, False
                interrupted, stopped = self._run_batch(batch)
                if interrupted or stopped:
                    return interrupted, stopped
        except KeyboardInterrupt:  # between jobs
            return True, False
        except StudyError as error:
            self._say(f"Stopped: {error}")
            return False, True
        return False, False

    def _ask(self, count: int) -> list[_Asked]:
        """Ask the study for so many jobs; if the space has fewer, return those and print a line."""
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
        """Return the setting of a trial to measure; None if its outcome is known already."""
        try:
            point = self.composed(trial.values)
            trial_id = point.config.trial_id()
        except (ConfigError, PointError) as error:
            self.study.tell(trial.number, f"refused: {error}")
            return None
        except OSError as error:  # the prompt file is missing
            self.study.tell(trial.number, f"refused: {explain(error)}")
            return None
        self.study.note(trial.number, trial_id=trial_id)
        if trial_id in self.known:
            self.study.tell(trial.number, self.known[trial_id])
            return None
        if self.examination is not None and (reason := self.examination.refusal(point.config)) is not None:
            self.study.tell(trial.number, f"refused: {reason}")
            return None
        return point

    def _run_batch(self, batch: Sequence[_Asked]) -> tuple[bool, bool]:
        """Run jobs and tell the study; return whether the user interrupted them, and whether the disk is full."""
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
            if ended:  # not started
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

    # ---- building values ---------------------------------------------------------------------------------------------

    def _job(self, swept: dict[str, str], trial_id: str, beside: Sequence[Job] = ()) -> Job:
        """Create a job under the lowest free number: numbers of jobs without a record are used again."""
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
        from bench.orchestration.search.conclusion import conclude  # noqa: PLC0415 - imports the report

        return conclude(
            self.console, self.config.search, self.space, self.study, self.folder, records=records, lost=self.lost
        )

    def _say(self, line: str) -> None:
        """Print one line unchanged, whatever its width and characters."""
        self.console.print(line, markup=False, highlight=False, soft_wrap=True)
