"""Overrides whose texts are quoted, so that Hydra's grammar makes no number, and no true or false, of them.

    sweep.name=2024_11_29              ->  sweep.name='2024_11_29'
    -m sweep.arm=1_0,inf               ->  sweep.arm='1_0','inf'
    tracking.tags={commit: 48e12}      ->  tracking.tags={commit: '48e12'}

What reads the same either way stays as it is: words, and numbers that a text is made of without loss (sweep.arm=1,2).
So do null, references and what is quoted already. Spaces around a value are dropped by the grammar.
"""

from __future__ import annotations

import functools
import math
import random
import re
from collections.abc import Iterator, Sequence
from decimal import Decimal
from typing import Any

from antlr4 import CommonTokenStream, InputStream, ParserRuleContext  # type: ignore[import-untyped]
from hydra._internal.grammar import grammar_functions
from hydra.core.config_loader import ConfigLoader
from hydra.core.override_parser.overrides_parser import OverridesParser
from hydra.core.override_parser.overrides_visitor import HydraErrorListener
from hydra.core.override_parser.types import Override, Quote, QuotedString, RangeSweep
from hydra.errors import HydraException
from hydra.grammar.gen.OverrideLexer import OverrideLexer
from hydra.grammar.gen.OverrideParser import OverrideParser

from bench.decimals import Series, decimal
from bench.rules import ConfigError
from bench.typed.keys import Kind, kind_of

_OVERRIDE = re.compile(r"(?P<sign>[~+]*)(?P<key>[^=@]*)(?:@[^=]*)?=(?P<value>.*)", re.DOTALL)
# A value without any of these holds nothing that the grammar takes for a number, true, false or null.
_SUSPECT = re.compile(r"\d|inf|nan|true|false|null", re.IGNORECASE)
_WORD = re.compile(r"(?!(?:inf|nan|true|false|null)\Z)[A-Za-z_][\w/.-]*", re.IGNORECASE | re.ASCII)
_TYPED_TOKENS = (OverrideLexer.INT, OverrideLexer.FLOAT, OverrideLexer.BOOL)
# Functions of the grammar whose arguments are values of the key; the others take numbers, or patterns.
_OF_VALUES = ("choice", "shuffle", "sort", "str", "tag")
_ARGUMENTS_OF_VALUES = ("list", "sweep", "value")
_LONGEST_NUMBER = 300  # characters; Python reads no integer of some thousands
_LONGEST_SHUFFLED = 1_000_000


# ---- lines ---------------------------------------------------------------------------------------------------------


def quoted(line: str) -> str:
    """An override with quotes around each text that the grammar would take for something else.

    Args:
        line: as on the command line. One that the grammar refuses comes back as it is.

    Raises:
        ConfigError: a number that would lose digits, or a name in braces that the grammar takes for a number.
    """
    found = _OVERRIDE.fullmatch(line)
    if found is None or not _SUSPECT.search(found["value"]):
        return line
    key = found["key"].strip()
    if kind_of(key) is Kind.OTHER and "{" not in found["value"]:
        return line
    try:
        value = _tree(line).value()
    except HydraException:
        return line
    if value is None:
        return line
    for token in reversed(list(_texts(value, key))):
        line = line[: token.start] + in_quotes(token.text) + line[token.stop + 1 :]
    return line


def in_quotes(text: str) -> str:
    """A text as the grammar reads it whatever it looks like."""
    return str(QuotedString(text=text, quote=Quote.single).with_quotes())


def _tree(line: str) -> Any:
    """The grammar's own view of a line. Raises HydraException."""
    lexer = OverrideLexer(InputStream(line))
    parser: Any = OverrideParser(CommonTokenStream(lexer))
    for each in (lexer, parser):
        each.removeErrorListeners()
        each.addErrorListener(HydraErrorListener())
    return parser.override()


def _texts(tree: Any, key: str, *, every: bool = False) -> Iterator[Any]:
    """The tokens of a value that are texts and would be read as something else, in order.

    Args:
        tree: of the value.
        key: that it is a value of.
        every: also those of which a text is made without loss.
    """
    if isinstance(tree, OverrideParser.PrimitiveContext):
        yield from _text(tree, key, every=every)
    elif isinstance(tree, OverrideParser.DictKeyValuePairContext):
        name, value = (each for each in tree.getChildren() if isinstance(each, ParserRuleContext))
        yield from _texts(value, f"{key}.{_name(name, key)}", every=every)
    elif isinstance(tree, OverrideParser.FunctionContext):
        is_sorted = tree.getChild(0).getText() == "sort"
        yield from _texts_of_function(tree, key, every=every or (is_sorted and not _are_numbers(tree)))
    elif isinstance(tree, ParserRuleContext):
        for child in tree.getChildren():
            yield from _texts(child, key, every=every)


def _text(primitive: Any, key: str, *, every: bool) -> Iterator[Any]:
    token = _only_token(primitive)
    if token is None or token.type not in _TYPED_TOKENS:
        return
    kind = kind_of(key)
    if kind is Kind.FREE_TEXT or (kind is Kind.TEXT and (every or not _reads_the_same(token))):
        yield token
    elif kind is Kind.NUMBER and token.type == OverrideLexer.FLOAT:
        check_digits(key, token.text)


def _only_token(context: Any) -> Any:
    """The one token that a value, or a name in braces, consists of; None where there are several."""
    tokens = [getattr(each, "symbol", None) for each in context.getChildren()]
    tokens = [each for each in tokens if each is None or each.type != OverrideLexer.WS]
    return tokens[0] if len(tokens) == 1 else None


