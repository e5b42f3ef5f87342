"""Open a page in a browser: record its requests and errors, and take its picture.

`scripts/pictures` and the tests use it; bench itself opens no browser. The program is an installed Chromium:
playwright only drives it and downloads nothing. It runs without a window and with an empty profile, so the picture
depends on no user's settings.

Not covered: other browsers, and changes of a page after its picture was taken.
"""

from __future__ import annotations

import contextlib
import os
import shutil
import signal
import socket
import subprocess
import sys
import time
import urllib.request
from collections.abc import Iterator
from pathlib import Path
from types import TracebackType
from typing import Self
from urllib.parse import urlsplit

from playwright import sync_api

PROGRAMS = ("chromium", "chromium-browser", "google-chrome")
LOOPBACK = ("127.0.0.1", "localhost", "::1")
WAIT_S = 60
QUIET_S = 0.5  # without a request for this long, the page counts as drawn


def chromium() -> str | None:
    """Return the path of the program; None if it is not installed."""
    return next((path for path in map(shutil.which, PROGRAMS) if path is not None), None)


class Page:
    """Hold an open page, and its messages and requests since it was opened."""

    def __init__(self, page: sync_api.Page) -> None:
        self.page = page
        self.errors: list[str] = []  # errors of the console and of scripts, one line each
        self.requests: list[str] = []  # every address that the page requested, its own first
        page.on("console", self._note)
        page.on("pageerror", lambda error: self.errors.append(str(error).split("\n", maxsplit=1)[0]))
        page.on("request", lambda request: self.requests.append(request.url))

    def _note(self, message: sync_api.ConsoleMessage) -> None:
        if message.type == "error":
            self.errors.append(f"{message.text.splitlines()[0]} ({message.location.get('url', '')})")

    @property
    def foreign(self) -> list[str]:
        """Return the addresses on other machines that the page requested."""
        return [each for each in self.requests if urlsplit(each).hostname not in (None, *LOOPBACK)]

    def wait(self, selector: str, *, timeout_s: float = WAIT_S) -> Self:
        """Wait until an element that matches the selector (`text=…` for its text) is visible."""
        self.page.locator(selector).first.wait_for(state="visible", timeout=timeout_s * 1000)
        return self

    def settle(self, *, timeout_s: float = WAIT_S) -> Self:
        """Wait until the page makes no more requests, because it draws from the responses."""
        deadline_s = time.monotonic() + timeout_s
        seen = -1
        while seen != len(self.requests) and time.monotonic() < deadline_s:
            seen = len(self.requests)
            self.page.wait_for_timeout(QUIET_S * 1000)
        return self

    def picture(self, path: Path | str, *, selector: str | None = None, whole: bool = False) -> Path:
        """Write a PNG of the window, of the whole length of the page, or of the element that matches the selector."""
        if selector is not None:
            self.page.locator(selector).first.screenshot(path=path, animations="disabled")
        else:
            self.page.screenshot(path=path, full_page=whole, animations="disabled")
        return Path(path)

    def close(self) -> None:
        """Close the page and its profile."""
        self.page.context.close()


class Browser:
    """Run a headless Chromium until the `with` block ends."""

    def __enter__(self) -> Self:
        program = chromium()
        if program is None:
            raise FileNotFoundError(f"no browser: none of {', '.join(PROGRAMS)} is on PATH")
        self._driver = sync_api.sync_playwright().start()
        options = ["--no-sandbox"] if os.geteuid() == 0 else []  # Chromium refuses to run as root without it
        try:
            self._browser = self._driver.chromium.launch(executable_path=program, args=options)
        except BaseException:
            self._driver.stop()
            raise
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._browser.close()
        self._driver.stop()

    def open(
        self, url: str | Path, *, width: int = 1600, height: int = 1000, dark: bool = False, scale: float = 1
    ) -> Page:
        """Open an address or a file in a window of the given size and with a separate profile.

        Args:
            url: the address; a path is a file on disk.
            width: of the window, in the page's pixels.
            height: of the window, in the page's pixels.
            dark: whether the browser tells the page that its reader prefers dark colours.
            scale: pixels of a picture per pixel of the page.
        """
        address = url.absolute().as_uri() if isinstance(url, Path) else url
        context = self._browser.new_context(
            viewport={"width": width, "height": height},
            color_scheme="dark" if dark else "light",
            device_scale_factor=scale,
            locale="en-GB",
            timezone_id="UTC",
        )
        page = Page(context.new_page())
        page.page.goto(address, wait_until="load", timeout=WAIT_S * 1000)
        return page


@contextlib.contextmanager
def tracking_server(store_uri: str, *, log: Path) -> Iterator[str]:
    """Run an MLflow server over a store on a free loopback port; yield its address as soon as it answers.

    Args:
        store_uri: the store of the runs, such as sqlite:////path/mlflow.db. The server may migrate its tables.
        log: the file for the server's output; artifacts without a place of their own are written beside it.
    """
    with socket.create_server(("127.0.0.1", 0)) as free:
        port = free.getsockname()[1]
    address = f"http://127.0.0.1:{port}"
    command = [sys.executable, "-m", "mlflow", "server", "--backend-store-uri", store_uri, "--workers", "1"]
    command += ["--host", "127.0.0.1", "--port", str(port), "--artifacts-destination", str(log.parent / "artifacts")]
    environment = {name: value for name, value in os.environ.items() if not name.startswith("MLFLOW_")}
    environment |= {"MLFLOW_SERVER_ENABLE_JOB_EXECUTION": "false", "MLFLOW_DISABLE_TELEMETRY": "true"}
    with log.open("wb") as out:
        process = subprocess.Popen(  # noqa: S603 - our own interpreter
            command, cwd=log.parent, env=environment, stdout=out, stderr=out, start_new_session=True
        )
    try:
        _await_answer(f"{address}/health", process, log)
        yield address
    finally:
        with contextlib.suppress(ProcessLookupError):
            os.killpg(process.pid, signal.SIGKILL)  # one is enough: it keeps nothing in memory
        process.wait()


def _await_answer(address: str, process: subprocess.Popen[bytes], log: Path) -> None:
    deadline_s = time.monotonic() + 2 * WAIT_S
    while time.monotonic() < deadline_s and process.poll() is None:
        with contextlib.suppress(OSError), urllib.request.urlopen(address, timeout=2):  # noqa: S310 - our own server
            return
        time.sleep(0.2)
    raise TimeoutError(f"the MLflow server does not answer at {address}: {log.read_text(errors='replace')[-2000:]}")
