"""Compare the settings of a sweep with their baseline, or two sweeps: `python -m bench.compare`.

This module reads arguments and prints: ``bench.orchestration.loading`` reads the records, ``bench.analysis`` compares
them and ``bench.report`` shows the result. Libraries are imported where they are used, so that ``--help`` and a
mistyped option respond at once.

With --fail-if-slower or --fail-if-inconclusive it is a regression gate, which passes only what it could compare. The
exit status is the first that applies: 2 for wrong arguments and unreadable sources, in one line; 1 if a setting is
slower than --fail-if-slower allows; 4 if a setting that worked now fails, is missing, changed its output or became
incomparable; 3 if a comparison is inconclusive, with --fail-if-inconclusive (else a warning); 0.
"""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Sequence
from typing import TYPE_CHECKING

from bench.cli.subcommands import Parser, run, say
from bench.config.rules import ConfigError
from bench.host.command_line import CommandError, ExitStatus
from bench.host.home_folder import expanded
from bench.orchestration.loading.record_sources import Source, read_source

if TYPE_CHECKING:
    from bench.analysis.settings import Setting
    from bench.report.comparison import ComparisonReport, SlowerCheck

WORD = "compare"
METRICS = ("e2e", "ttft", "itl", "tpot")
FORMATS = ("text", "json", "markdown")

