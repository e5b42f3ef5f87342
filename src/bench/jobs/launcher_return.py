"""What a job gives back through its launcher: how it ended, and its files where the sweep's folder is out of reach.

It is pickled by the launcher, so it is made of plain values alone; what comes back is data of another process, and the
names of its files are not trusted.
"""

from __future__ import annotations

import contextlib
import dataclasses
from pathlib import Path

from bench.host.atomic_files import write_whole
from bench.results.file_names import LOG_NAME, MARK_NAME, OPERATORS_NAME, RECORD_NAME, file_name
from bench.results.record import Record

BROUGHT = (RECORD_NAME, LOG_NAME, MARK_NAME, OPERATORS_NAME)  # traces stay where they were written
LARGEST_BYTES = 32 << 20  # of a file that is brought


@dataclasses.dataclass(frozen=True, kw_only=True)
class Returned:
    """How a job ended, and what it brings."""

    status: str
    objectives: dict[str, float] | str = ""  # metric → value of what a search looks for; or why there are none
    host: str | None = None
    left_in: str = ""  # its folder, as that host names it
    files: dict[str, bytes] | None = None  # None: they lie in the sweep's folder already
    left_there: list[str] = dataclasses.field(default_factory=list)  # names of files too large to bring

    @classmethod
    def of(cls, record: Record, folder: Path, *, with_files: bool, objectives: dict[str, float] | str = "") -> Returned:
        """Gather what a job has left in its folder."""
        host = record.placement.host if record.placement is not None else None
        if not with_files:
            return cls(status=record.status, objectives=objectives, host=host, left_in=str(folder))
        files, large = {}, []
        for name in BROUGHT:
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
        """Write the files into the job's folder of the sweep. OSError where there is no space."""
        if self.files is None:
            return
        folder.mkdir(parents=True, exist_ok=True)
        for name, content in self.files.items():
            if name == file_name(name):
                write_whole(folder / name, content)
