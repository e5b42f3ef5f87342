"""Start MLflow's UI on the right store, and print the pages of the latest sweep: `python -m bench.tracking.ui`.

The UI accepts local connections only, runs two processes, and ends with this program: at Ctrl-C, at SIGTERM, or when
the terminal is closed. If the store is a server, it has its own UI, and only the addresses of the pages are printed.

Not covered: a SIGKILL of this program, which leaves the UI running.

Exit status: 0 after Ctrl-C and for a server, 1 if the UI could not be started or ended by itself, 2 for wrong
arguments or if there is nothing to show; one line per problem.
"""

from __future__ import annotations

import argparse
import contextlib
import http.client
import os
import re
import signal
import socket
import sqlite3
import subprocess
import sys
import tempfile
import time
import urllib.error
import urllib.request
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from types import FrameType
from typing import IO

from bench.cli.subcommands import Parser, say
from bench.host.command_line import CommandError, ExitStatus
from bench.host.home_folder import expanded
from bench.tracking.store.database import sqlite_file
from bench.tracking.store.database_schema import SchemaError, check_schema, check_schema_at, explain_schema
from bench.tracking.store.destination import AddressError
from bench.tracking.store.found_store import DATABASE_NAME, Found, find_store
from bench.tracking.store.relocated import bring_along

WORD = "ui"
PORT = 5000
START_S = 120.0  # for a busy machine; an idle one needs 4 to 16 s
STOP_S = 10.0
LOOK_S = 0.1
ENDS = (signal.SIGTERM, signal.SIGHUP)  # like Ctrl-C

_Handler = Callable[[int, FrameType | None], object] | signal.Handlers

DESCRIPTION = "Start MLflow's UI on the store of the latest sweep or run, and say which pages show it. Ctrl-C ends it."
EPILOG = """\
FOLDER is where the command was started that measured, a sweep's folder, or any that such lie below. Where no sweep
or run says where it was published, its mlflow.db is shown.

examples:
  python -m bench.tracking.ui
  python -m bench.tracking.ui multirun/night --port 8080"""


class UiError(Exception):
    """State in one line why the UI cannot run or has ended."""

    def __init__(self, text: str, status: int = ExitStatus.FAILED) -> None:
        self.status = status
        super().__init__(text)


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command line and return the exit status."""
    try:
        options = _parser().parse_args(arguments)
        with _handled(_interrupt, ENDS):
            return _run(Path(options.folder), options.port)
    except CommandError as error:
        _say(str(error))
        return ExitStatus.REFUSED
    except UiError as error:
        _say(str(error))
        return error.status
    except KeyboardInterrupt:
        return 0


def _interrupt(_number: int, _frame: FrameType | None) -> None:
    raise KeyboardInterrupt


def _run(folder: Path, port: int | None) -> int:
    if not folder.is_dir():
        raise UiError(f"{folder}: no such folder", ExitStatus.REFUSED)
    try:
        found = find_store(folder.resolve())
    except AddressError as error:
        raise UiError(str(error), ExitStatus.REFUSED) from error
    if found is None:
        raise UiError(
            f"no sweep, no run and no {DATABASE_NAME} in or below {folder}: name the folder where one was started, "
            f"or start one: python -m bench",
            ExitStatus.REFUSED,
        )
    if found.uri.startswith(("http://", "https://")):
        _print_pages(found, found.uri)
        return 0
    _check_schema(found.uri)
    _bring_along(found.uri)
    for name in ("no_proxy", "NO_PROXY"):  # a configured proxy cannot reach our server
        os.environ[name] = ",".join(filter(None, (os.environ.get(name), "127.0.0.1")))
    with _server(found.uri, _free_port(port)) as (server, address):
        _print_pages(found, address)
        print(f"The UI of {_shown(found.uri)} runs; Ctrl-C ends it.", flush=True)
        raise UiError(f"the UI ended by itself, with status {server.wait()}")


def _check_schema(uri: str) -> None:
    """Refuse a database of another MLflow version: the server would migrate it, or end with a traceback."""
    database = sqlite_file(uri)
    try:
        if database is None:
            check_schema_at(uri)
        elif database.is_file():
            check_schema(database)
    except SchemaError as error:
        from bench.tracking.store.errors import mlflow_command  # noqa: PLC0415 - imports MLflow

        reason, remedy = explain_schema(error, uri, mlflow_command()) or (str(error), "")
        raise UiError(f"MLflow at {_shown(uri)} cannot be shown: {reason}; {remedy}", ExitStatus.REFUSED) from error
    except sqlite3.Error:  # MLflow will report it
        return


def _bring_along(uri: str) -> None:
    """Let the UI show the artifacts of a database that was moved; if that fails, it shows everything else."""
    database = sqlite_file(uri)
    if database is None:
        return
    try:
        lines = bring_along(database)
    except sqlite3.OperationalError as error:
        lines = [f"{database}: its artifacts are not looked for: {error}"]
    except sqlite3.DatabaseError:  # not a database: MLflow will report it
        return
    for line in lines:
        _say(line)


def _free_port(wanted: int | None) -> int:
    """Return the requested port, else the default one, else any free one."""
    for port in (PORT, 0) if wanted is None else (wanted,):
        try:
            with socket.create_server(("127.0.0.1", port)) as free:
                return int(free.getsockname()[1])
        except OSError as error:
            reason = os.strerror(error.errno).lower() if error.errno is not None else str(error)
        except OverflowError:
            reason = "ports go from 1 to 65535"
    raise UiError(f"--port {wanted}: {reason}; name another, or none for one that is free", ExitStatus.REFUSED)


@contextlib.contextmanager
def _server(uri: str, port: int) -> Iterator[tuple[subprocess.Popen[bytes], str]]:
    """Start MLflow's server on a store and wait until it responds; end its whole process group after the block."""
    address = f"http://127.0.0.1:{port}"
    command = [sys.executable, "-P", "-m", "mlflow", "server", "--backend-store-uri", uri]
    command += ["--host", "127.0.0.1", "--port", str(port), "--workers", "1"]
    # Else ten processes run, and a module in the user's folder may shadow one of the server's.
    own = {"MLFLOW_SERVER_ENABLE_JOB_EXECUTION": "false", "MLFLOW_DISABLE_TELEMETRY": "true", "PYTHONSAFEPATH": "1"}
    with tempfile.TemporaryFile() as log:
        server = None
        try:
            with _held_back():  # else an interrupt may leave a started server untracked
                # In its own session: Ctrl-C reaches only this program, which ends the whole group.
                server = subprocess.Popen(  # noqa: S603 - the command is ours
                    command,
                    env=os.environ | own,
                    stdin=subprocess.DEVNULL,
                    stdout=log,
                    stderr=log,
                    start_new_session=True,
                )
            _wait_until_it_answers(server, address, log)
            yield server, address
        finally:
            if server is not None:
                _end(server)


