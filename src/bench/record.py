"""What was measured: the schema of a job's record, and its JSON file.

A record holds the request as it was made, what was observed to have run, and the raw times of every call. It holds
no statistic: those are derived in ``bench.analysis``, so that a better statistic needs no new measurement. Failure
is data and has the same form as success: status, stage, error.

Seconds and bytes throughout, with the unit in the name. What is not known is None, never 0.
"""

from __future__ import annotations

import dataclasses
import itertools
import json
import os
import tempfile
import types
import typing
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

SCHEMA_VERSION = 1
FILE_NAME = "record.json"

STATUSES = ("ok", "skipped", "failed", "oom", "timeout", "crashed", "interrupted")
# The stretches of a job, in order; `stage` names the one in which it ended, None when it came through.
STAGES = ("start", "load", "validation", "warmup", "measurement", "profile")
PHASES = ("validation", "warmup", "measurement")


class RecordError(ValueError):
    """A record file that cannot be used; the text is one line that names file and reason."""


@dataclass(frozen=True, kw_only=True)
class Iteration:
    """One generate call. Times count from the call's start unless said otherwise."""

    index: int  # position in the job, the validation call is 0
    phase: str  # one of PHASES
    start_s: float  # the call's start, in seconds since the job started
    e2e_s: float  # call to return, device synchronised at both ends
    token_times_s: list[float]  # one a generated step (with batch > 1, one for the whole batch)
    graphs: int  # graphs that torch.compile made during this call
    compile_s: float  # seconds of this call spent making them
    device_reserved_bytes: int | None = None  # allocator reserve after the call; None on the CPU

    @property
    def ttft_s(self) -> float:
        """Time to first token: the call's start to its first new token."""
        return self.token_times_s[0]

    @property
    def itl_s(self) -> list[float]:
        """Inter-token latencies: the n - 1 gaps between the n successive tokens of the call."""
        times = self.token_times_s
        return [after - before for before, after in itertools.pairwise(times)]

    @property
    def decode_s(self) -> float:
        """First token to last token."""
        return self.token_times_s[-1] - self.token_times_s[0]

    @property
    def tpot_s(self) -> float:
        """Time per output token after the first: decode_s / (n - 1)."""
        return self.decode_s / (len(self.token_times_s) - 1)


@dataclass(frozen=True, kw_only=True)
class CompileObserved:
    """What torch.compile did in this process, from its own counters."""

    graphs: int = 0  # graphs captured
    graph_breaks: dict[str, int] = field(default_factory=dict)  # reason → count
    recompiles: list[str] = field(default_factory=list)  # the failed guard of each recompilation
    cudagraph_skips: int = 0
    compile_s: float = 0.0
    cache_hits: int = 0  # compiled code taken from the cache on disk
    cache_misses: int = 0
    arguments: dict[str, Any] = field(default_factory=dict)  # what torch.compile was called with; {} when it was not


@dataclass(frozen=True, kw_only=True)
class Observed:
    """What ran, read from the model and the libraries and not from the request."""

    device: str
    device_name: str
    dtype: str
    model_class: str
    parameters: int
    parameter_bytes: int
    attention: str  # the implementation set in the model's config
    sdpa_backends: list[str]  # the backends that torch's SDPA was allowed to use; [] when it is not SDPA
    revision: str | None = None  # the hub commit that the weights came from
    kv_cache: str | None = None  # class of the cache that generate used
    compile: CompileObserved | None = None  # None until the validation call has come through
    prompt_tokens: int | None = None  # per row
    new_tokens: int | None = None  # per row


@dataclass(frozen=True, kw_only=True)
class Output:
    """What the last measured call generated."""

    shape: list[int]  # of generate's result: batch size × (prompt + new tokens)
    token_ids: list[list[int]]  # the new tokens of each row
    text: str  # the first row's new tokens, decoded
    same_in_all_calls: bool  # whether every call of the job generated these tokens


@dataclass(frozen=True, kw_only=True)
class Memory:
    """Peaks in bytes. Device figures are the allocator's, None on the CPU."""

    host_rss_after_load_bytes: int | None = None
    host_rss_peak_bytes: int | None = None  # of the whole job
    device_after_load_bytes: int | None = None
    device_peak_allocated_bytes: int | None = None  # from the flush before the validation call on
    device_peak_reserved_bytes: int | None = None

    @property
    def peak_bytes(self) -> int | None:
        """The peak that decides whether the setting fits: the device's reserve, or on the CPU the host's RSS."""
        return self.device_peak_reserved_bytes or self.host_rss_peak_bytes


@dataclass(frozen=True, kw_only=True)
class MonitorSample:
    """One look at the hardware, or None in each field that the machine does not tell."""

    time_s: float  # since the start of the measured call it belongs to
    utilization_percent: float | None = None  # of the GPU; on the CPU of all cores together
    memory_used_bytes: int | None = None  # of the GPU as a whole; on the CPU the job's RSS
    sm_clock_mhz: float | None = None  # on the CPU the mean core clock
    memory_clock_mhz: float | None = None
    power_w: float | None = None
    temperature_c: float | None = None
    throttle_bits: int | None = None  # NVML's clocks-event reasons


@dataclass(frozen=True, kw_only=True)
class Monitor:
    """The hardware during measured calls."""

    source: str  # "nvml" or "psutil"
    interval_s: float
    samples: list[list[MonitorSample]]  # one list for each measured iteration
    error: str | None = None  # why it stopped early


