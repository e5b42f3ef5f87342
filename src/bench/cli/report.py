"""Write the report of a sweep as a page, or its trials as rows for a pipeline: `python -m bench.report`.

This module only dispatches: ``bench.orchestration.loading`` reads a source's records, and ``bench.report`` creates
the requested output. Libraries are imported where they are used, so that ``--help`` and a mistyped option respond at
once.

Exit status: 0; 2 for wrong arguments, unreadable sources and outputs that cannot be written, in one line.
"""

from __future__ import annotations

import argparse
import re
import shlex
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from bench.cli.subcommands import Parser, run, say
from bench.config.rules import ConfigError
from bench.host.atomic_files import write_named, write_whole
from bench.host.command_line import CommandError, to_type
from bench.host.home_folder import expanded
from bench.host.secrets import scrub
from bench.orchestration.loading.record_sources import MLFLOW_PREFIX, Source, read_source, read_sources
from bench.results.file_names import FIGURES, REPORT_HTML, REPORT_MARKDOWN

if TYPE_CHECKING:
    from bench.report.page.write import Report

WORD = "report"
ROWS = ("csv", "json")
FORMATS = ("html", "markdown", *ROWS)
OURS = (REPORT_HTML, REPORT_MARKDOWN, FIGURES)  # may be overwritten

