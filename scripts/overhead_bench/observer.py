"""Measure the observer effect: time one setting with and without each instrument, in one process.

Arms, each a way to time the same generate call:

    bare                 a hand-written loop: synchronise, clock, generate, synchronise, clock
    bare again           the same once more; its difference from bare is noise
    streamer             with the streamer that timestamps each token
    monitor              with the hardware monitor's process sampling
    streamer + monitor   with both
    bench                BenchmarkRunner.time_generate, whose figure is published

Each block runs every arm once, in a random order of its own. Drift therefore affects all arms alike, and the effects of
one call on the next are spread evenly over the arms. The effect of an arm is the median over blocks of log(arm / bare),
given as a ratio; its 95 % interval is that of the sign test, which assumes nothing about the noise. No call is left
out.

Calls of two lengths are measured: the length of the tiny model's calls elsewhere in this benchmark, and a few
milliseconds, where the sample that the monitor takes at the start of a call has the largest effect. In calls longer
than its interval the monitor takes more samples: measure those with --model, --prompt-tokens and --new-tokens.

An arm changes the figure if its effect is larger than 1 % and than the noise (the reach of the interval of `bare
again`), and its own interval excludes 0. It is within 1 % if its whole interval is, and otherwise within the noise.
Four times as many calls halve the noise.

It runs as a part of scripts/overhead, and alone with its own options: scripts/overhead observer --help.

Not covered: effects that all arms share, such as the monitor's process that waits between calls, and the effect of the
instruments on the times of single tokens.
"""

from __future__ import annotations

import argparse
import json
import math
import os
import random
import statistics
import sys
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import torch
import tqdm
import transformers
import yaml

from bench.analysis.calls.series import median_rank
from bench.config.rules import ConfigError
from bench.config.schema import AttentionConfig, BenchmarkConfig, CompileConfig, ModelConfig
from bench.trial.hardware import memory
from bench.trial.hardware.monitor import HardwareMonitor
from bench.trial.measure.request import guards, make_generation_config, make_inputs
from bench.trial.measure.runner import BenchmarkRunner
from bench.trial.measure.streamer import TokenClock
from bench.trial.model.loading import LoadedModel
from overhead_bench.figures import MET, MISSED, NOISE, Figure, Options, Result

TITLE = "change of E2E through streamer, monitor and bench, against a hand-written loop"
BARE, AGAIN = "bare", "bare again"
ARMS = (BARE, AGAIN, "streamer", "monitor", "streamer + monitor", "bench")
TOLERANCE = 0.01  # of the median E2E; smaller changes count as negligible
WARM_UP_BLOCKS = 3
CALLS, QUICK_CALLS = 400, 12  # of each arm
LENGTHS = ((64, 32), (32, 8))  # prompt tokens, new tokens; the first is the default
FEWEST_CALLS = 6  # with fewer, the sign test has no interval

Times = Mapping[str, Sequence[float]]  # arm → E2E latency in seconds, one per block


@dataclass(frozen=True, kw_only=True)
class Effect:
    """State the change by one arm. Fractions of the bare call's E2E: 0.01 is 1 % slower."""

    arm: str
    median_s: float
    change: float
    low: float  # 95 % interval of change
    high: float

    @property
    def reach(self) -> float:
        """Return the largest change, up or down, in the interval."""
        return max(abs(self.low), abs(self.high))


# ---- statistics -----------------------------------------------------------------------------------------------------


def effect(arm: str, times: Times) -> Effect:
    """Return the change from bare to `arm`, from at least FEWEST_CALLS blocks."""
    ratios = sorted(math.log(with_it / without) for with_it, without in zip(times[arm], times[BARE], strict=True))
    rank = median_rank(len(ratios))
    assert rank is not None
    return Effect(
        arm=arm,
        median_s=statistics.median(times[arm]),
        change=math.expm1(statistics.median(ratios)),
        low=math.expm1(ratios[rank - 1]),
        high=math.expm1(ratios[-rank]),
    )


def is_change(found: Effect, noise: float) -> bool:
    """Tell whether an arm changes the figure by more than both TOLERANCE and the noise."""
    return abs(found.change) > max(TOLERANCE, noise) and not found.low <= 0 <= found.high


def verdict(found: Effect, noise: float) -> str:
    """Say the same in words."""
    if is_change(found, noise):
        return f"CHANGES the figure by {_percent(found.change)}"
    if found.reach <= TOLERANCE:
        return "within 1 %"
    return f"within the noise (±{100 * max(noise, found.reach):.1f} %)"


# ---- the calls ------------------------------------------------------------------------------------------------------


def blocks(count: int, seed: int) -> Iterator[list[str]]:
    """Yield for each block the arms in the order in which they run."""
    chance = random.Random(seed)  # noqa: S311 - an order, not a secret
    for _ in range(count):
        yield chance.sample(ARMS, k=len(ARMS))


