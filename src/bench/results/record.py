"""The record of a job: its schema, and reading, checking and writing its JSON file.

A record holds the request as it was made, what was observed to have run, and the raw times of every call. Statistics
are derived from those in ``bench.analysis``, so that a better one needs no new measurement; the judgements that the job
itself had to make (when to stop, whether the series is steady) are kept as they were made. Failure is data and has the
same form as success: status, stage, error.

The larger parts of the schema stand in `bench.results.measured` and `bench.results.observed`; all names are imported
from here.

Seconds and bytes throughout, with the unit in the name. What is not known is None, never 0.
"""

from __future__ import annotations

import dataclasses
import errno
import json
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from bench.config.renamed import rename_swept, with_current_names
from bench.config.rules import ConfigError
from bench.host.atomic_files import write_whole
from bench.host.secrets import scrub
from bench.results.file_names import CONFIG_FOLDER, OTHER_CONFIG_FOLDER, RECORD_NAME, RESERVE_NAME
from bench.results.json_dataclasses import load
from bench.results.measured import (
    PHASES,
    DeviceRates,
    Energy,
    Fidelity,
    Iteration,
    Memory,
    MemoryUse,
    Monitor,
    MonitorSample,
    Output,
    Roofline,
    Segment,
    Steadiness,
)
from bench.results.observed import (
    COMPILATIONS,
    AttentionObserved,
    CompileEvent,
    CompileObserved,
    ModelShape,
    Observed,
    OperatorTime,
    PhaseEvidence,
    Unverified,
)

__all__ = [
    "COMPILATIONS", "KINDS", "PHASES", "PHASE_STATUSES", "READABLE", "SCHEMA_VERSION", "STAGES", "STATUSES",
    "AttentionObserved", "CompileEvent", "CompileObserved", "DeviceRates", "Energy", "Failure", "Fidelity",
    "Iteration", "Memory", "MemoryUse", "ModelShape", "Monitor", "MonitorSample", "Neighbours", "Observed",
    "OperatorTime", "Output", "PhaseEvidence", "Placement", "ProcessEnd", "Rank", "Record", "RecordError", "Roofline",
    "Segment", "Steadiness", "Unverified", "config_folder",
]  # fmt: skip

SCHEMA_VERSION = 7
READABLE = (4, 5, 6, SCHEMA_VERSION)  # earlier versions lack what has a default here

STATUSES = ("ok", "skipped", "failed", "oom", "timeout", "crashed", "interrupted")
# The stretches of a job, in order; `stage` names the one in which it ended, None when it came through.
STAGES = ("start", "load", "validation", "warmup", "measurement", "evidence", "fidelity", "roofline", "profile")
KINDS = ("trial", "reference")
# How a phase of calls ended: as many as asked for, by its own rule, or at a cap before the rule was met.
PHASE_STATUSES = ("fixed", "converged", "not_converged")
LONGEST_SHOWN = 60  # characters of an impossible value
LATEST_S, LONGEST_S = 1e11, 1e9  # Unix time, and of a job: thousands of years, and thirty


class RecordError(ValueError):
    """A record file that cannot be used; the text is one line that names file and reason."""


@dataclass(frozen=True, kw_only=True)
class Failure:
    """Why a job is not ok."""

    type: str  # the exception's class, or "Signal", "Exit", "Timeout"
    message: str  # one line
    detail: str | None = None  # traceback or the log's last lines
    requested_bytes: int | None = None  # status "oom": what was asked for, where the allocator says so
    free_bytes: int | None = None  # status "oom": what was left then


@dataclass(frozen=True, kw_only=True)
class ProcessEnd:
    """How a job's process ended, as its parent saw it."""

    exit_code: int | None = None  # None: ended by a signal, or not known
    signal: str | None = None  # such as "SIGKILL"
    killed_at_deadline: bool = False
    oom_killed: bool = False  # the kernel's OOM killer was at work in the job's control group meanwhile
    strays: list[str] = field(default_factory=list)  # names of processes that it started and left; they were killed
    log_cut_bytes: int = 0  # of worker.log, which had grown beyond its bound
    device_wait_s: float | None = None  # until the GPU's memory was free again; None: not watched
    device_left_bytes: int | None = None  # that still were not free after that wait


