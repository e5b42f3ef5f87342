"""Set the timeout of requests to a server by their size.

MLflow gives every request the same timeout, which it reads from `MLFLOW_HTTP_REQUEST_TIMEOUT` at each request. That is
enough for a query; a file over a slow connection needs more. So during an upload the variable holds the timeout of a
query plus the time for its bytes at `SLOWEST_BYTES_PER_S`.

Not covered: two threads that send at once, whose timeouts may be exchanged.
"""

from __future__ import annotations

import contextlib
import math
import os
from collections.abc import Iterator

VARIABLE = "MLFLOW_HTTP_REQUEST_TIMEOUT"  # whole seconds
QUESTION_S = 10  # for a request without data, unless the user has set the variable
SLOWEST_BYTES_PER_S = 2_000  # of a connection over which publishing is still attempted
LONGEST_S = 1800  # for any size, in case a server hangs after it received everything


def seconds_for(size_bytes: int) -> float:
    """Return the time for so many bytes over the slowest connection."""
    return min(size_bytes / SLOWEST_BYTES_PER_S, LONGEST_S)


@contextlib.contextmanager
def time_for(size_bytes: int) -> Iterator[None]:
    """Give each request in this block the time for so many bytes."""
    before = os.environ.get(VARIABLE)
    try:
        least_s = int(before) if before else QUESTION_S
    except ValueError:  # MLflow reports it
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
