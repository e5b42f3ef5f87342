# ruff: noqa: RUF001 - formulas have signs of their own
"""List every formula of the page's figures, with its unit and the module that computes it.

The text is written for readers; the code is authoritative. A test checks that each named module exists.
"""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, kw_only=True)
class Formula:
    """Describe the formula of one figure."""

    name: str
    formula: str
    unit: str
    note: str
    source: str  # module below src/bench, without its suffix


SYMBOLS = (
    "b batch size · n new tokens of a call · t₁ … tₙ times of its tokens since the call began · e its E2E · "
    "m the median E2E of the measured calls"
)

FORMULAS = (
    Formula(
        name="E2E latency",
        formula="e = return − call, the device synchronised at both ends; shown: median of the measured calls",
        unit="s",
        note="Validation and warm-up calls do not count. Outliers are kept.",
        source="results/record",
    ),
    Formula(
        name="TTFT",
        formula="t₁; shown: median of the measured calls",
        unit="s",
        note="From the call to its first new token: prefill and one sampling step.",
        source="results/record",
    ),
    Formula(
        name="ITL",
        formula="tᵢ₊₁ − tᵢ, i = 1 … n − 1; shown: median of the gaps of all measured calls together",
        unit="s",
        note="With b > 1 between steps of the whole batch. Gaps of one call depend on each other, so there is no "
        "interval.",
        source="results/record",
    ),
    Formula(
        name="TPOT",
        formula="(tₙ − t₁) / (n − 1), one value a call; shown: median",
        unit="s",
        note="None for calls of one token.",
        source="results/record",
    ),
    Formula(
        name="Output throughput",
        formula="Σ b · n / Σ e over the measured calls",
        unit="tokens/s",
        note="Totals over totals, not a mean of rates.",
        source="analysis/trials/summary",
    ),
    Formula(
        name="Decode throughput",
        formula="Σ b · (n − 1) / Σ (tₙ − t₁) over the measured calls",
        unit="tokens/s",
        note="Without each call's first token.",
        source="analysis/trials/summary",
    ),
    Formula(
        name="Cold start",
        formula="e of the validation call, the first one in its process",
        unit="s",
        note="Compilation included. One that found compiled code in a cache on disk is no cold start, and marked.",
        source="analysis/trials/summary",
    ),
    Formula(
        name="Compile excess",
        formula="Σ max(0, e − m) over the validation and warm-up calls",
        unit="s",
        note="What the calls before the measurement took beyond the steady median. A faster call counts as 0.",
        source="analysis/trials/summary",
    ),
    Formula(
        name="Peak memory",
        formula="max over loading, warm-up and measurement of the allocator's reserve (GPU) or the RSS (CPU)",
        unit="bytes",
        note="With tensor parallelism that of the fullest GPU; on the CPU the sum over ranks.",
        source="results/record",
    ),
    Formula(
        name="MBU",
        formula="bytes of a decoding step / median TPOT / B, where bytes = weights once for the batch + keys and "
        "values of each row's context read once + those of the new token written",
        unit="share",
        note="B is the bandwidth measured on this device; on a CPU what fits the caches is granted theirs: "
        "B = M / (c / B_cache + (M − c) / B_memory) for M bytes, c = min(M, cache size). Shares above 1.05 are "
        "rejected. After Databricks 2023.",
        source="analysis/trials/roofline",
    ),
    Formula(
        name="MFU",
        formula="FLOPs / time / R, where FLOPs = 2 · weights · tokens + 4 · heads · head size · (query, key) pairs; "
        "time = median TTFT (prefill) or TPOT (a decoding step)",
        unit="share",
        note="R is the matrix rate measured on this device in the model's dtype. Causal half of the scores only; the "
        "prefill's lm_head for the last token of a row. After Chowdhery et al. 2022, appendix B.",
        source="analysis/trials/roofline",
    ),
    Formula(
        name="Energy",
        formula="Σ joules of the measured calls / Σ b · n",
        unit="J/token",
        note="From a counter of the hardware (NVML, RAPL). Unknown unless each measured call has its energy.",
        source="analysis/trials/summary",
    ),
    Formula(
        name="Where the time goes",
        formula="wait + start + import + load + validate + warm up + measure + evidence + publish + other; "
        "other = end − start of the job − what of it the parts between wait and publish cover, at least 0",
        unit="s",
        note="Evidence is the look at what ran after the last measured call: attention, fidelity, roofline, profile. "
        "What was not timed, as in records of an earlier version, is in other.",
        source="analysis/trials/phases",
    ),
    Formula(
        name="Outside generate",
        formula="all parts but wait − Σ e over the validation, warm-up and measured calls",
        unit="s",
        note="What a trial costs beside its calls. The reference run is no trial and not in it.",
        source="analysis/trials/phases",
    ),
    Formula(
        name="Interval of a median",
        formula="[x₍ₖ₎, x₍ₙ₊₁₋ₖ₎], k the largest rank with P(Bin(n, ½) < k) ≤ 2.5 %; k moves outwards by "
        "√(n / n_eff) of its distance from the middle",
        unit="that of x",
        note="95 %, whatever the distribution; n = 20 gives ranks 6 and 15. None below 6 values. ±% is half of its "
        "width over the median. It says how well one process knows its own median, and nothing of other processes.",
        source="analysis/calls/series",
    ),
    Formula(
        name="Effective number of calls",
        formula="n_eff = n · (1 − ρ) / (1 + ρ), from 1 to n; ρ = max(0, r + (1 + 3r) / n), r the lag-1 autocorrelation",
        unit="calls",
        note="Successive calls that depend on each other tell less. r is corrected for its bias (Kendall 1954, "
        "Marriott & Pope 1954).",
        source="analysis/calls/series",
    ),
    Formula(
        name="Effect",
        formula="ratio = exp(mean ln m_B − mean ln m_A) over processes; interval: exp(ln ratio ± t · s)",
        unit="ratio",
        note="The unit is the process, m its median. The 95 % interval is the paired t interval of the blocks within "
        "a sweep (R − 1 degrees of freedom), and Welch's between two. s is at least what the calls' own noise makes.",
        source="analysis/comparison",
    ),
    Formula(
        name="Verdict",
        formula="faster or slower: the whole interval beyond ±ln 1.01 and p ≤ 5 % after Holm; equivalent: all of it "
        "inside; else inconclusive",
        unit="word",
        note="From three processes a side on. p is of a difference no larger than the margin: 2 × the smaller "
        "one-sided p. Unsteady, cold, differing or incomparable settings are inconclusive.",
        source="analysis/comparison",
    ),
    Formula(
        name="Holm's correction",
        formula="the k-th smallest of c p values × (c − k + 1), never falling, at most 1",
        unit="probability",
        note="Over all comparisons that were tested (Holm 1979): the probability of any false verdict stays at 5 %.",
        source="analysis/comparison",
    ),
    Formula(
        name="Break-even",
        formula="N* = C / (t_u − t_c); C = compile excess, compiled − uncompiled; t = mean over processes of the "
        "median E2E",
        unit="calls",
        note="Interval after Fieller (1954), with the calls' noise as the least variance of the saving. "
        "Not established where the saving may be 0; never where compiled calls are slower; descriptive below 3 "
        "processes.",
        source="analysis/break_even",
    ),
    Formula(
        name="Speed-up over N calls",
        formula="S(N) = N · t_u / (C + N · t_c)",
        unit="ratio",
        note="The start included; above 1 compilation has paid.",
        source="analysis/break_even",
    ),
    Formula(
        name="Noise floor",
        formula="δ = λ · √(2 σ² / R), σ² = variance between processes + variance of a process's median through its "
        "calls; shown: exp(δ) − 1, and exp(δ + ln 1.01) − 1 for a verdict",
        unit="share",
        note="The difference that R repeats find with a power of 80 %; λ the noncentrality of the test that decides: "
        "the paired t test with R − 1 degrees of freedom, between two sweeps Welch's with 2 (R − 1).",
        source="analysis/noise_floor",
    ),
    Formula(
        name="Steady",
        formula="none of: changepoint (optimal partition, segments of at least 3 calls, penalty 6 σ² ln n, medians "
        "over 2 % apart) · trend (Kendall p < 1 % and Theil–Sen drift > 2 %) · bimodal (each side ≥ 20 %, Ashman "
        "D > 4.5, gap > 2 %) · cycle (best sinusoid, p < 0.1 %) · throttled (a call's median SM clock below 75 % of "
        "the highest, or calls in which NVML reports throttling slower, or at a lower clock, by over 2 %) · event",
        unit="yes, no, noisy, few",
        note="Of the measured E2E over its median, what lies beyond 5 robust deviations drawn in. noisy: CV above 2 %; "
        "few: below 8 calls. cv_high (CV > 5 %), autocorrelated (ρ > 0.3) and throttle_bits (NVML reports throttling, "
        "but neither clock nor E2E moved) are named and do not decide.",
        source="analysis/calls/steadiness",
    ),
    Formula(
        name="Warm",
        formula="warmup.policy=auto: over the last 8 calls (5 where one takes over 10 s), none with an event, the "
        "second half's median is at most 2 % below the first's and 5 % above it, and the Theil–Sen line falls by at "
        "most 2 %",
        unit="status",
        note="At a cap it is not_converged: measured all the same, and not ranked. warmup.policy=fixed makes as many "
        "calls as it says.",
        source="analysis/calls/stopping",
    ),
    Formula(
        name="Output",
        formula="same: mean KL divergence from the reference and mean difference of the logits, in their standard "
        "deviations, within the bounds of the dtype",
        unit="same, DIFFERS",
        note="The reference is eager attention, not compiled, in a process of its own; logits are compared over its "
        "tokens, forced upon the setting; where all tokens are equal, over the first eight steps.",
        source="trial/evidence/fidelity",
    ),
)