DESCRIPTION = "Compare the settings of a sweep with their baseline, or two sweeps with each other."
EPILOG = """\
A SOURCE is a sweep's folder (multirun/NAME), the folder or record.json of one job, or a sweep's id in MLflow (also
written mlflow:ID; a path that exists comes first). With two sources the first is the baseline, before, and the second
is what came after.

exit status, the first that applies:
  2  wrong arguments, or a source that cannot be read
  1  a setting is slower than --fail-if-slower allows
  4  with either --fail-if option: a setting failed, vanished, changed its output, or became incomparable
  3  with --fail-if-inconclusive: a comparison is inconclusive (without it, a warning)
  0  none of these

examples:
  python -m bench.compare multirun/night --baseline attention=eager
  python -m bench.compare multirun/before multirun/after --fail-if-slower 3% --fail-if-inconclusive"""


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command line and return the exit status."""
    return run(WORD, lambda: _run(_parser().parse_args(arguments)))


def _run(options: argparse.Namespace) -> int:
    _check(options)
    sources = [read_source(each, options.tracking_uri) for each in options.sources]
    for source in sources:
        for note in source.notes:
            say(WORD, f"{source.label}: {note}")
    try:
        report = _report_of_one(options, sources[0]) if len(sources) == 1 else _report_of_two(options, *sources)
    except ConfigError as error:
        where = "--baseline" if options.baseline is not None else f"the baseline of {sources[0].label},"
        raise CommandError(f"{where} {error.value}: {error.remedy}") from error
    check = _check_of(report, options)
    # One setting alone may show its noise floor; a gate must not pass because there was nothing to compare.
    is_empty = len(report.settings) > 1 or report.noise_floor is None
    if not report.comparisons and (not check.broken if check is not None else is_empty):
        raise CommandError(_nothing(report))
    _print(report, check, options.format)
    return 0 if check is None else _status(report, check, options)


def _status(report: ComparisonReport, check: SlowerCheck, options: argparse.Namespace) -> int:
    """Report violations of the gate, one line per kind and reason, and return the exit status."""
    if check.slower and check.limit is not None and options.format != "text":  # the text states it itself
        say(WORD, f"slower by {check.limit * 100:g} % or more: {', '.join(check.slower)}")
    for each in check.broken:
        say(WORD, f"cannot be compared: {each.setting}: {each.reason}")
    inconclusive = _inconclusive(report, check)
    kind = "inconclusive" if options.fail_if_inconclusive else "warning: inconclusive"
    for reason, names in inconclusive.items():
        say(WORD, f"{kind}: {', '.join(names)}: {reason}")
    if check.slower:
        return ExitStatus.FAILED
    if check.broken:
        return ExitStatus.INCOMPARABLE
    return ExitStatus.INCONCLUSIVE if options.fail_if_inconclusive and inconclusive else ExitStatus.OK


def _inconclusive(report: ComparisonReport, check: SlowerCheck) -> dict[str, list[str]]:
    """Return reason → settings without a verdict, except those that the gate already reports."""
    done = {each.setting for each in check.broken}
    found: dict[str, list[str]] = {}
    for each in report.comparisons:
        if each.verdict.word == "inconclusive" and each.setting not in done:
            found.setdefault(each.verdict.reason or "no reason is known", []).append(each.setting)
    if report.before is None and report.unmatched:
        found["no baseline to compare it with"] = report.unmatched
    return found


def _check_of(report: ComparisonReport, options: argparse.Namespace) -> SlowerCheck | None:
    """Return the result of the gate; None if no gate was requested."""
    from bench.report.comparison import check_slower  # noqa: PLC0415

    is_gate = options.fail_if_slower is not None or options.fail_if_inconclusive
    return check_slower(report, options.fail_if_slower) if is_gate else None


def _print(report: ComparisonReport, check: SlowerCheck | None, form: str) -> None:
    from rich.console import Console  # noqa: PLC0415

    from bench.report.comparison import to_json  # noqa: PLC0415
    from bench.report.terminal.comparison_text import print_comparison, to_markdown  # noqa: PLC0415

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
        # Only with its own baseline: further comparisons would only make the correction stricter.
        found = compare(settings, baseline=baseline, metric=options.metric, margin=options.threshold)
        own = [each.baseline_id for each in found if each.setting_id == chosen[0].setting_id]
        if not own:
            raise CommandError(
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
        raise CommandError(f"{source.label}: holds reference runs only; name a sweep's folder or id")
    return settings


def _named(name: str, settings: Sequence[Setting], source: Source) -> Setting:
    """Return the setting with this name or id. CommandError without exactly one."""
    found = [each for each in settings if name in (each.name, each.setting_id)]
    if len(found) == 1:
        return found[0]
    if found:
        ids = ", ".join(each.setting_id for each in found)
        raise CommandError(f"--setting {name}: several settings of {source.label} have that name; give an id: {ids}")
    names = ", ".join(each.name or each.setting_id for each in settings)
    raise CommandError(f"--setting {name}: no such setting in {source.label}; settings: {names}")


def _nothing(report: ComparisonReport) -> str:
    """Return why there is nothing to show, and the remedy."""
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


# ---- options -----------------------------------------------------------------------------------------------------


def _parser() -> argparse.ArgumentParser:
    parser = Parser(WORD, description=DESCRIPTION, epilog=EPILOG, allow_abbrev=False)
    parser.add_argument(
        "sources", nargs="+", type=expanded, metavar="SOURCE", help="one or two: a folder, a record, a sweep's id"
    )
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
        "--fail-if-slower",
        type=_fraction,
        metavar="3%",
        help="exit with 1 when a setting is slower by so much or more, with 4 when one cannot be compared any more",
    )
    parser.add_argument(
        "--fail-if-inconclusive",
        action="store_true",
        help="exit with 3 when a comparison is inconclusive, with 4 when a setting cannot be compared any more",
    )
    parser.add_argument(
        "--tracking-uri", metavar="URI", help="MLflow's address; default: mlflow.db in the current folder"
    )
    return parser


def _check(options: argparse.Namespace) -> None:
    """Refuse combinations of options that argparse cannot check."""
    if len(options.sources) > 2:
        raise CommandError(f"{len(options.sources)} sources: name one, or two to compare with each other")
    if len(options.setting) > 2:
        raise CommandError(f"{len(options.setting)} times --setting: name one, or two to compare with each other")
    if options.baseline is not None and len(options.sources) == 2:
        raise CommandError("--baseline goes with one source: of two the first is the baseline")
    if options.baseline is not None and len(options.setting) == 2:
        raise CommandError("--baseline goes with at most one --setting: of two the first is the baseline")


def _fraction(text: str) -> float:
    """Return `3%`, `3 %` and `0.03` as 0.03."""
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
