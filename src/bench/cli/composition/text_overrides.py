"""Quote texts in overrides, so that Hydra's grammar does not convert them to numbers, true or false.

    sweep.name=2024_11_29              ->  sweep.name='2024_11_29'
    -m sweep.label=1_0,inf               ->  sweep.label='1_0','inf'
    tracking.tags={commit: 48e12}      ->  tracking.tags={commit: '48e12'}

Values that read the same either way are unchanged: words, and numbers that convert to text without loss
(sweep.label=1,2). So are null, references and quoted values. The grammar drops spaces around a value.
"""

from __future__ import annotations

import functools
import math
import random
import re
from collections.abc import Callable, Iterator, Sequence
from decimal import Decimal
from typing import Any

from hydra.errors import HydraException

from bench.cli.composition.text_keys import Kind, kind_of
from bench.compat import override_internals
from bench.compat.override_internals import Grammar, as_text, in_quotes
from bench.config.decimals import Series, decimal
from bench.config.rules import ConfigError

_OVERRIDE = re.compile(r"(?P<sign>[~+]*)(?P<key>[^=@]*)(?:@[^=]*)?=(?P<value>.*)", re.DOTALL)
# A value without any of these contains nothing that the grammar reads as a number, true, false or null.
_SUSPECT = re.compile(r"\d|inf|nan|true|false|null", re.IGNORECASE)
_WORD = re.compile(r"(?!(?:inf|nan|true|false|null)\Z)[A-Za-z_][\w/.-]*", re.IGNORECASE | re.ASCII)
_TYPED_TOKENS = ("INT", "FLOAT", "BOOL")
# Matches what the grammar reads as a number, true or false; below, syntax beyond words and commas.
_TYPED = re.compile(r"[-+]?((\d[\d_]*)?\.?\d[\d_]*\.?(e[-+]?\d[\d_]*)?|inf|nan)|true|false", re.IGNORECASE | re.ASCII)
_STRUCTURE = re.compile(r"[(){}\[\]\"'\\]|\$\{")
_QUOTED = re.compile(r"'(?:[^'\\]|\\.)*'|\"(?:[^\"\\]|\\.)*\"|\$\{[^}]*\}")
_SEPARATORS = re.compile(r"[\s,:=(){}\[\]]+")
# Functions of the grammar whose arguments are values of the key; the others accept numbers or patterns.
_OF_VALUES = ("choice", "shuffle", "sort", "str", "tag")
_ARGUMENTS_OF_VALUES = ("list", "sweep", "value")
_LONGEST_NUMBER = 300  # characters; Python refuses integers of several thousand digits
_LONGEST_SHUFFLED = 1_000_000


# ---- lines ---------------------------------------------------------------------------------------------------------


def quoted(line: str) -> str:
    """Return an override with quotes around each text that the grammar would convert.

    Args:
        line: as on the command line. A line that the grammar refuses is returned unchanged.

    Raises:
        ConfigError: a number would lose digits, or the grammar would read a name in braces as a number.
    """
    found = _OVERRIDE.fullmatch(line)
    if found is None or not _SUSPECT.search(found["value"]):
        return line
    key = found["key"].strip()
    if kind_of(key) is Kind.OTHER and "{" not in found["value"]:
        return line
    grammar = override_internals.grammar()
    if grammar is None:
        return _quoted_by_looks(line, key, found.start("value"))
    try:
        value = grammar.tree(line).value()
    except HydraException:
        return line
    if value is None:
        return line
    for token in reversed(list(_Texts(grammar).of(value, key))):
        line = line[: token.start] + in_quotes(token.text) + line[token.stop + 1 :]
    return line


def _quoted_by_looks(line: str, key: str, start: int) -> str:
    """Quote texts without the grammar, in words and commas; refuse other syntax if a text in it would be converted.

    Args:
        line: an override.
        key: its key.
        start: the index of its value.
    """
    value = line[start:]
    kind = kind_of(key)
    is_text = kind in (Kind.TEXT, Kind.FREE_TEXT)
    if not _STRUCTURE.search(value):
        words = [each.strip() for each in value.split(",")]
        if kind is Kind.NUMBER:
            for each in words:
                if _TYPED.fullmatch(each):
                    check_digits(key, each)
        changes = [is_text and _is_changed(each, always=kind is Kind.FREE_TEXT) for each in words]
        return line[:start] + ",".join(in_quotes(w) if c else w for w, c in zip(words, changes, strict=True))
    for each in _SEPARATORS.split(_QUOTED.sub("", value)) if is_text else ():
        if _is_changed(each):
            remedy = f"this version of Hydra would read {each} as something else: put quotes around it, '{each}'"
            raise ConfigError(key, value, remedy)
    return line


