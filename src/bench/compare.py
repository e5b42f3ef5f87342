"""`python -m bench.compare`: the settings of a sweep beside their baseline, or one sweep beside another.

Only reading and speaking happens here: a source's records are found in a folder or in MLflow, ``bench.analysis``
compares them and ``bench.report`` shows the outcome. Libraries are imported where they are used, so that ``--help`` and
a mistyped option answer at once.

Exit status: 0; 1 when a setting is slower than --fail-if-slower allows; 2 for wrong arguments and sources that cannot
be read, in one line; 3 when --fail-if-inconclusive and some comparison is.
"""

from __future__ import annotations

import argparse
import contextlib
import io
import json
import os
import re
import sys
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any, NoReturn

from bench.record import FILE_NAME, Record, RecordError
from bench.rules import ConfigError, shown

if TYPE_CHECKING:
    from bench.analysis.settings import Setting
    from bench.report.comparison import ComparisonReport, SlowerCheck

SLOWER, REFUSED, INCONCLUSIVE = 1, 2, 3
METRICS = ("e2e", "ttft", "itl", "tpot")
FORMATS = ("text", "json", "markdown")
PLAN_NAME = "sweep.json"  # what a sweep leaves in its folder
MLFLOW_PREFIX = "mlflow:"
SOURCES_SHOWN = 3
LONGEST_LINE = 2000

DESCRIPTION = "Compare the settings of a sweep with their baseline, or two sweeps with each other."
EPILOG = """\
A SOURCE is a sweep's folder (multirun/NAME), the folder or record.json of one job, or a sweep's id in MLflow (also
written mlflow:ID; a path that exists comes first). With two sources the first is the baseline, before, and the second
is what came after.

exit status: 0; 1 a setting is slower than --fail-if-slower allows; 2 wrong arguments, or a source that cannot be read;
3 a comparison is inconclusive, with --fail-if-inconclusive (1 comes before 3)

examples:
  python -m bench.compare multirun/night --baseline attention.implementation=eager
  python -m bench.compare multirun/before multirun/after --fail-if-slower 3%"""


class CompareError(ValueError):
    """What the user must change, in one line."""


