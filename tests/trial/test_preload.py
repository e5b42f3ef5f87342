"""The fork server's imports leave nothing behind that a forked job could trip over."""

from __future__ import annotations

import subprocess
import sys

PROGRAM = """
import os, threading
before = dict(os.environ)
import bench.trial.preload
import sys, torch
assert {"torch", "transformers", "bench.trial.worker"} <= set(sys.modules)
assert threading.active_count() == 1, threading.enumerate()
assert not torch.cuda.is_initialized()
changed = {name for name in before.keys() | os.environ.keys() if before.get(name) != os.environ.get(name)}
assert changed <= {"TORCHINDUCTOR_CACHE_DIR"}, changed
"""


def test_preloading_starts_no_thread_and_touches_no_gpu() -> None:
    subprocess.run([sys.executable, "-c", PROGRAM], check=True, timeout=120)
