"""Check all records at once: each check gives pass, fail or unknown, with what it saw."""

from __future__ import annotations

from collections.abc import Callable, Sequence

from bench.analysis.trials.summary import compiled_while_measured, summarize
from bench.report.text.format import UNDEFINED, one_line, percent, significant
from gpu_check.jobs import CUDAGRAPH_MODES, PAIRS, SEED_EXAMPLE
from gpu_check.judge import Check, Judge, Run
from gpu_check.nvml import IDLE_S
from gpu_check.printing import families, gib, shortened, small
from gpu_check.running import e2e_s

MIN_POWER_W = 30.0
POWER_MARGIN = 1.1
SHORTEST_METERED_S = 0.25  # a call shorter than this is coarse for a counter that advances every 20 to 100 ms
MAX_SHARE = 1.05  # as bench.analysis.trials.roofline has it
LEAST_BANDWIDTH_SHARE = 0.5  # of what clock and bus allow
MONITOR_TOLERANCE, MONITOR_FAILURE = 0.05, 0.15  # of E2E; between them two processes cannot tell
SDPA_FAMILIES = {"math", "flash_attention", "efficient_attention", "cudnn_attention", "overrideable"}


def check_statuses(run: Run, judge: Judge) -> None:
    """Check that every job that was reached is ok, or skipped if it may be."""
    for each in run.outcomes:
        if each.status == "not reached":
            judge.unknown.append(each.job.name)
        elif each.ok:
            judge.seen.append(each.job.name)
        else:
            # Which backends a CPU has does not matter here.
            excused = each.status == "skipped" and (each.job.may_skip or run.target.rehearsal)
            judge.check(each.job.name, None if excused else False, each.status)
    if not run.ok:
        judge.check("all", False, "no job is ok")


def check_seed_example(run: Run, judge: Judge) -> None:
    """Check flex_attention with compile default, as in the documented example."""
    found = run.of(SEED_EXAMPLE)
    if found is None or found.status == "not reached":
        return
    judge.check(SEED_EXAMPLE, found.ok, found.reason or "ok")


def check_device(run: Run, judge: Judge) -> None:
    """Check that the job ran on the device, in the dtype, with as many calls as requested."""
    for job, record in run.ok:
        seen, target = record.observed, run.target
        assert seen is not None
        calls = (len(record.calls("warmup")), len(record.calls("measurement")))
        asked = (target.warm_up if job.warm_up is None else job.warm_up, target.calls)
        right = seen.device.startswith(target.device) and seen.dtype == target.dtype and calls == asked
        judge.check(job.name, right, "" if right else f"{seen.device}, {seen.dtype}, calls {calls} of {asked}")


def check_evidence(run: Run, judge: Judge) -> None:
    """Check that the profiled call of each ok job shows the requested attention, in prefill and decoding."""
    for job, record in run.ok:
        assert record.observed is not None
        seen = record.observed.attention
        if seen.error is not None or seen.prefill is None or seen.decode is None:
            judge.check(job.name, None, seen.error or "a phase is missing")
            continue
        wanted = {job.backend} if job.backend else SDPA_FAMILIES if job.attention == "sdpa" else {job.attention}
        right = set(seen.prefill.families) <= wanted and bool(seen.prefill.families) and bool(seen.decode.families)
        judge.check(job.name, right, f"{families(seen.prefill)}/{families(seen.decode)}")


def check_shares(run: Run, judge: Judge) -> None:
    """Check that the share of time that attention takes is between 0 and 1."""
    for job, record in run.ok:
        assert record.observed is not None
        attention = record.observed.attention
        for phase in (attention.prefill, attention.decode):
            if phase is not None and phase.attention_share is not None:
                judge.check(job.name, 0 < phase.attention_share < 1, f"{percent(phase.attention_share)} %")


