"""bench: which settings generate fastest, on this model and this machine?

Importing this package costs nothing: torch and transformers are loaded when ``BenchmarkRunner`` is first touched,
pandas when ``load_records`` or ``load_settings`` is first called.
"""

# First of all, and without `from __future__`, which is an import as well: see there.
from bench.host.import_path import is_command, leave_current_folder

if is_command():
    leave_current_folder()

import importlib
import typing

from bench.host import __version__

if typing.TYPE_CHECKING:
    from bench.config.rules import ConfigError as ConfigError
    from bench.config.schema import BenchmarkConfig as BenchmarkConfig
    from bench.orchestration.loading.data_frames import load_records as load_records
    from bench.orchestration.loading.data_frames import load_settings as load_settings
    from bench.results.record import Record as Record
    from bench.trial.measure.runner import BenchmarkRunner as BenchmarkRunner

_HOMES = {
    "BenchmarkConfig": "bench.config.schema",
    "ConfigError": "bench.config.rules",
    "Record": "bench.results.record",
    "BenchmarkRunner": "bench.trial.measure.runner",
    "load_records": "bench.orchestration.loading.data_frames",
    "load_settings": "bench.orchestration.loading.data_frames",
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
