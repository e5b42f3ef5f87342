"""How long a request to a server may take: the longer, the more it carries.

MLflow gives every request one and the same time, which it reads from `MLFLOW_HTTP_REQUEST_TIMEOUT` when it makes the
request. That time is right for a question; a file over a slow line needs more. So while something is sent, the variable
holds the time for a question and, on top, what its bytes take at `SLOWEST_BYTES_PER_S`.

Not covered: two threads that send at once, whose times may be exchanged.
"""

from __future__ import annotations

import contextlib
import math
import os
from collections.abc import Iterator

VARIABLE = "MLFLOW_HTTP_REQUEST_TIMEOUT"  # whole seconds
QUESTION_S = 10  # for a request that carries next to nothing, unless the user has set the variable
SLOWEST_BYTES_PER_S = 2_000  # of a line over which publishing is still tried
LONGEST_S = 1800  # whatever the size: a server that took all of it and then hangs must not be waited for all night


def seconds_for(size_bytes: int) -> float:
    """How long so many bytes take over the slowest line."""
    return min(size_bytes / SLOWEST_BYTES_PER_S, LONGEST_S)


@contextlib.contextmanager
def time_for(size_bytes: int) -> Iterator[None]:
    """Give each request that is made in this block the time for so many bytes."""
    before = os.environ.get(VARIABLE)
    try:
        least_s = int(before) if before else QUESTION_S
    except ValueError:  # MLflow will say so
        yield
        return
    os.environ[VARIABLE] = str(least_s + math.ceil(seconds_for(size_bytes)))
    try:
        yield
    finally:
        if before is None:
            del os.environ[VARIABLE]
        else:
            os.environ[VARIABLE] = before
