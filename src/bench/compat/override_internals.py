"""Hydra's parser of overrides: `hydra.core.override_parser`, and the grammar that it is generated from.

Hydra documents the grammar, and shows the parser in its example of a sweeper, but calls neither of them an interface.
Releases move the runtime of the grammar (antlr4 to a copy inside OmegaConf) and rename types.
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

# Classes of the generated parser, and constants of the lexer, that `Grammar` asks for.
_RULES = ("Primitive", "DictKeyValuePair", "Function", "ArgName", "Element")
_TOKENS = ("INT", "FLOAT", "BOOL", "NULL", "WS")
_MISREAD = ("inf", "nan", "true", "false", "null")  # words that are no texts


def parse(
    lines: Sequence[str],
    config_loader: Any = None,
    sort: Callable[[Callable[..., Any]], Callable[..., Any]] | None = None,
) -> list[Any]:
    """Parse overrides as Hydra does.

    Args:
        lines: as on the command line.
        config_loader: needed to list the choices of a glob.
        sort: makes the function that is called for `sort(...)` of the grammar's own.

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
    """Whether this Hydra has the parser."""
    return PARSER.is_here()


def in_quotes(text: str, mark: str = "'") -> str:
    """A text as the grammar reads it whatever it looks like: a backslash stands before each quote of its own.

    Backslashes before a quote, and those at the end, are doubled; the others stand for themselves.
    """
    escaped = re.sub(rf"(\\*)({mark}|\Z)", lambda found: found[1] * 2 + (f"\\{mark}" if found[2] else ""), text)
    return f"{mark}{escaped}{mark}"


def as_text(value: Any) -> str:
    """A parsed value as the right side of an override."""
    write = AS_TEXT.get()
    return _written(value) if write is MISSING else str(write(value))


def _written(value: Any) -> str:
    """The same, without Hydra's help: a text that is more than a word is quoted."""
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
    """What a parsed value stands for: the text of a quoted one, and any other itself."""
    return value.text if hasattr(value, "with_quotes") else value


@dataclass(frozen=True, kw_only=True)
class Grammar:
    """The parts of the generated parser that tell which characters of a line are which kind of value."""

    lexer: Any
    parser: Any
    text: Any
    tokens: Any
    context: Any
    listener: Any

    def tree(self, line: str) -> Any:
        """The grammar's own view of a line. Raises HydraException."""
        lexer = self.lexer(self.text(line))
        parser = self.parser(self.tokens(lexer))
        for each in (lexer, parser):
            each.removeErrorListeners()
            each.addErrorListener(self.listener())
        return parser.override()

    def is_rule(self, tree: Any, name: str | None = None) -> bool:
        """Whether a part of a tree is a rule of the grammar, of this name where one is given."""
        return isinstance(tree, self.context if name is None else getattr(self.parser, f"{name}Context"))

    def is_token(self, token: Any, *names: str) -> bool:
        """Whether a token is one of these: INT, FLOAT, BOOL, NULL, WS."""
        return token.type in [getattr(self.lexer, each) for each in names]


def grammar() -> Grammar | None:
    """Hydra's grammar; None where a part of it is gone or has another shape."""
    lexer, parser = LEXER.get(), GRAMMAR.get()
    parts = (lexer, parser, INPUT.get(), TOKENS.get(), CONTEXT.get(), LISTENER.get())
    if any(each is MISSING for each in parts):
        return None
    if not all(hasattr(parser, f"{each}Context") for each in _RULES) or not hasattr(parser, "override"):
        return None
    if not all(hasattr(lexer, each) for each in _TOKENS):
        return None
    return Grammar(lexer=lexer, parser=parser, text=parts[2], tokens=parts[3], context=parts[4], listener=parts[5])
