"""What was measured: the schema of a job's record, and its JSON file.

A record holds the request as it was made, what was observed to have run, and the raw times of every call. Statistics
are derived from those in ``bench.analysis``, so that a better one needs no new measurement; the judgements that the job
itself had to make (when to stop, whether the series is steady) are kept as they were made. Failure is data and has the
same form as success: status, stage, error.

Seconds and bytes throughout, with the unit in the name. What is not known is None, never 0.
"""

from __future__ import annotations

import dataclasses
import errno
import itertools
import json
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from bench.host.atomic_files import write_whole
from bench.host.secrets import scrub
from bench.results.file_names import CONFIG_FOLDER, OTHER_CONFIG_FOLDER, RECORD_NAME, RESERVE_NAME
from bench.results.json_dataclasses import load

SCHEMA_VERSION = 7
READABLE = (4, 5, 6, SCHEMA_VERSION)  # earlier versions lack what has a default here

STATUSES = ("ok", "skipped", "failed", "oom", "timeout", "crashed", "interrupted")
# The stretches of a job, in order; `stage` names the one in which it ended, None when it came through.
STAGES = ("start", "load", "validation", "warmup", "measurement", "evidence", "fidelity", "roofline", "profile")
PHASES = ("validation", "warmup", "measurement")
KINDS = ("trial", "reference")
# Kinds of `CompileEvent` during which a call waits for the compiler.
COMPILATIONS = ("graph", "recompile", "failure", "autotune")
# How a phase of calls ended: as many as asked for, by its own rule, or at a cap before the rule was met.
PHASE_STATUSES = ("fixed", "converged", "not_converged")
LONGEST_SHOWN = 60  # characters of an impossible value
LATEST_S, LONGEST_S = 1e11, 1e9  # Unix time, and of a job: thousands of years, and thirty


class RecordError(ValueError):
    """A record file that cannot be used; the text is one line that names file and reason."""


@dataclass(frozen=True, kw_only=True)
class Iteration:
    """One generate call. Times count from the call's start unless said otherwise."""

    index: int  # position in the job, the validation call is 0
    phase: str  # one of PHASES
    start_s: float  # the call's start, in seconds since the process could begin: after `start` and `import` in phases_s
    e2e_s: float  # call to return, device synchronised at both ends
    token_times_s: list[float]  # one a generated step (with batch > 1, one for the whole batch)
    graphs: int | None  # graphs that torch.compile made during this call; None: torch does not tell
    compile_s: float | None  # seconds of this call spent making them; None likewise
    device_reserved_bytes: int | None = None  # allocator reserve after the call; None on the CPU
    request_times_s: list[list[float]] | None = None  # continuous batching: the token times of each request

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
class CompileEvent:
    """One thing that torch.compile did, and the call during which it did it."""

    iteration: int  # index of the call
    # "graph", "recompile", "graph_break", "cudagraph_skip"; "failure": a compilation that came to nothing, so that its
    # function ran uncompiled or the call ended; outside of compilations "autotune" and "cudagraph_record".
    kind: str
    reason: str = ""  # the failed guard, why the graph broke, why there is no CUDA graph; "" for a first compilation
    compile_id: str | None = None  # torch's name of the compiled region, such as 0/0
    function: str | None = None  # that was compiled
    file: str | None = None  # with `line`: where the function begins, or where the graph broke
    line: int | None = None
    duration_s: float | None = None  # of a compilation, of autotuning, of recording a CUDA graph


@dataclass(frozen=True, kw_only=True)
class CompileObserved:
    """What torch.compile did in this process, from its own counters. None: this version of torch does not tell."""

    graphs: int | None = 0  # graphs captured
    attention_graphs: int | None = 0  # those of them that flex_attention made of itself, whatever the setting
    # reason → count; functions given up as a whole included
    graph_breaks: dict[str, int] | None = field(default_factory=dict)
    recompiles: list[str] | None = field(default_factory=list)  # the failed guard of each recompilation
    cudagraph_skips: int | None = 0
    compile_s: float | None = 0.0
    autotune_s: float | None = 0.0  # of compile_s and of calls: benchmarking of candidate kernels
    cache_hits: int | None = 0  # compiled code taken from the cache on disk
    cache_misses: int | None = 0
    events: list[CompileEvent] = field(default_factory=list)  # in order
    arguments: dict[str, Any] = field(default_factory=dict)  # what torch.compile was called with; {} when it was not

    def compiling_calls(self) -> set[int]:
        """Indices of the calls that waited for the compiler."""
        return {each.iteration for each in self.events if each.kind in COMPILATIONS}

    @property
    def cache_state(self) -> str | None:
        """How the compile cache on disk met this job: "cold", "warm" or "mixed".

        None when nothing was compiled, and where torch does not tell. With hits and an unknown number of misses it is
        "mixed": that all code came from the cache is not known.
        """
        if self.cache_hits is None:
            return None
        if self.cache_hits:
            return "warm" if self.cache_misses == 0 else "mixed"
        return "cold" if self.cache_misses or self.graphs else None