@dataclass(frozen=True, kw_only=True)
class Placement:
    """Where a job ran, and by whose hand it came there."""

    host: str | None  # None: it never came to one, or nobody knows
    engine: str | None = None  # such as "slurm" and "ray"; None: started here by Hydra's own launcher
    job_id: str | None = None  # the engine's
    attempt: int = 1  # counts from 1; more when the engine started it again


@dataclass(frozen=True, kw_only=True)
class Neighbours:
    """Other jobs of bench on the same host while this one ran."""

    at_start: int
    came: int  # that began before it ended
    waited_s: float  # for those that use the same GPU or cores
    unknown: str | None = None  # why the host could not be asked; then nothing kept jobs apart

    @property
    def count(self) -> int:
        """How many in all ran beside this job at some time."""
        return self.at_start + self.came


@dataclass(frozen=True, kw_only=True)
class Rank:
    """What one process of a tensor-parallel job used; the token times are those of rank 0."""

    rank: int
    device: str
    device_name: str
    memory: Memory
    joules: list[float | None] = field(default_factory=list)  # of its device in each measured call; [] not known


@dataclass(kw_only=True)
class Record:
    """One job. Filled stage by stage, written when the job ends, whatever the end was."""

    schema_version: int = SCHEMA_VERSION
    kind: str = "trial"  # one of KINDS; a reference is counted nowhere
    trial_id: str
    sweep_id: str | None = None  # None for a single run
    repeat: int = 1  # counts from 1
    name: str = ""  # the swept values, short; "" for a single run
    swept: dict[str, str] = field(default_factory=dict)  # override key → value as typed
    status: str = "interrupted"  # until it has come through
    stage: str | None = "start"
    error: Failure | None = None
    end: ProcessEnd | None = None  # None: it ended by itself and left nothing behind
    placement: Placement | None = None
    neighbours: Neighbours | None = None  # None: not counted
    started_at_s: float  # Unix time
    ended_at_s: float | None = None
    # Whether the same set-up had made calls before, so that the first call here is no cold start (from Python only).
    warm_start: bool = False
    requested: dict[str, Any]  # BenchmarkConfig.to_dict()
    observed: Observed | None = None
    iterations: list[Iteration] = field(default_factory=list)
    warmup_status: str | None = None  # one of PHASE_STATUSES; None before the warm-up's end
    warmup_stop: str | None = None  # why it ended after so many calls
    measurement_status: str | None = None  # likewise
    measurement_stop: str | None = None
    steadiness: Steadiness | None = None  # None before the last measured call
    output: Output | None = None
    fidelity: Fidelity | None = None
    memory: Memory = field(default_factory=Memory)
    monitor: Monitor | None = None
    energy: Energy | None = None  # with tensor parallelism the sum over all ranks
    ranks: list[Rank] = field(default_factory=list)  # of a tensor-parallel job, rank 0 included; [] for one process
    roofline: Roofline | None = None
    environment: dict[str, Any] = field(default_factory=dict)
    fingerprint: dict[str, str] = field(default_factory=dict)  # the part of it that one record must share with another
    phases_s: dict[str, float] = field(default_factory=dict)  # phase → seconds spent in it

    @property
    def peak_bytes(self) -> int | None:
        """The peak that decides whether the setting fits.

        With tensor parallelism that of the fullest GPU; on the CPU, whose memory all ranks share, their sum, in which
        pages that they share count for each.
        """
        peaks = [each.memory.peak_bytes for each in self.ranks]
        known = [each for each in peaks if each is not None]
        if not known or len(known) < len(peaks):
            return self.memory.peak_bytes
        return max(known) if self.ranks[0].device.startswith("cuda") else sum(known)

    def calls(self, phase: str) -> list[Iteration]:
        """The iterations of one phase, in order."""
        return [each for each in self.iterations if each.phase == phase]

    @property
    def unverified(self) -> list[Unverified]:
        """The parts of the request that nothing confirms or contradicts; [] before anything was observed."""
        return [] if self.observed is None else self.observed.unverified

    @property
    def setting_id(self) -> str:
        """What the repeats of one setting in a sweep have in common: the trial id, and the label if it has one."""
        sweep = self.requested.get("sweep")
        label = sweep.get("label") if isinstance(sweep, dict) else None
        return f"{self.trial_id}-{label}" if label else self.trial_id

    def skip(self, reason: str) -> None:
        """End here, for a reason that is no fault: the setting cannot run on this machine."""
        self.status, self.error = "skipped", Failure(type="Skipped", message=reason)

    def fail(
        self,
        status: str,
        kind: str,
        message: str,
        detail: str | None = None,
        *,
        requested_bytes: int | None = None,
        free_bytes: int | None = None,
    ) -> None:
        """End here with another status than ok; what was measured so far stays."""
        self.status = status
        self.error = Failure(
            type=kind, message=message, detail=detail, requested_bytes=requested_bytes, free_bytes=free_bytes
        )

    def to_dict(self) -> dict[str, Any]:
        """Plain values, as in the file."""
        return dataclasses.asdict(self)

    def write(self, folder: Path) -> Path:
        """Write ``record.json`` into ``folder``: a reader finds the old file or the new one, never half of one.

        What the environment holds of tokens and passwords is left out. On a full disk the space that was reserved for
        the record is used (`RESERVE_NAME`).
        """
        text = scrub(json.dumps(self.to_dict(), indent=1, allow_nan=False))
        path = folder / RECORD_NAME
        try:
            write_whole(path, text)
        except OSError as error:
            if error.errno not in (errno.ENOSPC, errno.EDQUOT) or not (folder / RESERVE_NAME).exists():
                raise
            (folder / RESERVE_NAME).unlink(missing_ok=True)
            write_whole(path, text)
        return path

    @classmethod
    def read(cls, path: Path) -> Record:
        """Read a record from its file, or from the folder that holds it.

        Raises:
            RecordError: the file is missing, half written, not a record, or of another schema version.
        """
        path = path / RECORD_NAME if path.is_dir() else path
        try:
            text = path.read_text(encoding="utf-8")
            data = json.loads(text)
            if "\\ud" in text or "\\uD" in text:  # may be half of a pair, which nothing can write or show
                json.dumps(data, ensure_ascii=False).encode()
        except OSError as error:
            raise RecordError(f"{path}: {error.strerror or error}") from error
        except (ValueError, RecursionError) as error:
            raise RecordError(f"{path}: not JSON ({error})") from error
        if not isinstance(data, dict) or "schema_version" not in data:
            raise RecordError(f"{path}: not a record")
        if data["schema_version"] not in READABLE or isinstance(data["schema_version"], bool | float):
            version = ascii(data["schema_version"])[:LONGEST_SHOWN]
            raise RecordError(f"{path}: schema version {version}; this version of bench reads {SCHEMA_VERSION}")
        try:
            record = load(cls, data, "record")
        except TypeError as error:
            raise RecordError(f"{path}: {error}") from error
        try:
            record.requested, record.swept = with_current_names(record.requested), rename_swept(record.swept)
        except ConfigError as error:
            raise RecordError(f"{path}: {error}") from error
        if problem := impossible(record):
            raise RecordError(f"{path}: {problem}")
        return record


