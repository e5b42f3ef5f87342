"""Build the tags for the versions, machine and commit of a trial.

They distinguish versions and machines in MLflow's UI and in `mlflow.search_runs`. Each comes from the record; a fact
that the record lacks gets no tag. The tags that begin with `mlflow.` are MLflow's own, and its UI shows them as
user, source and version of a run.

Not covered: other facts about the machine, which `record.json` holds.
"""

from __future__ import annotations

import contextlib
import getpass
from collections.abc import Iterable, Mapping

from bench.analysis.code_sources import version_of
from bench.results.record import Record

USER = "mlflow.user"
SOURCE = {"mlflow.source.name": "bench", "mlflow.source.type": "LOCAL"}
COMMIT = "mlflow.source.git.commit"
LIBRARIES = ("torch", "transformers", "bench")
VALUES_KEPT = 10  # of one tag of a sweep's run


def fact_tags(record: Record) -> dict[str, str]:
    """Return tag → value, for each fact that the record holds.

    `git_commit` is that of the folder in which the command was started; that of bench's own code is `source.bench`.
    """
    environment, seen, placement = record.environment, record.observed, record.placement
    host = _text(environment.get("hostname")) or (placement.host if placement is not None else None)
    commit, dirty = _user_commit(record)
    tags = {
        **{library: version_of(record, library) for library in LIBRARIES},
        "device": seen.device if seen is not None else None,
        "device_name": seen.device_name if seen is not None else None,
        "dtype": seen.dtype if seen is not None else None,
        "host": host,
        "git_commit": commit,
        "git_dirty": None if dirty is None else str(dirty).lower(),
        COMMIT: commit,
    }
    return {name: value for name, value in tags.items() if value}


def common_tags(records: Iterable[Record]) -> dict[str, str]:
    """Return the same for a sweep's run: the values of all its trials, separated by commas if they differ."""
    values: dict[str, dict[str, None]] = {}
    for record in records:
        for name, value in fact_tags(record).items():
            values.setdefault(name, {})[value] = None
    joined = {name: _joined(list(found)) for name, found in values.items() if name != COMMIT}
    commits = list(values.get(COMMIT, ()))
    return joined | ({COMMIT: commits[0]} if len(commits) == 1 else {})


def user_tag() -> dict[str, str]:
    """Return the tag of the publishing user; {} for a user id without a name."""
    with contextlib.suppress(Exception):  # KeyError, OSError or ImportError, by the release of Python
        return {USER: getpass.getuser()}
    return {}


def _user_commit(record: Record) -> tuple[str | None, bool | None]:
    state = _mapping(record.environment.get("start_folder"))
    commit, dirty = _text(state.get("commit")), state.get("dirty")
    return commit, dirty if commit is not None and isinstance(dirty, bool) else None


def _joined(values: list[str]) -> str:
    return ", ".join(values[:VALUES_KEPT]) + (", …" if len(values) > VALUES_KEPT else "")


def _mapping(value: object) -> Mapping[str, object]:
    return value if isinstance(value, dict) else {}


def _text(value: object) -> str | None:
    return value if isinstance(value, str) and value else None
