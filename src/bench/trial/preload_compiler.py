"""Import what a compiled job needs beside `bench.trial.preload`, before its first call: its cold start.

With a GPU, torch's reset of the compiler (`bench.trial.evidence.compilation.reset`) imports all of Inductor, whether a
job compiles or not: 2.5 s per job with an H100 and torch 2.11. On a CPU the first compilation does it, in 1.2 s.
Nothing here starts a thread or initialises CUDA.
"""

from __future__ import annotations

import gc

from bench.trial.compat.torch_internals import CUDAGRAPH_TREES

_collects = gc.isenabled()
gc.disable()  # see bench.trial.preload
try:
    CUDAGRAPH_TREES.get()
finally:
    if _collects:
        gc.freeze()
        gc.enable()
