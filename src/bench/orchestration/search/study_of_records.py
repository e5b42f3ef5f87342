"""Open the study of a search, and update it from the records, which have priority."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from bench.config.rules import ConfigError
from bench.config.schema import SearchConfig
from bench.host.home_folder import expanded
from bench.host.secrets import without_credentials
from bench.jobs.planning.plan import Point, short_name
from bench.jobs.planning.search_space import Space
from bench.orchestration.search.settings import PointError
from bench.results.file_names import SEARCH_DATABASE
from bench.results.sweep_file import Job

if TYPE_CHECKING:
    from bench.orchestration.search.study import Outcome, Study, Trial


def open_study(
    config: SearchConfig,
    space: Space,
    folder: Path,
    *,
    sweep_id: str,
    jobs: Sequence[Job],
    known: Mapping[str, Outcome],
    compose: Callable[[Mapping[str, str]], Point],
) -> Study:
    """Open or create the study, and tell it the missing results.

    Args:
        config: of the search.
        space: the possible values.
        folder: the search's folder, which holds the database unless `search.storage` names another.
        sweep_id: the study's name.
        jobs: jobs that left a record.
        known: trial id → outcome of these jobs.
        compose: returns the setting with these values.

    Raises:
        ConfigError: its database cannot be used, or the study measured other settings.
    """
    from bench.orchestration.search.study import Study, StudyError  # noqa: PLC0415

    storage = expanded(config.storage) if config.storage else f"sqlite:///{folder / SEARCH_DATABASE}"
    try:
        study = Study(
            space=space,
            goals=config.goals(),
            storage=storage,
            name=sweep_id,
            seed=config.seed,
            parallel=config.parallel,
        )
        in_study = [_settle(study, trial, known, compose) for trial in study.trials()]
        for job in jobs:
            if job.trial_id not in in_study:
                study.add(values_of(space, job.swept), known[job.trial_id], trial_id=job.trial_id)
    except StudyError as error:
        raise ConfigError("search.storage", without_credentials(storage), str(error)) from error
    return study


def values_of(space: Space, swept: Mapping[str, str]) -> dict[str, str]:
    """Return override key → value for the parameters of the space, from the swept values of a record."""
    return {each.key: swept[each.key.lstrip("+")] for each in space.parameters}


def _settle(
    study: Study, trial: Trial, known: Mapping[str, Outcome], compose: Callable[[Mapping[str, str]], Point]
) -> str | None:
    """Update one trial from the records; return its trial id if the study knows its outcome now."""
    trial_id = trial.notes.get("trial_id")
    if trial.is_running:
        if trial_id is not None and trial_id in known:
            study.tell(trial.number, known[trial_id])
            return str(trial_id)
        # Its job was killed or never started.
        study.give_back(trial.number, "no record: the search ended before its job did")
    elif trial.outcome is not None and trial_id is not None:
        _check_same(trial, compose)
        return str(trial_id)
    return None


def _check_same(trial: Trial, compose: Callable[[Mapping[str, str]], Point]) -> None:
    """Refuse to continue with other fixed overrides: their values are not those of this search. Raises ConfigError."""
    with contextlib.suppress(ConfigError, PointError):
        if compose(trial.values).config.trial_id() == trial.notes["trial_id"]:
            return
    name = short_name({key.lstrip("+"): value for key, value in trial.values.items()})
    remedy = f"what is fixed differs from what this search measured in {name}; go on with the same overrides"
    raise ConfigError("sweep.resume", True, f"{remedy}, or take another sweep.name")
