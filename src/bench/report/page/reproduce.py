"""Describe how to reproduce a sweep's figures: the command, the requested config, and the files."""

from __future__ import annotations

import json
import shlex
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from bench.report.page.content import Again
from bench.report.text.format import one_line
from bench.results.file_names import COMPARISON_JSON, CONFIG_FOLDER, CONFIG_NAME, LOG_NAME, RECORD_NAME, SWEEP_NAME
from bench.results.record import Record

# Sections of a request that define how a sweep is run, not what is measured.
PROGRAMS = {"compare": "python -m bench.compare", "report": "python -m bench.report"}
NOT_SHOWN = ("search", "tracking")
OF_A_SWEEP = ("sweep.name", "sweep.resume", "sweep.dry_run", "tracking", "search.storage")  # not requested again


def build_again(
    records: Sequence[Record],
    *,
    sweep_id: str | None,
    source: str | None,
    command: str | None,
    programs: Mapping[str, str] = PROGRAMS,
) -> Again:
    """Return commands, files and the config that all records share.

    Args:
        records: of the sweep's jobs.
        sweep_id: None if it is no sweep.
        source: its folder or id, as typed; None: not known.
        command: the command that repeats the measurement; None: not known.
        programs: how `compare` and `report` are typed here.
    """
    commands = [("measure the same again", command)] if command is not None else []
    if source is not None:
        quoted = shlex.quote(source)
        report = programs["report"]
        commands += [
            ("verdicts against another baseline", f"{programs['compare']} {quoted} --baseline NAME"),
            ("this page once more", f"{report} {quoted}"),
            ("one row a trial and repeat", f"{report} {quoted} --format csv"),
        ]
    if sweep_id is not None:
        by_id = shlex.quote(f"mlflow:{sweep_id}")
        commands.append(("from MLflow, without the folder", f"{programs['report']} {by_id}"))
    return Again(commands=commands, files=_files(sweep=sweep_id is not None), config=_common(records))


def command_of(overrides: Sequence[str], swept: Mapping[str, Sequence[str]], for_hydra: Sequence[str] = ()) -> str:
    """Return the command of a sweep from the overrides of one of its jobs and the values of the swept keys.

    It composes all combinations; the sweep may have had only some of them.

    Args:
        overrides: of the job.
        swept: override key → its values; empty for a single run.
        for_hydra: flags and overrides of Hydra's own, for the sweep as a whole.
    """
    values = {key.lstrip("+"): each for key, each in swept.items()}
    typed = []
    for each in overrides:
        signed = each.partition("=")[0]
        key = signed.lstrip("+~")
        if key in OF_A_SWEEP or key.startswith("tracking."):
            continue
        typed.append(f"{signed}={','.join(values[key])}" if key in values else each)
    return shlex.join(["python", "-m", "bench", *(["-m"] if swept else []), *for_hydra, *typed])


def _files(*, sweep: bool) -> list[tuple[str, str]]:
    """Return the files beside the page, as pairs of contents and path."""
    each = "*/" if sweep else ""
    files = [
        ("what was asked for, what ran, every token's time", f"{each}{RECORD_NAME}"),
        ("what the libraries said", f"{each}{LOG_NAME}"),
        ("the composed config", f"{each}{CONFIG_FOLDER}/{CONFIG_NAME}"),
    ]
    if sweep:
        files = [("what was planned, in which order", SWEEP_NAME), *files]
        files.append(("the verdicts in full precision", COMPARISON_JSON))
    return files


def _common(records: Sequence[Record]) -> dict[str, str]:
    """Return the requested keys that have one value in all records, dotted."""
    values: dict[str, set[str]] = {}
    for record in records:
        for key, value in _flat(record.requested):
            values.setdefault(key, set()).add(value)
    return {key: next(iter(found)) for key, found in values.items() if len(found) == 1}


def _flat(requested: Mapping[str, Any]) -> Iterator[tuple[str, str]]:
    for section, keys in requested.items():
        if section in NOT_SHOWN:
            continue
        for key, value in keys.items() if isinstance(keys, dict) else [("", keys)]:
            yield one_line(f"{section}.{key}".rstrip(".")), one_line(_typed(value))


def _typed(value: object) -> str:
    """Return a value as typed on the command line."""
    if value is None:
        return "null"
    if isinstance(value, bool):
        return str(value).lower()
    return json.dumps(value, sort_keys=True, ensure_ascii=False) if isinstance(value, dict | list) else str(value)
