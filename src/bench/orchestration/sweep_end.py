"""End a sweep: publish the records that are not published yet, show the results, write the report.

The last lines are the answer, with the next step for the user, and below it the links. Errors are printed above them.
"""

from __future__ import annotations

import contextlib
import dataclasses
import json
import shlex
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, TypeVar

from bench.config.rules import ConfigError
from bench.host.atomic_files import write_whole
from bench.host.command_line import to_type
from bench.jobs.unstarted import explain
from bench.orchestration.job_run import print_links
from bench.orchestration.sweep_state import SweepState, command_again
from bench.results.file_names import COMPARISON_JSON, COMPARISON_MARKDOWN
from bench.results.record import Record

if TYPE_CHECKING:
    from bench.report.comparison import ComparisonReport
    from bench.report.page.answer import Answer
    from bench.report.page.write import Report
    from bench.report.text.section import Section

TRIALS = "trials.json"  # the table of all trials, in the sweep's run

_Result = TypeVar("_Result")


@dataclasses.dataclass(frozen=True, kw_only=True)
class Concluded:
    """Hold the results of a search, which replace a comparison."""

    files: list[Path] = dataclasses.field(default_factory=list)  # written files with the results
    sections: list[Section] = dataclasses.field(default_factory=list)  # for the report
    answer: str | None = None  # in one or two sentences; None: the answer of the settings


def import_ahead() -> None:
    """Import the libraries of the report (half a second for matplotlib) while the command waits for something else.

    It is not called at the end of a sweep, when the user waits, and never during a job.
    """
    with contextlib.suppress(Exception):  # the report shows the error
        from bench.report.figures.all import import_figures  # noqa: PLC0415
        from bench.report.page import html_page, write  # noqa: F401, PLC0415

        import_figures()


@dataclasses.dataclass(kw_only=True)
class _Steps:
    """Run the steps of the end of a sweep. An error in one is printed in one line, and the others follow.

    An interruption (there is only one: the next signal stops the command at once) ends the current step and skips steps
    that may take long; the sweep's run in MLflow is still ended, and known results are still shown.
    """

    state: SweepState
    is_cut: bool = False  # interrupted by the user

    def do(self, not_done: str, work: Callable[[], _Result], otherwise: _Result) -> _Result:
        """Return the result of a step that may be skipped; `not_done` begins the line that says why there is none."""
        if self.is_cut:
            return otherwise
        try:
            return work()
        except KeyboardInterrupt:
            self.is_cut = True
            self.state.say(f"{not_done}: interrupted", "yellow")
        except Exception as error:  # noqa: BLE001 - an error of a library, or of bench: the records are kept
            self.state.say(f"{not_done}: {type(error).__name__}: {explain(error)}", "yellow")
        return otherwise

    def must(self, not_done: str, work: Callable[[], object]) -> None:
        """Do a short step in any case: once more if it was interrupted."""
        try:
            work()
        except KeyboardInterrupt:
            self.is_cut = True
            with contextlib.suppress(KeyboardInterrupt, Exception):
                work()
        except Exception as error:  # noqa: BLE001 - as above
            self.state.say(f"{not_done}: {type(error).__name__}: {explain(error)}", "yellow")


def finish(
    state: SweepState,
    run_id: str | None,
    records: list[Record],
    *,
    interrupted: bool,
    conclude: Callable[[list[Record]], Concluded] | None = None,
) -> bool:
    """Publish remaining records, end the sweep's run, show the results, write the report, and end with the answer.

    Args:
        state: the sweep.
        run_id: of the sweep's own run in MLflow; None: it has none.
        records: of its jobs.
        interrupted: whether the user stopped it before its end.
        conclude: shows the results of the records and returns them; None: the comparison.

    Returns:
        Whether the user interrupted this.
    """
    from bench.report.terminal.results_table import print_table  # noqa: PLC0415

    publisher, unpublished, steps = state.publisher, 0, _Steps(state=state)
    is_complete: list[bool] = []  # results of the steps for the sweep's own run
    if publisher is not None:
        folders = [state.folder / job.folder for job in state.plan.jobs]
        unpublished = steps.do("not all is published", lambda: publisher.publish_missing(folders, run_id), len(folders))
        stopped = interrupted or steps.is_cut
        steps.must(
            "the sweep's run is not ended",
            lambda: is_complete.append(publisher.end_sweep(run_id, records, interrupted=stopped)),
        )
    steps.must("the table cannot be shown", lambda: print_table(state.console, records))
    nothing: tuple[ComparisonReport | None, list[Path]] = (None, [])
    (comparison, files), found = nothing, Concluded()
    if conclude is None:
        comparison, files = steps.do("not compared", lambda: _compare(state, records), nothing)
    else:
        found = steps.do("the result cannot be shown", lambda: conclude(records), found)
        files = found.files
    report, written = _report(state, steps, records, comparison, found.sections) if records else (None, [])
    if publisher is not None:
        tables = {TRIALS: report.trials} if report is not None else {}
        answer = report.answer if report is not None else None
        all_files = [*files, *written]
        is_concluded = steps.do(
            "the sweep's results are not published",
            lambda: publisher.conclude(run_id, files=all_files, base=state.folder, tables=tables, answer=answer),
            False,
        )
        is_complete.append(is_concluded)
    later = shlex.join([*to_type("sync"), str(state.folder)])
    if unpublished:
        many = f"up to {unpublished}" if steps.is_cut else f"{unpublished}"
        state.say(f"{many} records are not published; later: {later}", "yellow")
    elif not all(is_complete):
        state.say(f"the sweep's own run in MLflow is not complete; later: {later}", "yellow")
    steps.must("what is unverified cannot be shown", lambda: _print_unverified(state, records))
    steps.must("the answer cannot be shown", lambda: _print_answer(state, report, records, comparison, found.answer))
    if written:
        steps.must("the report's place cannot be shown", lambda: state.say(f" Report: {written[0]}"))
    sweep_id = state.plan.sweep_id
    steps.must(
        "the ways on cannot be shown",
        lambda: print_links(state.console, publisher, state.folder, sweep_id=sweep_id),
    )
    return steps.is_cut


