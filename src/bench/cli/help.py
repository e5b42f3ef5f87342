"""Format the help: one screen with the most frequent commands and keys, and the list of all keys.

Defaults, meanings and allowed values are taken from the config's declaration. The caller passes groups and choices:
Hydra finds them, because users may add folders of their own.
"""

from __future__ import annotations

import textwrap
from collections.abc import Mapping, Sequence

from bench.config.rules import ConfigError, nearest
from bench.config.schema import BenchmarkConfig, walk
from bench.host.command_line import COMMANDS

WIDTH = 100
COMMAND_CELLS = (31, 28, 18)  # the columns of commands: two per line, each with its purpose
KEY_CELLS = 36  # the width of a key and its default
GROUP_CELLS = 16
# The most frequent keys; --keys lists all.
EVERYDAY = (
    "device",
    "model.dtype",
    "attention.sdpa_backend",
    "workload.batch_size",
    "workload.sequence_length",
    "workload.num_tokens_to_generate",
    "warmup.iterations",
    "measurement.iterations",
    "sweep.name",
    "sweep.repeats",
    "sweep.dry_run",
)

# Command → its arguments and its purpose.
DOES = {
    "compare": ("multirun/A [B]", "verdicts; or B against A"),
    "report": ("multirun/A", "a page; --format csv: rows"),
    "sync": ("multirun/A", "publish what is not yet"),
    "ui": ("", "MLflow's pages of it"),
    "calibrate": ("", "test the statistics"),
}

HELP = """\
bench measures which settings generate fastest with Transformers, on this model and this machine.

Examples (-m: a sweep over all combinations, a process for each)
  bench                                              one setting: the tiny model, sdpa, not compiled
  bench -m attention=eager,sdpa compile=off,default  which is fastest? sweep.repeats=5: verdicts
  bench -m experiment=attention_x_compile sweep.dry_run=true    a kept sweep: print its jobs only
  bench model=smollm2-135m workload.batch_size=8 warmup=auto    another model, another workload
  bench model.id=HUB_ID_OR_FOLDER model.weights=pretrained model.architecture=null
  bench -m compile=off,default sweep.name=x sweep.resume=true   run only what the sweep x lacks
  bench -m hydra/sweeper=optuna attention=eager,sdpa compile=off,default    search, not a grid
{commands}

Groups (group=choice; here the one in brackets)
{groups}

Everyday keys (key=value; default, meaning)
{keys}

All {count} keys: bench --keys, or bench --keys warmup sweep    What is composed: bench --cfg job
Where it comes from: bench --info    Hydra's flags: bench --hydra-help
Completion: eval "$(bench -sc install=bash)", also zsh and fish
Exit status: 0 all ok or skipped, 1 a job failed, 2 refused before anything ran, 130 Ctrl-C"""


def help_text(groups: Mapping[str, Sequence[str]], chosen: Mapping[str, str]) -> str:
    """Return one screen: purpose, examples, groups, everyday keys, exit status, and where to find more.

    Args:
        groups: each group's choices.
        chosen: the choice of each group as composed, without groups that have none.
    """
    rules = {path: (value, rule.doc) for path, value, rule, _ in walk(BenchmarkConfig)}
    lines = [line for group, choices in groups.items() for line in _group(group, choices, chosen.get(group))]
    keys = [line for path in EVERYDAY for line in _key(path, *rules[path])]
    return HELP.format(groups="\n".join(lines), keys="\n".join(keys), commands=_commands(), count=len(rules))


def keys_text(sections: Sequence[str] = ()) -> str:
    """Return all keys, or those of some sections, each with default, meaning and allowed values.

    Raises:
        ConfigError: there is no such section.
    """
    listed: dict[str, list[str]] = {}
    for path, value, rule, _ in walk(BenchmarkConfig):
        allowed = f" [{', '.join(str(each) for each in rule.allowed)}]" if rule.allowed else ""
        listed.setdefault(path.partition(".")[0], []).extend(_key(path, value, rule.doc + allowed))
    for each in sections:
        if each not in listed:
            near = nearest(each, list(listed))
            hint = f"did you mean {near}?" if near else f"known: {', '.join(listed)}"
            raise ConfigError("--keys", each, f"no such section; {hint}")
    return "\n\n".join("\n".join(listed[each]) for each in sections or listed) + "\n"


def _commands() -> str:
    """Return the subcommands, two per line."""
    name, text, second = COMMAND_CELLS
    told = [(f"bench {each} {DOES[each][0]}", DOES[each][1]) for each in COMMANDS]
    told.append(("bench COMMAND --help", ""))
    half = len(told) // 2
    rows = zip(told[:half], told[half:], strict=True)
    return "\n".join(f"  {a:{name}}{b:{text}}{c:{second}}{d}".rstrip() for (a, b), (c, d) in rows)


def _group(name: str, choices: Sequence[str], chosen: str | None) -> list[str]:
    words = ", ".join(f"[{each}]" if each == chosen else each for each in choices)
    return _hanging(f"  {name}", words, GROUP_CELLS)


def _key(path: str, value: object, meaning: str) -> list[str]:
    default = "null" if value is None else str(value).lower() if isinstance(value, bool) else str(value)
    return _hanging(f"  {path}={default}", meaning, KEY_CELLS)


def _hanging(name: str, text: str, cells: int) -> list[str]:
    """Return a name and, in a second column, a wrapped text."""
    first = name.ljust(cells) + " "
    return textwrap.wrap(
        text,
        WIDTH,
        initial_indent=first,
        subsequent_indent=" " * (cells + 1),
        break_on_hyphens=False,
        break_long_words=False,
    )
