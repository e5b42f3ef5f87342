"""Give the result of a sweep, an A/A sweep or a single run, and the next step, in at most three lines of 100 columns.

These lines end a command's output, above the links. They shorten the report's answer (`bench.report.page.answer`) and
judge nothing: text that does not fit is left out sentence by sentence, the instruction last.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence

from rich.cells import cell_len, chop_cells
from rich.console import Console
from rich.text import Text

from bench.analysis.ranking import RankedSetting, rank, standing_of
from bench.analysis.settings import asked, settings_of
from bench.analysis.trials.summary import summarize
from bench.report.comparison import ComparisonReport
from bench.report.page.answer import Answer
from bench.report.quantities import E2E
from bench.report.text.format import one_line, plural, significant, title
from bench.report.text.format import reason as reason_of
from bench.report.text.layout import is_watched
from bench.report.text.remedy import remedy
from bench.results.record import Record

COLUMNS, LINES = 100, 3
ARM = "sweep.label"  # the key that gives one setting several labels
INSTRUCTIONS = ("sweep.repeats=", "sweep.resume=")  # part of the sentence that says how to get a verdict
CUT = " …"


def answer_of_sweep(answer: Answer, records: Sequence[Record], comparison: ComparisonReport | None) -> str:
    """Return the result of a sweep; the text of an A/A sweep is that of its noise floor.

    Args:
        answer: the report's.
        records: of its jobs, with any status.
        comparison: of its settings on E2E; None if they were not compared.
    """
    trials = [each for each in records if each.kind != "reference"]
    if answer.kind == "nothing":
        return shortened(_sentences(answer.headline, *answer.cautions, *answer.sentences))
    if is_aa(trials):
        return shortened(_of_aa(comparison, trials))
    missing = [each for each in answer.cautions if "left no record" in each]
    left_out = [f"N{each[1:]}" for each in answer.cautions if each.startswith("not ranked")]
    ranking = rank(settings_of(trials))
    if not any(each.standing.is_ranked for each in ranking):
        instruction = remedy([each.standing for each in ranking], trials)
        return shortened(_sentences(answer.headline, *missing, *_why_none(ranking)), instruction)
    instruction = next((each for each in answer.sentences if any(word in each for word in INSTRUCTIONS)), "")
    told = [each for each in answer.sentences if each != instruction]
    groups = ["; ".join(one_line(each.headline) for each in answer.groups)]  # all of them or none
    return shortened(_sentences(answer.headline, *missing, *told, *groups, *left_out), one_line(instruction))


def answer_of_run(record: Record) -> str:
    """Return the result of a single run in one or two sentences."""
    standing = standing_of([record])
    name = title(record)
    if record.status != "ok":
        return f"{name}: {record.status}: {reason_of(record)}"
    summary = summarize(record)
    figures = f"{E2E.text(summary)} ms a call"
    if (rate := summary.output_tokens_per_s) is not None:
        figures += f", {significant(rate)} tok/s"
    text = f"{name}: {figures}" if summary.e2e_s is not None else f"{name}: no measured call"
    if standing.is_ranked:
        return text
    why = "; ".join(one_line(each.title) for each in standing.reasons)
    return f"{text}, not to be compared: {why}. {remedy([standing], [record])}".rstrip(" .") + "."


def print_answer(console: Console, text: str) -> None:
    """Print the text after an empty line, in lines of 100 columns, or fewer on a narrower terminal."""
    width = min(console.width, COLUMNS) if is_watched(console) else COLUMNS
    console.print()
    for line in lines_of(text, width):
        console.print(Text(line, style="bold"), soft_wrap=True)


def is_aa(records: Sequence[Record]) -> bool:
    """Tell whether all settings are the same one under several labels, as in `experiment=aa`."""
    return bool(records) and all(set(each.swept) == {ARM} for each in records)


def shortened(sentences: Sequence[str], instruction: str = "") -> str:
    """Return as many whole sentences as fit in three lines, with the instruction, which is never left out.

    A first sentence that is too long by itself is cut.

    Args:
        sentences: the most important one first.
        instruction: what to do; "" for nothing.
    """
    first, *others = sentences
    room = LINES * COLUMNS - (cell_len(instruction) + 1 if instruction else 0)
    while len(lines_of(" ".join(filter(None, [first, instruction])))) > LINES and room > len(CUT):
        room -= 10
        first = _cut(first, room)
    kept = [first]
    for each in others:
        if len(lines_of(" ".join([*kept, each, *([instruction] if instruction else [])]))) <= LINES:
            kept.append(each)
    return " ".join([*kept, *([instruction] if instruction else [])])


def lines_of(text: str, width: int = COLUMNS) -> list[str]:
    """Break a text into lines of so many columns, at spaces, and inside words that are longer than a line."""
    lines: list[str] = []
    for word in text.split():
        whole = f"{lines[-1]} {word}" if lines else word
        if lines and cell_len(whole) <= width:
            lines[-1] = whole
        else:
            lines += chop_cells(word, width)
    return lines


# ---- sentences -----------------------------------------------------------------------------------------------------


def _of_aa(comparison: ComparisonReport | None, trials: Sequence[Record]) -> list[str]:
    """Give the result of an A/A sweep: the smallest difference that this machine can detect, and that of its arms."""
    floor = comparison.noise_floor if comparison is not None else None
    if floor is None:
        asked_for = max((value for each in trials if isinstance(value := asked(each, "sweep.repeats"), int)), default=1)
        wanted = max(5, asked_for)
        why = "fewer than 3 processes of each label came through"
        return [
            f"What difference this machine can tell is not known, for {why}.",
            f"Run again with sweep.repeats={wanted}.",
        ]
    advice = floor.advice()[0]
    sentences = [f"On this machine, {advice[0].lower()}{advice[1:]}"]
    for each in comparison.comparisons if comparison is not None else ():
        told = f"{each.setting} against {each.baseline}, the same setting: {each.verdict.word}"
        if each.verdict.word in ("faster", "slower"):
            told += ", so something beside the setting differed"
        sentences.append(told)
    return _sentences(*sentences)


def _why_none(ranking: Sequence[RankedSetting]) -> list[str]:
    """Say why no setting is ranked: each kind of reason with the number of settings whose first reason it is."""
    kinds = Counter(each.standing.reasons[0].title for each in ranking)
    return [f"Not ranked ({why}): {count} of {plural(len(ranking), 'setting')}" for why, count in kinds.items()]


def _sentences(*texts: str) -> list[str]:
    """Return each text in one line with a full stop."""
    lines = [one_line(each) for each in texts]
    return [each if each.endswith((".", "!", "?")) else f"{each}." for each in lines if each]


def _cut(text: str, cells: int) -> str:
    """Return the beginning of a text, with an ellipsis."""
    pieces = chop_cells(text, max(1, cells - cell_len(CUT)))
    return f"{pieces[0].rstrip()}{CUT}" if len(pieces) > 1 else text
