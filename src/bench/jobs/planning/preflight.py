"""Examine every distinct model, tokenizer, workload and device of a sweep before anything is started.

A child process does it (`bench.trial.preflight`), so that this one need not import torch. It answers with the first
setting that cannot work, which is refused before a folder, a run or a job is made. If the examination itself fails or
takes too long, nothing is refused, and the jobs report what is wrong.
"""

from __future__ import annotations

import json
import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from bench.config.rules import ConfigError, unusable_cache
from bench.config.schema import BenchmarkConfig
from bench.host.home_folder import cache_home, check_writable
from bench.jobs.process.child import INTERRUPT_GRACE_S, Child

EXAMINER = ("bench.trial.preflight", "main")
EXAMINED = ("device", "model", "workload")  # the others are limits, or covered by rules


def preflight(configs: Sequence[BenchmarkConfig], *, timeout_s: float = 120.0) -> str | None:
    """Examine the settings of a sweep, or the one of a single run, in one process.

    Args:
        configs: the settings, in the order in which the first bad one is to be named.
        timeout_s: the longest time from the start of its process.

    Returns:
        None when all were examined and nothing speaks against them; else one line that says what was not examined.

    Raises:
        ConfigError: the first setting that cannot work.
        KeyboardInterrupt: the user's; the process has ended.
    """
    _check_shared_cache(configs)
    modes = {each.isolation.mode for each in configs}
    answers: list[tuple[Any, ...]] = []
    # A child that does not react gets some seconds to end, which are part of the time.
    patience_s = max(timeout_s - INTERRUPT_GRACE_S, timeout_s / 2)
    try:
        with tempfile.TemporaryDirectory(prefix="bench-preflight-", ignore_cleanup_errors=True) as folder:
            child = Child(
                # The fork server is needed anyway if any job uses it.
                mode="forkserver" if "forkserver" in modes else "spawn",
                entry=EXAMINER,
                folder=Path(folder),
                log=Path(folder) / "none.log",
                on_event=lambda *answer: answers.append(answer),
            )
            ended = child.run({"questions": json.dumps(_distinct(configs)).encode()}, patience_s)
    except (EOFError, OSError, RuntimeError, ValueError) as error:  # no process, or a malformed answer
        return f"{type(error).__name__}: {error}"
    for kind, *answer in answers:
        if kind == "refused":
            raise ConfigError(*answer)
        if kind == "examined":
            return "; ".join(answer[0]) or None
    if not ended.in_time:
        return f"no answer within {patience_s:g} s"
    code = ended.exit_code
    how = "an unknown end" if code is None else f"signal {-code}" if code < 0 else f"exit status {code}"
    return f"the process that should do it ended with {how}"


def _check_shared_cache(configs: Sequence[BenchmarkConfig]) -> None:
    """Refuse a shared compile cache that no job could write to. Raises ConfigError."""
    if any(each.compile.cache == "shared" for each in configs):
        folder = cache_home()
        try:
            check_writable(folder)
        except OSError as error:
            raise unusable_cache(folder, error) from error


def question(config: BenchmarkConfig) -> str:
    """Return the examined part of a setting as JSON: settings with the same one are examined once."""
    return json.dumps({key: value for key, value in config.to_dict().items() if key in EXAMINED}, sort_keys=True)


def _distinct(configs: Sequence[BenchmarkConfig]) -> list[dict[str, Any]]:
    """Return the distinct parts to examine, in the order of the settings."""
    return [json.loads(each) for each in dict.fromkeys(map(question, configs))]
