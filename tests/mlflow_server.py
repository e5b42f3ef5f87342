"""Run `mlflow server` as a separate process that can be stopped, killed and restarted: single-user or for a team."""

from __future__ import annotations

import contextlib
import os
import secrets
import signal
import socket
import subprocess
import sys
import time
import urllib.request
from pathlib import Path
from typing import Any

import pytest

from postgres import Postgres


class Server:
    """A server on its own port; its database and port remain after it ends."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        with socket.create_server(("127.0.0.1", 0)) as free:
            self.port = free.getsockname()[1]
        self.uri = f"http://127.0.0.1:{self.port}"
        self.process: subprocess.Popen[bytes] | None = None
        self.options = ["--backend-store-uri", f"sqlite:///{folder}/server.db", "--workers", "1"]
        self.variables = {"MLFLOW_SERVER_ENABLE_JOB_EXECUTION": "false", "MLFLOW_DISABLE_TELEMETRY": "true"}

    def start(self) -> None:
        """Start or restart the server and wait until it answers."""
        environment = {name: value for name, value in os.environ.items() if not name.startswith("MLFLOW_")}
        command = [sys.executable, "-m", "mlflow", "server", "--host", "127.0.0.1", "--port", str(self.port)]
        command += [*self.options, "--artifacts-destination", str(self.folder / "artifacts")]
        with (self.folder / "server.log").open("ab") as log:
            self.process = subprocess.Popen(
                command,
                cwd=self.folder,
                env=environment | self.variables,
                stdout=log,
                stderr=log,
                start_new_session=True,
            )
        deadline_s = time.monotonic() + 120
        while time.monotonic() < deadline_s and self.process.poll() is None:
            with contextlib.suppress(OSError), urllib.request.urlopen(f"{self.uri}/health", timeout=2):
                return
            time.sleep(0.2)
        raise AssertionError((self.folder / "server.log").read_text())

    def signal(self, number: int) -> None:
        """Send a signal to the server and its workers."""
        if self.process is not None:
            with contextlib.suppress(ProcessLookupError):
                os.killpg(self.process.pid, number)

    def kill(self) -> None:
        """Kill the server and wait until no process listens on its port.

        The workers hold the socket too and outlive their parent by a moment, in which a request is accepted and reset.
        """
        self.signal(signal.SIGKILL)
        if self.process is None:
            return
        self.process.wait(30)
        self.process = None
        deadline_s = time.monotonic() + 30
        while time.monotonic() < deadline_s:
            try:
                socket.create_connection(("127.0.0.1", self.port), timeout=2).close()
            except ConnectionRefusedError:
                return
            except OSError:
                pass
            time.sleep(0.05)
        raise AssertionError(f"something still listens at {self.uri}")


class TeamServer(Server):
    """A server that stores runs and users in PostgreSQL and files in its own folder, and requires a password.

    Its passwords are in its environment and its own file: every user could read them in the command line.
    """

    ADMIN = "admin"

    def __init__(self, folder: Path, postgres: Postgres, *, workers: int = 2, default_permission: str = "EDIT") -> None:
        super().__init__(folder)
        self.postgres = postgres
        self.admin_password = f"admin-{secrets.token_hex(8)}"
        settings = folder / "auth.ini"
        settings.touch(mode=0o600)
        settings.write_text(
            f"[mlflow]\n"
            f"default_permission = {default_permission}\n"
            f"database_uri = {postgres.create('mlflow_users')}\n"
            f"admin_username = {self.ADMIN}\n"
            f"authorization_function = mlflow.server.auth:authenticate_request_basic_auth\n"
            f"auth_cache_ttl_seconds = 60\n"
        )
        self.options = ["--app-name", "basic-auth", "--workers", str(workers)]
        self.variables |= {
            "MLFLOW_BACKEND_STORE_URI": postgres.create("mlflow"),
            "MLFLOW_AUTH_CONFIG_PATH": str(settings),
            "MLFLOW_AUTH_ADMIN_PASSWORD": self.admin_password,
            "MLFLOW_FLASK_SERVER_SECRET_KEY": secrets.token_hex(16),
        }

    def add_user(self, name: str, password: str) -> None:
        """Create a user with the rights of `default_permission`."""
        with self.as_admin() as client:
            client.create_user(name, password)

    @contextlib.contextmanager
    def as_admin(self) -> Any:
        """Return MLflow's client for managing users and permissions."""
        from mlflow.server import get_app_client

        with pytest.MonkeyPatch.context() as patched:
            patched.setenv("MLFLOW_TRACKING_USERNAME", self.ADMIN)
            patched.setenv("MLFLOW_TRACKING_PASSWORD", self.admin_password)
            yield get_app_client("basic-auth", tracking_uri=self.uri)