def check_cudagraphs(run: Run, judge: Judge) -> None:
    """Check that modes with CUDA graphs replay them in decoding and skip none, and that others have none."""
    for job, record in run.ok:
        assert record.observed is not None
        decode, compiled = record.observed.attention.decode, record.observed.compile
        if run.target.rehearsal or job.batching or decode is None or compiled is None:
            continue
        launches = f"{decode.cudagraph_launches} launches in {decode.steps} steps, {compiled.cudagraph_skips} skipped"
        if job.mode in CUDAGRAPH_MODES:
            judge.check(job.name, decode.cudagraph_launches >= decode.steps and not compiled.cudagraph_skips, launches)
        elif decode.cudagraph_launches:
            judge.check(job.name, False, launches)


def check_recording(run: Run, judge: Judge) -> None:
    """Check that fewer than half of the measured calls record a CUDA graph, so that the median call does not."""
    for job, record in run.ok:
        assert record.observed is not None
        if job.mode not in CUDAGRAPH_MODES or record.observed.compile is None:
            continue
        measured = {each.index for each in record.calls("measurement")}
        events = [each for each in record.observed.compile.events if each.kind == "cudagraph_record"]
        busy = len(measured & {each.iteration for each in events})
        judge.check(job.name, 2 * busy < len(measured), f"{len(events)} recorded, in {busy} measured calls")


def check_compiled(run: Run, judge: Judge) -> None:
    """Check that jobs compile if requested, with the expected cache state, and never in a measured call."""
    for job, record in run.ok:
        assert record.observed is not None
        compiled = record.observed.compile
        if job.mode is None or compiled is None:
            continue
        if compiled.graphs is None or compiled.attention_graphs is None:
            judge.check(job.name, None, "torch counts no graphs")
            continue
        own = compiled.graphs - compiled.attention_graphs
        late = compiled_while_measured(record)
        what = f"{own} graph(s), {compiled.cache_state}, {late} late"
        source = run.of(job.finds) if job.finds is not None else None
        # A fresh cache holds only what the job itself has put there: some hits, but not only hits.
        cached = compiled.cache_state != ("cold" if source is not None and source.ok else "warm")
        right = own > 0 and late == 0 and cached
        judge.check(job.name, right, what)


def check_autotuning(run: Run, judge: Judge) -> None:
    """Check that max-autotune has tried kernels, and recorded how long it took."""
    for job, record in run.ok:
        assert record.observed is not None
        if job.mode and job.mode.startswith("max-autotune") and record.observed.compile is not None:
            spent_s = record.observed.compile.autotune_s
            judge.check(job.name, True if spent_s else None, f"{significant(spent_s, 3)} s")


def check_monitor(run: Run, judge: Judge) -> None:
    """Check that each measured call has samples with a source, and that a job without monitor has none."""
    source = "psutil" if run.target.rehearsal else "nvml"
    for job, record in run.ok:
        if not job.monitored:
            judge.check(job.name, record.monitor is None, "no monitor")
            continue
        monitor = record.monitor
        if monitor is None:
            judge.check(job.name, False, "none")
            continue
        counts = [len(each) for each in monitor.samples]
        right = monitor.source == source and not monitor.error and len(counts) == run.target.calls and min(counts) >= 1
        judge.check(job.name, right, monitor.error or f"{min(counts)} to {max(counts)} a call")


def check_identity(run: Run, judge: Judge) -> None:
    """Check by UUID and memory that the monitored GPU is the one that the job used."""
    for job, record in run.ok:
        if run.target.rehearsal or record.monitor is None:
            continue
        uuid = (record.environment.get("gpu") or {}).get("uuid")
        same = None if run.gpu.uuid is None or uuid is None else uuid == run.gpu.uuid
        peak = record.memory.measurement_peak
        used = [each.memory_used_bytes for call in record.monitor.samples for each in call if each.memory_used_bytes]
        held = peak.device_reserved_bytes if peak is not None else None
        covers = max(used) >= held if used and held else None
        judge.check(job.name, _both(same, covers), "" if same and covers else f"UUID {same}, memory {covers}")