@dataclass(frozen=True, kw_only=True)
class OperatorTime:
    """One operator or kernel in a profiled phase."""

    name: str
    calls: int
    total_s: float


@dataclass(frozen=True, kw_only=True)
class PhaseEvidence:
    """What one phase of the profiled call ran: its prefill, or its decoding steps."""

    steps: int
    duration_s: float  # under the profiler, so not a figure to compare
    families: list[str]  # of attention kernels, in the words of `bench.trial.evidence.observed`
    operators: list[OperatorTime]  # those that computed attention, the longest first
    attention_share: float | None  # of the phase's time (CPU) or of its kernels' time (GPU); None when unknown
    compiled_regions: int  # how often compiled code was entered
    cudagraph_launches: int = 0


@dataclass(frozen=True, kw_only=True)
class AttentionObserved:
    """Which attention ran: what transformers was set to, and what one profiled call showed."""

    implementation: str | None  # as set in the model's config; None: transformers does not tell
    allowed_backends: list[str]  # that torch's SDPA might use; [] when it is not SDPA
    prefill: PhaseEvidence | None = None  # None until the profiled call
    decode: PhaseEvidence | None = None
    error: str | None = None  # why there is no such evidence


@dataclass(frozen=True, kw_only=True)
class ModelShape:
    """The sizes that decide how much a token must move and compute."""

    layers: int
    heads: int
    kv_heads: int
    head_dim: int
    matmul_parameters: int  # weights that every token is multiplied with, those of experts apart
    lm_head_parameters: int  # of those, the ones that only the last prompt token meets
    expert_parameters: int = 0  # weights of all experts of all layers; not in matmul_parameters
    experts: int = 0  # in a layer
    experts_per_token: int = 0
    sliding_window: int | None = None  # tokens that a layer with a window sees
    sliding_layers: int = 0


@dataclass(frozen=True, kw_only=True)
class Unverified:
    """A part of the request of which nothing shows whether it was honoured: neither confirmed nor contradicted."""

    key: str  # of the config, such as "generation.kv_cache"; or "token times", which belong to no key
    reason: str  # what could not be seen, and why: one line


@dataclass(frozen=True, kw_only=True)
class Observed:
    """What ran, read from the model and the libraries and not from the request."""

    device: str
    device_name: str
    dtype: str
    model_class: str
    parameters: int
    parameter_bytes: int
    attention: AttentionObserved
    shape: ModelShape | None = None  # None for an architecture whose sizes cannot be read
    revision: str | None = None  # the hub commit that the weights came from
    grad_mode: str | None = None  # the autograd guard of each call
    kv_cache: str | None = None  # class of the cache that generate used
    compile: CompileObserved | None = None  # None until the validation call has come through
    prompt_digest: str | None = None  # SHA-256 of workload.prompt_file; None for the built-in text, or before version 7
    prompt_tokens: int | None = None  # per row
    new_tokens: int | None = None  # per row
    kernels: list[str] = field(default_factory=list)  # generation.kernelize: layers that run a hub kernel
    mends: list[str] = field(default_factory=list)  # faults of the libraries that were mended for this job
    unverified: list[Unverified] = field(default_factory=list)  # one for each key that the evidence cannot see
    # Tensor parallelism; None for one process. `parameters` and `shape` are those of the whole model.
    tp_size: int | None = None  # processes that the model was split over
    sharded_parameters: int | None = None  # of `parameters`, those in tensors of which rank 0 holds a slice only
    rank_parameter_bytes: int | None = None  # that rank 0 holds


@dataclass(frozen=True, kw_only=True)
class Output:
    """What the last measured call generated."""

    shape: list[int]  # of generate's result: batch size × (prompt + new tokens)
    token_ids: list[list[int]]  # the new tokens of each row
    text: str  # the first row's new tokens, decoded
    same_in_all_calls: bool  # whether every call of the job generated these tokens


@dataclass(frozen=True, kw_only=True)
class MemoryUse:
    """Bytes at one moment, or the peak over one stretch. Device figures are None on the CPU."""

    host_rss_bytes: int | None = None
    device_allocated_bytes: int | None = None  # by torch's allocator
    device_reserved_bytes: int | None = None  # by torch's allocator
    device_process_bytes: int | None = None  # NVML's figure for this process: context and libraries included


@dataclass(frozen=True, kw_only=True)
class Memory:
    """What the job took, stretch by stretch, and the KV cache's part of it."""

    after_load: MemoryUse | None = None
    warmup_peak: MemoryUse | None = None  # of validation and warm-up
    measurement_peak: MemoryUse | None = None
    kv_cache_bytes: int | None = None  # of the cache that the validation call made
    kv_cache_computed_bytes: int | None = None  # from the model's sizes

    @property
    def peak_bytes(self) -> int | None:
        """The peak that decides whether the setting fits: the device's reserve, or on the CPU the host's RSS."""
        stretches = [each for each in (self.after_load, self.warmup_peak, self.measurement_peak) if each]
        for name in ("device_reserved_bytes", "host_rss_bytes"):
            if known := [value for each in stretches if (value := getattr(each, name))]:
                return int(max(known))
        return None


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
class Energy:
    """What the measured calls took, from a counter of the hardware."""

    source: str | None  # "nvml" or "rapl"; None where there is no counter
    joules: list[float | None] = field(default_factory=list)  # of each measured call
    reason: str | None = None  # why it is not known


