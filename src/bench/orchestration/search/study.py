"""Choose the next setting of a search with Optuna, from the outcomes so far. The only module that imports Optuna.

A finite space is measured without repeats: if the sampler suggests a known setting, the nearest untried one replaces
it, if possible one that differs in a single value. The first few settings are not drawn at random, but cover as many
values of each key as possible: in a small space random settings repeat some values and miss others.
"""

from __future__ import annotations

import contextlib
import importlib.util
import itertools
import json
import math
import random
import warnings
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import optuna
from optuna.distributions import BaseDistribution, CategoricalDistribution, FloatDistribution, IntDistribution
from optuna.samplers import BaseSampler, TPESampler
from optuna.storages import InMemoryStorage, RDBStorage
from optuna.study import Study as OptunaStudy
from optuna.study import StudyDirection
from optuna.trial import FrozenTrial, TrialState

from bench.host.secrets import scrub, without_credentials
from bench.jobs.planning.search_space import Choice, Range, Space
from bench.orchestration.search.optuna_internals import notes_of, params_of, waiting_attributes

optuna.logging.set_verbosity(optuna.logging.CRITICAL)  # errors are raised; the caller shows them
FEWEST_FIRST, MOST_FIRST = 3, 10  # settings before the first one that is chosen from outcomes
LISTED = 10_000  # maximum number of settings that are searched one by one

Outcome = Mapping[str, float] | str  # objective → value, or why the trial is pruned


class StudyError(RuntimeError):
    """The study's database cannot be used; the text is one line."""


@dataclass(frozen=True, kw_only=True)
class Trial:
    """Hold one setting that the study returned."""

    number: int
    values: dict[str, str]  # override key → value as typed
    is_running: bool  # returned, and still without an outcome
    outcome: Outcome | None = None  # None: running, waiting, or returned
    notes: dict[str, Any] = field(default_factory=dict)


