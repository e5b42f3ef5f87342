"""Before anything is started: have every distinct model, tokenizer, workload and device of a sweep looked at.

One child process does it (`bench.trial.preflight`), so that torch stays out of this one. It answers with the first
setting that cannot work, which is refused before there is a folder, a run or a job. A look that itself fails or takes
too long refuses nothing: the jobs will tell.
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
EXAMINED = ("device", "model", "workload")  # the sections that decide; the others are limits, or the config's own rules


def preflight(configs: Sequence[BenchmarkConfig], *, timeout_s: float = 120.0) -> str | None:
    """Examine the settings of a sweep, or the one of a single run, in one process.

    Args:
        configs: the settings, in the order in which the first bad one is to be named.
        timeout_s: so long after its process is there the examination is over, finished or not.

    Returns:
        None when all were examined and can work as far as one can tell; else one line that says what was not.

    Raises:
        ConfigError: the first setting that cannot work.
        KeyboardInterrupt: the user's; the process is gone.
    """
    _check_shared_cache(configs)
    modes = {each.isolation.mode for each in configs}
    answers: list[tuple[Any, ...]] = []
    # A child that does not hear is given some seconds to end, and those are part of the time.
    patience_s = max(timeout_s - INTERRUPT_GRACE_S, timeout_s / 2)
    try:
        with tempfile.TemporaryDirectory(prefix="bench-preflight-", ignore_cleanup_errors=True) as folder:
            child = Child(
                # The jobs need the fork server anyway, if any is to come from it.
                mode="forkserver" if "forkserver" in modes else "spawn",
                entry=EXAMINER,
                folder=Path(folder),
                log=Path(folder) / "none.log",
                on_event=lambda *answer: answers.append(answer),
            )
            ended = child.run({"questions": json.dumps(_distinct(configs)).encode()}, patience_s)
    except (EOFError, OSError, RuntimeError, ValueError) as error:  # no process could be started, or its answer is none
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
    """What of a setting is looked at, as JSON: two settings with the same are examined once."""
    return json.dumps({key: value for key, value in config.to_dict().items() if key in EXAMINED}, sort_keys=True)


def _distinct(configs: Sequence[BenchmarkConfig]) -> list[dict[str, Any]]:
    """What is to be looked at, each once, in the order of the settings."""
    return [json.loads(each) for each in dict.fromkeys(map(question, configs))]
