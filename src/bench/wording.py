"""The one line that a refused config gets: key, value, remedy."""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence

from hydra.errors import MissingConfigException, OverrideParseException
from omegaconf import DictConfig
from omegaconf.errors import ConfigAttributeError, ConfigKeyError, OmegaConfBaseException

from bench.config import NO_SUCH_KEY, BenchmarkConfig, no_such_key, walk
from bench.rules import ConfigError, nearest, shown

LONGEST_LINE = 590
# Groups of Hydra's own that are typed here, and how else they may be named → what is suggested.
OF_HYDRA = {
    "hydra/launcher": "hydra/launcher",
    "hydra/sweeper": "hydra/sweeper",
    "launcher": "hydra/launcher",
    "sweeper": "hydra/sweeper",
    "experiment": "experiment",
}
_OVERRIDDEN = re.compile(r"Could not override '([^']+)'")
_NO_GROUP = re.compile(r"Could not override '([^']+)'\. No match in the defaults list")
_OF_A_SECTION = re.compile(r"Config group override must be a string or a list|is not a subclass of \w+Config")
_DELETED = re.compile(r"Could not delete from config\. '([^']+)' does not exist")


def explain(error: Exception, arguments: Sequence[str] = ()) -> str:
    """One line for a refused config: key, value, remedy.

    Args:
        error: what Hydra, OmegaConf or the config's own rules raised.
        arguments: the command line, to tell the value that was typed.
    """
    return shown(_reason(error, arguments), LONGEST_LINE).strip() or type(error).__name__


def _reason(error: Exception, arguments: Sequence[str]) -> str:
    for each in _chain(error):
        known = _of_config(each) or _of_hydra(each) or _of_a_section(each, arguments)
        known = known or _of_omegaconf(each, error, arguments)
        if known is not None:
            return known
    return " ".join(line.strip() for line in str(error).splitlines() if line.strip())


def _of_config(error: BaseException) -> str | None:
    """What a rule of our own says."""
    if not isinstance(error, ConfigError):
        return None
    if error.remedy.startswith(NO_SUCH_KEY):  # the config knows nothing of Hydra's groups
        return str(ConfigError(error.key, error.value, no_such_key(error.key, OF_HYDRA)))
    return str(error)


def _of_hydra(error: BaseException) -> str | None:
    if isinstance(error, OverrideParseException):
        why = str(error).strip().split("\n", maxsplit=1)[0]
        return f"{error.override}: {why}; quote a value that holds = , : or spaces: 'key=\"value\"'"
    if isinstance(error, MissingConfigException) and error.options is not None:
        group, _, choice = str(error.missing_cfg_file).rpartition("/")
        close = nearest(choice, list(error.options))
        hint = f"; did you mean {close}?" if close else ""
        return f"{group}={choice}: no such choice; allowed: {', '.join(error.options)}{hint}"
    if no_group := _NO_GROUP.search(str(error)):
        return f"{no_group[1]}: {no_such_key(no_group[1], OF_HYDRA)}"
    if deleted := _DELETED.search(str(error)):
        return f"~{deleted[1]}: {no_such_key(deleted[1], OF_HYDRA)}"
    return None


def _of_a_section(error: BaseException, arguments: Sequence[str]) -> str | None:
    """A whole section was given a value, such as warmup=10."""
    if not _OF_A_SECTION.search(str(error)):
        return None
    pairs = [each.lstrip("+").partition("=") for each in arguments]
    sections = {path.partition(".")[0] for path, *_ in walk(BenchmarkConfig) if "." in path}
    typed = [(key, value) for key, _, value in pairs if key in sections]
    if not typed:
        return None
    key, value = next((each for each in typed if not each[1][:1].isalpha()), typed[0])  # words may well be choices
    return f"{key}={value}: {key} is a section, whose keys are {key}.…; bench --keys {key} lists them"


def _of_omegaconf(error: BaseException, whole: Exception, arguments: Sequence[str]) -> str | None:
    path = getattr(error, "full_key", None)
    if not isinstance(error, OmegaConfBaseException) or not path:
        return None
    if isinstance(error, ConfigAttributeError | ConfigKeyError):
        return _unknown_key(error, str(path), whole, arguments)
    reason = (getattr(error, "msg", None) or str(error)).splitlines()[0]
    return f"{_as_typed(path, arguments)}: {reason[0].lower()}{reason[1:]}"


def _unknown_key(found: OmegaConfBaseException, path: str, whole: Exception, arguments: Sequence[str]) -> str:
    """What was typed, and what is near it. OmegaConf names the part of a key that it could not find."""
    overridden = next((match[1] for each in _chain(whole) if (match := _OVERRIDDEN.search(str(each)))), path)
    typed = _as_typed(overridden if overridden.startswith(path) else path, arguments)
    name = typed.partition("=")[0]
    if not name.startswith("hydra."):
        return f"{typed}: {no_such_key(name, OF_HYDRA)}"
    siblings = found.parent_node
    head, _, leaf = path.rpartition(".")
    near = nearest(leaf, [str(each) for each in siblings]) if isinstance(siblings, DictConfig) else None
    meant = " or ".join(f"{head}.{each}" for each in near.split(" or ")) if near else None
    return f"{typed}: {NO_SUCH_KEY}; " + (f"did you mean {meant}?" if meant else "bench --cfg hydra shows Hydra's own")


def is_of_composition(error: BaseException) -> bool:
    """Whether Hydra or OmegaConf stumbled over what was typed: not all that they raise then is of their own classes."""
    trace = error.__traceback__
    while trace is not None and trace.tb_next is not None:
        trace = trace.tb_next
    raised_in = trace.tb_frame.f_globals.get("__name__", "") if trace is not None else ""
    return str(raised_in).partition(".")[0] in ("hydra", "omegaconf", "antlr4")


def _chain(error: BaseException) -> Iterator[BaseException]:
    """The error and what caused it, outermost first."""
    link: BaseException | None = error
    while link is not None:
        yield link
        link = link.__cause__ or link.__context__


def _as_typed(path: str, arguments: Sequence[str]) -> str:
    for each in arguments:
        bare = each.lstrip("+")
        name = bare.partition("=")[0]
        if name == path or name.startswith((f"{path}.", f"{path}@")):
            return bare
    return path
