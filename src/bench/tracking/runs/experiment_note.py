"""Describe an experiment above its runs in MLflow's UI: what the runs are, and how to read them.

The description is written if there is none, or if bench wrote the present one and nobody has changed it: its last line,
a comment that the UI hides, holds a digest of the text above.
"""

from __future__ import annotations

import hashlib
import re

from bench.results.sweep_file import SweepInfo
from bench.tracking.mlflow_internals import RUNS_PAGE, runs_page
from bench.tracking.runs.description import TAG as NOTE
from bench.tracking.store.errors import explained
from bench.tracking.store.store import Store

OWN = re.compile(r"\n\n<!-- bench ([0-9a-f]{16}) -->\s*\Z")
LONGEST_NAME = 40

TEXT = """\
{pages}

Each run is one process that measured `generate` under one setting; each sweep has a run of its own, which holds its \
trials, its answer and its report. `scripts/ui` (or `python -m bench.tracking.ui`) names the pages of the latest sweep.

- `rank` is the place of a run's *setting* among those that may be called fastest, in the order of the report; a \
setting that may not has none.
- `e2e_ms`, `ttft_ms`, `itl_ms`, `tpot_ms`: medians over the measured calls, of ranked trials alone. `unranked_ms` is \
the median E2E of a trial that is ok and not ranked: do not compare it.
- `steady`, `fidelity`: 1 yes, 0 no, empty where it could not be told. `cold_s`: the first call, compilation included.
- Marks behind a name: `≠` the output differs from the reference's, `~` the warm-up did not converge, `!` unsteady \
during measurement (these three are not ranked), `?` unverified.
- `per_iter/…` has a step for each call after the first one, warm-up included; the file `calls.json` of a run has all.
"""


def describe_experiment(store: Store, sweep: SweepInfo | None, view: str | None) -> None:
    """Write the description, with links to the pages of the latest sweep.

    Args:
        store: the experiment.
        sweep: the latest sweep; None: none is known.
        view: the key of its saved view; None where there is none.

    Raises:
        TrackingError: MLflow did not take it.
    """
    with explained(store.uri, "describe the experiment"):
        before = store.client.get_experiment(store.experiment_id).tags.get(NOTE) or ""
        text = signed(TEXT.format(pages=_pages(store, sweep, view)))
        if text != before and (not before.strip() or is_own(before)):
            store.client.set_experiment_tag(store.experiment_id, NOTE, text)


def signed(text: str) -> str:
    """Return the text with the comment that identifies it as bench's."""
    text = text.rstrip()
    return f"{text}\n\n<!-- bench {_digest(text)} -->"


def is_own(note: str) -> bool:
    """Check whether bench wrote this description and nobody has changed it."""
    found = OWN.search(note)
    return found is not None and _digest(note[: found.start()]) == found[1]


def _digest(text: str) -> str:
    return hashlib.sha256(text.encode()).hexdigest()[:16]


def _pages(store: Store, sweep: SweepInfo | None, view: str | None) -> str:
    """Return the first line, which the UI shows before the description is opened; its links work at any address."""
    if sweep is None or view is None or not RUNS_PAGE.is_here():
        return "Sweeps of **bench**. How to read columns and marks: below."
    name = re.sub(r"[^\w .:-]", "_", sweep.name)[:LONGEST_NAME]
    table, charts = (runs_page("", store.experiment_id, view=view, charts=each).lstrip("/") for each in (False, True))
    return f"Latest sweep of **bench**, {name}: [table]({table}), [charts]({charts}). How to read them: below."
