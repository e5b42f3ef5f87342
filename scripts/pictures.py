"""Make the pictures of README.md and docs/ again, with a real sweep, a real MLflow server and a real browser.

Six settings of SmolLM2-135M, five repeats each, are measured in a temporary folder (half an hour on two cores), unless
--sweep names an existing sweep; a copy of its database is then shown, because nothing may be written to the original.
The model comes from its package and is converted first. The pictures show this machine and prove nothing about others.

Not covered: the terminal's table in README.md, which is text.
"""

from __future__ import annotations

import argparse
import contextlib
import json
import sqlite3
import subprocess
import sys
import tempfile
import urllib.parse
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from browser import Browser, Page, chromium, tracking_server
from overhead_bench.figures import NotMeasuredError
from overhead_bench.smollm2 import make_checkpoint
from PIL import Image
from playwright import sync_api

from bench.tracking.pages.view import view_key

CHECKOUT = Path(__file__).parents[1]
SWEEP = (
    "model=smollm2-135m",
    "attention=eager,sdpa",
    "compile=off,default,max-autotune",
    "workload.num_tokens_to_generate=16",
    "warmup.iterations=3",
    "measurement.iterations=15",
    "sweep.repeats=5",
    "sweep.name=six",
)
LARGEST_BYTES = 300_000
COLOURS = (256, 128, 64, 32)  # if all available colours exceed that size
BESIDE = ("Close", "Hide banner")  # what closes the things that MLflow puts beside the runs
WIDE, PHONE = (1400, 1050), (390, 844)  # pixels


class PicturesError(Exception):
    """Say in one line what is missing."""