@contextlib.contextmanager
def _held_back() -> Iterator[None]:
    """Defer Ctrl-C and termination signals until the end of the block."""
    came: list[int] = []
    with _handled(lambda number, _: came.append(number), (signal.SIGINT, *ENDS)):
        yield
    if came:
        raise KeyboardInterrupt


@contextlib.contextmanager
def _handled(
    handler: Callable[[int, FrameType | None], object] | signal.Handlers, numbers: Sequence[int]
) -> Iterator[None]:
    """Install a signal handler within the block, except for signals that are ignored, as under nohup."""
    before = {number: signal.getsignal(number) for number in numbers}
    heeded = {number: own for number, own in before.items() if own != signal.SIG_IGN}
    for number in heeded:
        signal.signal(number, handler)
    try:
        yield
    finally:
        for number, own in heeded.items():
            signal.signal(number, own)


def _wait_until_it_answers(server: subprocess.Popen[bytes], address: str, log: IO[bytes]) -> None:
    from bench.tracking.store import store as _  # noqa: F401, PLC0415 - imports MLflow, while the server does so too

    deadline_s = time.monotonic() + START_S
    while server.poll() is None:
        if _answers(address):
            return
        if time.monotonic() > deadline_s:
            raise UiError(f"MLflow's server does not answer at {address} after {START_S:g} s: {_last_error(log)}")
        time.sleep(LOOK_S)
    raise UiError(f"MLflow's server ended with status {server.returncode}: {_last_error(log)}")


def _answers(address: str) -> bool:
    """Check whether a server responds, even if only with a client error."""
    try:
        urllib.request.urlopen(f"{address}/health", timeout=LOOK_S * 20).close()  # noqa: S310 - http
    except urllib.error.HTTPError as error:
        error.close()
        return error.code < http.client.INTERNAL_SERVER_ERROR
    except OSError:
        return False
    return True


def _last_error(log: IO[bytes]) -> str:
    """Return the last line of the server's log that names an error, else its last line."""
    log.seek(0)
    lines = [line.strip() for line in log.read().decode(errors="replace").splitlines() if line.strip()]
    errors = [line for line in lines if re.match(r"[\w.]*(Error|Exception)\b", line)]
    return next(iter([*errors[::-1], *lines[::-1]]), "it said nothing")


def _end(server: subprocess.Popen[bytes]) -> None:
    """End the server and its workers, and wait for them; a second Ctrl-C does not interrupt the wait."""
    with _handled(signal.SIG_IGN, (signal.SIGINT, *ENDS)):
        for number in (signal.SIGTERM, signal.SIGKILL):
            with contextlib.suppress(ProcessLookupError, PermissionError):
                os.killpg(server.pid, number)
            with contextlib.suppress(subprocess.TimeoutExpired):
                server.wait(STOP_S)
                if not _has_group(server.pid):
                    return


def _has_group(number: int) -> bool:
    """Check whether a process of the group is still running after STOP_S seconds."""
    deadline_s = time.monotonic() + STOP_S
    while time.monotonic() < deadline_s:
        try:
            os.killpg(number, 0)
        except (ProcessLookupError, PermissionError):
            return False
        time.sleep(LOOK_S)
    return True


def _print_pages(found: Found, address: str) -> None:
    """Print the pages of the sweep that the store was found by, else of the latest one in the store."""
    from bench.tracking.pages.latest_sweep import pages  # noqa: PLC0415 - imports MLflow
    from bench.tracking.store.errors import TrackingError  # noqa: PLC0415

    try:
        lines = pages(address, sweep_id=found.sweep_id, experiment=found.experiment)
    except TrackingError as error:
        raise UiError(str(error).removesuffix(", or set tracking.enabled=false")) from error
    print("\n".join(lines), flush=True)


def _say(line: str) -> None:
    say(WORD, line)


def _shown(uri: str) -> str:
    from bench.host.secrets import without_credentials  # noqa: PLC0415

    return without_credentials(uri)


def _parser() -> argparse.ArgumentParser:
    parser = Parser(WORD, description=DESCRIPTION, epilog=EPILOG, allow_abbrev=False)
    parser.add_argument("folder", nargs="?", default=".", type=expanded, metavar="FOLDER", help="default: this one")
    parser.add_argument("--port", type=int, metavar="N", help=f"default: {PORT}, or one that is free")
    return parser


if __name__ == "__main__":
    sys.exit(main())
