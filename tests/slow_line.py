"""A slow network connection: a local proxy with a limited rate in bytes per second in each direction."""

from __future__ import annotations

import contextlib
import socket
import threading
import time
from collections.abc import Iterator

PIECE_BYTES = 512


class SlowLine:
    """Forward connections to a port at a rate that may be changed at any time."""

    def __init__(self, port: int, bytes_per_s: float) -> None:
        self._target = port
        self.bytes_per_s = bytes_per_s
        self._clock = {"there": 0.0, "back": 0.0}  # when the connection is free again, per direction
        self._lock = threading.Lock()
        self._listener = socket.create_server(("127.0.0.1", 0))
        self.uri = f"http://127.0.0.1:{self._listener.getsockname()[1]}"
        threading.Thread(target=self._accept, daemon=True).start()

    def close(self) -> None:
        """Accept no more connections."""
        self._listener.close()

    def _accept(self) -> None:
        with contextlib.suppress(OSError):
            while True:
                near, _ = self._listener.accept()
                far = socket.create_connection(("127.0.0.1", self._target))
                for way, source, sink in (("there", near, far), ("back", far, near)):
                    threading.Thread(target=self._forward, args=(way, source, sink), daemon=True).start()

    def _forward(self, way: str, source: socket.socket, sink: socket.socket) -> None:
        with contextlib.suppress(OSError):
            while piece := source.recv(PIECE_BYTES):
                self._wait(way, len(piece))
                sink.sendall(piece)
        for each in (source, sink):
            with contextlib.suppress(OSError):
                each.shutdown(socket.SHUT_RDWR)

    def _wait(self, way: str, size: int) -> None:
        """Wait for the transfer of this many bytes: all connections share the rate."""
        with self._lock:
            now_s = time.monotonic()
            free_s = max(now_s, self._clock[way]) + size / self.bytes_per_s
            self._clock[way] = free_s
        time.sleep(max(0.0, free_s - now_s))


@contextlib.contextmanager
def slow_line(port: int, bytes_per_s: float) -> Iterator[SlowLine]:
    """Open a slow connection to a port of this machine."""
    line = SlowLine(port, bytes_per_s)
    try:
        yield line
    finally:
        line.close()
