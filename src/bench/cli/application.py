"""Run the Hydra application from the command line; refuse mistakes with one line and an exit status.

Hydra composes (`bench.cli.hydra_command`), `bench.cli.composition.checked_config` converts the result to a
`BenchmarkConfig`, and no package beyond `bench.cli` depends on Hydra. `bench.cli.job_task` runs one composed config,
whatever launcher called it. `bench.orchestration` implements runs and sweeps.
"""

from __future__ import annotations

import io
import os
import sys
import warnings
from collections.abc import Sequence
from pathlib import Path

from hydra.errors import HydraException
from omegaconf.errors import OmegaConfBaseException

from bench.cli.composition.conf_folder import conf_folder
from bench.cli.composition.quoting import readable
from bench.cli.composition.renamed_keys import current_overrides
from bench.cli.composition.text_overrides import quoted
from bench.cli.help import keys_text
from bench.cli.hydra_command import HydraCommand
from bench.cli.job_task import job
from bench.cli.refusals import exits
from bench.cli.refusals.command_checks import check_flags
from bench.cli.refusals.override_checks import OF_HYDRA, check_overrides
from bench.cli.registration import register
from bench.compat import hydra_internals
from bench.config.rules import ConfigError
from bench.host.command_line import ExitStatus
from bench.host.home_folder import expanded
from bench.orchestration import signals

KEYS_FLAG = "--keys"  # and sections
FOLDER_FLAGS = ("--config-dir", "-cd", "--config-path", "-cp")


def main() -> None:
    """Parse the command line with Hydra and run. Report a user's mistake in one line with exit status 2."""
    _set_up_process()
    show_traceback = os.environ.get("HYDRA_FULL_ERROR") == "1"
    os.environ["HYDRA_FULL_ERROR"] = "1"  # makes Hydra raise its errors instead of printing several lines each
    try:
        _run(sys.argv[1:])
    except (ConfigError, HydraException, OmegaConfBaseException) as error:
        if show_traceback:
            raise
        exits.refuse(error)
    except BrokenPipeError:  # the reader closed the pipe
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())  # else Python flushes again at exit
        sys.exit(ExitStatus.FAILED)
    except (OSError, ValueError) as error:
        if show_traceback:
            raise
        if not isinstance(error, OSError) and exits.is_of_composition(error):
            exits.refuse(error)
        exits.give_up(error)
    except KeyboardInterrupt:
        sys.exit(ExitStatus.INTERRUPTED)
    except Exception as error:
        if show_traceback or not exits.is_of_composition(error):  # a bug in bench
            raise
        exits.refuse(error)


def _run(arguments: Sequence[str]) -> None:
    if KEYS_FLAG in arguments:  # ours: Hydra's parser accepts only its own flags
        print(keys_text([each for each in arguments if each != KEYS_FLAG]), end="", flush=True)
        return
    flags = check_flags(arguments)
    exits.typed[:] = arguments
    readable_arguments = [_as_hydra_reads(each) for each in arguments]
    if not flags.shell_completion:  # an incomplete line is often invalid
        check_overrides(flags.overrides, OF_HYDRA)
        readable_arguments = current_overrides(readable_arguments)
        readable_arguments = [each if each.startswith("-") else quoted(each) for each in readable_arguments]
    sys.argv[1:] = readable_arguments
    HydraCommand.is_sweep = flags.multirun
    warnings.filterwarnings("ignore", message="Experimental rerun CLI option")
    warnings.filterwarnings("error", message=r"provider=hydra\.searchpath.*is not available")
    register()
    hydra_internals.run_command(job, config_path=str(conf_folder()), config_name="config", command=HydraCommand)


def _as_hydra_reads(argument: str) -> str:
    """Return an argument with `~` expanded if it is a flag's folder, and with quotes where Hydra requires them."""
    flag, equals, value = argument.partition("=")
    return f"{flag}={expanded(value)}" if equals and flag in FOLDER_FLAGS else readable(argument)


def _set_up_process() -> None:
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(errors="replace")  # do not fail on a stream that cannot encode "–"
    if any(each.startswith("query=") for each in sys.argv[1:3]):  # completion: an incomplete line is often invalid
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stderr.fileno())
    # CI logs are read as text, even if CI provides a terminal.
    in_ci = os.environ.get("CI", "").lower() not in ("", "0", "false")
    if in_ci and not os.environ.get("FORCE_COLOR"):
        os.environ.setdefault("TTY_COMPATIBLE", "0")
    if Path(sys.argv[0]).name == "__main__.py":  # the command name in Hydra's parser and completion
        sys.argv[0] = "bench"
    signals.install()
