"""Read and write a folder's mark: whether its contents are in MLflow, where, and if not, why not.

`bench sync` decides by the mark what to publish. The mark belongs to one record: a job that was run again has another
key, so the mark of the earlier attempt does not apply to it. It never holds credentials. In a folder that cannot be
written only the mark is lost.
"""

from __future__ import annotations

import contextlib
import dataclasses
import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from bench.host.atomic_files import write_whole
from bench.results.file_names import MARK_NAME
from bench.results.record import Record


@dataclass(frozen=True, kw_only=True)
class Mark:
    """State whether and where a record or sweep is published."""

    published: bool
    uri: str | None  # the store's absolute address, without credentials; None if it is invalid
    experiment: str | None
    database: str | None = None  # the path from the folder to the store's file, if they move together
    run_id: str | None = None  # None while not published
    record_key: str  # of what is published: `record_key`, or `sweep_key` in a sweep's folder
    error: str | None = None  # one line; None when published

    def says(self, *, key: str, uri: str | None, experiment: str) -> bool:
        """Check whether this record is published in this place."""
        return self.published and (self.record_key, self.uri, self.experiment) == (key, uri, experiment)


def write_mark(folder: Path, mark: Mark) -> None:
    """Write a mark, over an earlier one; keep a file of the same name that is not a mark."""
    with contextlib.suppress(OSError):
        if not _is_foreign(folder / MARK_NAME):
            write_whole(folder / MARK_NAME, json.dumps(dataclasses.asdict(mark), indent=1, ensure_ascii=False) + "\n")


def read_mark(folder: Path) -> Mark | None:
    """Return the folder's mark; None without a usable one."""
    try:
        data = json.loads((folder / MARK_NAME).read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return None
    if not isinstance(data, dict) or not isinstance(data.get("record_key"), str):
        return None

    def text(name: str) -> str | None:
        value = data.get(name)
        return value if isinstance(value, str) else None

    return Mark(
        published=data.get("published") is True,
        uri=text("uri"),
        experiment=text("experiment"),
        database=text("database"),
        run_id=text("run_id"),
        record_key=data["record_key"],
        error=text("error"),
    )


def _is_foreign(path: Path) -> bool:
    """Check whether the file exists and is neither a mark nor a part of one."""
    try:
        data = json.loads(path.read_text(encoding="utf-8") or "{}")
    except FileNotFoundError:
        return False
    except (OSError, ValueError, RecursionError):
        return True
    return not isinstance(data, dict) or bool(data.keys() - {each.name for each in dataclasses.fields(Mark)})


def record_key(record: Record) -> str:
    """Return the key of a record; the same setting measured again has another key."""
    return f"{record.sweep_id or 'single'}/{record.setting_id}/{record.repeat}/{record.started_at_s:.3f}"


def sweep_key(sweep_id: str, records: Sequence[Record]) -> str:
    """Return the key of a whole sweep, from the statuses of its jobs, which its run counts."""
    return f"{sweep_id}/{len(records)}/{max((each.started_at_s for each in records), default=0.0):.3f}"