def check_energy(run: Run, judge: Judge) -> None:
    """Check the joules of each call, and that the mean power is possible for this GPU, unless calls are too short."""
    for job, record in run.ok:
        if run.target.rehearsal or not job.monitored:
            continue
        energy = record.energy
        if energy is None or energy.source is None:
            why = energy.reason if energy is not None else None
            judge.check(job.name, None if "MIG" in (why or "") else False, why or "no energy")
            continue
        joules_per_token = summarize(record).joules_per_token
        seconds = [each.e2e_s for each in record.calls("measurement")]
        if joules_per_token is None or joules_per_token <= 0:
            judge.check(job.name, False, f"{significant(joules_per_token)} J/token")
            continue
        power_w = sum(each for each in energy.joules if each is not None) / sum(seconds)
        most_w = POWER_MARGIN * run.gpu.power_limit_w if run.gpu.power_limit_w else None
        holds = None if most_w is None else MIN_POWER_W <= power_w <= most_w
        coarse = sum(seconds) / len(seconds) < SHORTEST_METERED_S
        judge.check(job.name, (holds or None) if coarse else holds, f"{power_w:.0f} W" + (", coarse" if coarse else ""))


def check_bandwidth(run: Run, judge: Judge) -> None:
    """Check that this GPU's clock and bus allow the measured bandwidth."""
    rates = next((record.roofline.rates for _, record in run.ok if record.roofline and record.roofline.rates), None)
    if rates is None:
        return
    measured, most = rates.bandwidth_bytes_per_s, run.gpu.memory_bandwidth_bytes_per_s
    what = f"{significant(measured / 1e12, 3)} TB/s of {significant(most / 1e12, 3) if most else UNDEFINED} TB/s"
    share = measured / most if most else None
    judge.check("memory", None if share is None else LEAST_BANDWIDTH_SHARE <= share <= MAX_SHARE, what)
    judge.check("matrices", rates.matmul_flops_per_s > 0, f"{significant(rates.matmul_flops_per_s / 1e12, 3)} TFLOP/s")


def check_roofline(run: Run, judge: Judge) -> None:
    """Check that every share of the device's rates is known, above 0 and at most 1."""
    for job, record in run.ok:
        if job.batching:  # prefill and decoding share its steps
            continue
        found = record.roofline
        shares = (found.prefill_mfu, found.decode_mbu) if found is not None else (None, None)
        # On a CPU the rates are those of a machine that others use as well.
        lost = None if run.target.rehearsal else False
        right = all(0 < each < MAX_SHARE for each in shares) if None not in shares else lost  # type: ignore[operator]
        why = found.reason if found is not None and found.reason else "/".join(percent(each) for each in shares)
        judge.check(job.name, right, why)


def check_memory(run: Run, judge: Judge) -> None:
    """Check that NVML's process memory ≥ the allocator's reserve ≥ its allocations > the parameters."""
    for job, record in run.ok:
        peak, seen = record.memory.measurement_peak, record.observed
        if run.target.rehearsal or peak is None or seen is None:
            continue
        allocated, held, process = peak.device_allocated_bytes, peak.device_reserved_bytes, peak.device_process_bytes
        if allocated is None or held is None:
            judge.check(job.name, False, "the allocator's figures are missing")
            continue
        sizes = f"{gib(held)} ≥ {gib(allocated)} > {gib(seen.parameter_bytes)} GiB"
        judge.check(job.name, held >= allocated > seen.parameter_bytes, sizes)
        # In a container NVML may know the process by another number.
        around = None if process is None else process >= held
        judge.check(f"{job.name}, process", around, f"{gib(process)} GiB")


def check_kv_cache(run: Run, judge: Judge) -> None:
    """Check that the KV cache takes the computed bytes; a paged one at least as many."""
    for job, record in run.ok:
        held, needed = record.memory.kv_cache_bytes, record.memory.kv_cache_computed_bytes
        if held is None or needed is None:
            judge.check(job.name, None, "")
        else:
            judge.check(job.name, held >= needed if job.batching else held == needed, f"{held} of {needed}")


def check_fidelity(run: Run, judge: Judge) -> None:
    """Check that the output agrees with the reference's."""
    for outcome in run.outcomes:
        if outcome.ok and outcome.record is not None:
            found = outcome.record.fidelity
            why = outcome.reference_problem if found is None else found.reason
            shown = why or f"KL {small(found.kl_mean_nats if found else None)}"
            judge.check(outcome.job.name, found.agrees if found is not None else None, shown)