def config_folder(folder: Path) -> Path:
    """Return the folder of the config that the record in this folder was composed from."""
    other = folder / OTHER_CONFIG_FOLDER
    return other if other.is_dir() else folder / CONFIG_FOLDER


# ---- what cannot be ----------------------------------------------------------------------------------------------


def impossible(record: Record) -> str | None:
    """The first value that no job can have written, in a few words; None where there is none.

    Its types are right already. Said of what figures and tables are made from: times run forwards, calls are counted,
    words are known ones, amounts are not negative.
    """
    known: tuple[tuple[str, str | None, tuple[str | None, ...]], ...] = (
        ("status", record.status, STATUSES),
        ("kind", record.kind, KINDS),
        ("stage", record.stage, (None, *STAGES)),
        ("warmup_status", record.warmup_status, (None, *PHASE_STATUSES)),
        ("measurement_status", record.measurement_status, (None, *PHASE_STATUSES)),
    )
    for name, word, words in known:
        if word not in words:
            return f"{name} is {ascii(word)[:LONGEST_SHOWN]}, none of {', '.join(str(each) for each in words)}"
    if record.repeat < 1:
        return f"repeat is {record.repeat}, and they count from 1"
    for name, time_s in (("started_at_s", record.started_at_s), ("ended_at_s", record.ended_at_s)):
        if time_s is not None and not 0 <= time_s < LATEST_S:
            return f"{name} is {time_s:g}, no time of a job"
    return _impossible_request(record) or _impossible_calls(record.iterations) or _impossible_amount(record)


