"""Words for people: the help page, and the one line that a refused config gets."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from hydra.errors import MissingConfigException, OverrideParseException
from omegaconf.errors import ConfigAttributeError, ConfigKeyError, OmegaConfBaseException

from bench.config import BenchmarkConfig, nearest_key, walk
from bench.rules import ConfigError, nearest, shown

LONGEST_LINE = 590

HELP = """\
bench measures which settings generate fastest with Transformers, on this model and this machine.

  bench                                            one setting: the tiny model, sdpa, not compiled
  bench -m compile=off,default,max-autotune        sweep the compile mode, a process for each
  bench -m attention=eager,sdpa warmup.iterations=10
  bench -m experiment=attention_x_compile          a sweep kept under conf/experiment
  bench model=smollm2-135m workload.batch_size=8   another model, another workload
  bench model.id=PATH_OR_HUB_ID model.weights=pretrained model.architecture=null
  bench -m sweep.dry_run=true compile=off,default  print the jobs, run none
  bench -m compile=off,default sweep.name=x sweep.resume=true    run only what the sweep x lacks
  bench -m compile=off,default sweep.repeats=5     repeats, for verdicts on the differences
  bench -m hydra/sweeper=optuna attention=eager,sdpa compile=off,default    a search instead of a grid
  python -m bench.compare multirun/NAME            the verdicts once more, or of two sweeps
  python -m bench.tracking.sync multirun/NAME      publish what could not be published
  mlflow ui --backend-store-uri sqlite:///mlflow.db    compare what ran

Groups (group=choice)
$APP_CONFIG_GROUPS
Keys (key=value; default, meaning)
{keys}
`bench --cfg job` shows the composed config, `bench --hydra-help` Hydra's own flags.
"""


def help_text() -> str:
    """The help page. Defaults, meanings and allowed values are those of the config's own declaration."""
    lines = []
    section = ""
    for path, value, rule, _ in walk(BenchmarkConfig):
        if path.partition(".")[0] != section:
            section = path.partition(".")[0]
            lines.append("")
        shown = "null" if value is None else str(value).lower() if isinstance(value, bool) else str(value)
        allowed = f" [{'|'.join(str(each) for each in rule.allowed)}]" if rule.allowed else ""
        lines.append(f"  {path}={shown}".ljust(40) + f" {rule.doc}{allowed}")
    # Hydra substitutes $NAMES; a dollar of our own would have to be doubled.
    return HELP.format(keys="\n".join(lines[1:]))


def explain(error: Exception, arguments: Sequence[str] = ()) -> str:
    """One line for a refused config: key, value, remedy.

    Args:
        error: what Hydra, OmegaConf or the config's own rules raised.
        arguments: the command line, to tell the value that was typed.
    """
    return shown(_reason(error, arguments), LONGEST_LINE).strip() or type(error).__name__


def _reason(error: Exception, arguments: Sequence[str]) -> str:
    for each in _chain(error):
        if isinstance(each, ConfigError):
            return str(each)
        if isinstance(each, OverrideParseException):
            return (
                f"{each.override}: {_first_line(str(each))}; quote a value that holds = , : or spaces: 'key=\"value\"'"
            )
        if isinstance(each, MissingConfigException) and each.options is not None:
            group, _, choice = str(each.missing_cfg_file).rpartition("/")
            close = nearest(choice, list(each.options))
            hint = f"; did you mean {close}?" if close else ""
            return f"{group}={choice}: no such choice; allowed: {', '.join(each.options)}{hint}"
        path = getattr(each, "full_key", None)
        if isinstance(each, OmegaConfBaseException) and path:
            reason = (getattr(each, "msg", None) or str(each)).splitlines()[0]
            typed = _as_typed(path, arguments)
            if isinstance(each, ConfigAttributeError | ConfigKeyError):
                near = nearest_key(path)
                return f"{typed}: no such key; " + (f"did you mean {near}?" if near else "bench --help lists the keys")
            return f"{typed}: {reason[0].lower()}{reason[1:]}"
    return " ".join(line.strip() for line in str(error).splitlines() if line.strip())


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


def _first_line(text: str) -> str:
    return text.strip().split("\n", maxsplit=1)[0]


def _as_typed(path: str, arguments: Sequence[str]) -> str:
    for each in arguments:
        if each.lstrip("+").startswith(path):
            return each.lstrip("+")
    return path
