"""Define the sessions of nox: one per leg, and one that makes the new install from which ``--renew`` writes versions.

``scripts/test-versions`` starts nox with this file; it can be called by hand as well
(``python -m nox -f scripts/versions/noxfile.py --list``), with ``scripts`` in PYTHONPATH.

An environment is used again if its mark, written as the last step of an install, has the digest of today's inputs.
Otherwise nox removes it and creates it again: after a changed version no old package remains, and an interrupted
install left no mark.
"""

from __future__ import annotations

import json
import os
from collections.abc import Callable

import nox

from versions.legs import ENVIRONMENTS, EXTRA, LEGS, ROOT, Leg, digest, interpreter_for, is_ready, mark_of, merged_pins
from versions.renewal import TARGETS, constraints_of, freeze_of

nox.options.envdir = str(ENVIRONMENTS)
nox.options.download_python = "never"
nox.options.error_on_missing_interpreters = False

TELL_VERSIONS = """
import importlib.metadata, json, platform
found = {each.name: each.version for each in importlib.metadata.distributions() if each.name}
print(json.dumps(found | {"python": platform.python_version()}))
"""


def install(session: nox.Session, extra: str, pins: dict[str, str], name: str) -> None:
    """Install bench with an extra, editable, in these versions. pip also honours the user's own configuration.

    The variables also reach the builds that pip starts. Their path is relative, because pip splits it at spaces.
    Modules are compiled at their first import: a leg imports a small part of what is installed.
    """
    file = ENVIRONMENTS / f"{name}.constraints.txt"
    file.write_text("".join(f"{each}=={version}\n" for each, version in sorted(pins.items())), encoding="utf-8")
    relative = os.path.relpath(file, ROOT)
    env: dict[str, str | None] = {"PIP_CONSTRAINT": relative, "PIP_BUILD_CONSTRAINT": relative} if pins else {}
    options = ["--no-compile", "--no-input", "--disable-pip-version-check", "--progress-bar=off"]
    session.install(*options, "--editable", f".[{extra}]", env=env, silent=True)


def run_leg(session: nox.Session, leg: Leg) -> None:
    """Install what the leg lacks, record the versions, and run the contract suite."""
    session.chdir(ROOT)
    interpreter = interpreter_for(leg.python)
    assert interpreter is not None  # nox skips a session if its Python is not found
    environment = leg.environment
    if not is_ready(leg, interpreter):
        install(session, EXTRA, merged_pins(leg), leg.name)
        mark_of(environment).write_text(digest(leg, interpreter), encoding="utf-8")
    told = session.run("python", "-P", "-c", TELL_VERSIONS, silent=True)
    if told is None:
        return  # --install-only
    leg.versions.write_text(json.dumps(json.loads(told), indent=1), encoding="utf-8")
    options = ["-m", "contract", "--numprocesses=2", "--dist=loadfile", "-p", "no:cacheprovider"]
    arguments = [*options, f"--junitxml={leg.junit}", *session.posargs, *contract_files()]
    # Without PYTHONDONTWRITEBYTECODE, which container images set: the installed modules are not compiled yet.
    variables = {"PYTHONPATH": None, "PYTHONDONTWRITEBYTECODE": None}
    session.run("python", "-m", "pytest", *arguments, env=variables)


def contract_files() -> list[str]:
    """Return the test files with a contract test: collecting all files takes ten seconds in each of two processes."""
    files = sorted((ROOT / "tests").rglob("test_*.py"))
    return [str(path.relative_to(ROOT)) for path in files if "mark.contract" in path.read_text(encoding="utf-8")]


def run_renewal(session: nox.Session, target: str) -> None:
    """Make a new install for a file of versions, and write pip's list of it."""
    session.chdir(ROOT)
    install(session, TARGETS[target].extra, constraints_of(target), f"renew-{target}")
    listed = session.run("python", "-m", "pip", "freeze", "--all", "--exclude-editable", silent=True)
    assert listed is not None
    freeze_of(target).write_text(listed, encoding="utf-8")


def _register(name: str, python: str, function: Callable[[nox.Session], None], *, default: bool, reuse: bool) -> None:
    function.__doc__ = function.__doc__ or name
    nox.session(name=name, python=interpreter_for(python) or python, reuse_venv=reuse, default=default)(function)


ENVIRONMENTS.mkdir(parents=True, exist_ok=True)
for each in LEGS.values():
    found = interpreter_for(each.python)

    def session_of_leg(session: nox.Session, leg: Leg = each) -> None:
        run_leg(session, leg)

    ready = found is not None and is_ready(each, found)
    _register(each.name, each.python, session_of_leg, default=not each.on_request, reuse=ready)
for wanted in TARGETS:

    def session_of_renewal(session: nox.Session, target: str = wanted) -> None:
        run_renewal(session, target)

    _register(f"renew-{wanted}", "3.11", session_of_renewal, default=False, reuse=False)