def check_same_output(run: Run, judge: Judge) -> None:
    """Check whether all calls of a job generated the same tokens; kernels that sum in any order need not."""
    for job, record in run.ok:
        if record.output is not None:
            judge.check(job.name, record.output.same_in_all_calls or None, "")


def check_monitor_effect(run: Run, judge: Judge) -> None:
    """Compare E2E with and without the monitor: one process each, so only a large difference counts."""
    for watched, alone in PAIRS:
        times = [e2e_s(run.of(name)) for name in (watched, alone)]
        if times[0] is None or times[1] is None:
            continue
        change = times[0] / times[1] - 1
        holds = True if abs(change) <= MONITOR_TOLERANCE else None
        if change > MONITOR_FAILURE and not run.target.rehearsal:
            holds = False
        judge.check(watched, holds, f"{100 * change:+.1f} %")


def check_artifacts(run: Run, judge: Judge) -> None:
    """Check that the files of the profiled job exist and can be read."""
    for outcome in run.outcomes:
        for name, problem in outcome.artifacts.items():
            judge.check(name, not problem, problem)


def check_nvml(run: Run, judge: Judge) -> None:
    """Check that the real NVML answers the monitor's queries, and that its energy counter advances."""
    gpu = run.gpu
    if run.target.rehearsal:
        return
    if gpu.error is not None:
        judge.check("NVML", False, gpu.error)
        return
    judge.check(
        "fields", not gpu.unanswered, f"{len(gpu.fields)} answered" + "".join(f", no {x}" for x in gpu.unanswered)
    )
    known = gpu.energy_j is not None and gpu.energy_j > 0
    idle = f"{significant((gpu.energy_j or 0) / IDLE_S, 3)} W idle"
    judge.check("energy", known or ("MIG" in (gpu.energy_reason or "") and None), gpu.energy_reason or idle)


CHECKS: dict[str, Callable[[Run, Judge], None]] = {
    "jobs are ok, or skipped where they may be": check_statuses,
    "the seed example runs": check_seed_example,
    "device, dtype and calls are as asked": check_device,
    "the requested attention ran": check_evidence,
    "attention's share of the time": check_shares,
    "compiled as asked, not while measured": check_compiled,
    "max-autotune tuned": check_autotuning,
    "CUDA graphs are replayed": check_cudagraphs,
    "CUDA graphs are not recorded again": check_recording,
    "outputs agree with the reference": check_fidelity,
    "the same tokens in all calls": check_same_output,
    "measured rates are this device's": check_bandwidth,
    "MFU of prefill, MBU of decoding in %": check_roofline,
    "memory peaks enclose each other": check_memory,
    "KV cache has the computed bytes": check_kv_cache,
    "the monitor has samples in each call": check_monitor,
    "the watched GPU is the job's": check_identity,
    "energy and mean power": check_energy,
    "monitor on, against off": check_monitor_effect,
    "profile and snapshot can be read": check_artifacts,
    "NVML itself": check_nvml,
}


def judged(run: Run) -> list[Check]:
    """Return the results of all checks."""
    checks = []
    for name, check in CHECKS.items():
        judge = Judge()
        try:
            check(run, judge)
        except Exception as error:  # noqa: BLE001 - an unforeseen record must not prevent the other checks
            judge.check("the check itself", False, one_line(f"{type(error).__name__}: {error}"))
        checks.append(judge.verdict(name))
    return checks


def check_lines(checks: Sequence[Check]) -> list[str]:
    """Return one line per check, cut to the width; the JSON file has the rest."""
    width = max(len(each.name) for each in checks)
    return [shortened(f"{each.verdict:<7}  {each.name:<{width}}  {each.detail}") for each in checks]


def _both(first: bool | None, second: bool | None) -> bool | None:
    """Return False if one is False, True if both are, else None."""
    if first is False or second is False:
        return False
    return True if first and second else None
