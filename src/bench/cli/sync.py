"""Publish records that could not be published when they were measured: `python -m bench.tracking.sync`.

It may run repeatedly and concurrently: records that are already in MLflow are found by their key, and marks
(`bench.tracking.publish_mark`) only save the search. A sweep also gets its own run. Unless the sweep is still running,
its run is ended with the files that a finished sweep leaves in its folder (`bench.results.sweep_file.CONCLUSIONS`).

Exit status: 0 if every record is published, 1 if any is not, 2 for wrong arguments; one line per problem.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from bench.cli.subcommands import Parser, run, say
from bench.host.command_line import CommandError, ExitStatus
from bench.host.home_folder import expanded
from bench.results.file_names import RECORD_NAME, SWEEP_NAME, WITHOUT_TRIALS

WORD = "sync"
DEPTH = 5  # of folders below DIR
DESCRIPTION = "Publish to MLflow the records that are not there yet, without doubles."
EPILOG = """\
A DIR is a job's folder, a sweep's folder, or one that such lie below: multirun/, outputs/, or where they lie.

Where to: to --tracking-uri, or else where the job was to be published. Addresses are kept without user and password:
set MLFLOW_TRACKING_USERNAME and MLFLOW_TRACKING_PASSWORD for a server that asks for them.

exit status: 0 all records are there; 1 some are not; 2 wrong arguments

examples:
  python -m bench.tracking.sync multirun/night
  python -m bench.tracking.sync . --tracking-uri http://localhost:5000 --experiment nights"""


@dataclass(kw_only=True)
class Group:
    """Hold the jobs that are published together: those of a sweep, or a single one."""

    sweep_folder: Path | None = None
    jobs: list[Path] = field(default_factory=list)  # the folders with a record


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command line and return the exit status."""
    return run(WORD, lambda: _run(_parser().parse_args(arguments)))


def _run(options: argparse.Namespace) -> int:
    groups = find_groups([Path(each) for each in options.folders])
    if not any(each.jobs for each in groups):
        raise CommandError(
            f"no {RECORD_NAME} in or below {', '.join(options.folders)}: name a job's or a sweep's folder"
        )
    from bench.tracking.catch_up import CatchUp  # noqa: PLC0415 - imports MLflow
    from bench.tracking.store.errors import TrackingError  # noqa: PLC0415

    try:
        work = CatchUp(uri=options.tracking_uri, experiment=options.experiment, check_all=options.all, say=_say)
    except TrackingError as error:
        raise CommandError(str(error).replace("tracking.uri", "--tracking-uri")) from error
    try:
        for group in groups:
            work.publish(group.sweep_folder, group.jobs)
    except KeyboardInterrupt:
        _say("interrupted; what is published so far is marked, and the command may be given again")
        return ExitStatus.INTERRUPTED
    print(f"published {work.published}, already there {work.already}, failed {work.failed}")
    return ExitStatus.OK if work.is_all_there else ExitStatus.FAILED


def find_groups(folders: Sequence[Path]) -> list[Group]:
    """Return the jobs in and below these folders, grouped by sweep, without duplicates.

    Raises:
        CommandError: one of the folders does not exist.
    """
    groups: dict[Path, Group] = {}
    for folder in folders:
        if not folder.is_dir():
            raise CommandError(f"{folder}: no such folder")
        for job in _jobs(folder.resolve(), DEPTH):
            is_swept = (job.parent / SWEEP_NAME).is_file()
            group = groups.setdefault(
                job.parent if is_swept else job, Group(sweep_folder=job.parent if is_swept else None)
            )
            if job not in group.jobs:
                group.jobs.append(job)
    return list(groups.values())


def _jobs(folder: Path, depth: int) -> Iterator[Path]:
    if (folder / RECORD_NAME).is_file():
        yield folder
        return
    try:
        below = sorted(each for each in folder.iterdir() if each.is_dir() and not each.is_symlink())
    except OSError as error:
        _say(f"{folder}: {error.strerror or error}")
        return
    for each in below if depth > 0 else []:
        if each.name not in WITHOUT_TRIALS and not each.name.startswith("."):
            yield from _jobs(each, depth - 1)


def _say(line: str) -> None:
    say(WORD, line)


def _parser() -> argparse.ArgumentParser:
    parser = Parser(WORD, description=DESCRIPTION, epilog=EPILOG, allow_abbrev=False)
    parser.add_argument("folders", nargs="+", type=expanded, metavar="DIR", help="what to publish")
    parser.add_argument("--tracking-uri", metavar="URI", help="the store; default: the one that each job was meant for")
    parser.add_argument("--experiment", metavar="NAME", help="the experiment; default: the one of each job")
    parser.add_argument(
        "--all",
        action="store_true",
        help="look in MLflow for the records marked as published, too, and renew runs of an earlier version",
    )
    return parser


if __name__ == "__main__":
    sys.exit(main())
