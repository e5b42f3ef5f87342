"""Check names of tags, params and experiments by MLflow's rules, without importing MLflow.

MLflow defines its rule in `mlflow.utils.validation`; importing it takes seconds, and a refusal must not wait for that.
Therefore the rule is repeated here, and a test compares the two. It is stricter in three points: no line break at the
end of a name, no experiment names longer than the column of MLflow's table, and no two names that differ only by case,
which MySQL and SQL Server treat as equal.

Not covered: further rules of plug-in stores and of Databricks.
"""

from __future__ import annotations

import hashlib
import posixpath
import re
from collections.abc import Iterable, Mapping

LONGEST_NAME = 250
LONGEST_EXPERIMENT = 256  # MLflow's check allows 500 and its table 256; only SQLite accepts more
LONGEST_RUN_NAME = 250
LONGEST_TAG = 8000
MLFLOW_PREFIX = "mlflow."  # of the tags that MLflow itself interprets
# The tags that bench itself sets on the runs of trials and sweeps.
OWN_TAGS = frozenset((
    "arm", "baseline", "bench", "compile_cache", "complete", "device", "device_name", "dtype", "error",
    "fidelity_reason", "git_commit", "git_dirty", "host", "kind", "layout", "measurement_status", "measurement_stop",
    "n_crashed", "n_failed", "n_interrupted", "n_jobs", "n_ok", "n_oom", "n_skipped", "n_timeout", "n_unverified",
    "neighbours", "neighbours_unknown", "owner", "record_key", "repeat", "setting_id", "settings", "stage", "status",
    "steadiness", "steady_flags", "steady_shape", "sweep_id", "sweep_name", "torch", "transformers", "trial_id",
    "unverified", "warmup_status", "warmup_stop",
))  # fmt: skip
USER_PREFIX = "user."  # prepended to a user's tag that has one of these names

_OTHER_CHARACTERS = re.compile(r"[^/\w. :-]")
_CONTROL_CHARACTERS = re.compile("[\x00-\x1f\x7f\ud800-\udfff]")
ALLOWED = "letters, digits and _ - . : / and spaces"


def problem_of_name(name: str) -> str | None:
    """Return why MLflow refuses a name of a tag, param or metric; None for a valid name."""
    if not name:
        return "a name must not be empty"
    if found := _OTHER_CHARACTERS.search(name):
        return f"MLflow takes no {found[0]!r} in a name, but {ALLOWED}"
    if _is_no_path(name):
        return "MLflow takes a name for a path, which must not begin or end with /, nor hold //, . or .. as a part"
    if len(name) > LONGEST_NAME:
        return f"MLflow takes names of at most {LONGEST_NAME} characters, and this one has {len(name)}"
    return None


def problem_of_tag(name: str, value: str, others: Iterable[str] = ()) -> str | None:
    """Return why a user's tag cannot be set on runs; None for a valid tag.

    Args:
        name: of the tag.
        value: as it would be stored.
        others: names of the user's further tags.
    """
    plain = name.casefold()
    if problem := problem_of_name(name):
        return problem
    if plain.startswith(MLFLOW_PREFIX):
        return f"the names that begin with {MLFLOW_PREFIX} are MLflow's own; use another name"
    if plain in OWN_TAGS:
        return f"bench gives every run a tag of this name; use another one, such as my_{plain}"
    if len(value) > LONGEST_TAG:
        return f"MLflow keeps {LONGEST_TAG} characters of a tag, and this one has {len(value)}"
    for other in others:
        if other != name and other.casefold() == plain:
            return f"differs from the tag {other} by case alone, and some databases take the two for one"
    return None


def problem_of_experiment(name: str) -> str | None:
    """Return why an experiment cannot have this name; None for a valid name."""
    if not name.strip() or _CONTROL_CHARACTERS.search(name):
        return "must be a name on one line, without control characters"
    if len(name) > LONGEST_EXPERIMENT:
        return f"MLflow keeps {LONGEST_EXPERIMENT} characters of an experiment's name, and this one has {len(name)}"
    return None


def accepted_name(name: str) -> str:
    """Return the name itself if MLflow accepts it, else the most similar name that it accepts."""
    if problem_of_name(name) is None:
        return name
    text = "/".join(_accepted_part(each) for each in _OTHER_CHARACTERS.sub("_", name).split("/"))
    if len(text) > LONGEST_NAME:  # the digest distinguishes names with the same beginning
        digest = hashlib.sha256(name.encode("utf-8", "surrogatepass")).hexdigest()[:8]
        text = f"{text[: LONGEST_NAME - 9].rstrip('/')}-{digest}"
    return text


def accepted_tags(tags: Mapping[str, str]) -> dict[str, tuple[str, str | None]]:
    """Return a user's tags under names that MLflow accepts.

    Returns:
        Name under which a tag can be stored → its value, and its original name if that differs.
    """
    accepted: dict[str, tuple[str, str | None]] = {}
    # Tags with valid names come first, so that no renamed tag takes one of these names.
    for name, value in sorted(tags.items(), key=lambda each: problem_of_tag(*each) is not None):
        stored = accepted_name(name)
        if stored.casefold() in OWN_TAGS or stored.casefold().startswith(MLFLOW_PREFIX):
            stored = accepted_name(USER_PREFIX + stored)
        taken = {each.casefold() for each in accepted}
        number, first = 2, stored
        while stored.casefold() in taken:
            stored, number = accepted_name(f"{first} {number}"), number + 1
        accepted[stored] = (value, None if stored == name else name)
    return accepted


def _is_no_path(name: str) -> bool:
    normal = posixpath.normpath(name)
    return normal != name or normal == "." or normal.startswith(("..", "/"))


def _accepted_part(part: str) -> str:
    """Return a part of a path that is neither empty nor relative."""
    if part in ("", "."):
        return "_"
    return f"__{part[2:]}" if part.startswith("..") else part