def _is_changed(word: str, *, always: bool = False) -> bool:
    """Check whether the grammar converts a word to a value whose text differs from the word."""
    if not _TYPED.fullmatch(word):
        return False
    kind = "BOOL" if word.lower() in ("true", "false") else "FLOAT" if re.search(r"[.ein]", word.lower()) else "INT"
    return always or not _reads_the_same(word, kind)


class _Texts:
    """Find the texts in the parse tree of a value."""

    def __init__(self, grammar: Grammar) -> None:
        self._grammar = grammar

    def of(self, tree: Any, key: str, *, every: bool = False) -> Iterator[Any]:
        """Yield the tokens of a value that are texts and would be converted, in order.

        Args:
            tree: the parse tree of the value.
            key: the key of the value.
            every: also yield tokens that convert back to text without loss.
        """
        if self._grammar.is_rule(tree, "Primitive"):
            yield from self._text(tree, key, every=every)
        elif self._grammar.is_rule(tree, "DictKeyValuePair"):
            name, value = (each for each in tree.getChildren() if self._grammar.is_rule(each))
            yield from self.of(value, f"{key}.{self._name(name, key)}", every=every)
        elif self._grammar.is_rule(tree, "Function"):
            is_sorted = tree.getChild(0).getText() == "sort"
            yield from self._of_function(tree, key, every=every or (is_sorted and not self._are_numbers(tree)))
        elif self._grammar.is_rule(tree):
            for child in tree.getChildren():
                yield from self.of(child, key, every=every)

    def _text(self, primitive: Any, key: str, *, every: bool) -> Iterator[Any]:
        token = self._only_token(primitive)
        if token is None or not self._grammar.is_token(token, *_TYPED_TOKENS):
            return
        kind = kind_of(key)
        if kind is Kind.FREE_TEXT or (kind is Kind.TEXT and (every or not self._reads_the_same(token))):
            yield token
        elif kind is Kind.NUMBER and self._grammar.is_token(token, "FLOAT"):
            check_digits(key, token.text)

    def _only_token(self, context: Any) -> Any:
        """Return the only token of a value or of a name in braces; None if there are several."""
        tokens = [getattr(each, "symbol", None) for each in context.getChildren()]
        tokens = [each for each in tokens if each is None or not self._grammar.is_token(each, "WS")]
        return tokens[0] if len(tokens) == 1 else None

    def _reads_the_same(self, token: Any) -> bool:
        kind = next(each for each in _TYPED_TOKENS if self._grammar.is_token(token, each))
        return _reads_the_same(token.text, kind)

    def _name(self, dict_key: Any, key: str) -> str:
        token = self._only_token(dict_key)
        is_misread = token is not None and self._grammar.is_token(token, *_TYPED_TOKENS, "NULL")
        if is_misread and kind_of(key) is not Kind.OTHER:
            remedy = "in braces the grammar takes such a name for a number, true, false or null; "
            raise ConfigError(key, f"{{{token.text}: ...}}", f"{remedy}type {key}.{token.text}=VALUE")
        return str(dict_key.getText()).strip()

    def _are_numbers(self, function: Any) -> bool:
        """Check whether all arguments are numbers that convert to text without loss: `sort` cannot mix the two."""
        values = [each.getChild(0) for each in function.getChildren() if self._grammar.is_rule(each, "Element")]
        tokens = [self._only_token(each) for each in values if self._grammar.is_rule(each)]
        typed = [each is not None and self._grammar.is_token(each, *_TYPED_TOKENS) for each in tokens]
        return all(is_typed and self._reads_the_same(each) for is_typed, each in zip(typed, tokens, strict=True))

    def _of_function(self, function: Any, key: str, *, every: bool) -> Iterator[Any]:
        if function.getChild(0).getText() not in _OF_VALUES:
            return
        argument = None
        for child in function.getChildren():
            if self._grammar.is_rule(child, "ArgName"):
                argument = child.getChild(0).getText()
            elif self._grammar.is_rule(child, "Element") and argument in (None, *_ARGUMENTS_OF_VALUES):
                yield from self.of(child, key, every=every)


def _reads_the_same(text: str, kind: str) -> bool:
    """Check whether a value that the grammar reads as an INT, FLOAT or BOOL converts back to the typed text."""
    if kind == "BOOL":
        return text in ("True", "False")
    if len(text) > _LONGEST_NUMBER:
        return False
    return bool(text == str(int(text) if kind == "INT" else float(text)))


def check_digits(key: str, text: str) -> None:
    """Refuse a number whose digits a float cannot represent. The config's rules refuse infinities.

    Raises:
        ConfigError: names the number that it would be rounded to.
    """
    try:
        number = float(text)
    except ValueError:
        return
    typed = text.replace("_", "").lstrip("+")
    if not any(each.isdigit() for each in typed):
        return
    if not math.isfinite(number):
        raise ConfigError(key, text, f"is too large for a number; as a text it is '{key}=\"{text}\"'")
    if decimal(number) != Decimal(typed):
        remedy = f"has more digits than a number holds: type {number!r}, or as a text '{key}=\"{text}\"'"
        raise ConfigError(key, text, remedy)