def time_arms(config: BenchmarkConfig, calls: int, seed: int) -> dict[str, list[float]]:
    """Return the E2E seconds of each arm, `calls` per arm, after WARM_UP_BLOCKS blocks that do not count.

    Raises:
        RuntimeError: the setting cannot run here, or the monitor stopped.
    """
    with BenchmarkRunner() as runner:
        runner.setup_benchmark(config.model.id, config)
        first = runner.time_generate(config, warmup=True)
        if first[0] < 0:
            raise RuntimeError(first[2])
        # One model and one monitor for all arms: the address of the weights in memory affects the speed.
        setup = runner._require_setup()  # noqa: SLF001
        loaded = setup.require_request().loaded
        with setup.monitoring():
            monitor = setup.monitor
            assert monitor is not None
            calls_of = make_arms(config, runner, loaded, monitor)
            times: dict[str, list[float]] = {arm: [] for arm in ARMS}
            planned = list(blocks(WARM_UP_BLOCKS + calls, seed))
            for number, block in enumerate(tqdm.tqdm(planned, desc="Blocks", disable=None)):  # no bar in a file
                for arm in block:
                    e2e_s = calls_of[arm]()
                    if number >= WARM_UP_BLOCKS:
                        times[arm].append(e2e_s)
            if monitor.error is not None:
                raise RuntimeError(f"the monitor stopped: {monitor.error}")
    return times


def make_arms(
    config: BenchmarkConfig, runner: BenchmarkRunner, loaded: LoadedModel, monitor: HardwareMonitor
) -> dict[str, Callable[[], float]]:
    """Return for each arm a function that makes one call and returns its E2E in seconds."""
    inputs = make_inputs(config, loaded)
    generation = make_generation_config(config, loaded, config.workload.num_tokens_to_generate)
    device = loaded.device

    def bare() -> float:
        with guards(config):
            memory.synchronize(device)
            start = time.perf_counter()
            loaded.model.generate(**inputs, generation_config=generation)
            memory.synchronize(device)
            return time.perf_counter() - start

    def with_streamer() -> float:
        streamer = TokenClock(time.perf_counter)
        with guards(config):
            memory.synchronize(device)
            start = time.perf_counter()
            loaded.model.generate(**inputs, generation_config=generation, streamer=streamer)
            memory.synchronize(device)
            return time.perf_counter() - start

    def monitored(call: Callable[[], float]) -> Callable[[], float]:
        def call_with_monitor() -> float:
            monitor.begin()
            e2e_s = call()
            monitor.end(0.0)
            return e2e_s

        return call_with_monitor

    return {
        BARE: bare,
        AGAIN: bare,
        "streamer": with_streamer,
        "monitor": monitored(bare),
        "streamer + monitor": monitored(with_streamer),
        "bench": lambda: runner.time_generate(config, warmup=False)[0],
    }


# ---- output ---------------------------------------------------------------------------------------------------------


def table(times: Times) -> tuple[list[str], bool]:
    """Return the lines to print, below 100 columns, and whether any arm changes the figure."""
    effects = [effect(arm, times) for arm in ARMS if arm != BARE]
    noise = effects[0].reach  # of bare again
    rows = [("arm", "calls", "median ms", "change", "95 % interval", "verdict")]
    rows.append((BARE, str(len(times[BARE])), f"{1000 * statistics.median(times[BARE]):.2f}", "–", "–", ""))
    for each in effects:
        said = f"the noise: ±{100 * noise:.1f} %" if each.arm == AGAIN else verdict(each, noise)
        interval = f"{_percent(each.low)} to {_percent(each.high)}"
        median_ms = f"{1000 * each.median_s:.2f}"
        rows.append((each.arm, str(len(times[each.arm])), median_ms, _percent(each.change), interval, said))
    lines = [
        f"{arm:<18}  {calls:>5}  {median:>9}  {change:>7}  {interval:<19}  {said}".rstrip()
        for arm, calls, median, change, interval, said in rows
    ]
    return lines, any(is_change(each, noise) for each in effects if each.arm != AGAIN)


def _percent(fraction: float) -> str:
    return f"{100 * fraction:+.1f} %"


def report(config: BenchmarkConfig, times: Times, seed: int) -> dict[str, Any]:
    """Return the content of the JSON file: every time, and the results."""
    return {
        "setting": config.to_dict(),
        "seed": seed,
        "torch": str(torch.__version__),
        "transformers": transformers.__version__,
        "cores": os.cpu_count(),
        "tolerance": TOLERANCE,
        "effects": [asdict(effect(arm, times)) for arm in ARMS if arm != BARE],
        "e2e_s": dict(times),  # one per block, in the order of the blocks
    }


# ---- the part -------------------------------------------------------------------------------------------------------


