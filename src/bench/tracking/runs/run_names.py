"""Name a trial's run by its swept values, in short form, because the UI cuts names after about 16 characters.

`attention=sdpa workload.batch_size=2 workload.sequence_length=24` is called `sdpa b2 s24`. Words are
used as they are; other values follow a letter for their key. Common long words have a short form, and a model's id or a
path is shortened to its last part.

Settings of a sweep always have different names: a short form is used only if it distinguishes all values that the sweep
has for that key. Without the sweep's values, they are used as typed. A name that is still too long is not cut: the UI
shows the whole name under the pointer.
"""

from __future__ import annotations

import json
import re
from collections.abc import Mapping, Sequence

# Keys, without a leading + or ++, by what stands before their values. Keys that are missing here are called by their
# last part, with a = between.
KEYS = {
    "workload.batch_size": "b",
    "workload.sequence_length": "s",
    "workload.num_tokens_to_generate": "n",
    "warmup.iterations": "w",
    "measurement.iterations": "m",
    "model.seed": "seed",
    "model.tp_size": "tp",
}
# Values by their short form, for each key that has them.
_ATTENTION = {"flash_attention_2": "fa2", "flash_attention_3": "fa3", "flex_attention": "flex"}
_COMPILE = {"max-autotune-no-cudagraphs": "autotune-nocg", "reduce-overhead": "reduce"}
_WORDS = {"true", "false", "null", "none", ""}
VALUES: dict[str, dict[str, str]] = {
    "attention": {"flash2": "fa2"},
    "attention.implementation": _ATTENTION,
    "attention.sdpa_backend": {
        "flash_attention": "flash",
        "efficient_attention": "efficient",
        "cudnn_attention": "cudnn",
        "null": "any",
    },
    "compile": _COMPILE,
    "compile.mode": {**_COMPILE, "null": "off"},
    "model.dtype": {"float32": "f32", "float16": "f16", "bfloat16": "bf16"},
}
PATHS = ("model", "model.id", "model.gguf_file", "workload.prompt_file")


def short_name(swept: Mapping[str, str], among: Mapping[str, Sequence[str]]) -> str:
    """Return the name of the setting with these swept values.

    Args:
        swept: override key → value as typed; "" comes of none.
        among: override key → all values that the sweep has for it; a key that is missing keeps its value as typed.
    """
    has_all = set(among) <= set(swept)  # without one of the sweep's keys, a word would not tell which key it is for
    return " ".join(_part(key, value, among.get(key, ()), has_all=has_all) for key, value in swept.items())


def last_part(path: str) -> str:
    """Return the last part of a model's id or a path."""
    return path.rstrip("/").rpartition("/")[2] or path


def _part(key: str, value: str, among: Sequence[str], *, has_all: bool) -> str:
    """Return the first form that distinguishes all values that the sweep has for the key."""
    forms = (_short, _as_typed) if among else (_as_typed,)
    for form in forms if has_all else ():
        if len({form(key, each) for each in among}) == len(set(map(_plain, among))):
            return form(key, value)
    return f"{key}={_word(_plain(value))}"


def _short(key: str, value: str) -> str:
    bare, plain = key.lstrip("+"), _plain(value)
    short = VALUES.get(bare, {}).get(plain, plain)
    return _as_typed(key, last_part(short) if bare in PATHS else short)


def _as_typed(key: str, value: str) -> str:
    word = _word(_plain(value))
    return word if _is_word(word) else f"{_before(key)}{word}"


def _word(text: str) -> str:
    """Return the text, quoted if its words could be read as values of other keys."""
    return json.dumps(text, ensure_ascii=False) if re.search(r'[\s"]', text) else text


def _plain(value: str) -> str:
    return value.strip("'\"")


def _is_word(value: str) -> bool:
    return re.search(r"[A-Za-z]", value) is not None and value.lower() not in _WORDS


def _before(key: str) -> str:
    plain = key.lstrip("+")
    return KEYS.get(plain) or f"{plain.rpartition('.')[2]}="