@dataclass(frozen=True, kw_only=True)
class Sweep:
    """Describe the sweep shown in the pictures."""

    folder: Path
    sweep_id: str
    database: Path  # a copy of the database that holds its runs
    experiment_id: str
    runs: list[str]  # of its ranked trials, fastest first; as many as the sweep's own link names

    def address(self, server: str, *, charts: bool = False) -> str:
        """Return the address of its table of trials, as the sweep saved it, or of their charts."""
        query = {"workflowType": "machine_learning", "viewStateShareKey": view_key(self.sweep_id)}
        query |= {"compareRunsMode": "CHART"} if charts else {}
        return f"{server}/#/experiments/{self.experiment_id}/runs?{urllib.parse.urlencode(query)}"

    def compare_address(self, server: str) -> str:
        """Return the address of the page that shows its trials side by side."""
        query = {"runs": json.dumps(self.runs), "experiments": json.dumps([self.experiment_id])}
        return f"{server}/#/compare-runs?{urllib.parse.urlencode(query)}"


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command line; return the exit status."""
    options = parser().parse_args(arguments)
    try:
        with tempfile.TemporaryDirectory(prefix="bench-pictures-") as scratch:
            _run(options, Path(scratch))
    except PicturesError as error:
        print(f"pictures: {error}", file=sys.stderr)
        return 1
    return 0


def _run(options: argparse.Namespace, scratch: Path) -> None:
    if chromium() is None:
        raise PicturesError("no Chromium on PATH")
    folder = run_sweep(scratch) if options.sweep is None else options.sweep.absolute()
    sweep = find(folder, scratch)
    options.output.mkdir(parents=True, exist_ok=True)
    for path in take(sweep, scratch, options.output):
        print(f"{path}  {path.stat().st_size / 1000:.0f} kB")


def parser() -> argparse.ArgumentParser:
    """Define the command's options."""
    made = argparse.ArgumentParser(
        prog="scripts/pictures", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    made.add_argument(
        "--sweep", type=Path, metavar="FOLDER", help="of this sweep, with its mlflow.db; default: a new one"
    )
    made.add_argument(
        "--output", type=Path, metavar="DIR", default=CHECKOUT / "docs/images", help="default: docs/images"
    )
    return made


# ---- the sweep ---------------------------------------------------------------------------------------------------


def run_sweep(folder: Path) -> Path:
    """Measure six settings below `folder`; return the sweep's own folder."""
    try:
        model = f"model.id={make_checkpoint(folder / 'SmolLM2-135M')}"
    except NotMeasuredError as error:
        raise PicturesError(str(error)) from error
    done = subprocess.run(  # noqa: S603 - our own interpreter
        [sys.executable, "-m", "bench", "-m", *SWEEP, model], cwd=folder, stdin=subprocess.DEVNULL, check=False
    )
    if done.returncode != 0:
        raise PicturesError(f"the sweep ended with exit status {done.returncode}")
    return folder / "multirun/six"


def find(folder: Path, scratch: Path) -> Sweep:
    """Find the sweep in a folder, and its runs in the database of the folder where the command was started."""
    try:
        plan = json.loads((folder / "sweep.json").read_text(encoding="utf-8"))
    except OSError as error:
        raise PicturesError(f"{folder}: no sweep ({error.strerror})") from error
    database = folder.parents[1] / "mlflow.db"
    if not database.is_file():
        raise PicturesError(f"{database}: no such file; name a sweep below the folder of its mlflow.db")
    copy = scratch / "copy.db"
    with (
        contextlib.closing(sqlite3.connect(f"{database.as_uri()}?mode=ro", uri=True)) as source,
        contextlib.closing(sqlite3.connect(copy)) as target,
    ):
        source.backup(target)
        found = target.execute(TRIALS, (plan["sweep_id"],)).fetchall()
    if not found:
        raise PicturesError(f"{database}: no run of {plan['sweep_id']}")
    return Sweep(
        folder=folder,
        sweep_id=plan["sweep_id"],
        database=copy,
        experiment_id=str(found[0][1]),
        runs=[run for run, _ in found],
    )


TRIALS = """
    SELECT runs.run_uuid, runs.experiment_id FROM runs
    JOIN tags AS sweep ON sweep.run_uuid = runs.run_uuid AND sweep.key = 'sweep_id' AND sweep.value = ?
    JOIN tags AS kind ON kind.run_uuid = runs.run_uuid AND kind.key = 'kind' AND kind.value = 'trial'
    JOIN latest_metrics AS e2e ON e2e.run_uuid = runs.run_uuid AND e2e.key = 'e2e_ms' AND NOT e2e.is_nan
    LEFT JOIN latest_metrics AS place
        ON place.run_uuid = runs.run_uuid AND place.key = 'rank' AND NOT place.is_nan
    ORDER BY place.value IS NULL, place.value, e2e.value
    LIMIT 10
"""


# ---- the pictures ------------------------------------------------------------------------------------------------


def take(sweep: Sweep, scratch: Path, output: Path) -> Iterator[Path]:
    """Write every picture into `output`."""
    with Browser() as browser:
        yield from _of_the_report(browser, sweep, output)
        with tracking_server(f"sqlite:///{sweep.database}", log=scratch / "server.log") as server:
            page = tidied(browser.open(sweep.address(server), width=1600, height=620).wait("text=Run Name"))
            yield picture(page, output / "mlflow-table.png")
            charts = browser.open(sweep.address(server, charts=True), width=1600, height=1000)
            yield picture(tidied(charts.wait(".js-plotly-plot")), output / "mlflow-charts.png")
            compare = browser.open(sweep.compare_address(server), width=1600, height=1000)
            yield picture(tidied(compare.wait("text=Run details")), output / "mlflow-compare.png")


def _of_the_report(browser: Browser, sweep: Sweep, output: Path) -> Iterator[Path]:
    report = sweep.folder / "report.html"
    if not report.is_file():
        raise PicturesError(f"{report}: no such file; python -m bench.report {sweep.folder} makes it")
    sizes = {"report": (*WIDE, False), "report-dark": (*WIDE, True), "report-phone": (*PHONE, False)}
    for name, (width, height, dark) in sizes.items():
        page = browser.open(report, width=width, height=height, dark=dark, scale=2 if width < WIDE[0] else 1)
        yield picture(page, output / f"{name}.png")


def tidied(page: Page) -> Page:
    """Close the panels that MLflow shows beside the runs: its assistant, and the note that the view was shared."""
    page.settle()
    for name in BESIDE:
        with contextlib.suppress(sync_api.Error):  # it is not on this page
            page.page.get_by_role("button", name=name).first.click(timeout=2000)
    return page


def picture(page: Page, path: Path) -> Path:
    """Write a picture of a page with as many colours as LARGEST_BYTES allows, and close the page."""
    page.settle().picture(path)
    page.close()
    whole = Image.open(path).convert("RGB")
    for colours in (None, *COLOURS):
        reduced = whole if colours is None else whole.quantize(colours, dither=Image.Dither.NONE)
        reduced.save(path, optimize=True)
        if path.stat().st_size < LARGEST_BYTES:
            return path
    raise PicturesError(f"{path}: {path.stat().st_size} bytes with {COLOURS[-1]} colours, more than {LARGEST_BYTES}")


if __name__ == "__main__":
    sys.exit(main())
