"""Check that the fork server's imports start nothing that breaks a fork, and leave nothing to import again."""

from __future__ import annotations

import subprocess
import sys

PROGRAM = """
import os, threading
before = dict(os.environ)
import bench.trial.preload
import bench.trial.preload_compiler
import sys, torch
assert {"torch", "transformers", "bench.trial.worker"} <= set(sys.modules)
assert threading.active_count() == 1, threading.enumerate()
assert not torch.cuda.is_initialized()
changed = {name for name in before.keys() | os.environ.keys() if before.get(name) != os.environ.get(name)}
assert changed <= {"TORCHINDUCTOR_CACHE_DIR"}, changed
from bench.host.libraries import state_of
copies = state_of.cache_info().currsize  # of a checkout in which bench is editable, bench itself
assert copies or "site-packages" in bench.__file__
"""

# What each job does first, and with a GPU imports more for than without.
RESET = """
import bench.trial.preload
import bench.trial.preload_compiler
import sys, torch
torch.cuda.is_available = lambda: True
from bench.trial.evidence import compilation
before = set(sys.modules)
compilation.reset()
assert set(sys.modules) == before, sorted(set(sys.modules) - before)[:5]
"""


def test_preloading_starts_no_thread_and_touches_no_gpu() -> None:
    subprocess.run([sys.executable, "-c", PROGRAM], check=True, timeout=120)


def test_a_job_on_a_gpu_resets_the_compiler_without_another_import() -> None:
    subprocess.run([sys.executable, "-c", RESET], check=True, timeout=120)


# Else a job's first collection would look through it all, and copy the pages that it shares with the fork server.
FROZEN = """
import gc
import bench.trial.preload
frozen = gc.get_freeze_count()
assert gc.isenabled()
assert frozen > 100_000, frozen
bench.trial.preload.importlib.import_module("bench.trial.measure.runner").BenchmarkRunner().close()
assert gc.get_freeze_count() == frozen
"""


def test_what_is_imported_is_frozen_and_stays_so_when_a_runner_begins() -> None:
    subprocess.run([sys.executable, "-c", FROZEN], check=True, timeout=120)
