"""What bench uses of Optuna that is not part of its public interface: one key, with a substitute of its own.

Public, and used without an entry: `optuna.create_study`, `optuna.trial.create_trial`, the methods of `Study`, of
`BaseSampler` and of the documented storages `RDBStorage` and `InMemoryStorage`, and the attributes of `FrozenTrial`.

Nothing here imports Optuna.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

ASKED = "asked"  # the user attribute in which a trial that waits keeps its params

# The system attribute in which `enqueue_trial` keeps the params of a trial that waits: seen in Optuna 4.5 to 5.0.0.
# Where it is gone, a trial that waits in a database of a bench that knew no `ASKED` has no params, and is asked for as
# a new one.
_FIXED_PARAMS = "fixed_params"


def waiting_attributes(params: Mapping[str, Any]) -> dict[str, Any]:
    """The user attributes of a trial that is to wait with these params."""
    return {ASKED: dict(params)}


def params_of(trial: Any) -> dict[str, Any]:
    """The params that a `FrozenTrial` has, or will have when it is asked for."""
    for known in (trial.params, trial.user_attrs.get(ASKED), getattr(trial, "system_attrs", {}).get(_FIXED_PARAMS)):
        if isinstance(known, Mapping) and known:
            return dict(known)
    return {}


def notes_of(trial: Any) -> dict[str, Any]:
    """The user attributes of a `FrozenTrial` that are no affair of this module."""
    return {name: value for name, value in trial.user_attrs.items() if name != ASKED}