class Study:
    """Create or continue a study in a database.

    Args:
        space: the possible values.
        goals: objective → minimize or maximize.
        storage: the database's address; None: in memory only.
        name: of the study, unique in the database.
        seed: of all random draws.
        parallel: number of settings requested before the outcome of the first is known.

    Raises:
        StudyError: the database cannot be opened, or its study has another space or other objectives.
    """

    def __init__(
        self, *, space: Space, goals: Mapping[str, str], storage: str | None, name: str, seed: int, parallel: int = 1
    ) -> None:
        self._space, self._goals, self._storage = space, dict(goals), storage
        self._distributions = {each.key: _distribution(each) for each in space.parameters}
        self._keys = {each.key: each for each in space.parameters}
        with self._one_line_errors("cannot be opened"):
            self._trials = InMemoryStorage() if storage is None else RDBStorage(_address(storage))
            self._study = optuna.create_study(
                study_name=name,
                storage=self._trials,
                directions=[StudyDirection[goal.upper()] for goal in goals.values()],
                load_if_exists=True,
            )
            self._check_is_ours()
            trials = self._study.get_trials(deepcopy=False)
            # A resumed search must not draw the same numbers again.
            draw = random.Random(f"{seed} {len(trials)}")  # noqa: S311 - reproducible, not a secret
            with warnings.catch_warnings():
                warnings.simplefilter("ignore")  # some of the arguments are marked as experimental
                tpe = TPESampler(
                    seed=draw.getrandbits(31),
                    multivariate=True,
                    n_startup_trials=1,  # this class chooses the first ones
                    constant_liar=parallel > 1,
                    warn_independent_sampling=False,
                )
            self._study.sampler = _UntriedSampler(tpe, space, self._distributions, draw, seed)

    def ask(self) -> Trial | None:
        """Return the setting to measure next; None if all have been returned."""
        with self._one_line_errors("takes no more"):
            trials = self._study.get_trials(deepcopy=False)
            waiting = any(each.state == TrialState.WAITING for each in trials)
            size = self._space.size()
            if not waiting and size is not None and len(_tried(trials)) >= size:
                return None
            trial = self._study.ask(self._distributions)
            return self._trial(self._study.get_trials(deepcopy=False)[trial.number])

    def note(self, number: int, **notes: Any) -> None:
        """Store values with a trial."""
        with self._one_line_errors("takes no more"):
            study_id = self._trials.get_study_id_from_name(self._study.study_name)
            trial_id = self._trials.get_trial_id_from_study_id_trial_number(study_id, number)
            for name, value in notes.items():
                self._trials.set_trial_user_attr(trial_id, name, value)

    def tell(self, number: int, outcome: Outcome) -> None:
        """Report the outcome of a running trial; a reason instead of values prunes it."""
        if isinstance(outcome, str):
            self.note(number, reason=outcome)
        with self._one_line_errors("takes no more"):
            if isinstance(outcome, str):
                self._study.tell(number, state=TrialState.PRUNED)
            else:
                self._study.tell(number, [outcome[name] for name in self._goals])

    def give_back(self, number: int, reason: str) -> None:
        """Fail a trial for a reason unrelated to its setting, and queue that setting before all others."""
        self.note(number, reason=reason)
        with self._one_line_errors("takes no more"):
            trials = self._study.get_trials(deepcopy=False)
            params = params_of(trials[number])
            waiting = [_point(params_of(each)) for each in trials if each.state == TrialState.WAITING]
            # In this order: after a kill in between, the next start finds the trial running and its setting waiting.
            if _point(params) not in waiting:
                self._study.enqueue_trial(params, user_attrs=waiting_attributes(params))
            self._study.tell(number, state=TrialState.FAIL)

    def add(self, values: Mapping[str, str], outcome: Outcome, **notes: Any) -> None:
        """Add a setting that was measured without a request to this study."""
        params = {key: _param(self._keys[key], value) for key, value in values.items()}
        is_pruned = isinstance(outcome, str)
        trial = optuna.trial.create_trial(
            state=TrialState.PRUNED if is_pruned else TrialState.COMPLETE,
            values=None if isinstance(outcome, str) else [outcome[name] for name in self._goals],
            params=params,
            distributions=self._distributions,
            user_attrs={**notes, **({"reason": outcome} if is_pruned else {})},
        )
        with self._one_line_errors("takes no more"):
            self._study.add_trial(trial)

    def trials(self) -> list[Trial]:
        """Return all requested trials in order; not the settings that are queued again."""
        with self._one_line_errors("cannot be read"):
            trials = self._study.get_trials(deepcopy=False)
            return [self._trial(each) for each in trials if each.state != TrialState.WAITING]

    def waiting(self) -> list[dict[str, str]]:
        """Return the settings that are queued to be measured again."""
        with self._one_line_errors("cannot be read"):
            trials = self._study.get_trials(deepcopy=False, states=(TrialState.WAITING,))
            return [self._values(params_of(each)) for each in trials]

    # ---- inside --------------------------------------------------------------------------------------------------

    def _trial(self, trial: FrozenTrial) -> Trial:
        outcome: Outcome | None = None
        if trial.state == TrialState.COMPLETE:
            outcome = dict(zip(self._goals, trial.values, strict=True))
        elif trial.state == TrialState.PRUNED:
            outcome = str(trial.user_attrs.get("reason", "pruned"))
        return Trial(
            number=trial.number,
            values=self._values(params_of(trial)),
            is_running=trial.state == TrialState.RUNNING,
            outcome=outcome,
            notes=notes_of(trial),
        )

    def _values(self, params: Mapping[str, Any]) -> dict[str, str]:
        # In the order of the space, in which settings are named.
        return {key: _text(each, params[key]) for key, each in self._keys.items() if key in params}

    def _check_is_ours(self) -> None:
        """Check that a continued study has the same space and objectives: Optuna alone would fail only later."""
        about = {
            "objectives": [f"{name} {goal}" for name, goal in self._goals.items()],
            "space": {
                each.key: sorted(each.shown()) if isinstance(each, Choice) else each.shown()
                for each in self._space.parameters
            },
        }
        known = self._study.user_attrs
        for name, now in about.items():
            # As JSON, because the database returns it so.
            if name in known and json.dumps(known[name], sort_keys=True) != json.dumps(now, sort_keys=True):
                before = known[name] if isinstance(known[name], list) else _lines(known[name])
                line = f"its study has other {name} ({'; '.join(before)}); go on with the same, or take another name"
                raise StudyError(line)
            if name not in known:
                self._study.set_user_attr(name, now)

    @contextlib.contextmanager
    def _one_line_errors(self, what: str) -> Iterator[None]:
        """Turn any error of a database into a StudyError of one line without credentials."""
        try:
            with warnings.catch_warnings():
                warnings.simplefilter("ignore")
                yield
        except StudyError:
            raise
        except Exception as error:
            first = str(error).strip().split("\n", maxsplit=1)[0]
            where = without_credentials(self._storage or "the study in memory")
            raise StudyError(scrub(f"{where} {what}: {type(error).__name__}: {first}")) from error


