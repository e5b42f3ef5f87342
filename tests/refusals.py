"""Run the command line in this process to test what it refuses, in a tenth of a new process's time."""

from __future__ import annotations

import contextlib
import io
import os
import sys
import warnings
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from unittest import mock

from hydra.core.global_hydra import GlobalHydra

from bench.cli import application
from bench.orchestration import job_run, signals, sweep
from bench.orchestration.search import search


class _Accepted(BaseException):
    """Raised instead of starting the run."""


@dataclass(kw_only=True)
class Answer:
    """How a command ended."""

    status: int  # 0: it was accepted and would run
    out: str
    err: str
    config: Any = None  # of an accepted run
    folder: Path | None = None  # of an accepted run: its output folder
    points: Any = None  # of an accepted sweep
    space: Any = None  # of an accepted search

    @property
    def line(self) -> str:
        """Return the one line of a refusal; fail if there is any other output."""
        assert (self.status, self.out, self.err.count("\n")) == (2, "", 1), f"{self.status} {self.out}{self.err}"
        assert self.err.startswith("bench: ")
        return self.err.removeprefix("bench: ").rstrip("\n")


def answer(folder: Path, *arguments: str, **variables: str) -> Answer:
    """Return the command's answer when typed in a folder, without running anything."""
    accepted: dict[str, Any] = {}

    def take(name: str) -> Any:
        def begin(first: Any, *others: Any, **__: Any) -> None:
            accepted[name] = first
            if name == "config":
                accepted["folder"] = others[0]
            raise _Accepted

        return begin

    out, err = io.StringIO(), io.StringIO()
    before = Path.cwd()
    os.chdir(folder)
    try:
        with (
            _patched(arguments, variables),
            mock.patch.object(job_run, "prepare_single", take("config")),
            mock.patch.object(sweep, "sweep", take("points")),
            mock.patch.object(search, "search", take("space")),
            contextlib.redirect_stdout(out),
            contextlib.redirect_stderr(err),
        ):
            application.main()
        status: Any = 0
    except SystemExit as end:
        status = end.code or 0
    except _Accepted:
        status = 0
    finally:
        os.chdir(before)
        GlobalHydra.instance().clear()
    return Answer(status=status, out=out.getvalue(), err=err.getvalue(), **accepted)


@contextlib.contextmanager
def _patched(arguments: Sequence[str], variables: dict[str, str]) -> Iterator[None]:
    GlobalHydra.instance().clear()
    environment = {name: value for name, value in os.environ.items() if not name.startswith("HYDRA_")}
    with (
        mock.patch.object(sys, "argv", ["bench", *arguments]),
        mock.patch.object(signals, "install"),
        mock.patch.dict(os.environ, environment | variables, clear=True),
        warnings.catch_warnings(),
    ):
        yield


def refused(folder: Path, *arguments: str, **variables: str) -> str:
    """Return the one line of a refusal, which must leave nothing in the folder."""
    before = sorted(folder.rglob("*"))
    line = answer(folder, *arguments, **variables).line
    assert sorted(folder.rglob("*")) == before
    return line