@dataclass(frozen=True, kw_only=True)
class Fidelity:
    """How far the output agrees with the reference run's."""

    reference: str  # "eager"
    agrees: bool | None = None  # None when it could not be judged
    reason: str | None = None  # which bound was broken, or why it could not be judged
    common_prefix_tokens: int | None = None  # in the row that leaves the reference first
    equal_tokens_share: float | None = None  # over all rows
    first_divergent_token: int | None = None  # counted from 0; None when all are equal
    # Below: over the reference's own tokens, forced upon this setting.
    positions: int = 0  # rows × steps that were compared: all steps only where a token differs
    top1_share: float | None = None  # positions at which the most likely token is the reference's
    logit_max_abs_diff: float | None = None
    logit_mean_abs_diff: float | None = None
    logit_mean_diff_sd: float | None = None  # the same in standard deviations of the reference's logits at a position
    kl_mean_nats: float | None = None  # mean Kullback-Leibler divergence of this setting from the reference
    bounds: dict[str, float] = field(default_factory=dict)  # figure → the most that still agrees


@dataclass(frozen=True, kw_only=True)
class DeviceRates:
    """What this device reached in a measurement of its own, once for a machine."""

    bandwidth_bytes_per_s: float  # of memory
    matmul_flops_per_s: float
    dtype: str  # of the matrices
    fingerprint: str  # of all that changes the rates
    measured_at_s: float  # Unix time of the last measurement
    cache_bandwidth_bytes_per_s: float | None = None  # of what stays in the processor's caches; None on a GPU
    cache_bytes: int | None = None  # that those caches hold; None on a GPU and where the kernel does not tell
    quiet: bool | None = None  # whether this process had its cores to itself meanwhile; None on a GPU
    measurements: int = 1  # of which these are the best rates


@dataclass(frozen=True, kw_only=True)
class Roofline:
    """What a call must move and compute, and the share of the device's rates at which it did.

    Bytes and FLOPs are the least that the model needs: a prefill is one pass over all prompts of the batch, a decoding
    step one token for each row, averaged over the steps of a call.
    """

    rates: DeviceRates | None
    prefill_bytes: float | None = None
    prefill_flops: float | None = None
    decode_bytes: float | None = None  # per step
    decode_flops: float | None = None
    prefill_mbu: float | None = None  # fractions
    prefill_mfu: float | None = None
    decode_mbu: float | None = None
    decode_mfu: float | None = None
    prefill_bandwidth_bytes_per_s: float | None = None  # that the MBU is a share of: some bytes may come from caches
    decode_bandwidth_bytes_per_s: float | None = None
    # Shares above what the device can do, by name: a fault of the rates, which were measured while it was busy.
    rejected: dict[str, float] = field(default_factory=dict)
    reason: str | None = None  # why something is not known


@dataclass(frozen=True, kw_only=True)
class Segment:
    """A stretch of calls on one level, between two changepoints."""

    start: int  # index of its first call in the job
    calls: int
    median_s: float


@dataclass(frozen=True, kw_only=True)
class Steadiness:
    """Whether the E2E of the measured calls stayed on one level, as `bench.analysis.calls.steadiness` judged it."""

    steady: bool | None  # None when the series cannot tell: too noisy, or too few calls
    flags: list[str]  # what was found, in the words of `bench.analysis.calls.steadiness`
    shape: str | None  # of warm-up and measurement together: "flat", "warm-up", "slowdown", "no steady state"
    power: str  # "enough", "too noisy to tell", "too few calls"
    cv: float | None = None  # coefficient of variation
    lag1: float | None = None  # autocorrelation of successive calls, corrected for its bias
    drift: float | None = None  # first to last call along the Theil-Sen line, as a fraction of the median
    smallest_step: float | None = None  # that would have been found in the middle of the series, as a fraction
    segments: list[Segment] = field(default_factory=list)  # of warm-up and measurement together


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
        """What the repeats of one setting in a sweep have in common: the trial id, and the arm where it has one."""
        sweep = self.requested.get("sweep")
        arm = sweep.get("arm") if isinstance(sweep, dict) else None
        return f"{self.trial_id}-{arm}" if arm else self.trial_id

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
        if problem := impossible(record):
            raise RecordError(f"{path}: {problem}")
        return record


def config_folder(folder: Path) -> Path:
    """Where the config lies that the record in this folder was composed from."""
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
        ("sweep", "arm", str),
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