@dataclass(frozen=True, kw_only=True)
class Source:
    """The records behind one SOURCE, and what its sweep declares."""

    label: str
    records: list[Record]
    baseline: str | None = None  # None where the sweep declares none
    typed: list[str] | None = None  # names of the settings as typed; None where that is not known
    notes: list[str] = field(default_factory=list)  # a line for each record that is missing or left out


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command line; returns the exit status."""
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(errors="replace")  # a pipe that cannot write a "±" is no reason to fail
    try:
        options = _parser().parse_args(arguments)
        return _run(options)
    except CompareError as error:
        _say(str(error))
        return REFUSED
    except BrokenPipeError:  # whoever read our output has read enough
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())  # else the end of Python tries once more
        return 1


def _say(text: str) -> None:
    """One line beside the output. Names come from files: a terminal is not to obey them."""
    print(f"bench.compare: {shown(' '.join(text.split()), LONGEST_LINE)}", file=sys.stderr)


def _run(options: argparse.Namespace) -> int:
    _check(options)
    sources = [_read(each, options.tracking_uri) for each in options.sources]
    for source in sources:
        for note in source.notes:
            _say(f"{source.label}: {note}")
    try:
        report = _report_of_one(options, sources[0]) if len(sources) == 1 else _report_of_two(options, *sources)
    except ConfigError as error:
        where = "--baseline" if options.baseline is not None else f"the baseline of {sources[0].label},"
        raise CompareError(f"{where} {error.value}: {error.remedy}") from error
    # Of one setting the noise floor may be shown; whoever asks for a judgement must not take silence for a good one.
    judged = options.fail_if_slower is not None or options.fail_if_inconclusive
    if not report.comparisons and (judged or len(report.settings) > 1 or report.noise_floor is None):
        raise CompareError(_nothing(report))
    check = _slower_check(report, options.fail_if_slower)
    _print(report, check, options.format)
    return _status(report, check, options)


def _status(report: ComparisonReport, check: SlowerCheck | None, options: argparse.Namespace) -> int:
    if check is not None and check.slower:
        if options.format != "text":  # where the text says so itself
            names = ", ".join(check.slower)
            _say(f"slower by {check.limit * 100:g} % or more: {names}")
        return SLOWER
    inconclusive = any(each.verdict.word == "inconclusive" for each in report.comparisons)
    return INCONCLUSIVE if options.fail_if_inconclusive and inconclusive else 0


def _slower_check(report: ComparisonReport, limit: float | None) -> SlowerCheck | None:
    from bench.report.comparison import check_slower  # noqa: PLC0415

    return check_slower(report, limit) if limit is not None else None


def _print(report: ComparisonReport, check: SlowerCheck | None, form: str) -> None:
    from rich.console import Console  # noqa: PLC0415

    from bench.report.comparison import to_json  # noqa: PLC0415
    from bench.report.comparison_text import print_comparison, to_markdown  # noqa: PLC0415

    if form == "json":
        print(json.dumps(to_json(report, check=check), indent=1, allow_nan=False))
    elif form == "markdown":
        print(to_markdown(report, check=check), end="")
    else:
        print_comparison(Console(), report, check=check)


# ---- what is compared --------------------------------------------------------------------------------------------


def _report_of_one(options: argparse.Namespace, source: Source) -> ComparisonReport:
    from bench.analysis.comparison import compare  # noqa: PLC0415
    from bench.report.comparison import build_report  # noqa: PLC0415

    settings = _settings(source)
    baseline = options.baseline if options.baseline is not None else source.baseline
    chosen = [_named(each, settings, source) for each in options.setting]
    if len(chosen) == 1:
        # With its own baseline alone: others would only make the correction stricter.
        found = compare(settings, baseline=baseline, metric=options.metric, margin=options.threshold)
        own = [each.baseline_id for each in found if each.setting_id == chosen[0].setting_id]
        if not own:
            raise CompareError(
                f"--setting {options.setting[0]}: is the baseline itself, or has none; name two settings, the first "
                f"of which is the baseline"
            )
        chosen = [*(each for each in settings if each.setting_id == own[0]), *chosen]
    if chosen:
        settings, baseline = chosen, None
    labels = (source.label,)
    return build_report(settings, baseline=baseline, metric=options.metric, margin=options.threshold, sources=labels)


def _report_of_two(options: argparse.Namespace, before: Source, after: Source) -> ComparisonReport:
    from bench.report.comparison import build_report_of_two  # noqa: PLC0415

    sides = _settings(before), _settings(after)
    if options.setting:
        names = options.setting[0], options.setting[-1]
        sides = [_named(names[0], sides[0], before)], [_named(names[1], sides[1], after)]
    labels = (before.label, after.label)
    return build_report_of_two(*sides, metric=options.metric, margin=options.threshold, sources=labels)


def _settings(source: Source) -> list[Setting]:
    from bench.analysis.settings import settings_of  # noqa: PLC0415
    from bench.report.comparison import in_order  # noqa: PLC0415

    settings = in_order(settings_of(source.records), source.typed)
    if not settings:
        raise CompareError(f"{source.label}: holds reference runs only; name a sweep's folder or id")
    return settings


def _named(name: str, settings: Sequence[Setting], source: Source) -> Setting:
    """The setting of this name or id."""
    found = [each for each in settings if name in (each.name, each.setting_id)]
    if len(found) == 1:
        return found[0]
    if found:
        ids = ", ".join(each.setting_id for each in found)
        raise CompareError(f"--setting {name}: several settings of {source.label} have that name; give an id: {ids}")
    names = ", ".join(each.name or each.setting_id for each in settings)
    raise CompareError(f"--setting {name}: no such setting in {source.label}; settings: {names}")


def _nothing(report: ComparisonReport) -> str:
    """Why there is nothing to show, and what to do."""
    label = " and ".join(report.sources)
    if report.before is not None:
        return (
            f"{label}: no setting of one is in the other; name one of each with --setting, the first from the "
            f"baseline: {', '.join(report.unmatched)}"
        )
    if len(report.settings) == 1:
        return f"{label}: one setting, and nothing to compare it with; name a second source, or a sweep of several"
    return (
        f"{label}: no setting has a baseline, for model or workload differ: {', '.join(report.unmatched)}; "
        f"name one with --baseline"
    )


# ---- sources -----------------------------------------------------------------------------------------------------


def _read(text: str, tracking_uri: str | None) -> Source:
    """The records of one SOURCE. CompareError when there are none to use."""
    path = Path(text)
    if not text.startswith(MLFLOW_PREFIX) and path.exists():
        return _read_path(text, path)
    if not text.startswith(MLFLOW_PREFIX) and (os.sep in text or path.suffix == ".json"):
        raise CompareError(f"{text}: no such file or folder; name a sweep's folder, such as multirun/NAME, or its id")
    from bench.tracking.fetch import fetch_sweep  # noqa: PLC0415
    from bench.tracking.store import TrackingError  # noqa: PLC0415

    sweep_id = text.removeprefix(MLFLOW_PREFIX)
    if not sweep_id:
        raise CompareError(f"{text}: name a sweep behind it, as in {MLFLOW_PREFIX}ID")
    try:
        found = fetch_sweep(tracking_uri, sweep_id, Path.cwd())
    except TrackingError as error:
        absent = "" if text.startswith(MLFLOW_PREFIX) else "no such file or folder, and "
        raise CompareError(f"{text}: {absent}{error}") from error
    return Source(
        label=text,
        records=found.records,
        baseline=found.baseline if found.baseline is not None else _declared(found.records),
        typed=found.settings,
        notes=[f"left out: {each}" for each in found.left_out],
    )


def _read_path(label: str, path: Path) -> Source:
    plan = _plan(path)
    if path.is_file() or (path / FILE_NAME).is_file():
        files = [path]
    elif "jobs" in plan:
        files = [path / each["folder"] / FILE_NAME for each in plan["jobs"]]
    else:
        files = sorted(path.glob(f"*/{FILE_NAME}"))
    present = [each for each in files if each.exists()]
    if not present:
        raise CompareError(f"{label}: {_no_records(path, len(files))}")
    records, notes = [], []
    for each in present:
        try:
            records.append(Record.read(each))
        except RecordError as error:
            notes.append(f"left out: {error}")
    if not records:
        reason = notes[0].removeprefix("left out: ")
        raise CompareError(f"{label}: not one of {len(present)} records can be read; the first: {reason}; measure anew")
    if missing := len(files) - len(present):
        notes.append(f"{missing} of {len(files)} jobs left no record")
    baseline = plan.get("baseline")
    return Source(
        label=label,
        records=records,
        baseline=baseline if isinstance(baseline, str) else _declared(records),
        typed=plan.get("settings"),
        notes=notes,
    )


def _plan(path: Path) -> dict[str, Any]:
    """A sweep's plan as plain values; without what of it cannot be used."""
    plan: Any = {}
    with contextlib.suppress(OSError, ValueError, RecursionError):
        plan = json.loads((path / PLAN_NAME).read_text(encoding="utf-8"))
    if not isinstance(plan, dict):
        return {}
    usable = {
        "jobs": _are_jobs(plan.get("jobs")),
        "settings": _are_names(plan.get("settings")),
        "baseline": isinstance(plan.get("baseline"), str),
    }
    return {name: plan[name] for name, is_usable in usable.items() if is_usable}


