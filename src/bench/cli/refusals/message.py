"""Compose the line that explains a refused config: file or argument, key, value, remedy."""

from __future__ import annotations

import re
import sys
from collections.abc import Callable, Iterator, Sequence

from hydra.errors import MissingConfigException, OverrideParseException
from omegaconf import DictConfig
from omegaconf.errors import ConfigAttributeError, ConfigKeyError, OmegaConfBaseException

from bench.cli.composition.quoting import is_text, quoted_form
from bench.cli.composition.yaml_files import ConfigFileError, groups, other_ending
from bench.cli.refusals.config_mistakes import find_mistake, kinds_of
from bench.cli.refusals.override_checks import OF_HYDRA, OverrideError
from bench.cli.refusals.override_mistakes import TYPE_NO_PLUS, unreadable
from bench.cli.refusals.yaml_places import find_choice, find_line, find_place, find_text
from bench.config.renamed import current_name
from bench.config.rules import ConfigError, nearest, shown
from bench.config.schema import NO_SUCH_KEY, BenchmarkConfig, no_such_key, walk

LONGEST_LINE = 590
_OVERRIDDEN = re.compile(r"Could not override '([^']+)'")
_NO_GROUP = re.compile(r"Could not override '([^']+)'\. No match in the defaults list")
_OF_A_SECTION = re.compile(r"Config group override must be a string or a list|is not a subclass of \w+Config")
_DELETED = re.compile(r"Could not delete from config\. '([^']+)' does not exist")
# OmegaConf's message about a reference → the mistake and the remedy.
_REFERENCES = (
    (r"Interpolation key '([^']*)' not found", "${{{0}}} refers to no key; bench --cfg job shows all that there are"),
    (r"Environment variable '([^']*)' not found",
     "the environment variable {0} is not set; set it, or give a default: ${{oc.env:{0},DEFAULT}}"),
    (r"[Rr]ecursive interpolation detected", "the value refers to itself; write a value instead"),
    (r"Unsupported interpolation type (\S+)", "there is no resolver {0}; an environment variable is ${{oc.env:NAME}}"),
    (r"field '[^']*' is not Optional|Incompatible value 'None' for field",
     "needs a value; leave it out for its default"),
)  # fmt: skip


def explain(error: Exception, arguments: Sequence[str] = ()) -> str:
    """Return one line for a refused config: file or argument, key, value, remedy.

    Args:
        error: raised by Hydra, OmegaConf or the config's own rules.
        arguments: the command line, to show the value as typed.
    """
    return shown(_reason(error, arguments), LONGEST_LINE).strip() or type(error).__name__


def _reason(error: Exception, arguments: Sequence[str]) -> str:
    chain = list(_chain(error))
    for each in chain:
        if isinstance(each, ConfigFileError):
            return str(each)
        if isinstance(each, OverrideError):
            where = None
            if each.override not in arguments:
                where = find_line(each.override) or find_place(_name(each.override))
            return f"{where}: {each}" if where else str(each)
        known = _of_config(each, arguments) or _of_override(each, arguments) or _of_command_line(each, arguments)
        if known is not None:
            return known
    if mistake := find_mistake(_groups(), OF_HYDRA):
        return mistake
    for each in chain:
        known = _of_hydra(each, arguments) or _of_a_section(each, arguments)
        known = known or _of_omegaconf(each, error, arguments)
        if known is not None:
            return known
    return " ".join(line.strip() for line in str(error).splitlines() if line.strip())


def _groups() -> list[str]:
    """Return the groups that accept choices."""
    return sorted({*groups(), *OF_HYDRA.values()})


def _of_config(error: BaseException, arguments: Sequence[str]) -> str | None:
    """Return the message of one of our own rules, with the file that sets the value."""
    if not isinstance(error, ConfigError):
        return None
    typed = any(f"{_name(each)}.".startswith(f"{error.key}.") for each in arguments)
    if error.remedy.startswith(NO_SUCH_KEY):  # the config does not know Hydra's groups
        if not typed and (mistake := find_mistake(_groups(), OF_HYDRA)):
            return mistake
        error = ConfigError(error.key, error.value, no_such_key(error.key, OF_HYDRA))
    value = str(error).removeprefix(f"{error.key}=").removesuffix(f": {error.remedy}")
    where = None if typed else find_place(error.key, value)
    return f"{where}: {error}" if where else str(error)


def _of_override(error: BaseException, arguments: Sequence[str]) -> str | None:
    """Return the message for an override that Hydra's grammar refuses, from the command line or from a file."""
    if not isinstance(error, OverrideParseException):
        return None
    override = str(error.override)
    key = _name(override)
    typed = next((each for each in arguments if each == override or (_name(each) == key and "=" in each)), None)
    if typed is not None:
        return unreadable(typed, OF_HYDRA)
    where = find_line(override) or find_place(key)
    return f"{where}: {unreadable(override, OF_HYDRA)}" if where else unreadable(override, OF_HYDRA)