class _UntriedSampler(BaseSampler):
    """Sample with TPE after the first few settings, which are spread over the values; never the same setting twice."""

    def __init__(
        self,
        inner: BaseSampler,
        space: Space,
        distributions: dict[str, BaseDistribution],
        draw: random.Random,
        seed: int,
    ) -> None:
        self._inner, self._space, self._distributions, self._draw = inner, space, distributions, draw
        size = space.size()
        self._first = MOST_FIRST
        if size is not None:
            self._first = min(MOST_FIRST, max(FEWEST_FIRST, math.ceil(math.sqrt(size) / 2)))
        order = random.Random(seed)  # noqa: S311 - the same in a resumed search
        self._orders = {
            each.key: order.sample(range(len(each)), min(len(each), LISTED))
            for each in space.parameters
            if isinstance(each, Choice) or each.step is not None
        }

    def infer_relative_search_space(
        self,
        study: OptunaStudy,  # noqa: ARG002 - Optuna's signature
        trial: FrozenTrial,  # noqa: ARG002
    ) -> dict[str, BaseDistribution]:
        """Return the distributions of all keys, which are sampled together."""
        return self._distributions

    def sample_relative(
        self, study: OptunaStudy, trial: FrozenTrial, search_space: dict[str, BaseDistribution]
    ) -> dict[str, Any]:
        """Return a setting; in a finite space, an untried one."""
        trials = [each for each in study.get_trials(deepcopy=False) if each.number != trial.number]
        tried = _tried(trials)
        asked = self._next_of_the_first(len(tried)) if len(tried) < self._first else {}
        if not asked:
            asked = self._inner.sample_relative(study, trial, search_space)
        for key in self._distributions:  # TPE returns nothing before the first outcome
            if key not in asked:
                asked[key] = self.sample_independent(study, trial, key, self._distributions[key])
        return self._nearest_untried(asked, tried)

    def sample_independent(
        self, study: OptunaStudy, trial: FrozenTrial, param_name: str, param_distribution: BaseDistribution
    ) -> Any:
        """Return one value, drawn by itself."""
        return self._inner.sample_independent(study, trial, param_name, param_distribution)

    def before_trial(self, study: OptunaStudy, trial: FrozenTrial) -> None:
        """Pass the call on to TPE."""
        self._inner.before_trial(study, trial)

    def after_trial(
        self, study: OptunaStudy, trial: FrozenTrial, state: TrialState, values: Sequence[float] | None
    ) -> None:
        """Pass the call on to TPE."""
        self._inner.after_trial(study, trial, state, values)

    def _next_of_the_first(self, position: int) -> dict[str, Any]:
        """Return the next value of each key, in a separate order per key; {} if a key has no list of values."""
        if len(self._orders) < len(self._distributions):
            return {}
        return {
            each.key: _param(each, each.text(self._orders[each.key][position % len(self._orders[each.key])]))
            for each in self._space.parameters
        }

    def _nearest_untried(self, asked: dict[str, Any], tried: set[tuple[Any, ...]]) -> dict[str, Any]:
        keys = list(self._distributions)
        size = self._space.size()
        if _point(asked) not in tried or size is None or len(tried) >= size:
            return asked
        for changes in range(1, len(keys) + 1):
            found = [each for each in self._others(asked, changes) if _point(each) not in tried]
            if found:
                return self._draw.choice(found)
        return asked

    def _others(self, asked: dict[str, Any], changes: int) -> Iterator[dict[str, Any]]:
        """Yield settings that differ in so many values, at most the first `LISTED`."""
        columns = {each.key: [_param(each, each.text(n)) for n in self._orders[each.key]]
                   for each in self._space.parameters}  # fmt: skip
        every = (
            asked | dict(zip(chosen, row, strict=True))
            for chosen in itertools.combinations(columns, changes)
            for row in itertools.product(*([v for v in columns[key] if v != asked[key]] for key in chosen))
        )
        return itertools.islice(every, LISTED)


def _tried(trials: Sequence[FrozenTrial]) -> set[tuple[Any, ...]]:
    """Return the settings that were returned, are running or are queued; not those of failed trials."""
    return {_point(params_of(each)) for each in trials if each.state != TrialState.FAIL}


def _point(params: Mapping[str, Any]) -> tuple[Any, ...]:
    # Optuna's steps add up to 0.30000000000000004 where 0.3 was typed.
    return tuple(round(params[key], 9) if isinstance(params[key], float) else params[key] for key in sorted(params))


def _distribution(parameter: Choice | Range) -> BaseDistribution:
    if isinstance(parameter, Choice):
        return CategoricalDistribution(sorted(parameter.values))  # independent of the order in which they were typed
    step = parameter.step
    if parameter.is_int:
        low, high = round(parameter.low), round(parameter.high)
        return IntDistribution(low, high, log=parameter.is_log, step=1 if step is None else round(step))
    return FloatDistribution(parameter.low, parameter.high, log=parameter.is_log, step=step)


def _param(parameter: Choice | Range, text: str) -> Any:
    """Convert a value as typed to Optuna's."""
    if isinstance(parameter, Choice):
        return text
    value = min(max(float(text), parameter.low), parameter.high)  # a bound rounded to six digits may be beyond it
    return round(value) if parameter.is_int else value


def _text(parameter: Choice | Range, param: Any) -> str:
    return str(param) if isinstance(parameter, Choice) else parameter.written(param)


def _address(storage: str) -> str:
    """Return the address with an installed driver: SQLAlchemy 2.1 uses psycopg for PostgreSQL if none is named."""
    scheme, separator, rest = storage.partition("://")
    if scheme in ("postgresql", "postgres") and importlib.util.find_spec("psycopg") is None:
        return f"postgresql+psycopg2{separator}{rest}"
    return storage


def _lines(space: Mapping[str, Sequence[str]]) -> list[str]:
    return [f"{key}={','.join(values)}" for key, values in space.items()]
