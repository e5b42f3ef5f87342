"""One float64 time a token, taken where generate hands tokens out."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from transformers.generation.streamers import BaseStreamer


class TokenClock(BaseStreamer):  # type: ignore[misc]
    """Reads the clock whenever generate puts tokens, and does nothing else.

    generate puts the prompt first, before any work, and then one tensor a decoding step that it has already moved to
    the host, so the device is synchronised at each reading. The times stay Python floats: a float32 tensor of clock
    readings loses the digits that matter within days of uptime.
    """

    def __init__(self, clock: Callable[[], float]) -> None:
        self._clock = clock
        self._prompt_seen = False
        self.times: list[float] = []

    def put(self, value: Any) -> None:  # noqa: ARG002 - the tokens come with generate's result
        """Note the time of one decoding step; the first call brings the prompt."""
        if self._prompt_seen:
            self.times.append(self._clock())
        self._prompt_seen = True

    def end(self) -> None:
        """The end of the call is timed by the caller, after synchronising."""