def _reads_the_same(token: Any) -> bool:
    """Whether a text that is made of what the grammar reads is what was typed."""
    text = token.text
    if token.type == OverrideLexer.BOOL:
        return text in ("True", "False")
    if len(text) > _LONGEST_NUMBER:
        return False
    return bool(text == str(int(text) if token.type == OverrideLexer.INT else float(text)))


def _name(dict_key: Any, key: str) -> str:
    token = _only_token(dict_key)
    if token is not None and token.type in (*_TYPED_TOKENS, OverrideLexer.NULL) and kind_of(key) is not Kind.OTHER:
        remedy = "in braces the grammar takes such a name for a number, true, false or null; "
        raise ConfigError(key, f"{{{token.text}: ...}}", f"{remedy}type {key}.{token.text}=VALUE")
    return str(dict_key.getText()).strip()


def _are_numbers(function: Any) -> bool:
    """Whether all arguments are numbers that make texts without loss: `sort` compares no texts with numbers."""
    values = [each for each in function.getChildren() if isinstance(each, OverrideParser.ElementContext)]
    tokens = [_only_token(each.getChild(0)) for each in values if isinstance(each.getChild(0), ParserRuleContext)]
    return all(each is not None and each.type in _TYPED_TOKENS and _reads_the_same(each) for each in tokens)


def _texts_of_function(function: Any, key: str, *, every: bool) -> Iterator[Any]:
    if function.getChild(0).getText() not in _OF_VALUES:
        return
    argument = None
    for child in function.getChildren():
        if isinstance(child, OverrideParser.ArgNameContext):
            argument = child.getChild(0).getText()
        elif isinstance(child, OverrideParser.ElementContext) and argument in (None, *_ARGUMENTS_OF_VALUES):
            yield from _texts(child, key, every=every)


def check_digits(key: str, text: str) -> None:
    """Refuse a number whose digits a float cannot hold. Infinities are refused with the config's other rules.

    Raises:
        ConfigError: names the number that it would become.
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


def parse(lines: Sequence[str], config_loader: ConfigLoader | None = None) -> list[Override]:
    """Parse overrides with their texts as typed.

    Args:
        lines: as on the command line.
        config_loader: needed to list the choices of a glob.

    Raises:
        ConfigError: see `quoted`.
        OverrideParseException: the grammar refuses a line.
    """
    parser = OverridesParser.create(config_loader=config_loader)
    parser.functions.functions["sort"] = _sort
    return parser.parse_overrides([quoted(each) for each in lines])


def _sort(*args: Any, **named: Any) -> Any:
    """The grammar's sort, but of a range it makes the same numbers in another order."""
    found: Any = grammar_functions.sort(*args, **named)
    asked: Any = named.get("sweep", args[0] if args else None)
    if isinstance(found, RangeSweep) and (numbers := Series(asked.start, asked.stop, asked.step)):
        first, last = sorted([numbers[0], numbers[-1]], reverse=bool(named.get("reverse", False)))
        found.step = abs(asked.step) if first <= last else -abs(asked.step)
        found.start, found.stop = first, last + (found.step if isinstance(first, int) else found.step / 2)
    return found


# ---- values --------------------------------------------------------------------------------------------------------


def last_of_each(overrides: Sequence[Override]) -> dict[str, Override]:
    """Key with its sign → the last override of it, in the order in which the keys were typed first.

    The signs make no other key: ++a=3 takes the place of a=1,2, and a=3 that of +a=1,2, whose sign it then needs.
    """
    signs: dict[str, str] = {}
    last: dict[str, Override] = {}
    for each in overrides:
        typed = each.get_key_element()
        key = typed.lstrip("+")
        signs[key] = typed.removesuffix(key) or signs.get(key, "")
        last[key] = each
    return {f"{signs[key]}{key}": each for key, each in last.items()}


def values_as_typed(override: Override) -> Sequence[str]:
    """The values of an override as right sides of overrides, each of which is read as what it is.

    Raises:
        HydraException: an interval, or a range without values to count.
    """
    if not override.is_sweep_override():
        return [written(override._value)]  # noqa: SLF001 - `value` tells quoted from plain no more
    if isinstance(sweep := override.value(), RangeSweep):
        numbers = series(override)
        if sweep.shuffle and len(numbers) <= _LONGEST_SHUFFLED:
            return [str(each) for each in random.sample(numbers, len(numbers))]
        return _Written(numbers)
    if not override.is_discrete_sweep():
        raise HydraException(f"{override.input_line}: an interval has no list of values; use a choice or a range")
    return [written(each) for each in override.sweep_iterator()]


def series(override: Override) -> Series:
    """The numbers of a range. Raises HydraException where it has no end, or no step."""
    sweep: Any = override.value()
    try:
        return Series(sweep.start, sweep.stop, sweep.step)
    except ValueError as error:
        raise HydraException(f"{override.input_line}: {error}") from error


class _Written(Sequence[str]):
    """Numbers as they are typed, written when they are asked for."""

    def __init__(self, numbers: Series) -> None:
        self._numbers = numbers

    def __len__(self) -> int:
        return len(self._numbers)

    def __getitem__(self, position: Any) -> Any:
        found = self._numbers[position]
        return [str(each) for each in found] if isinstance(position, slice) else str(found)


def written(value: Any) -> str:
    """A parsed value as the right side of an override. The grammar's functions drop quotes, and here they come back."""
    line = str(Override._get_value_element_as_str(value))  # noqa: SLF001 - what Hydra's own iterators call
    if not isinstance(value, str) or _WORD.fullmatch(line) or _read(line) == value:
        return line
    return in_quotes(value)


@functools.lru_cache(maxsize=10_000)
def _read(value: str) -> Any:
    try:
        found = OverridesParser.create().parse_rule(value, "value")
    except HydraException:
        return None
    return found.text if isinstance(found, QuotedString) else found
