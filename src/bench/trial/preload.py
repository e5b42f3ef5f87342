"""Import once, in the fork server, what each job's process then has from the start.

The compiler's own modules, which take more than a second, are `bench.trial.preload_compiler`: they are imported here
if there is a GPU, because torch then imports them in every job; else only in jobs that compile.

transformers imports lazily, so the classes that a job uses are accessed here. Nothing may start a thread or initialise
CUDA, because neither survives a fork.
"""

from __future__ import annotations

import gc
import importlib
import os
import signal

# Ctrl-C in a terminal reaches this process too, and it is the parent's to handle; Python's fork server ignores it only
# once these imports are done. The jobs set it back.
signal.signal(signal.SIGINT, signal.SIG_IGN)

# Some imports ask whether there is a GPU (transformers' own, where flash-attn is installed). torch's usual answer
# initialises the driver, and no process forked afterwards can use CUDA; with this variable it asks NVML instead.
CHECK = "PYTORCH_NVML_BASED_CUDA_CHECK"
MODULES = (
    "transformers.models.llama.modeling_llama",
    "scipy.special",
    "bench.trial.worker",
)
CLASSES = ("AutoConfig", "AutoModelForCausalLM", "AutoTokenizer", "CompileConfig", "GenerationConfig")


def _import_all() -> None:
    for private in importlib.import_module("bench.trial.compat.torch_internals").PRELOADED:
        private.get()
    for module in MODULES:
        importlib.import_module(module)
    transformers = importlib.import_module("transformers")
    for name in CLASSES:
        getattr(transformers, name)
    importlib.import_module("bench.host.libraries").imported()  # the state in which they were imported; see `state_of`
    if importlib.import_module("torch").cuda.is_available():
        importlib.import_module("bench.trial.preload_compiler")


_before = os.environ.get(CHECK)
os.environ[CHECK] = "1"
gc.disable()  # imported objects stay: collections would take a fifth of the imports' time
try:
    _import_all()
finally:
    gc.freeze()  # no job's collection traverses these objects, or copies their pages
    gc.enable()
    # The jobs get the environment that they were started with, and torch's usual answer.
    if _before is None:
        del os.environ[CHECK]
    else:
        os.environ[CHECK] = _before