def _of_command_line(error: BaseException, arguments: Sequence[str]) -> str | None:
    """Return the message for a mistake in the command line that Hydra reports; None for one in a file."""
    for pattern, told in _COMMAND_LINE:
        if (found := pattern.search(str(error))) and (line := told(found, arguments)) is not None:
            return line
    return None


def _ambiguous(found: re.Match[str], _: Sequence[str]) -> str:
    key, _, value = found[1].partition("=")
    form = quoted_form(key, value) if is_text(key) else None
    return f"{found[1]}: several values make a sweep; add -m" + (f", or type it as one: {form}" if form else "")


def _there_already(found: re.Match[str], arguments: Sequence[str]) -> str | None:
    name = found[1] or found[2]
    typed = next((each for each in arguments if each.startswith("+") and _name(each) == name), None)
    return None if typed is None else f"{typed}: {TYPE_NO_PLUS.format(typed.lstrip('+'))}"


def _no_folder(found: re.Match[str], arguments: Sequence[str]) -> str:
    flag = "--config-dir" if found[1] else "--config-path"
    typed = _flag(arguments, flag) or found[1] or ""
    return f"{flag} {typed}: no such folder; name one that holds YAML files"


def _no_primary(found: re.Match[str], arguments: Sequence[str]) -> str:
    if (folder := _flag(arguments, "--config-path")) is not None:
        return f"--config-path {folder}: holds no {found[1]}.yaml; for files of your own type --config-dir {folder}"
    return f"--config-name {found[1]}: no such file in the folder of configs; leave the flag out"


def _package_of_a_group(found: re.Match[str], arguments: Sequence[str]) -> str | None:
    typed = next((each for each in arguments if each.lstrip("+").startswith(f"{found[1]}=")), None)
    return None if typed is None else f"{typed}: {NO_SUCH_KEY}; did you mean {found[2]}?"


# Hydra's message → the function that returns ours, or None if the command line is not the cause.
_COMMAND_LINE: tuple[tuple[re.Pattern[str], Callable[[re.Match[str], Sequence[str]], str | None]], ...] = (
    (re.compile(r"Ambiguous value for argument '(.*)'$", re.MULTILINE), _ambiguous),
    (re.compile(r"Sweep parameters '(.*)' requires --multirun", re.DOTALL),
     lambda found, _: f"{found[1]}: several values make a sweep; add -m"),
    (re.compile(r"An item is already at '([^']+)'|(\S+) appears more than once in the final defaults list"),
     _there_already),
    (re.compile(r"Additional config directory '(.*)' not found|Primary config directory not found", re.DOTALL),
     _no_folder),
    (re.compile(r"Cannot find primary config '([^']*)'"), _no_primary),
    (re.compile(r"Primary config module '()[^']*' not found"), _no_folder),
    (re.compile(r"Sweeping over Hydra's configuration is not supported :\s+'(.*)'", re.DOTALL),
     lambda found, _: f"{found[1]}: keys of Hydra's own cannot be swept; give one value"),
    (re.compile(r"hydra\.searchpath must be a list of strings\. Got: (.*)"),
     lambda found, _: f"hydra.searchpath={found[1]}: must be a list of folders; type "
     "'hydra.searchpath=[file://FOLDER]'"),
    (re.compile(r"Could not override '([^']*)'\.\s+Did you mean to override (\S+)\?"), _package_of_a_group),
    (re.compile(r"provider=hydra\.searchpath.*, path=(.*) is not available"),
     lambda found, _: f"hydra.searchpath=[{found[1]}]: no such folder or package; name a folder as file://FOLDER"),
)  # fmt: skip


def _flag(arguments: Sequence[str], flag: str) -> str | None:
    """Return the value of a flag as typed."""
    forms = {"--config-dir": ("--config-dir", "-cd"), "--config-path": ("--config-path", "-cp")}[flag]
    for place, each in enumerate(arguments):
        name, equals, value = each.partition("=")
        if name in forms:
            return value if equals else next(iter(arguments[place + 1 :]), None)
    return None


def _of_hydra(error: BaseException, arguments: Sequence[str]) -> str | None:
    if isinstance(error, MissingConfigException) and error.options is not None:
        return _no_choice(str(error.missing_cfg_file), list(error.options), arguments)
    if no_group := _NO_GROUP.search(str(error)):
        typed = next((each for each in arguments if _name(each) == no_group[1]), None)
        return f"{typed or no_group[1]}: {no_such_key(no_group[1], OF_HYDRA)}"
    if isinstance(error, KeyError) and any(_name(each) == "hydra.job.env_copy" for each in arguments):
        return f"hydra.job.env_copy: the environment variable {error.args[0]} is not set; set it, or leave it out"
    if deleted := _DELETED.search(str(error)):
        return f"~{deleted[1]}: {no_such_key(deleted[1], OF_HYDRA)}"
    return None


def _no_choice(missing: str, options: list[str], arguments: Sequence[str]) -> str:
    group, _, choice = missing.rpartition("/")
    off = "off" if choice.lower() in ("off", "false", "no", "none", "null", "0") and "off" in options else None
    close = off or nearest(choice, options)
    hint = f"; did you mean {close}?" if close else ""
    if other := other_ending(missing):
        hint = f"; {other} ends in .yml, and only .yaml is read: rename it"
    text = f"{group}={choice}: no such choice; allowed: {', '.join(options)}{hint}"
    if any(_name(each) == group for each in arguments):
        return text
    where = find_choice(group, choice)
    return f"{where}: {text}" if where else text