def _are_jobs(value: object) -> bool:
    """Each with a folder's plain name, so that nothing outside of the sweep's own folder is read."""
    folders = [each.get("folder") if isinstance(each, dict) else None for each in value] if type(value) is list else []
    plain = [isinstance(each, str) and re.fullmatch(r"[A-Za-z0-9=_][\w.=-]{0,99}", each, re.ASCII) for each in folders]
    return bool(folders) and all(plain)


def _are_names(value: object) -> bool:
    return isinstance(value, list) and all(isinstance(each, str) for each in value)


def _no_records(path: Path, expected: int) -> str:
    if expected:
        return f"none of its {expected} jobs left a record yet"
    sweeps = sorted(path.glob(f"*/{PLAN_NAME}"), key=lambda each: each.stat().st_mtime, reverse=True)
    if sweeps:
        names = ", ".join(str(each.parent) for each in sweeps[:SOURCES_SHOWN])
        return f"holds no records itself; name a sweep in it, such as {names}"
    return f"holds no {FILE_NAME}, nor does a folder in it; name a sweep's folder, such as multirun/NAME"


def _declared(records: Sequence[Record]) -> str | None:
    """The baseline that a sweep was started with, as its records tell."""
    sweeps = (each.requested.get("sweep") for each in records)
    named = (sweep.get("baseline") for sweep in sweeps if isinstance(sweep, dict))
    return next((each for each in named if isinstance(each, str)), None)