DESCRIPTION = "Write the report of a sweep, or print its trials for a pipeline."
EPILOG = """\
A SOURCE is a sweep's folder (multirun/NAME), the folder or record.json of one job, or a sweep's id in MLflow (also
written mlflow:ID; a path that exists comes first). csv and json also take a folder of several sweeps.

without --format: report.html, report.md and figures/ in the source's folder, or in --output; of an id from MLflow in
                  ./report-ID
html:             report.html alone; it needs no other file
markdown:         on the standard output, or in the file --output
what --output names is overwritten; in the source's folder, or ./report-ID, only what bench has written is
csv, json:        likewise, one row a trial and repeat

exit status: 0; 2 wrong arguments, a source that cannot be read, a place that cannot be written

examples:
  python -m bench.report multirun/night
  python -m bench.report mlflow:night-1a2b3c --output night
  python -m bench.report multirun/night --format csv > night.csv"""


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command line and return the exit status."""
    return run(WORD, lambda: _run(_parser().parse_args(arguments)))


def _run(options: argparse.Namespace) -> int:
    if options.format in ROWS:
        sources = read_sources(options.source, options.tracking_uri)
        text = _rows(sources, options.format)
    else:
        sources = [read_source(options.source, options.tracking_uri)]
        report = _report(options.source, sources[0], is_drawn=options.format != "markdown")
        if options.format != "markdown":
            _write(report, sources[0], options)
            text = ""
        else:
            text = _markdown(report)
    for source in sources:
        for note in source.notes:
            say(WORD, f"{source.label}: {note}")
    if text:
        _put(text, options.output)
    return 0


def _rows(sources: Sequence[Source], form: str) -> str:
    from bench.report.rows import rows_of, to_csv, to_json  # noqa: PLC0415

    rows = rows_of([record for source in sources for record in source.records])
    return to_csv(rows) if form == "csv" else to_json(rows)


def _report(name: str, source: Source, *, is_drawn: bool) -> Report:
    from bench.report.comparison import build_report_of_records  # noqa: PLC0415
    from bench.report.page.build import Sweep  # noqa: PLC0415
    from bench.report.page.reproduce import command_of  # noqa: PLC0415
    from bench.report.page.write import build  # noqa: PLC0415

    notes = list(source.notes)
    command = None
    if source.overrides is not None:
        command = scrub(command_of(source.overrides, source.swept, source.for_hydra))
    try:
        comparison = build_report_of_records(source.records, typed=source.typed, baseline=source.baseline)
    except ConfigError as error:
        comparison = None
        notes.append(f"not compared: the baseline {error.value}: {error.remedy}")
    programs = {word: shlex.join(to_type(word)) for word in ("compare", "report")}
    sweep = Sweep(typed=source.typed, jobs=source.jobs, source=name, command=command, programs=programs, notes=notes)
    baseline = source.baseline if comparison is not None else None
    return build(source.records, sweep, comparison, baseline=baseline, is_drawn=is_drawn)


def _markdown(report: Report) -> str:
    from bench.report.page.markdown_page import to_markdown  # noqa: PLC0415

    # Printed output has no accompanying image files.
    return to_markdown(report.page, [], "")


# ---- writing -------------------------------------------------------------------------------------------------------


def _write(report: Report, source: Source, options: argparse.Namespace) -> None:
    """Write the files, and print the path of the page."""
    from bench.report.page.write import names, write  # noqa: PLC0415

    try:
        if options.format == "html":
            from bench.report.page.html_page import to_html  # noqa: PLC0415

            text = to_html(report.page, report.figures, report.figures_note).encode(errors="replace")
            if options.output:
                page = _file(options.output)
                write_named(page, text)
            else:
                page = _folder(source, options, [REPORT_HTML]) / REPORT_HTML
                write_whole(page, text)
        else:
            page = write(report, _folder(source, options, names(report)))[0]
    except OSError as error:
        raise CommandError(
            f"{error.filename or options.output}: cannot be written: {error.strerror or error}"
        ) from error
    print(page)


def _folder(source: Source, options: argparse.Namespace, written: Sequence[str]) -> Path:
    """Create and return the folder of the report's files.

    Raises:
        CommandError: it contains other files under the names in `written`. In a folder named with --output, files are
            overwritten; elsewhere, only those that bench wrote.
    """
    from bench.report.page.write import is_own  # noqa: PLC0415

    if options.output is not None:
        folder = Path(options.output)
    elif source.folder is not None:
        folder = source.folder
    else:
        folder = Path(f"report-{re.sub(r'[^A-Za-z0-9._=-]+', '-', source.label.removeprefix(MLFLOW_PREFIX))[:100]}")
    if folder.exists() and not folder.is_dir():
        raise CommandError(
            f"{folder}: is a file; --output names the report's folder (or, with --format html, its file)"
        )
    for name in OURS:
        path = folder / name
        if path.exists() and path.is_dir() != (name == "figures"):
            raise CommandError(f"{path}: is in the way; move it, or name another folder with --output")
    for path in (folder / name for name in written if options.output is None):
        if path.is_file() and not is_own(path):
            raise CommandError(
                f"{path}: is no report of bench and would be overwritten; move it, or name a folder with --output"
            )
    folder.mkdir(parents=True, exist_ok=True)
    return folder


def _file(name: str) -> Path:
    path = Path(name)
    if path.is_dir():
        raise CommandError(f"{name}: is a folder; with --format {shlex.quote('html')} --output names a file")
    path.parent.mkdir(parents=True, exist_ok=True)
    return path


def _put(text: str, output: str | None) -> None:
    if output is None:
        print(text, end="")
        return
    path = Path(output)
    if path.is_dir():
        raise CommandError(f"{output}: is a folder; with this --format --output names a file")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        write_named(path, text.encode(errors="replace"))
    except OSError as error:
        raise CommandError(f"{output}: cannot be written: {error.strerror or error}") from error
    print(path)


def _parser() -> argparse.ArgumentParser:
    parser = Parser(WORD, description=DESCRIPTION, epilog=EPILOG, allow_abbrev=False)
    parser.add_argument("source", type=expanded, metavar="SOURCE", help="a folder, a record, a sweep's id")
    parser.add_argument(
        "--output", type=expanded, metavar="PATH", help="the folder, or with --format the file, to write"
    )
    parser.add_argument("--format", choices=FORMATS, help="one form alone; default: html and markdown, as files")
    parser.add_argument(
        "--tracking-uri", metavar="URI", help="MLflow's address; default: mlflow.db in the current folder"
    )
    return parser
