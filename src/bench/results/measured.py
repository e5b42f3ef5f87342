"""What a job measured: its calls, and what they cost and generated; one part of its record.

Times are raw: `bench.analysis` derives statistics from them. Only `Steadiness` is needed by the job itself.
"""

from __future__ import annotations

import itertools
from dataclasses import dataclass, field

PHASES = ("validation", "warmup", "measurement")


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
