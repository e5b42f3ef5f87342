"""The reference run with which trials compare their output: one job per model, workload, dtype and device.

The first job that needs it makes it, in a process of its own, and keeps it in the sweep's folder; jobs that run at the
same time wait for it. This works with every launcher, and a job that runs again later finds it. It is a job like any
other (record, log, deadline), but not counted.
"""

from __future__ import annotations

import contextlib
import dataclasses
import hashlib
from pathlib import Path

from filelock import FileLock

from bench.config.schema import (
    AttentionConfig,
    BenchmarkConfig,
    CompileConfig,
    FidelityConfig,
    GenerationConfig,
    MeasurementConfig,
    MonitorConfig,
    ProfileConfig,
    WarmupConfig,
)
from bench.host.home_folder import expanded
from bench.jobs.job import new_record, run_job
from bench.jobs.process.child import OnEvent
from bench.results.file_names import LOCK_NAME, REFERENCE_NAME, REFERENCES
from bench.results.record import Record, RecordError

POLL_S = 0.5  # between checks of another job's lock


@dataclasses.dataclass(frozen=True, kw_only=True)
class Reference:
    """The output to compare with, or why there is none."""

    file: Path | None  # None when the run failed
    reason: str | None = None  # why not
    made: Record | None = None  # the run's record, if it was made just now


def reference_config(config: BenchmarkConfig) -> BenchmarkConfig:
    """Return the setting with which others of the same model and workload are compared: the plainest one."""
    plain = BenchmarkConfig.from_dict(config.to_dict())
    plain.attention = AttentionConfig(implementation="eager")
    plain.compile = CompileConfig()
    plain.generation = GenerationConfig(kv_cache="dynamic")
    plain.warmup, plain.measurement = WarmupConfig(iterations=0), MeasurementConfig(iterations=1)
    plain.monitor, plain.profile = MonitorConfig(enabled=False), ProfileConfig()
    plain.fidelity = FidelityConfig(reference="none")
    plain.check()
    return plain


def ensure_reference(config: BenchmarkConfig, folder: Path, sweep_id: str | None, on_event: OnEvent) -> Reference:
    """Find the reference for this setting below `folder`, or make it.

    Raises:
        KeyboardInterrupt: the user's, while the reference was made.
        OSError: the folder cannot be written.
    """
    plain = reference_config(config)
    own = folder / REFERENCES / (plain.trial_id() + _weights(config))
    own.mkdir(parents=True, exist_ok=True)
    made = None
    with FileLock(own / LOCK_NAME).acquire(poll_interval=POLL_S):
        record = _finished(own)
        if record is None:
            record = new_record(plain, kind="reference", sweep_id=sweep_id, name="reference")
            record = made = run_job(plain, record, own, on_event)
    file = own / REFERENCE_NAME
    if record.status == "ok" and file.is_file():
        return Reference(file=file, made=made)
    why = record.error.message if record.error else f"{file} is missing"
    return Reference(file=None, reason=f"the reference run ended {record.status}: {why}", made=made)


def _weights(config: BenchmarkConfig) -> str:
    """Return a hash of the state of a local checkpoint; "" for other models."""
    checkpoint = Path(expanded(config.model.id or ""))
    if config.model.weights != "pretrained" or not checkpoint.is_dir():
        return ""
    files = sorted(each for each in checkpoint.iterdir() if each.is_file())
    states = [(each.name, each.stat().st_size, each.stat().st_mtime_ns) for each in files]
    return "-" + hashlib.sha256(repr(states).encode()).hexdigest()[:8]


def _finished(folder: Path) -> Record | None:
    """Return the record of a run that was not interrupted; None where there is none."""
    with contextlib.suppress(RecordError):
        record = Record.read(folder)
        return None if record.status == "interrupted" else record
    return None
