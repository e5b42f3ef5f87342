"""Run a PostgreSQL server for one test: its own data folder, port and password, removed when the test ends."""

from __future__ import annotations

import contextlib
import os
import pwd
import secrets
import shutil
import signal
import socket
import subprocess
import tempfile
import time
from pathlib import Path

USER = "bench"
INSTALLED = "/usr/lib/postgresql/*/bin"  # Debian's packages leave the server's programs out of PATH


class NoPostgresError(Exception):
    """Raised where PostgreSQL cannot be started; the text says why."""


class Postgres:
    """A server on 127.0.0.1 that requires a password.

    PostgreSQL refuses to run as root: then it runs as the first ordinary user of `postgres` and `nobody`.
    """

    def __init__(self) -> None:
        self.programs = _programs()
        self._as = _unprivileged()
        # Not below pytest's folder, which only its owner may enter.
        self.folder = Path(tempfile.mkdtemp(prefix="bench-postgres-"))
        self.password = f"pg-{secrets.token_hex(8)}"
        with socket.create_server(("127.0.0.1", 0)) as free:
            self.port = free.getsockname()[1]
        self.process: subprocess.Popen[bytes] | None = None

    def start(self) -> None:
        """Create the data folder if there is none, start the server and wait until it accepts connections."""
        try:
            if not (self.folder / "data").exists():
                self._make()
            with (self.folder / "log").open("ab") as log:
                self.process = subprocess.Popen(
                    [
                        self.programs / "postgres", "-D", self.folder / "data", "-p", str(self.port),
                        "-c", "listen_addresses=127.0.0.1", "-c", "unix_socket_directories=", "-c", "fsync=off",
                    ],
                    stdout=log, stderr=log, cwd="/", start_new_session=True, **self._as,
                )  # fmt: skip
        except (OSError, subprocess.CalledProcessError) as error:
            output = getattr(error, "stderr", "")
            self.remove()
            raise NoPostgresError(f"{error} {output}") from error
        deadline_s = time.monotonic() + 60
        while time.monotonic() < deadline_s and self.process.poll() is None:
            ready = [self.programs / "pg_isready", "-q", "-h", "127.0.0.1", "-p", str(self.port)]
            if subprocess.run(ready, check=False).returncode == 0:
                return
            time.sleep(0.1)
        said = (self.folder / "log").read_text()
        self.remove()
        raise NoPostgresError(f"it does not answer: {said[-500:]}")

    def uri(self, database: str) -> str:
        """Return the address of a database, including the password.

        It names the driver: SQLAlchemy 2.1 takes a plain `postgresql://` for psycopg 3.
        """
        return f"postgresql+psycopg2://{USER}:{self.password}@127.0.0.1:{self.port}/{database}"

    def create(self, database: str) -> str:
        """Create an empty database; return its address."""
        self.ask("postgres", f"CREATE DATABASE {database}")
        return self.uri(database)

    def ask(self, database: str, query: str) -> list[list[str]]:
        """Return psql's answer, row by row."""
        done = subprocess.run(
            [
                self.programs / "psql", "-h", "127.0.0.1", "-p", str(self.port), "-U", USER, "-d", database,
                "-X", "-A", "-t", "-F", "\t", "-c", query,
            ],
            capture_output=True, text=True, check=True, env=os.environ | {"PGPASSWORD": self.password},
        )  # fmt: skip
        return [line.split("\t") for line in done.stdout.splitlines()]

    def signal(self, number: int) -> None:
        """Send a signal to the server and to its process of each connection."""
        if self.process is not None:
            with contextlib.suppress(ProcessLookupError):
                os.killpg(self.process.pid, number)
            for each in _children(self.process.pid):  # each has a session of its own
                with contextlib.suppress(ProcessLookupError):
                    os.kill(each, number)

    def remove(self) -> None:
        """Stop the server at once and remove all its files."""
        if self.process is not None:
            self.signal(signal.SIGCONT)
            self.process.send_signal(signal.SIGQUIT)
            self.process.wait(30)
            self.process = None
        shutil.rmtree(self.folder, ignore_errors=True)

    def _make(self) -> None:
        data, words = self.folder / "data", self.folder / "password"
        self.folder.chmod(0o755)
        data.mkdir(mode=0o700)
        words.write_text(self.password)
        words.chmod(0o600)
        if "user" in self._as:
            for each in (data, words):
                os.chown(each, self._as["user"], self._as["group"])
        subprocess.run(
            [
                self.programs / "initdb", "-D", data, "-U", USER, "--pwfile", words, "--auth=scram-sha-256",
                "--encoding=UTF8", "--locale=C", "--no-sync",
            ],
            capture_output=True, text=True, check=True, cwd="/", **self._as,
        )  # fmt: skip
        words.unlink()


def _programs() -> Path:
    found = shutil.which("initdb")
    # The program in PATH may be a link into the folder of the needed programs.
    folders = [Path(found).resolve().parent] if found else []
    for each in [*folders, *sorted(Path("/").glob(INSTALLED[1:]), reverse=True)]:
        if all((each / name).exists() for name in ("initdb", "pg_isready", "postgres", "psql")):
            return each
    raise NoPostgresError(f"no initdb in PATH or {INSTALLED}: install PostgreSQL's server (apt install postgresql)")


def _unprivileged() -> dict[str, int]:
    """Return Popen arguments for a user that PostgreSQL accepts; none if the current user is one."""
    if os.geteuid() != 0:
        return {}
    for name in ("postgres", "nobody"):
        with contextlib.suppress(KeyError):
            entry = pwd.getpwnam(name)
            return {"user": entry.pw_uid, "group": entry.pw_gid, "extra_groups": []}  # type: ignore[dict-item]
    raise NoPostgresError("it refuses to run as root, and there is neither a user postgres nor nobody")


def _children(pid: int) -> list[int]:
    with contextlib.suppress(OSError):
        return [int(each) for each in Path(f"/proc/{pid}/task/{pid}/children").read_text().split()]
    return []
