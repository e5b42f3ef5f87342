"""bench: which settings generate fastest, on this model and this machine?

Importing this package costs nothing: torch and transformers are loaded when ``BenchmarkRunner`` is first touched,
pandas when ``load_records`` or ``load_settings`` is first called.
"""

# First of all, and without `from __future__`, which is an import as well: see there.
from bench.interpreter import is_command, leave_current_folder

if is_command():
    leave_current_folder()

import importlib
import typing

__version__ = "0.1.0"

if typing.TYPE_CHECKING:
    from bench.config import BenchmarkConfig as BenchmarkConfig
    from bench.frame import load_records as load_records
    from bench.frame import load_settings as load_settings
    from bench.record import Record as Record
    from bench.rules import ConfigError as ConfigError
    from bench.trial.runner import BenchmarkRunner as BenchmarkRunner

_HOMES = {
    "BenchmarkConfig": "bench.config",
    "ConfigError": "bench.rules",
    "Record": "bench.record",
    "BenchmarkRunner": "bench.trial.runner",
    "load_records": "bench.frame",
    "load_settings": "bench.frame",
}
__all__ = [
    "BenchmarkConfig",
    "BenchmarkRunner",
    "ConfigError",
    "Record",
    "__version__",
    "load_records",
    "load_settings",
]


def __getattr__(name: str) -> object:
    if name not in _HOMES:
        raise AttributeError(f"module bench has no attribute {name}")
    return getattr(importlib.import_module(_HOMES[name]), name)
