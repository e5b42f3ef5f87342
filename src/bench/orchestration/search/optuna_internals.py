"""Use the one key of Optuna that bench needs and that is not public, and define a substitute for it.

Public, and used without an entry: `optuna.create_study`, `optuna.trial.create_trial`, the methods of `Study`, of
`BaseSampler` and of the documented storages `RDBStorage` and `InMemoryStorage`, and the attributes of `FrozenTrial`.

Nothing here imports Optuna.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

ASKED = "asked"  # the user attribute with the params of a queued trial

# The system attribute in which `enqueue_trial` stores the params of a queued trial: seen in Optuna 4.5 to 5.0.0.
# Without it, a queued trial in the database of a bench version without `ASKED` has no params and is requested as a new
# one.
_FIXED_PARAMS = "fixed_params"


def waiting_attributes(params: Mapping[str, Any]) -> dict[str, Any]:
    """Return the user attributes of a trial to queue with these params."""
    return {ASKED: dict(params)}


def params_of(trial: Any) -> dict[str, Any]:
    """Return the params that a `FrozenTrial` has, or will have when it is requested."""
    for known in (trial.params, trial.user_attrs.get(ASKED), getattr(trial, "system_attrs", {}).get(_FIXED_PARAMS)):
        if isinstance(known, Mapping) and known:
            return dict(known)
    return {}


def notes_of(trial: Any) -> dict[str, Any]:
    """Return the user attributes of a `FrozenTrial` that this module does not use."""
    return {name: value for name, value in trial.user_attrs.items() if name != ASKED}
