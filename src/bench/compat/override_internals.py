"""Wrap Hydra's override parser, `hydra.core.override_parser`, and the parser generated from its grammar.

Hydra documents the grammar, and uses the parser in its example sweeper, but declares neither of them public. Releases
move the runtime of the grammar (antlr4 to a copy inside OmegaConf) and rename types.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

from hydra.errors import HydraException

from bench.compat.private_name import MISSING, PrivateName

_OLDEST, _NEWEST = "1.3.2", "1.4.0rc3"
_TYPES = "hydra.core.override_parser.types"
_JUDGED = "a text that looks like a number, true or false is put into quotes by its looks alone"

PARSER = PrivateName(
    where="hydra.core.override_parser.overrides_parser:OverridesParser",
    since=_OLDEST,
    until=_NEWEST,
    lost="the values of a sweep cannot be read, and a sweep is refused; single runs go on",
)
FUNCTIONS = PrivateName(
    where="hydra.core.override_parser.overrides_parser:create_functions",
    since=_OLDEST,
    until=_NEWEST,
    lost="sort(range(...)) gives the numbers that Hydra itself makes of it",
)
SORT = PrivateName(
    where="hydra._internal.grammar.grammar_functions:sort",
    since=_OLDEST,
    until=_NEWEST,
    lost="sort(range(...)) gives the numbers that Hydra itself makes of it",
)
AS_TEXT = PrivateName(
    where=f"{_TYPES}:Override._get_value_element_as_str",
    since=_OLDEST,
    until=_NEWEST,
    lost="the values of a sweep are written with more quotes than were typed",
)
LEXER = PrivateName(where="hydra.grammar.gen.OverrideLexer:OverrideLexer", since=_OLDEST, until=_NEWEST, lost=_JUDGED)
GRAMMAR = PrivateName(
    where="hydra.grammar.gen.OverrideParser:OverrideParser", since=_OLDEST, until=_NEWEST, lost=_JUDGED
)
INPUT = PrivateName(where="hydra.grammar.gen.OverrideLexer:InputStream", since=_OLDEST, until=_NEWEST, lost=_JUDGED)
TOKENS = PrivateName(
    where="hydra.grammar.gen.OverrideLexer:CommonTokenStream", since=_OLDEST, until=_NEWEST, lost=_JUDGED
)
CONTEXT = PrivateName(
    where="hydra.grammar.gen.OverrideParser:ParserRuleContext", since=_OLDEST, until=_NEWEST, lost=_JUDGED
)
LISTENER = PrivateName(
    where="hydra.core.override_parser.overrides_visitor:HydraErrorListener", since=_OLDEST, until=_NEWEST, lost=_JUDGED
)

# Classes of the generated parser, and constants of the lexer, that `Grammar` uses.
_RULES = ("Primitive", "DictKeyValuePair", "Function", "ArgName", "Element")
_TOKENS = ("INT", "FLOAT", "BOOL", "NULL", "WS")
_MISREAD = ("inf", "nan", "true", "false", "null")  # words that the grammar does not read as texts


def parse(
    lines: Sequence[str],
    config_loader: Any = None,
    sort: Callable[[Callable[..., Any]], Callable[..., Any]] | None = None,
) -> list[Any]:
    """Parse overrides as Hydra does.

    Args:
        lines: as on the command line.
        config_loader: needed to list the choices of a glob.
        sort: wraps the grammar's own function for `sort(...)`.

    Raises:
        OverrideParseException: the grammar refuses a line.
        HydraException: this Hydra has no such parser.
    """
    found = PARSER.get()
    if found is MISSING:
        raise HydraException(f"{PARSER.unseen()}; install hydra-core {_OLDEST} to {_NEWEST}")
    parser = found.create(config_loader=config_loader)
    known = getattr(getattr(parser, "functions", None), "functions", None)
    if sort is not None and FUNCTIONS.is_here() and SORT.is_here() and isinstance(known, dict) and "sort" in known:
        known["sort"] = sort(SORT.get())
    return list(parser.parse_overrides(list(lines)))


def can_parse() -> bool:
    """Check whether this version of Hydra has the parser."""
    return PARSER.is_here()


def in_quotes(text: str, mark: str = "'") -> str:
    """Return a text in quotes, so that the grammar reads it as text: each quote in it is escaped with a backslash.

    Backslashes before a quote or at the end are doubled; others are literal.
    """
    escaped = re.sub(rf"(\\*)({mark}|\Z)", lambda found: found[1] * 2 + (f"\\{mark}" if found[2] else ""), text)
    return f"{mark}{escaped}{mark}"


def as_text(value: Any) -> str:
    """Return a parsed value as the right-hand side of an override."""
    write = AS_TEXT.get()
    return _written(value) if write is MISSING else str(write(value))


def _written(value: Any) -> str:
    """Format a parsed value without Hydra's function: a text is quoted unless it is a single word."""
    if value is None:
        return "null"
    if isinstance(value, bool | int | float):
        return str(value)
    if isinstance(value, list):
        return f"[{','.join(map(_written, value))}]"
    if isinstance(value, dict):
        pairs = ((name if isinstance(name, str) else _written(name), each) for name, each in value.items())
        return "{" + ",".join(f"{name}:{_written(each)}" for name, each in pairs) + "}"
    text = str(text_of(value))
    is_word = re.fullmatch(r"[A-Za-z_][\w/.-]*", text, re.ASCII) and text.lower() not in _MISREAD
    return text if is_word and text is value else in_quotes(text)


def text_of(value: Any) -> Any:
    """Return the text of a quoted value, or any other value itself."""
    return value.text if hasattr(value, "with_quotes") else value


@dataclass(frozen=True, kw_only=True)
class Grammar:
    """Hold the parts of the generated parser that determine the type of each value in a line."""

    lexer: Any
    parser: Any
    text: Any
    tokens: Any
    context: Any
    listener: Any

    def tree(self, line: str) -> Any:
        """Return the parse tree of a line. Raises HydraException."""
        lexer = self.lexer(self.text(line))
        parser = self.parser(self.tokens(lexer))
        for each in (lexer, parser):
            each.removeErrorListeners()
            each.addErrorListener(self.listener())
        return parser.override()

    def is_rule(self, tree: Any, name: str | None = None) -> bool:
        """Check whether a part of a tree is a rule of the grammar, with this name if one is given."""
        return isinstance(tree, self.context if name is None else getattr(self.parser, f"{name}Context"))

    def is_token(self, token: Any, *names: str) -> bool:
        """Check whether a token has one of these types: INT, FLOAT, BOOL, NULL, WS."""
        return token.type in [getattr(self.lexer, each) for each in names]


def grammar() -> Grammar | None:
    """Return Hydra's grammar; None if a part of it is missing or has a different structure."""
    lexer, parser = LEXER.get(), GRAMMAR.get()
    parts = (lexer, parser, INPUT.get(), TOKENS.get(), CONTEXT.get(), LISTENER.get())
    if any(each is MISSING for each in parts):
        return None
    if not all(hasattr(parser, f"{each}Context") for each in _RULES) or not hasattr(parser, "override"):
        return None
    if not all(hasattr(lexer, each) for each in _TOKENS):
        return None
    return Grammar(lexer=lexer, parser=parser, text=parts[2], tokens=parts[3], context=parts[4], listener=parts[5])
