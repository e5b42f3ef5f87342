"""Run the tests marked `as_user` in unusual user environments: another user id, home and temporary folder.

    scripts/test as-user [PYTEST ARGUMENTS]

Each environment has a user id without an entry in the passwd file, and umask 077. In addition:

    no-home     HOME is not set, and the path of TMPDIR is too long for a socket
    bare-home   HOME is a folder that is not writable; only tests/test_as_user.py

The tests themselves place modules with names of libraries in the start folder.

Both environments run at the same time, because most of their work is one process after the other. The output of the
second is printed after that of the first.

The user id comes from a user namespace (unshare), in which that user owns the caller's files; or, for root on a system
that forbids namespaces, from setpriv. If the system forbids both, the script says so and runs nothing.
Exit status: that of pytest.
"""

from __future__ import annotations

import os
import shutil
import stat
import subprocess
import sys
import tempfile
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import IO

CHECKOUT = Path(__file__).resolve().parents[1]
USER = 54321
LONG = "a-temporary-folder-whose-path-is-far-too-long-for-the-socket-of-a-fork-server-" + "x" * 30
KEPT = ("PATH", "LANG", "LC_ALL", "CI", "OPENBLAS_CORETYPE", "OPENBLAS_L2_SIZE", "BENCH_TEST_OUTPUT")
DESKS = ("no-home", "bare-home")


def main(arguments: list[str]) -> int:
    """Run the tests in each environment; return the exit status."""
    sys.stdout.reconfigure(line_buffering=True)
    try:
        prefix = other_user()
    except RuntimeError as error:
        print(f"as another user: skipped, for {error}")
        return 0
    print(f"=== as another user, at the desks {' and '.join(DESKS)}: {' '.join(prefix)}")
    with ThreadPoolExecutor(len(DESKS)) as threads, tempfile.TemporaryFile() as kept:
        first, *others = (
            threads.submit(tried_at, desk, prefix, arguments, None if desk == DESKS[0] else kept) for desk in DESKS
        )
        statuses = [first.result()]
        for desk, other in zip(DESKS[1:], others, strict=True):
            statuses.append(other.result())
            kept.seek(0)
            print(f"=== as another user, at the desk {desk}\n{kept.read().decode(errors='replace')}")
    return max(statuses)


def tests_for(desk: str) -> list[Path]:
    """Return the files with tests for an environment; collecting all others takes ten seconds per process."""
    if desk == "bare-home":
        return [CHECKOUT / "tests/test_as_user.py"]
    return [each for each in sorted(CHECKOUT.glob("tests/**/test_*.py")) if "mark.as_user" in each.read_text("utf-8")]


def other_user() -> list[str]:
    """Return the command that runs another one under a user id without passwd entry. Raises RuntimeError if none works.

    Each candidate is tested: it must read the checkout and start Python.
    """
    ways = [["unshare", "--user", f"--map-user={USER}", f"--map-group={USER}", "--"]]
    if os.getuid() == 0:
        ways.append(["setpriv", f"--reuid={USER}", f"--regid={USER}", "--clear-groups", "--"])
    reasons = []
    check = f"import os, pytest; assert os.getuid() == {USER}; open({str(CHECKOUT / 'pyproject.toml')!r}).close()"
    for way in ways:
        if shutil.which(way[0]) is None:
            reasons.append(f"there is no {way[0]}")
            continue
        ended = subprocess.run(  # noqa: S603 - our own code, no shell
            [*way, sys.executable, "-P", "-c", check], capture_output=True, text=True, check=False
        )
        if ended.returncode == 0:
            return way
        reasons.append(f"{way[0]}: {(ended.stderr.strip().splitlines() or ['no reason given'])[-1]}")
    raise RuntimeError("; ".join(reasons))


def tried_at(desk: str, prefix: list[str], arguments: list[str], output: IO[bytes] | None) -> int:
    """Set up one environment, run its tests in it, and remove it; return pytest's exit status."""
    folder = Path(tempfile.mkdtemp(prefix="bench-desk-"))
    try:
        return run_at(desk, folder, prefix, arguments, output)
    finally:
        remove(folder)


def run_at(desk: str, folder: Path, prefix: list[str], arguments: list[str], output: IO[bytes] | None) -> int:
    """Run pytest in the environment set up in `folder`; return its exit status. `output` None: to the screen."""
    start, home, temporary = folder / "start", folder / "home", folder / "tmp"
    if desk == "no-home":
        temporary /= LONG
    for each in (start, home, temporary):
        each.mkdir(parents=True)
    environment = {name: os.environ[name] for name in KEPT if name in os.environ}
    environment |= {"TMPDIR": str(temporary), "BENCH_TEST_DESK": desk}
    if desk == "bare-home":
        environment["HOME"] = str(home)
    if prefix[0] == "setpriv":
        for each in (folder, start, home, *temporary.parents, temporary):
            if each.is_relative_to(folder):
                os.chown(each, USER, USER)
    home.chmod(0o555)
    command = [*prefix, sys.executable, "-P", "-m", "pytest", "-p", "no:cacheprovider", "-m", "as_user"]
    command += [f"--rootdir={CHECKOUT}", f"--config-file={CHECKOUT / 'pyproject.toml'}", *map(str, tests_for(desk))]
    ended = subprocess.run(  # noqa: S603 - pytest, with the arguments as typed
        [*command, *arguments], cwd=start, env=environment, umask=0o077, stdout=output, stderr=output, check=False
    )
    return abs(ended.returncode)


def remove(folder: Path) -> None:
    """Remove everything that the tests left, including read-only folders."""
    for path, folders, _ in os.walk(folder):
        for each in folders:
            target = Path(path, each)
            if not target.is_symlink():
                target.chmod(stat.S_IRWXU)
    shutil.rmtree(folder, ignore_errors=True)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
