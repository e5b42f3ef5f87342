"""Disk space of a job besides its results: its compile cache, its log, and the space reserved for its record.

All three are bounded. Cache and reserved space are removed with the job; if its parent is killed, by the next start.
"""

from __future__ import annotations

import contextlib
import os
import tempfile
from collections.abc import Iterator
from pathlib import Path

from bench.config.schema import BenchmarkConfig
from bench.host import cache_folder
from bench.results.file_names import RESERVE_NAME

LOG_LIMIT_BYTES = 16 << 20
LOG_HEAD_BYTES, LOG_TAIL_BYTES = 1 << 20, 1 << 20  # what is kept of a longer one
LINE_LENGTH = 300  # characters of a line of evidence
# Of JSON text, each the most that it can be.
CALL_BYTES, NUMBER_BYTES, SAMPLE_BYTES = 2048, 32, 384
MONITOR_BYTES = 8 << 20  # at most, for samples: few jobs use the whole time until their deadline
LEAST_FREE_BYTES = 16 << 20  # a sweep does not begin with less


# ---- compile cache -------------------------------------------------------------------------------------------------


@contextlib.contextmanager
def compile_cache() -> Iterator[Path]:
    """Make an empty folder for one job's compiled code, and remove it afterwards with its contents."""
    folder, lock = cache_folder.make_temporary()
    with lock:
        try:
            yield folder
        finally:
            cache_folder.remove(folder)


def remove_stale_caches() -> int:
    """Remove this user's compile caches whose parents have ended; return how many."""
    return sum(map(cache_folder.remove_unused, Path(tempfile.gettempdir()).glob(f"{cache_folder.PREFIX}*")))


# ---- the record's space --------------------------------------------------------------------------------------------


def record_bytes(config: BenchmarkConfig) -> int:
    """Return an upper estimate of the record's size on disk."""
    warmup, measurement = config.warmup, config.measurement
    # The bounds of auto count from the last compilation, and there may be calls before it.
    warmups = 2 * warmup.max_iterations if warmup.policy == "auto" else warmup.iterations
    measured = measurement.max_iterations if measurement.policy == "adaptive" else measurement.iterations
    tokens, rows = config.workload.num_tokens_to_generate, config.workload.batch_size
    series = 1 + (rows if config.generation.continuous_batching else 0)
    calls = (1 + warmups + measured) * (CALL_BYTES + series * (64 + NUMBER_BYTES * tokens))
    return (1 << 20) + calls + rows * (64 + 16 * tokens) + 32 * tokens + _monitor_bytes(config, measured)


def _monitor_bytes(config: BenchmarkConfig, calls: int) -> int:
    """Return the bytes of samples: two per call, and one per interval for as long as the measurement may last."""
    if not config.monitor.enabled:
        return 0
    longest_s = config.isolation.timeout_s
    if config.measurement.policy == "adaptive":
        longest_s = min(longest_s, 2 * config.measurement.max_s)  # its bound is checked between calls
    samples = calls * 2 + int(longest_s / config.monitor.interval_s)
    return calls * 64 + min(samples * SAMPLE_BYTES, MONITOR_BYTES)


@contextlib.contextmanager
def reserved_space(config: BenchmarkConfig, folder: Path) -> Iterator[None]:
    """Reserve disk space for the job's record, which `Record.write` uses when the disk is full.

    Raises:
        OSError: there is not enough space; the job must not begin, because its result would be lost.
    """
    path = folder / RESERVE_NAME
    try:
        _take_space(path, record_bytes(config))
        yield
    finally:
        path.unlink(missing_ok=True)


def _take_space(path: Path, size_bytes: int) -> None:
    try:
        with path.open("wb") as file:
            os.posix_fallocate(file.fileno(), 0, size_bytes)
    except OSError as error:  # which names no file, or a temporary one
        raise OSError(error.errno, error.strerror, os.fspath(path.parent)) from error


def check_space(folder: Path) -> None:
    """Make `folder` and check that results can be written there. Raises OSError where they cannot."""
    folder.mkdir(parents=True, exist_ok=True)
    with tempfile.NamedTemporaryFile(dir=folder, prefix=".probe-") as probe:
        os.posix_fallocate(probe.fileno(), 0, LEAST_FREE_BYTES)


# ---- log -----------------------------------------------------------------------------------------------------------


def bound_log(path: Path, limit_bytes: int = LOG_LIMIT_BYTES) -> int:
    """Cut the middle out of a log that has grown beyond the limit; return how many bytes were cut.

    The job may continue to append. What it writes during the cut may be lost.
    """
    with contextlib.suppress(OSError):
        if path.stat().st_size <= limit_bytes:
            return 0
        with path.open("r+b") as file:
            size = file.seek(0, os.SEEK_END)
            file.seek(size - LOG_TAIL_BYTES)
            tail = file.read(LOG_TAIL_BYTES)
            cut = size - LOG_HEAD_BYTES - LOG_TAIL_BYTES
            file.truncate(LOG_HEAD_BYTES)
            file.seek(LOG_HEAD_BYTES)
            file.write(f"\n[bench: {cut} bytes are cut here; a log keeps its beginning and its end]\n".encode() + tail)
            return cut
    return 0


def last_lines(log: Path, limit: int = 6000) -> str | None:
    """Return the end of the job's log; long lines are cut, because a fatal error's list of modules would hide it."""
    try:
        with log.open("rb") as file:
            file.seek(max(0, file.seek(0, os.SEEK_END) - 4 * limit))
            text = file.read().decode("utf-8", "replace")
    except OSError:
        return None
    lines = [line if len(line) <= LINE_LENGTH else f"{line[:LINE_LENGTH]}…" for line in text.splitlines()]
    return "\n".join(lines)[-limit:] or None
