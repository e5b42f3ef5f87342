"""Read the clock when generate hands out a token: one float64 time per token."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from transformers.generation.streamers import BaseStreamer


class TokenClock(BaseStreamer):  # type: ignore[misc]
    """Reads the clock whenever generate puts tokens, and does nothing else.

    generate puts the prompt first, before any work, and then one tensor per decoding step that it has already moved to
    the host, so the device is synchronised at each reading. The times stay Python floats: a float32 tensor of clock
    readings loses the digits that matter within days of uptime.

    From transformers 5.24 on, generate hands a token out only when the next step has begun, where that saves the host a
    wait (on mps so far): then the times are not those of the tokens. `steps` detects it.

    Args:
        clock: seconds, monotonic.
        steps: returns how many forward passes have begun; None: not counted, then `steps_late` stays 0.
    """

    def __init__(self, clock: Callable[[], float], steps: Callable[[], int] | None = None) -> None:
        self._clock = clock
        self._steps = steps
        self._prompt_seen = False
        self.times: list[float] = []
        self.steps_late = 0  # the most forward passes that had begun beyond the one that made a token

    def put(self, value: Any) -> None:  # noqa: ARG002 - the tokens come with generate's result
        """Note the time of one decoding step; the first call brings the prompt."""
        if self._prompt_seen:
            self.times.append(self._clock())
            if self._steps is not None:
                self.steps_late = max(self.steps_late, self._steps() - len(self.times))
        self._prompt_seen = True

    def end(self) -> None:
        """Do nothing: the caller times the end of the call, after synchronising."""
