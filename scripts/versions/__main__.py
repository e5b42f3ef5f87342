"""Run the command line of scripts/test-versions."""

from __future__ import annotations

import argparse
import contextlib
import fcntl
import json
import shutil
import subprocess
import sys
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, datetime
from pathlib import Path
from typing import IO

from versions import renewal, results
from versions.legs import ENVIRONMENTS, LEGS, NEWEST, ROOT, interpreter_for, is_ready, mark_of, pins

NOXFILE = Path(__file__).with_name("noxfile.py")
PROGRAM = "test-versions"


def parsed(arguments: list[str] | None) -> argparse.Namespace:
    """Return the arguments; a wrong one ends the program with one line and status 2."""
    parser = argparse.ArgumentParser(
        prog="scripts/test-versions",
        description="Run the contract suite (pytest -m contract) with several versions of the libraries, each in an "
        "environment of its own under .cache/versions, which a later call uses again. Without LEG, all legs but those "
        "on request. What follows -- goes to pytest.",
        epilog="Exit status: 0 all legs passed or were skipped for want of a Python; 1 one failed; 2 wrong arguments.",
    )
    parser.add_argument("legs", metavar="LEG", nargs="*", help="names of legs (--list)")
    parser.add_argument(
        "--together", action="store_true", help="run the legs at the same time, and print what each says when it ends"
    )
    modes = parser.add_mutually_exclusive_group()
    modes.add_argument("--list", action="store_true", help="list the legs, and run nothing")
    modes.add_argument("--install-only", action="store_true", help="make the environments, and run no test")
    modes.add_argument(
        "--write",
        action="store_true",
        help="write the results to tested_versions.json in src, and into README.md and docs/versions.md",
    )
    modes.add_argument(
        "--renew", metavar="FILE", choices=list(renewal.TARGETS), help="write a file of versions anew: %(choices)s"
    )
    given = sys.argv[1:] if arguments is None else arguments
    at = given.index("--") if "--" in given else len(given)
    asked = parser.parse_args(given[:at])
    asked.pytest = given[at + 1 :]
    unknown = [name for name in asked.legs if name not in LEGS]
    if unknown:
        refuse(f"no leg {unknown[0]!r}; there are {', '.join(LEGS)}")
    if asked.legs and (asked.list or asked.renew):
        refuse(f"{'--list' if asked.list else '--renew'} takes no LEG; leave out {asked.legs[0]!r}")
    if asked.pytest and asked.write:
        refuse("--write takes no arguments for pytest: a file of tested versions is of the whole suite")
    asked.legs = list(dict.fromkeys(asked.legs)) or [leg.name for leg in LEGS.values() if not leg.on_request]
    return asked


def refuse(line: str) -> None:
    """End the program with one line and status 2."""
    print(f"{PROGRAM}: {line}", file=sys.stderr)
    raise SystemExit(2)


def list_legs() -> None:
    """Print the legs with their Python and their description."""
    for leg in LEGS.values():
        there = "" if interpreter_for(leg.python) else " (not found: is skipped)"
        request = "  on request" if leg.on_request else ""
        print(f"{leg.name:<11} Python {leg.python}{there}  {leg.what}{request}")


@contextlib.contextmanager
def alone() -> Iterator[None]:
    """Lock the environments: a second call waits, because both would create the same ones."""
    ENVIRONMENTS.mkdir(parents=True, exist_ok=True)
    with (ENVIRONMENTS / "lock").open("w", encoding="utf-8") as lock:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError:
            print(f"{PROGRAM}: waits for another call in this checkout", file=sys.stderr, flush=True)
            fcntl.flock(lock, fcntl.LOCK_EX)
        yield


def forget_what_is_outdated(session: str) -> None:
    """Remove the mark of an environment that nox will remove: an interrupted removal must not look complete."""
    leg = LEGS.get(session)
    interpreter = interpreter_for(leg.python) if leg is not None else None
    if leg is not None and (interpreter is None or not is_ready(leg, interpreter)):
        mark_of(leg.environment).unlink(missing_ok=True)