def _of_a_section(error: BaseException, arguments: Sequence[str]) -> str | None:
    """Return the message for a section that was given a value, such as warmup=10."""
    if not _OF_A_SECTION.search(str(error)):
        return None
    pairs = [each.lstrip("+").partition("=") for each in arguments]
    sections = {path.partition(".")[0] for path, *_ in walk(BenchmarkConfig) if "." in path}
    typed = [(key, value) for key, _, value in pairs if key in sections]
    if not typed:
        group = next(((key, value) for key, _, value in pairs if key in _groups()), None)
        return None if group is None else f"{group[0]}={group[1]}: a choice belongs here; leave it out for none"
    key, value = next((each for each in typed if not each[1][:1].isalpha()), typed[0])  # a word may be a choice
    if value.lower() in ("false", "null", "true") and key in _groups():
        on = "; off is a choice of it" if key in ("compile", "tracking") and value.lower() != "true" else ""
        return f"{key}={value}: no such choice{on}; bench --help lists the choices of {key}"
    return f"{key}={value}: {key} is a section, whose keys are {key}.…; bench --keys {key} lists them"


def _of_omegaconf(error: BaseException, whole: Exception, arguments: Sequence[str]) -> str | None:
    if not isinstance(error, OmegaConfBaseException):
        return None
    path = getattr(error, "full_key", None)
    reason = (getattr(error, "msg", None) or str(error)).splitlines()[0]
    if not path:
        return _reference(reason, arguments)
    if isinstance(error, ConfigAttributeError | ConfigKeyError):
        return _unknown_key(error, str(path), whole, arguments)
    typed = _as_typed(str(path), arguments)
    reason = _told(reason) or _kind_of(str(path), typed) or f"{reason[0].lower()}{reason[1:]}"
    where = find_place(str(path)) if typed == path else None
    return f"{where}: {typed}: {reason}" if where else f"{typed}: {reason}"


def _kind_of(path: str, typed: str) -> str | None:
    """Return the types that a key accepts, for a value of another type."""
    kinds = kinds_of(path)
    if kinds is None:
        return None
    if "keys below it" in kinds:
        kinds += f"; type {path}.NAME=VALUE"
    elif "a list" in kinds and (value := typed.partition("=")[2]):
        kinds += f"; type '{path}=[{value}]'"
    return f"must be {kinds}"


def _told(reason: str) -> str | None:
    for pattern, told in _REFERENCES:
        if found := re.search(pattern, reason):
            return told.format(*found.groups())
    return None


def _reference(reason: str, arguments: Sequence[str]) -> str | None:
    """Return the message for an unresolvable reference, with its position, which OmegaConf does not report."""
    told = _told(reason)
    if told is None:
        return None
    named = next(iter(re.findall(r"'([^']+)'", reason)), "${")
    for each in arguments:
        if "${" in each and named in each:
            return f"{each}: {told}"
    where = find_text("${", named)
    return f"{where}: {told}" if where else told


def _unknown_key(found: OmegaConfBaseException, path: str, whole: Exception, arguments: Sequence[str]) -> str:
    """Return the typed key with the nearest known one. OmegaConf names only the part of a key that it did not find."""
    overridden = next((match[1] for each in _chain(whole) if (match := _OVERRIDDEN.search(str(each)))), path)
    typed = _as_typed(overridden if overridden.startswith(path) else path, arguments)
    name = typed.partition("=")[0]
    where = find_place(name) if "=" not in typed else None
    before = f"{where}: " if where else ""
    if not name.startswith("hydra."):
        return f"{before}{typed}: {no_such_key(name, OF_HYDRA)}"
    siblings = found.parent_node
    head, _, leaf = path.rpartition(".")
    near = nearest(leaf, [str(each) for each in siblings]) if isinstance(siblings, DictConfig) else None
    meant = " or ".join(f"{head}.{each}" for each in near.split(" or ")) if near else None
    hint = f"did you mean {meant}?" if meant else "bench --cfg hydra shows Hydra's own"
    return f"{before}{typed}: {NO_SUCH_KEY}; {hint}"


def _name(argument: str) -> str:
    return current_name(argument.lstrip("+~").partition("=")[0].partition("@")[0].strip())


def is_of_composition(error: BaseException) -> bool:
    """Check whether Hydra or OmegaConf raised an error: their exceptions are not always of their own classes."""
    trace, raised_in = error.__traceback__, ""
    while trace is not None:
        name = str(trace.tb_frame.f_globals.get("__name__", "")).partition(".")[0]
        raised_in = raised_in if name in sys.stdlib_module_names else name  # skips os.environ, for example
        trace = trace.tb_next
    return raised_in in ("hydra", "omegaconf", "antlr4")


def _chain(error: BaseException) -> Iterator[BaseException]:
    """Yield the error and its causes, outermost first."""
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