def _impossible_request(record: Record) -> str | None:
    """Sections are mappings, and what all readers take for a number or a name is one."""
    for name in ("model", "attention", "compile", "generation", "workload", "warmup", "sweep", "tracking"):
        if not isinstance(record.requested.get(name, {}), dict):
            return f"requested.{name} is no mapping"
    for name in ("versions", "gpu", "variables", "sources"):
        if not isinstance(record.environment.get(name) or {}, dict):
            return f"environment.{name} is no mapping"
    for name, source in (record.environment.get("sources") or {}).items():
        if not isinstance(source, dict):
            return f"environment.sources.{ascii(name)[1:-1][:LONGEST_SHOWN]} is no mapping"
    wanted = (
        ("workload", "batch_size", int),
        ("workload", "num_tokens_to_generate", int),
        ("sweep", "repeats", int),
        ("sweep", "label", str),
        ("sweep", "baseline", str),
        ("model", "id", str),
    )
    for section, name, kind in wanted:
        value: Any = record.requested.get(section, {}).get(name)
        is_wrong = type(value) is not kind or (isinstance(value, int) and value < 1)
        if value is not None and is_wrong:
            return f"requested.{section}.{name} is {ascii(value)[:LONGEST_SHOWN]}"
    return None


def _impossible_calls(calls: list[Iteration]) -> str | None:
    """One clock that never goes back gives all times; calls count from 0, phase after phase."""
    started_s, phase = 0.0, 0
    for index, call in enumerate(calls):
        if call.index != index or call.phase not in PHASES[phase:]:
            return f"iterations[{index}] is call {call.index} in {ascii(call.phase)[:LONGEST_SHOWN]}: out of order"
        times = [0.0, *call.token_times_s, call.e2e_s, LONGEST_S]
        if times != sorted(times) or not started_s <= call.start_s < LONGEST_S:
            return f"iterations[{index}]: its times do not run forwards"
        if (call.graphs or 0) < 0 or (call.compile_s or 0) < 0 or (call.device_reserved_bytes or 0) < 0:
            return f"iterations[{index}]: an amount is negative"
        started_s, phase = call.start_s, PHASES.index(call.phase)
    return None


def _impossible_amount(record: Record) -> str | None:
    """Bytes, joules, seconds, counts and shares of a device's rates are not negative."""
    memory, roofline, observed = record.memory, record.roofline, record.observed
    parts: dict[str, Any] = {
        "neighbours": record.neighbours,
        "memory": memory,
        "memory.after_load": memory.after_load,
        "memory.warmup_peak": memory.warmup_peak,
        "memory.measurement_peak": memory.measurement_peak,
        "observed": observed,
        "observed.compile": observed.compile if observed is not None else None,
        "roofline": roofline,
        "roofline.rates": roofline.rates if roofline is not None else None,
    }
    amounts = [(where, vars(part)) for where, part in parts.items() if part is not None]
    amounts += [("phases_s", record.phases_s)]
    if record.energy is not None:
        amounts += [("energy.joules", {str(index): each for index, each in enumerate(record.energy.joules)})]
    for where, figures in amounts:
        for name, value in figures.items():
            if type(value) in (int, float) and value < 0:
                return f"{where}.{ascii(name)[1:-1][:LONGEST_SHOWN]} is {value:g}"
    return None