def measure(options: Options) -> Result:
    """Measure all arms of the tiny model; the column of the spread shows the 95 % interval here."""
    rows: list[Figure] = []
    raw: dict[str, Any] = {}
    calls = ["--calls", str(QUICK_CALLS if options.quick else CALLS)]
    for prompt, new in LENGTHS:
        asked = ["--device", options.device, "--prompt-tokens", str(prompt), "--new-tokens", str(new)]
        parsed = parse(calls + asked)
        config = setting(parsed)
        times = time_arms(config, parsed.calls, parsed.seed)
        label = f"{prompt} + {new} tokens"
        rows += figures(times, label)
        raw[label] = report(config, times, parsed.seed)
    note = "for min – max: the 95 % interval of the change. noise: neither a change nor proof of less than 1 %"
    return Result(figures=rows, notes=[note], raw=raw)


def figures(times: Times, label: str) -> list[Figure]:
    """Return a row for the bare call, and one per arm with the 95 % interval of its change."""
    effects = [effect(arm, times) for arm in ARMS if arm != BARE]
    noise = effects[0].reach
    bare = Figure(name=f"{label}, {BARE}", unit="ms", values=[1000 * statistics.median(times[BARE])])
    changes = [
        Figure(
            name=f"  {each.arm}: change of the median",
            unit="%",
            values=[100 * each.change],
            at_most=None if each.arm == AGAIN else 100 * TOLERANCE,
            judged="" if each.arm == AGAIN else _judged(each, noise),
            interval=(100 * each.low, 100 * each.high),
        )
        for each in effects
    ]
    return [bare, *changes]


def _judged(found: Effect, noise: float) -> str:
    if is_change(found, noise):
        return MISSED
    return MET if found.reach <= TOLERANCE else NOISE


# ---- the command ----------------------------------------------------------------------------------------------------


def parse(arguments: Sequence[str] | None) -> argparse.Namespace:
    """Parse the command line."""
    parser = argparse.ArgumentParser(
        prog="scripts/overhead observer",
        description="What the streamer and the hardware monitor add to the E2E latency. "
        "Exit status: 0 when each stays below 1 %% or the noise, 1 when one does not.",
    )
    parser.add_argument("--model", default="tiny", metavar="FOLDER_OR_ID", help="a checkpoint; default: %(default)s")
    parser.add_argument("--calls", type=int, default=CALLS, metavar="N", help="of each arm; default: %(default)s")
    parser.add_argument("--device", default="auto", help="as the key device; default: %(default)s")
    parser.add_argument("--dtype", default="auto", help="as the key model.dtype; default: %(default)s")
    parser.add_argument("--attention", default="sdpa", help="as attention.implementation; default: %(default)s")
    parser.add_argument("--compile", metavar="MODE", help="as the key compile.mode; default: not compiled")
    parser.add_argument("--prompt-tokens", type=int, default=LENGTHS[0][0], metavar="N", help="default: %(default)s")
    parser.add_argument("--new-tokens", type=int, default=LENGTHS[0][1], metavar="N", help="default: %(default)s")
    parser.add_argument("--seed", type=int, default=0, help="of the order within the blocks; default: %(default)s")
    parser.add_argument("--json", type=Path, metavar="FILE", help="write every time and the effects there")
    parsed = parser.parse_args(arguments)
    if parsed.calls < FEWEST_CALLS:
        parser.error(f"--calls {parsed.calls}: with fewer than {FEWEST_CALLS} there is no interval")
    return parsed


def setting(arguments: argparse.Namespace) -> BenchmarkConfig:
    """Return the setting that the command line requests. Raises ConfigError."""
    model = ModelConfig(id=arguments.model)
    if arguments.model == "tiny":
        group = Path(__file__).parents[2] / "conf" / "model" / "tiny.yaml"
        model = ModelConfig(**yaml.safe_load(group.read_text(encoding="utf-8")))
    model.dtype = arguments.dtype
    return BenchmarkConfig(
        device=arguments.device,
        model=model,
        attention=AttentionConfig(implementation=arguments.attention),
        compile=CompileConfig(mode=arguments.compile),
        sequence_length=arguments.prompt_tokens,
        num_tokens_to_generate=arguments.new_tokens,
    )


def main(arguments: Sequence[str] | None = None) -> int:
    """Measure, print and judge the results."""
    parsed = parse(arguments)
    try:
        config = setting(parsed)
        times = time_arms(config, parsed.calls, parsed.seed)
    except (ConfigError, RuntimeError) as error:
        print(f"overhead: {error}", file=sys.stderr)
        return 2
    if parsed.json is not None:
        parsed.json.write_text(json.dumps(report(config, times, parsed.seed), indent=1), encoding="utf-8")
    lines, changed = table(times)
    print("\n".join(lines))
    return int(changed)


if __name__ == "__main__":
    sys.exit(main())