# ---- options -----------------------------------------------------------------------------------------------------


class _Parser(argparse.ArgumentParser):
    """Mistakes become one line."""

    def error(self, message: str) -> NoReturn:
        raise CompareError(f"{message}; see python -m bench.compare --help")


def _parser() -> argparse.ArgumentParser:
    parser = _Parser(
        prog="python -m bench.compare",
        description=DESCRIPTION,
        epilog=EPILOG,
        formatter_class=argparse.RawDescriptionHelpFormatter,
        allow_abbrev=False,
    )
    parser.add_argument("sources", nargs="+", metavar="SOURCE", help="one or two: a folder, a record, a sweep's id")
    parser.add_argument("--baseline", metavar="NAME|KEY=VALUE", help="the setting, or the value, to compare with")
    parser.add_argument(
        "--setting", action="append", default=[], metavar="NAME", help="this one only; twice: the first is the baseline"
    )
    parser.add_argument("--metric", choices=METRICS, default="e2e", help="which time; default: e2e")
    parser.add_argument(
        "--threshold", type=_fraction, default=0.01, metavar="1%", help="the difference that matters; default: 1%%"
    )
    parser.add_argument("--format", choices=FORMATS, default="text", help="default: text")
    parser.add_argument(
        "--fail-if-slower", type=_fraction, metavar="3%", help="exit with 1 when a setting is slower by so much or more"
    )
    parser.add_argument(
        "--fail-if-inconclusive", action="store_true", help="exit with 3 when a comparison comes to no verdict"
    )
    parser.add_argument(
        "--tracking-uri", metavar="URI", help="MLflow's address; default: mlflow.db in the current folder"
    )
    return parser


def _check(options: argparse.Namespace) -> None:
    """What argparse cannot say about options together."""
    if len(options.sources) > 2:
        raise CompareError(f"{len(options.sources)} sources: name one, or two to compare with each other")
    if len(options.setting) > 2:
        raise CompareError(f"{len(options.setting)} times --setting: name one, or two to compare with each other")
    if options.baseline is not None and len(options.sources) == 2:
        raise CompareError("--baseline goes with one source: of two the first is the baseline")
    if options.baseline is not None and len(options.setting) == 2:
        raise CompareError("--baseline goes with at most one --setting: of two the first is the baseline")


def _fraction(text: str) -> float:
    """`3%`, `3 %` and `0.03` as 0.03."""
    number, sign, rest = text.strip().partition("%")
    try:
        value = float(number) / (100 if sign else 1)
    except ValueError:
        value = -1.0
    if rest or not 0 <= value < 1:
        raise argparse.ArgumentTypeError(f"{text!r} is no share below 100 %: write 3% or 0.03")
    return value


if __name__ == "__main__":
    sys.exit(main())
