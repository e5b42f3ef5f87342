"""Show the results of a search on the terminal, and write them as `search.json` and `search.md`."""

from __future__ import annotations

import contextlib
import json
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from rich.console import Console

from bench.config.schema import SearchConfig
from bench.host.atomic_files import write_whole
from bench.jobs.planning.search_space import Space
from bench.orchestration.sweep_end import Concluded
from bench.report.search import (
    build_search_report,
    print_search,
    search_answer,
    search_section,
    search_to_json,
    search_to_markdown,
)
from bench.results.file_names import SEARCH_JSON, SEARCH_MARKDOWN
from bench.results.record import Record

if TYPE_CHECKING:
    from bench.orchestration.search.study import Study


def conclude(
    console: Console,
    config: SearchConfig,
    space: Space,
    study: Study,
    folder: Path,
    *,
    records: Sequence[Record],
    lost: int,
) -> Concluded:
    """Show the results, and write them into the folder of the search.

    Args:
        console: for the output.
        config: of the search.
        space: the possible values.
        study: for the refused settings.
        folder: of the search.
        records: of all jobs.
        lost: jobs without a record.
    """
    from bench.orchestration.search.study import StudyError  # noqa: PLC0415

    refused: list[str] = []
    with contextlib.suppress(StudyError):
        reasons = [trial.outcome for trial in study.trials() if isinstance(trial.outcome, str)]
        refused = [each for each in reasons if each.startswith("refused: ")]
    report = build_search_report(
        [each for each in records if each.status != "interrupted"],
        goals=config.goals(),
        space=space.shown(),
        size=space.size(),
        refused=refused,
        lost=lost,
    )
    print_search(console, report)
    files = [folder / SEARCH_JSON, folder / SEARCH_MARKDOWN]
    try:
        write_whole(files[0], json.dumps(search_to_json(report), indent=1, allow_nan=False))
        write_whole(files[1], search_to_markdown(report).encode(errors="replace"))
    except OSError as error:
        console.print(f"what was found is not kept: {error}", markup=False, highlight=False, soft_wrap=True)
        files = []
    return Concluded(files=files, sections=[search_section(report)], answer=search_answer(report))