def _print_unverified(state: SweepState, records: Sequence[Record]) -> None:
    """Print how many settings are not confirmed by evidence; the exit status does not show it."""
    from bench.report.text.unverified import count_line  # noqa: PLC0415

    if (line := count_line(records)) is not None:
        state.say(line, "yellow")


def _print_answer(
    state: SweepState,
    report: Report | None,
    records: Sequence[Record],
    comparison: ComparisonReport | None,
    found: str | None,
) -> None:
    """Print the answer of the sweep, and the next step, in at most three lines of 100 columns.

    Args:
        state: the sweep.
        report: of the sweep; None if it could not be built.
        records: of the jobs.
        comparison: of the settings.
        found: the answer of a search; None: it was no search, or has none.
    """
    from bench.report.terminal.answer_text import answer_of_sweep, print_answer  # noqa: PLC0415

    if (text := found) is None:
        answer = report.page.answer if report is not None else _answer_of(state, records, comparison)
        text = answer_of_sweep(answer, records, comparison)
    print_answer(state.console, text)


def _answer_of(state: SweepState, records: Sequence[Record], comparison: ComparisonReport | None) -> Answer:
    """Return the answer if there is no report."""
    from bench.report.page.answer import build_answer  # noqa: PLC0415
    from bench.report.setting_view import setting_views  # noqa: PLC0415

    trials = [each for each in records if each.kind != "reference"]
    settings = setting_views(trials, typed=state.plan.settings)
    return build_answer(settings, comparison, jobs=len(state.plan.jobs))


def _report(
    state: SweepState,
    steps: _Steps,
    records: Sequence[Record],
    comparison: ComparisonReport | None,
    found: Sequence[Section],
) -> tuple[Report | None, list[Path]]:
    """Write the sweep's report; return it and its files. An error is printed in one line."""
    if steps.is_cut:
        _not_written(state, "interrupted")
        return None, []
    report: Report | None = None
    try:
        # Imported only now, because no job must wait for matplotlib and jinja2.
        from bench.report.page.build import Sweep  # noqa: PLC0415
        from bench.report.page.write import build, write  # noqa: PLC0415

        plan = state.plan
        about = Sweep(
            typed=plan.settings,
            jobs=len(plan.jobs),
            source=_relative(state.folder),
            command=command_again(),
            programs={word: shlex.join(to_type(word)) for word in ("compare", "report")},
            found=found,
        )
        report = build(records, about, comparison, baseline=plan.baseline if comparison is not None else None)
        files = write(report, state.folder)
    except Exception as error:  # noqa: BLE001 - of a plotting library, or of bench; with a full disk MLflow may have space
        _not_written(state, f"{type(error).__name__}: {error}")
        return report, []
    except KeyboardInterrupt:
        steps.is_cut = True
        _not_written(state, "interrupted")
        return None, []
    return report, files


def _not_written(state: SweepState, reason: str) -> None:
    later = shlex.join([*to_type("report"), _relative(state.folder)])
    state.say(f"the report is not written: {' '.join(reason.split())}; later: {later}", "yellow")


def _relative(folder: Path) -> str:
    """Return the path as typed in the folder where the sweep was started."""
    with contextlib.suppress(OSError):  # the current folder may be deleted
        return str(folder.relative_to(Path.cwd()) if folder.is_relative_to(Path.cwd()) else folder)
    return str(folder)


def _compare(state: SweepState, records: Sequence[Record]) -> tuple[ComparisonReport | None, list[Path]]:
    """Compare the settings: show verdicts if there are repeats, and write files in any case.

    Returns:
        The comparison, None if the baseline left no record; and the files.
    """
    from bench.report.comparison import build_report_of_records, to_json  # noqa: PLC0415
    from bench.report.terminal.comparison_text import print_comparison, to_markdown  # noqa: PLC0415

    plan, folder = state.plan, state.folder
    try:
        report = build_report_of_records(records, typed=plan.settings, baseline=plan.baseline)
    except ConfigError:  # checked before, but an interrupted sweep may have no job of its baseline
        state.say(f"not compared: {plan.baseline} left no record")
        return None, []
    except Exception as error:  # noqa: BLE001 - an error of bench: the records are kept, and the report shows the rest
        state.say(f"not compared: {type(error).__name__}: {' '.join(str(error).split())}", "yellow")
        return None, []
    if not report.comparisons and report.noise_floor is None:
        return report, []
    if max(each.repeat for each in plan.jobs) > 1:
        state.console.print()
        print_comparison(state.console, report)
    files = [folder / COMPARISON_JSON, folder / COMPARISON_MARKDOWN]
    try:
        write_whole(files[0], json.dumps(to_json(report), indent=1, allow_nan=False))
        write_whole(files[1], to_markdown(report))
    except OSError as error:
        state.say(f"the comparison is not kept: {error}")
        return report, []
    return report, files
