"""Names of the files and folders that bench writes into the folder of a job and of a sweep.

Whoever writes, reads, publishes or removes one of them takes its name from here. Files of one module alone, which
nothing else reads, are named there.
"""

from __future__ import annotations

import re

# ---- in the folder of a job ----------------------------------------------------------------------------------------

RECORD_NAME = "record.json"
LOG_NAME = "worker.log"
REFERENCE_NAME = "reference.safetensors"  # beside the record of a reference run
MARK_NAME = "tracking.json"  # whether the record is in MLflow, and where; also in the folder of a sweep
TRACE_NAME, OPERATORS_NAME, SNAPSHOT_NAME = "trace.json.gz", "operators.txt", "memory_snapshot.pickle"
PROFILE_NAMES = (TRACE_NAME, OPERATORS_NAME, SNAPSHOT_NAME)  # that a job writes when it is profiled
RESERVE_NAME = ".reserve"  # disk space that a job sets aside for its record; see `Record.write`
SIGTERM_NAME = ".sigterm"  # the supervisor received SIGTERM; the parent reads and removes it
LEFTOVERS_NAME = ".strays"  # processes that the supervisor killed, one per line; the parent reads and removes it
CONFIG_FOLDER = ".hydra"  # the composed config, written by Hydra
OTHER_CONFIG_FOLDER = ".hydra-bench"  # the same, where another Hydra program had written its own before
CONFIG_NAME, HYDRA_NAME, OVERRIDES_NAME = "config.yaml", "hydra.yaml", "overrides.yaml"  # in that folder
HYDRA_NAMES = (CONFIG_NAME, HYDRA_NAME, OVERRIDES_NAME)

# ---- in the folder of a sweep --------------------------------------------------------------------------------------

SWEEP_NAME = "sweep.json"
LOCK_NAME = ".lock"  # held by the process that runs the sweep; in references/ID by the one that makes the reference
EARLIER = "earlier"  # folder of former attempts, which are counted nowhere
REFERENCES = "references"  # folder of reference runs
ENGINE_JOBS_NAME = "engine.json"  # the jobs that were handed to Slurm
MULTIRUN_NAME = "multirun.yaml"  # what the sweep was composed from, as Hydra's sweepers call it
SEARCH_DATABASE = "search.db"
REPORT_HTML, REPORT_MARKDOWN, FIGURES = "report.html", "report.md", "figures"
COMPARISON_JSON, COMPARISON_MARKDOWN = "comparison.json", "comparison.md"
SEARCH_JSON, SEARCH_MARKDOWN = "search.json", "search.md"
# What the end of a sweep writes for people to read, as patterns.
CONCLUSIONS = (
    REPORT_HTML,
    REPORT_MARKDOWN,
    f"{FIGURES}/*.svg",
    COMPARISON_JSON,
    COMPARISON_MARKDOWN,
    SEARCH_JSON,
    SEARCH_MARKDOWN,
)

# Folders below which no record of a trial is looked for: copies, former attempts and reference runs.
WITHOUT_TRIALS = ("mlartifacts", "artifacts", EARLIER, REFERENCES)


def file_name(text: str) -> str:
    """Return the text in letters that every file system accepts, at most 100 of them."""
    return re.sub(r"[^A-Za-z0-9._=-]+", "-", text)[:100].strip("-.") or "job"
