"""Examine the settings of a sweep before anything is measured, in one process that loads no weights.

The first setting that cannot work is refused with the message that its job would have: both call
`bench.trial.model.loading`. Limits of this machine are not refused here; those jobs are skipped with their reason
(`bench.trial.unsupported`), and the others run. Not examined: weights that are still to be fetched from the hub, and
what only a real call shows.
"""

from __future__ import annotations

import json
import multiprocessing.connection
import os
import sys
from typing import Any

from bench.config.rules import ConfigError
from bench.config.schema import BenchmarkConfig
from bench.trial.model.loading import Draft, check_workload, draft, resolve_device
from bench.trial.unsupported import one_line


def main(*, questions: bytes, entered_s: float, pipe: multiprocessing.connection.Connection) -> None:
    """Run the process: take settings as JSON, send one answer (see `examine`) as JSON.

    A first message precedes it, from which on the parent counts the time. `entered_s` is ignored.
    """
    del entered_s
    _be_quiet()
    pipe.send_bytes(json.dumps(("begun",)).encode())
    pipe.send_bytes(json.dumps(examine(json.loads(questions))).encode())
    pipe.close()


def examine(questions: list[dict[str, Any]]) -> tuple[Any, ...]:
    """Examine settings, each given by its sections `device`, `model` and `workload`, in their order.

    Returns:
        ("refused", key, value, remedy) for the first that cannot work, else ("examined", one line for each model that
        could not be examined).
    """
    drafts: dict[str, Draft | None] = {}  # None: it could not be examined
    unknown: list[str] = []
    for question in questions:
        config = BenchmarkConfig.from_dict(question)
        model = json.dumps([config.device, question["model"]], sort_keys=True)
        try:
            if model not in drafts:
                drafts[model] = None
                drafts[model] = draft(config.model, resolve_device(config.device))
            if (found := drafts[model]) is not None:
                check_workload(config, found)
        except ConfigError as error:
            value = error.value if isinstance(error.value, bool | int | float | str | None) else str(error.value)
            return ("refused", error.key, value, error.remedy)
        except Exception as error:  # noqa: BLE001 - its job will show it; refusing what may work is worse
            unknown.append(
                f"model.id={config.model.id} could not be examined: {type(error).__name__}: {one_line(error)}"
            )
    return ("examined", unknown)


def _be_quiet() -> None:
    """Send all output of the libraries to /dev/null: what matters comes as the answer."""
    devnull = os.open(os.devnull, os.O_WRONLY)
    for stream in (sys.stdout, sys.stderr):
        stream.flush()
        os.dup2(devnull, stream.fileno())
    os.close(devnull)
