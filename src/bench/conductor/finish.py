"""How a sweep ends: what is left is published, everything is shown, the report is written."""

from __future__ import annotations

import contextlib
import json
import shlex
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from bench.conductor.course import Course, command_again
from bench.conductor.jobs import print_ways_on
from bench.files import write_whole
from bench.record import Record
from bench.rules import ConfigError

if TYPE_CHECKING:
    from bench.report.comparison import ComparisonReport
    from bench.report.comparison_text import Section
    from bench.report.page.write import Report

TRIALS = "trials.json"  # the table of all trials, in the sweep's run


def import_ahead() -> None:
    """Import what the report needs, half a second of matplotlib, while there is nothing to do but wait.

    Not in a sweep's end, for which its user waits, and never beside a job.
    """
    with contextlib.suppress(Exception):  # the report will say what is wrong
        from bench.report.figures.all import import_figures  # noqa: PLC0415
        from bench.report.page import html, write  # noqa: F401, PLC0415

        import_figures()


def finish(
    course: Course,
    run_id: str | None,
    records: list[Record],
    *,
    interrupted: bool,
    conclude: Callable[[list[Record]], tuple[list[Path], list[Section]]] | None = None,
) -> None:
    """Publish what is not yet, end the sweep's run, show everything, and write the report.

    `conclude` shows what follows from the records, and returns the files that it is kept in, and sections for the
    report; None: the comparison.
    """
    from bench.report.table import print_table  # noqa: PLC0415

    publisher, unpublished, is_ended = course.publisher, 0, True
    if publisher is not None:
        unpublished = publisher.publish_missing([course.folder / job.folder for job in course.plan.jobs], run_id)
        is_ended = publisher.end_sweep(run_id, records, interrupted=interrupted)
    print_table(course.console, records)
    comparison: ComparisonReport | None = None
    found: list[Section] = []
    if conclude is None:
        comparison, files = _compare(course, records)
    else:
        files, found = conclude(records)
    report, written = _report(course, records, comparison, found) if records else (None, [])
    if publisher is not None:
        tables = {TRIALS: report.trials} if report is not None else {}
        answer = report.answer if report is not None else None
        files = [*files, *written]
        is_ended &= publisher.conclude(run_id, files=files, base=course.folder, tables=tables, answer=answer)
    print_ways_on(course.console, publisher, course.folder, sweep_id=course.plan.sweep_id)
    later = f"python -m bench.tracking.sync {shlex.quote(str(course.folder))}"
    if unpublished:
        course.say(f"{unpublished} records are not published; later: {later}", "yellow")
    elif not is_ended:
        course.say(f"the sweep's own run in MLflow is not complete; later: {later}", "yellow")


def _report(
    course: Course, records: Sequence[Record], comparison: ComparisonReport | None, found: Sequence[Section]
) -> tuple[Report | None, list[Path]]:
    """Write the sweep's report; returns it, and its files. One that cannot be written costs a line."""
    try:
        # Only now: matplotlib and jinja2 are for the page, and no job waits for them.
        from bench.report.page.build import Sweep  # noqa: PLC0415
        from bench.report.page.write import build, write  # noqa: PLC0415

        plan = course.plan
        about = Sweep(
            typed=plan.settings,
            jobs=len(plan.jobs),
            source=_relative(course.folder),
            command=command_again(),
            found=found,
        )
        report = build(records, about, comparison, baseline=plan.baseline if comparison is not None else None)
    except Exception as error:  # noqa: BLE001 - a fault of a plotting library, or of ours: the sweep stands
        _not_written(course, f"{type(error).__name__}: {error}")
        return None, []
    except KeyboardInterrupt:  # all jobs have ended: what is left to do is short
        _not_written(course, "interrupted")
        return None, []
    try:
        files = write(report, course.folder)
    except Exception as error:  # noqa: BLE001 - a full disk; MLflow may have room for what is in memory
        _not_written(course, f"{type(error).__name__}: {error}")
        return report, []
    except KeyboardInterrupt:
        _not_written(course, "interrupted")
        return report, []
    course.say(f" Report: {files[0]}")
    return report, files


def _not_written(course: Course, reason: str) -> None:
    later = f"python -m bench.report {shlex.quote(_relative(course.folder))}"
    course.say(f"the report is not written: {' '.join(reason.split())}; later: {later}", "yellow")


def _relative(folder: Path) -> str:
    """As one types it in the folder where the sweep was started."""
    with contextlib.suppress(OSError):  # the current folder may be gone
        return str(folder.relative_to(Path.cwd()) if folder.is_relative_to(Path.cwd()) else folder)
    return str(folder)


def _compare(course: Course, records: Sequence[Record]) -> tuple[ComparisonReport | None, list[Path]]:
    """Verdicts on the settings: shown where there are repeats to base them on, and kept as files in any case.

    Returns:
        The comparison, None where the baseline left no record; and the files.
    """
    from bench.report.comparison import build_report_of_records, to_json  # noqa: PLC0415
    from bench.report.comparison_text import print_comparison, to_markdown  # noqa: PLC0415

    plan, folder = course.plan, course.folder
    try:
        report = build_report_of_records(records, typed=plan.settings, baseline=plan.baseline)
    except ConfigError:  # checked before; but a sweep that was interrupted may have no job of its baseline
        course.say(f"not compared: {plan.baseline} left no record")
        return None, []
    except Exception as error:  # noqa: BLE001 - a fault of ours: the sweep stands, and its report says the rest
        course.say(f"not compared: {type(error).__name__}: {' '.join(str(error).split())}", "yellow")
        return None, []
    if not report.comparisons and report.noise_floor is None:
        return report, []
    if max(each.repeat for each in plan.jobs) > 1:
        course.console.print()
        print_comparison(course.console, report)
    files = [folder / "comparison.json", folder / "comparison.md"]
    try:
        write_whole(files[0], json.dumps(to_json(report), indent=1, allow_nan=False))
        write_whole(files[1], to_markdown(report))
    except OSError as error:
        course.say(f"the comparison is not kept: {error}")
        return report, []
    return report, files