def parse(lines: Sequence[str], config_loader: Any = None) -> list[Any]:
    """Parse overrides, and keep their texts as typed.

    Args:
        lines: as on the command line.
        config_loader: Hydra's, needed to list the choices of a glob.

    Returns:
        Hydra's own override objects, one per line.

    Raises:
        ConfigError: see `quoted`.
        OverrideParseException: the grammar refuses a line.
    """
    return override_internals.parse([quoted(each) for each in lines], config_loader, _sorting_ranges)


def _sorting_ranges(sort: Callable[..., Any]) -> Callable[..., Any]:
    """Wrap the grammar's sort, so that a sorted range contains the same numbers in another order."""

    def sort_values(*args: Any, **named: Any) -> Any:
        found = sort(*args, **named)
        asked: Any = named.get("sweep", args[0] if args else None)
        is_range = hasattr(found, "stop") and hasattr(found, "step")
        if is_range and (numbers := Series(asked.start, asked.stop, asked.step)):
            first, last = sorted([numbers[0], numbers[-1]], reverse=bool(named.get("reverse", False)))
            found.step = abs(asked.step) if first <= last else -abs(asked.step)
            found.start, found.stop = first, last + (found.step if isinstance(first, int) else found.step / 2)
        return found

    return sort_values


# ---- values --------------------------------------------------------------------------------------------------------


def last_of_each(overrides: Sequence[Any]) -> dict[str, Any]:
    """Return key with its sign → its last override, in the order in which the keys were first typed.

    Signs do not distinguish keys: ++a=3 replaces a=1,2, and a=3 replaces +a=1,2 and then needs its sign.
    """
    signs: dict[str, str] = {}
    last: dict[str, Any] = {}
    for each in overrides:
        typed = each.get_key_element()
        key = typed.lstrip("+")
        signs[key] = typed.removesuffix(key) or signs.get(key, "")
        last[key] = each
    return {f"{signs[key]}{key}": each for key, each in last.items()}


def values_as_typed(override: Any) -> Sequence[str]:
    """Return the values of an override as right-hand sides of overrides that parse to the same values.

    Raises:
        HydraException: an interval, or a range without countable values.
    """
    if not override.is_sweep_override():
        value = override.value()
        return [_as_typed(override.get_value_element_as_str(), value)]  # `value` does not show whether it was quoted
    if override.is_range_sweep():
        sweep: Any = override.value()
        numbers: Sequence[Any] = series(override)
        if sweep.shuffle and len(numbers) <= _LONGEST_SHUFFLED:
            numbers = random.sample(numbers, len(numbers))
        return _Written(numbers, casts_of(sweep))
    if not override.is_discrete_sweep():
        raise HydraException(f"{override.input_line}: an interval has no list of values; use a choice or a range")
    return [written(each) for each in override.sweep_iterator()]


def casts_of(sweep: Any) -> tuple[Callable[[Any], Any], ...]:
    """Return the casts of a range, as in float(range(1,3)): Hydra 1.4 casts each number, 1.3 only the bounds."""
    return tuple(getattr(sweep, "transformers", ()))


def series(override: Any) -> Series:
    """Return the numbers of a range. HydraException for an infinite bound or a step of 0."""
    sweep: Any = override.value()
    try:
        return Series(sweep.start, sweep.stop, sweep.step)
    except ValueError as error:
        raise HydraException(f"{override.input_line}: {error}") from error


class _Written(Sequence[str]):
    """Format numbers as typed, each only on access."""

    def __init__(self, numbers: Sequence[Any], casts: Sequence[Callable[[Any], Any]]) -> None:
        self._numbers = numbers
        self._casts = casts

    def __len__(self) -> int:
        return len(self._numbers)

    def __getitem__(self, position: Any) -> Any:
        found = self._numbers[position]
        return [self._write(each) for each in found] if isinstance(position, slice) else self._write(found)

    def _write(self, number: Any) -> str:
        for cast in self._casts:
            number = cast(number)
        return written(number) if self._casts else str(number)


def written(value: Any) -> str:
    """Return a parsed value as the right-hand side of an override, with quotes that the grammar's functions dropped."""
    return _as_typed(as_text(value), value)


def _as_typed(line: str, value: Any) -> str:
    """Return the right-hand side of an override, in quotes if it would otherwise parse to another value."""
    if not isinstance(value, str) or _WORD.fullmatch(line) or _read(line) == value:
        return line
    return in_quotes(value)


@functools.lru_cache(maxsize=10_000)
def _read(value: str) -> Any:
    try:
        (found,) = override_internals.parse([f"key={value}"])
    except HydraException:
        return None
    return found.value()
