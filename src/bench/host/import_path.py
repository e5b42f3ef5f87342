"""Keep the folder where a command is typed out of what our processes import.

Python puts the current folder first on ``sys.path`` for ``python -m bench``, and for processes that are started with
``-c``, as those of `multiprocessing` are: a ``torch.py`` or ``profile.py`` there would be imported. The entry that
Python added is removed from the command, and ``PYTHONSAFEPATH`` keeps it out of everything that the command starts:
fork server, spawned children, ranks, compile workers of Inductor, MLflow's server, jobs of Slurm and Ray. What the user
put into ``PYTHONPATH``, or installed, stays importable, the current folder included.

A program that imports bench decides for itself what is on its path: there nothing is changed.

Not covered: what Python imports before any code of ours in ``python -m bench``, which is a folder ``bench/`` and those
modules that ``-m`` itself needs (``importlib``, ``contextlib``, ``functools``, ``types``, ``warnings``, and what they
import). The ``bench`` command and ``scripts/run`` have no such gap.

Imported before anything else of bench, while that folder may still be on the path: it imports only what Python has
loaded by then, and not even ``__future__``.
"""

import os
import sys

PACKAGE = "bench"
SAFE_PATH = "PYTHONSAFEPATH"  # docs.python.org/3/using/cmdline.html
CURRENT = ""  # how the current folder stands in sys.path for -c

_is_left: list[bool] = []  # whether it is done: the entry that is then first is the user's


def leave_current_folder() -> None:
    """Take the entry that Python added for the current folder off ``sys.path``, here and in all that is started.

    To be called by commands only.
    """
    if _is_left:
        return
    _is_left.append(True)
    if not sys.flags.safe_path:
        if sys.flags.ignore_environment:  # -E: the variable would mean nothing to the processes that are started
            os.execv(sys.executable, [sys.executable, "-P", *sys.orig_argv[1:]])  # noqa: S606
        if sys.path and is_current_folder(sys.path[0]):
            del sys.path[0]
    keep_out_of_children()


def keep_out_of_children() -> None:
    """See that no process which this one starts gets the current folder from Python."""
    os.environ[SAFE_PATH] = "1"


def is_in_pythonpath(folder: str) -> bool:
    """Whether the user has put a folder on the path."""
    given = os.environ.get("PYTHONPATH", "").split(os.pathsep)
    return folder in [os.path.abspath(each) for each in given if each]  # noqa: PTH100 - see above


def is_command() -> bool:
    """Whether this import is that of ``python -m bench``, or of ``python -m bench.report`` and the like.

    While runpy looks for a module, ``sys.argv[0]`` is "-m"; the module's name, which ``sys.orig_argv`` has, stands
    before the arguments, as in ``-m bench`` or ``-mbench``.
    """
    arguments = getattr(sys, "argv", [])
    if arguments[:1] != ["-m"]:
        return False
    name = sys.orig_argv[len(sys.orig_argv) - len(arguments)]
    if name.startswith("-"):
        name = name.partition("m")[2]
    return name.partition(".")[0] == PACKAGE


def is_current_folder(entry: str) -> bool:
    """Whether an entry of ``sys.path`` is the current folder."""
    try:
        return entry in (CURRENT, os.getcwd())  # noqa: PTH109 - pathlib might come from that folder
    except OSError:  # the folder is gone; then Python has added nothing
        return entry == CURRENT