@dataclass(frozen=True, kw_only=True)
class Failure:
    """Why a job is not ok."""

    type: str  # the exception's class, or "Signal", "Timeout"
    message: str  # one line
    detail: str | None = None  # traceback or the log's last lines


@dataclass(kw_only=True)
class Record:
    """One job. Filled stage by stage, written when the job ends, whatever the end was."""

    schema_version: int = SCHEMA_VERSION
    trial_id: str
    sweep_id: str | None = None  # None for a single run
    repeat: int = 1  # counts from 1
    name: str = ""  # the swept values, short; "" for a single run
    swept: dict[str, str] = field(default_factory=dict)  # override key → value as typed
    status: str = "interrupted"  # until it has come through
    stage: str | None = "start"
    error: Failure | None = None
    started_at_s: float  # Unix time
    ended_at_s: float | None = None
    requested: dict[str, Any]  # BenchmarkConfig.to_dict()
    observed: Observed | None = None
    iterations: list[Iteration] = field(default_factory=list)
    output: Output | None = None
    fidelity: dict[str, Any] | None = None
    memory: Memory = field(default_factory=Memory)
    monitor: Monitor | None = None
    energy: dict[str, Any] | None = None
    environment: dict[str, Any] = field(default_factory=dict)
    phases_s: dict[str, float] = field(default_factory=dict)  # phase → seconds spent in it

    def calls(self, phase: str) -> list[Iteration]:
        """The iterations of one phase, in order."""
        return [each for each in self.iterations if each.phase == phase]

    def skip(self, reason: str) -> None:
        """End here, for a reason that is no fault: the setting cannot run on this machine."""
        self.status, self.error = "skipped", Failure(type="Skipped", message=reason)

    def fail(self, status: str, kind: str, message: str, detail: str | None = None) -> None:
        """End here with another status than ok; what was measured so far stays."""
        self.status, self.error = status, Failure(type=kind, message=message, detail=detail)

    def to_dict(self) -> dict[str, Any]:
        """Plain values, as in the file."""
        return dataclasses.asdict(self)

    def write(self, folder: Path) -> Path:
        """Write ``record.json`` into ``folder``: a reader finds the old file or the new one, never half of one."""
        text = json.dumps(self.to_dict(), indent=1, allow_nan=False)
        path = folder / FILE_NAME
        descriptor, name = tempfile.mkstemp(dir=folder, prefix=".record-", suffix=".json")
        temporary = Path(name)
        try:
            with os.fdopen(descriptor, "w", encoding="utf-8") as file:
                file.write(text)
                file.flush()
                os.fsync(file.fileno())
            # mkstemp makes files that only their owner can read; a record is made to be shared.
            temporary.chmod(0o644)
            temporary.replace(path)
        except BaseException:
            temporary.unlink(missing_ok=True)
            raise
        return path

    @classmethod
    def read(cls, path: Path) -> Record:
        """Read a record from its file, or from the folder that holds it.

        Raises:
            RecordError: the file is missing, half written, not a record, or of another schema version.
        """
        path = path / FILE_NAME if path.is_dir() else path
        try:
            data = json.loads(path.read_text(encoding="utf-8"))
        except OSError as error:
            raise RecordError(f"{path}: {error.strerror or error}") from error
        except ValueError as error:
            raise RecordError(f"{path}: not JSON ({error})") from error
        if not isinstance(data, dict) or "schema_version" not in data:
            raise RecordError(f"{path}: not a record")
        if data["schema_version"] != SCHEMA_VERSION:
            version = data["schema_version"]
            raise RecordError(f"{path}: schema version {version}; this version of bench reads {SCHEMA_VERSION}")
        try:
            return typing.cast("Record", _load(cls, data, "record"))
        except TypeError as error:
            raise RecordError(f"{path}: {error}") from error


def _load(kind: Any, value: Any, where: str) -> Any:
    """A value of the annotated type from parsed JSON; TypeError where they disagree."""
    if kind is Any or (value is None and type(None) in typing.get_args(kind)):
        return value
    if isinstance(kind, types.UnionType):
        kind = next(each for each in typing.get_args(kind) if each is not type(None))
    origin, arguments = typing.get_origin(kind) or kind, typing.get_args(kind)
    if dataclasses.is_dataclass(kind):
        _expect(value, dict, where)
        hints = typing.get_type_hints(kind)
        if unknown := sorted(set(value) - set(hints)):
            raise TypeError(f"{where} has no field {unknown[0]}")
        return typing.cast("Any", kind)(
            **{name: _load(hints[name], each, f"{where}.{name}") for name, each in value.items()}
        )
    if origin is list:
        _expect(value, list, where)
        return [_load(arguments[0], each, f"{where}[{index}]") for index, each in enumerate(value)]
    if origin is dict:
        _expect(value, dict, where)
        return {name: _load(arguments[1], each, f"{where}.{name}") for name, each in value.items()}
    if kind is float and isinstance(value, int) and not isinstance(value, bool):
        return float(value)
    _expect(value, kind, where)
    return value


def _expect(value: object, kind: type, where: str) -> None:
    if not isinstance(value, kind) or (isinstance(value, bool) and kind is not bool):
        raise TypeError(f"{where} is {type(value).__name__}, not {kind.__name__}")
