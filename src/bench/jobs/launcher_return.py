"""What a job returns through its launcher: how it ended, and its files if it cannot reach the sweep's folder.

The launcher pickles it, so it holds plain values only. It is data of another process: names of files are checked.
"""

from __future__ import annotations

import contextlib
import dataclasses
from pathlib import Path

from bench.host.atomic_files import write_whole
from bench.results.file_names import LOG_NAME, MARK_NAME, OPERATORS_NAME, RECORD_NAME, file_name
from bench.results.record import Record

RETURNED_FILES = (RECORD_NAME, LOG_NAME, MARK_NAME, OPERATORS_NAME)  # traces stay where they were written
LARGEST_BYTES = 32 << 20  # of a file that is returned


@dataclasses.dataclass(frozen=True, kw_only=True)
class Returned:
    """How a job ended, and the files that it returns."""

    status: str
    objectives: dict[str, float] | str = ""  # objective of a search → value; or why there are none
    host: str | None = None
    left_in: str = ""  # its folder on that host
    files: dict[str, bytes] | None = None  # None: they are in the sweep's folder already
    left_there: list[str] = dataclasses.field(default_factory=list)  # names of files too large to return

    @classmethod
    def of(cls, record: Record, folder: Path, *, with_files: bool, objectives: dict[str, float] | str = "") -> Returned:
        """Collect the files of a job from its folder."""
        host = record.placement.host if record.placement is not None else None
        if not with_files:
            return cls(status=record.status, objectives=objectives, host=host, left_in=str(folder))
        files, large = {}, []
        for name in RETURNED_FILES:
            with contextlib.suppress(OSError):
                if (folder / name).stat().st_size > LARGEST_BYTES:
                    large.append(name)
                else:
                    files[name] = (folder / name).read_bytes()
        return cls(
            status=record.status,
            objectives=objectives,
            host=host,
            left_in=str(folder),
            files=files,
            left_there=large,
        )

    def deliver(self, folder: Path) -> None:
        """Write the files into the job's folder in the sweep. OSError where there is no space."""
        if self.files is None:
            return
        folder.mkdir(parents=True, exist_ok=True)
        for name, content in self.files.items():
            if name == file_name(name):
                write_whole(folder / name, content)