def run_nox(session: str, *options: str, output: IO[str] | None = None) -> tuple[str, str]:
    """Run one session; without `output`, its output goes to the screen.

    Returns nox's word for its result, and the reason if it was skipped.
    """
    report = ENVIRONMENTS / f"{session}.report.json"
    report.unlink(missing_ok=True)
    forget_what_is_outdated(session)
    command = [sys.executable, "-P", "-m", "nox", "--noxfile", str(NOXFILE), "--no-error-on-missing-interpreters"]
    command += ["--report", str(report), "--sessions", session, *options]
    subprocess.run(command, stdout=output, stderr=output, check=False)  # noqa: S603
    try:
        (told,) = json.loads(report.read_text(encoding="utf-8"))["sessions"]
    except (OSError, ValueError):
        return "failed", ""
    return told["result"], told["reason"] or ""


def run_together(names: list[str], pytest: list[str]) -> list[results.Result]:
    """Run legs at the same time; print the output of each in one piece."""

    def run(name: str) -> results.Result:
        with LEGS[name].log.open("w+", encoding="utf-8") as output:
            result = run_leg(name, pytest, output)
            output.seek(0)
            print(output.read(), end="", flush=True)
        return result

    with ThreadPoolExecutor(len(names)) as threads:
        return list(threads.map(run, names))


def run_leg(name: str, pytest: list[str], output: IO[str] | None = None) -> results.Result:
    """Run one leg and print its result; without `output`, its output goes to the screen."""
    leg = LEGS[name]
    print(f"=== {name}: {leg.what}", file=output, flush=True)
    for former in (leg.junit, leg.versions):
        former.unlink(missing_ok=True)
    started = time.monotonic()
    session, _ = run_nox(name, *(["--", *pytest] if pytest else []), output=output)
    lacking = f"no Python {leg.python} was found"
    result = results.read_result(leg, session=session, reason=lacking, seconds=time.monotonic() - started)
    print(f"=== {name}: {result.result}{f' ({result.reason})' if result.reason else ''}", file=output, flush=True)
    return result


def tell_today(result: results.Result) -> None:
    """Print how ``newest`` differs from what pip installs today."""
    newest = pins((ROOT / NEWEST).read_text(encoding="utf-8"))
    changed = renewal.differences(newest, renewal.portable(result.versions))
    print(f"\n{NEWEST} differs from what is newest today in {len(changed)} packages" + (":" if changed else ""))
    print("".join(f"  {line}\n" for line in changed), end="")
    if changed:
        print(f"To write them there, once the suite passes with them: scripts/{PROGRAM} --renew newest")


def main(arguments: list[str] | None = None) -> int:
    """Run what the command line requests; return the exit status."""
    asked = parsed(arguments)
    if asked.list:
        list_legs()
        return 0
    today = datetime.now(tz=UTC).date().isoformat()
    with alone():
        if asked.renew:
            session, _ = run_nox(f"renew-{asked.renew}")
            if session != "success":
                print(f"{PROGRAM}: nothing was written: the install did not succeed", file=sys.stderr)
                return 1
            shutil.rmtree(ENVIRONMENTS / f"renew-{asked.renew}")  # several GB, not needed any more
            print("\n".join(renewal.write(asked.renew, today)) or "nothing changed")
            return 0
        if asked.install_only:
            ended = [run_nox(name, "--install-only")[0] for name in asked.legs]
            return int("failed" in ended)
        if asked.together:
            found = run_together(asked.legs, asked.pytest)
        else:
            found = [run_leg(name, asked.pytest) for name in asked.legs]
    for each in found:
        if each.leg == "today" and each.versions:
            tell_today(each)
    print("\n" + results.table(found), flush=True)
    if asked.write:
        print(f"written to {', '.join(path.name for path in results.write(found, today))}")
    return int(any(each.result == "failed" for each in found))


if __name__ == "__main__":
    try:
        status = main()
    except KeyboardInterrupt:
        print(f"{PROGRAM}: interrupted; an environment whose install was not finished is made anew", file=sys.stderr)
        status = 130
    sys.exit(status)
