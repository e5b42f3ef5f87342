"""Test jobs that share a host: their order, their records of each other, and real jobs started at the same time."""

from __future__ import annotations

import contextlib
import json
import os
import signal
import stat
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from pathlib import Path

import psutil
import pytest

import fake_nvml
import faults
from bench.config.schema import BenchmarkConfig, ModelConfig
from bench.host import gpus
from bench.jobs.job import new_record
from bench.jobs.process import neighbours
from bench.jobs.process.neighbours import Needs, Turn, among_neighbours, gpus_of, host_folder, needs_of
from bench.results.file_names import RECORD_NAME
from bench.results.record import Neighbours, Record
from snapshots import snapshot
from started import Started, alive_after, make_model, started

ONE, TWO, INSTANCE = "GPU-11111111-aaaa", "GPU-22222222-bbbb", "MIG-33333333-cccc"
TICKETS = "job-*"


def unheard(neighbour: str | None, waited_s: float) -> None:
    """Ignore the messages of a wait."""


def needs(name: str = "job", gpu: str | None = None, cores: tuple[int, ...] = (0, 1)) -> Needs:
    return Needs(name=name, pid=os.getpid(), gpus=frozenset({gpu} if gpu else ()), cores=frozenset(cores))


class ImpatientError(Exception):
    """Raised in a job that would have to wait."""


def at_once(folder: Path, wanted: Needs, *, overlap: bool = False) -> Turn | None:
    """Take the turn if that needs no wait; otherwise return None."""
    turn = Turn(folder, wanted)

    def refuse(neighbour: str | None, waited_s: float) -> None:
        if neighbour is not None:
            raise ImpatientError

    try:
        turn.take(overlap=overlap, on_wait=refuse)
    except ImpatientError:
        return None
    return turn


class Waiting:
    """A job that waits for its turn in a separate thread."""

    def __init__(self, folder: Path, wanted: Needs) -> None:
        self.turn, self.waits, self.runs = Turn(folder, wanted), threading.Event(), threading.Event()
        self.heard: list[str | None] = []
        self.at_start: int | None = None
        self._thread = threading.Thread(target=self._take, daemon=True)
        self._thread.start()
        assert self.waits.wait(30)

    def _take(self) -> None:
        self.at_start = self.turn.take(overlap=False, on_wait=self._hear)
        self.runs.set()

    def _hear(self, neighbour: str | None, waited_s: float) -> None:
        self.heard.append(neighbour)
        self.waits.set()


# ---- who waits for whom --------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("first", "second", "clash"),
    [
        (needs(cores=(0, 1)), needs(cores=(1, 2)), True),
        (needs(cores=(0, 1)), needs(cores=(2, 3)), False),
        (needs(gpu=ONE), needs(gpu=TWO), False),
        (needs(gpu=ONE, cores=(0,)), needs(gpu=ONE, cores=(1,)), True),
        (needs(gpu=ONE, cores=(0, 1)), needs(cores=(1,)), True),
        (needs(gpu=ONE, cores=(0,)), needs(cores=(1,)), False),
        (needs(gpu=INSTANCE), needs(gpu=INSTANCE), True),
    ],
)
def test_a_gpu_is_exclusive_and_so_are_cores_unless_both_jobs_use_a_gpu(tmp_path, first, second, clash) -> None:
    for one, other in ((first, second), (second, first)):
        with at_once(tmp_path, one):
            turn = at_once(tmp_path, other)
            assert (turn is None) == clash
            if turn is not None:
                turn.leave()


def test_a_job_may_ask_to_run_beside_others_and_both_record_it(tmp_path) -> None:
    first = Turn(tmp_path, needs())
    assert first.take(overlap=False, on_wait=unheard) == 0
    second = Turn(tmp_path, needs())
    assert second.take(overlap=True, on_wait=unheard) == 1
    assert (second.leave(), first.leave()) == (0, 1)


def test_jobs_that_came_and_left_are_counted(tmp_path) -> None:
    with Turn(tmp_path, needs(cores=(0,))) as long:
        long.take(overlap=False, on_wait=unheard)
        for _ in range(3):
            with Turn(tmp_path, needs(cores=(1,))) as short:
                assert short.take(overlap=False, on_wait=unheard) == 1
        assert long.leave() == 3


def test_jobs_run_in_order_of_arrival(tmp_path) -> None:
    running = at_once(tmp_path, needs("first"))
    second = Waiting(tmp_path, needs("second", cores=(0, 1)))
    third = Waiting(tmp_path, needs("third", cores=(1, 2)))
    assert at_once(tmp_path, needs("fourth", cores=(2,))) is None  # free, but promised to the third
    assert not second.runs.is_set()
    running.leave()
    assert second.runs.wait(30)
    assert not third.runs.is_set()
    second.turn.leave()
    assert third.runs.wait(30)
    assert third.turn.leave() == 0
    assert list(tmp_path.glob(TICKETS)) == []


def test_a_job_that_shares_nothing_with_waiting_jobs_starts_at_once(tmp_path) -> None:
    with at_once(tmp_path, needs(cores=(0,))):
        waiting = Waiting(tmp_path, needs(cores=(0,)))
        with at_once(tmp_path, needs(cores=(5,))) as other:
            assert other is not None
        assert not waiting.runs.is_set()
    assert waiting.runs.wait(30)
    waiting.turn.leave()


def test_a_waiting_job_is_no_neighbour(tmp_path) -> None:
    with at_once(tmp_path, needs(cores=(0,))) as running:
        waiting = Waiting(tmp_path, needs(cores=(0,)))
        with Turn(tmp_path, needs(cores=(5,))) as other:
            assert other.take(overlap=False, on_wait=unheard) == 1
        assert running.leave() == 1
    assert waiting.runs.wait(30)
    assert (waiting.at_start, waiting.turn.leave()) == (0, 0)


def test_the_wait_and_its_end_are_reported(tmp_path) -> None:
    with at_once(tmp_path, needs("eager")):
        waiting = Waiting(tmp_path, needs())
    assert waiting.runs.wait(30)
    waiting.turn.leave()
    assert set(waiting.heard[:-1]) == {f"eager, pid {os.getpid()}"}
    assert waiting.heard[-1] is None


def test_an_interrupted_wait_leaves_no_ticket(tmp_path) -> None:
    def interrupt(neighbour: str | None, waited_s: float) -> None:
        if neighbour is not None:
            raise KeyboardInterrupt

    with at_once(tmp_path, needs()):
        with pytest.raises(KeyboardInterrupt):
            Turn(tmp_path, needs()).take(overlap=False, on_wait=interrupt)
        assert len(list(tmp_path.glob(TICKETS))) == 1


# ---- invalid tickets --------------------------------------------------------------------------------------------

HOLDER = """
import sys, time
from pathlib import Path
from bench.jobs.process.neighbours import Needs, Turn
turn = Turn(Path(sys.argv[1]), Needs(name="holder", pid=1, gpus=frozenset(), cores=frozenset({0, 1})))
print(turn.take(overlap=False, on_wait=lambda *_: None), flush=True)
time.sleep(600)
"""


@contextlib.contextmanager
def holder(folder: Path) -> Iterator[subprocess.Popen[str]]:
    """Start a process that takes its turn and keeps it."""
    command = [sys.executable, "-c", HOLDER, str(folder)]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as process:
        try:
            assert process.stdout is not None
            assert process.stdout.readline() == "0\n"
            yield process
        finally:
            process.kill()


def test_the_ticket_of_a_killed_job_is_ignored_and_removed(tmp_path) -> None:
    with holder(tmp_path) as process:
        assert at_once(tmp_path, needs()) is None
        process.kill()
        process.wait()
        assert len(list(tmp_path.glob(TICKETS))) == 1
        with at_once(tmp_path, needs()) as turn:
            assert turn is not None
            assert len(list(tmp_path.glob(TICKETS))) == 1
    assert list(tmp_path.glob(TICKETS)) == []


def test_a_users_file_named_like_a_ticket_is_kept(tmp_path) -> None:
    for name in ("job-1.running", "job-notes-12345678.waiting", "job-1-1234567.running"):
        (tmp_path / name).write_text("mine")
    before = snapshot(tmp_path)
    with at_once(tmp_path, needs()):
        assert len(list(tmp_path.iterdir())) == 4
    assert {name: each[:2] for name, each in snapshot(tmp_path).items()} == {n: e[:2] for n, e in before.items()}


def test_killing_a_job_starts_the_job_that_waited_for_it(tmp_path) -> None:
    with holder(tmp_path) as process:
        waiting = Waiting(tmp_path, needs())
        process.kill()
        assert waiting.runs.wait(30)
        waiting.turn.leave()


def test_a_job_of_another_host_in_a_shared_folder_is_no_neighbour(tmp_path, monkeypatch) -> None:
    with monkeypatch.context() as elsewhere:
        elsewhere.setattr(neighbours, "_host", lambda: "far away")
        there = at_once(tmp_path, needs())
    with Turn(tmp_path, needs()) as here:
        assert here.take(overlap=False, on_wait=unheard) == 0
        assert there.leave() == 0


@pytest.mark.parametrize(
    "content",
    [
        b"",
        b"{",
        b"[]",
        b"{}",
        b"\xff",
        b"[" * 100_000,
        json.dumps({"host": neighbours._host(), "number": 1, "name": "x", "pid": float("inf"), "gpus": [], "cores": [0]})
        .encode(),
    ],
)  # fmt: skip
def test_foreign_files_in_the_ticket_folder_are_ignored(tmp_path, content: bytes) -> None:
    path = tmp_path / "job-x.running"
    path.write_bytes(content)
    os.mkfifo(tmp_path / "job-fifo.running")
    (tmp_path / "job-link.running").symlink_to("/nowhere")
    (tmp_path / "job-folder.running").mkdir()
    with Turn(tmp_path, Needs(name="x", pid=1, gpus=frozenset(), cores=frozenset({0}))) as turn, path.open() as held:
        neighbours.fcntl.flock(held, neighbours.fcntl.LOCK_EX)
        assert turn.take(overlap=False, on_wait=unheard) == 0
        assert turn.leave() == 0


def test_lines_are_written_only_to_tickets(tmp_path) -> None:
    """A ticket's name that another user made a link is never written through."""
    precious = tmp_path / "precious"
    precious.write_text("mine")
    (tmp_path / "job-soft.running").symlink_to(precious)
    os.link(precious, tmp_path / "job-hard.running")
    with pytest.raises(OSError, match="symbolic"):
        neighbours._notify(tmp_path / "job-soft.running", "line\n")
    neighbours._notify(tmp_path / "job-hard.running", "line\n")
    assert precious.read_text() == "mine"


def test_all_users_can_use_the_folder_and_its_tickets(tmp_path) -> None:
    before = os.umask(0o077)
    try:
        with at_once(tmp_path / "host", needs()):
            (ticket,) = (tmp_path / "host").glob(TICKETS)
            assert stat.S_IMODE(ticket.stat().st_mode) == 0o666
    finally:
        os.umask(before)
    assert stat.S_IMODE((tmp_path / "host").stat().st_mode) == 0o1777


# ---- resources of a job ----------------------------------------------------------------------------------------------


@pytest.fixture
def nvml(monkeypatch):
    """Fake NVML with two cards that CUDA numbers as NVML does."""
    monkeypatch.setattr(gpus, "pynvml", fake_nvml)
    monkeypatch.setattr(fake_nvml, "settings", fake_nvml.DEFAULTS | {"raises": {}})
    monkeypatch.setitem(fake_nvml._state, "initialised", 0)
    monkeypatch.setattr(neighbours, "_torch_has_no_cuda", lambda: False)
    monkeypatch.delenv("CUDA_VISIBLE_DEVICES", raising=False)
    monkeypatch.delenv("CUDA_DEVICE_ORDER", raising=False)
    yield fake_nvml.settings
    assert fake_nvml._state["initialised"] == 0


def of(device: str, **keywords: object) -> BenchmarkConfig:
    return BenchmarkConfig(device=device, model=ModelConfig(id="org/tiny", **keywords))


@pytest.mark.parametrize(
    ("visible", "device", "found"),
    [
        (None, "cpu", []),
        (None, "auto", [ONE]),
        (None, "cuda", [ONE]),
        (None, "cuda:1", [TWO]),
        ("1", "auto", [TWO]),
        ("1", "cuda:0", [TWO]),
        ("1,0", "cuda:1", [ONE]),
        ("GPU-2", "cuda", [TWO]),
        (INSTANCE, "auto", [INSTANCE]),
        (f"0,{INSTANCE}", "cuda:1", [INSTANCE]),
        ("", "auto", []),
        ("-1", "auto", []),
        (None, "cuda:7", [ONE, TWO]),  # which card this is cannot be known
    ],
)
def test_the_gpu_of_a_job_is_the_one_cuda_selects(nvml, monkeypatch, visible, device, found) -> None:
    if visible is not None:
        monkeypatch.setenv("CUDA_VISIBLE_DEVICES", visible)
    assert gpus_of(of(device)) == found


@pytest.mark.parametrize(("size", "found"), [(2, ["GPU-c", "GPU-a"]), ("auto", ["GPU-c", "GPU-a", "GPU-b"])])
def test_a_model_split_over_gpus_uses_all_of_them(nvml, monkeypatch, size, found) -> None:
    nvml["gpus"] = [{"uuid": f"GPU-{each}", "name": "same"} for each in "abcd"]
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "2,0,1")
    assert gpus_of(of("auto", tp_size=size)) == found


def test_a_job_takes_all_cards_if_they_differ_in_unknown_order(nvml) -> None:
    nvml["gpus"][0]["name"], before = "another", nvml["gpus"][0]["name"]
    try:
        assert gpus_of(of("cuda:1")) == [ONE, TWO]
    finally:
        nvml["gpus"][0]["name"] = before


def test_without_nvml_a_cuda_device_is_identified_by_its_name(nvml, monkeypatch) -> None:
    nvml["raises"] = {"nvmlInit": "LibraryNotFound"}
    assert gpus_of(of("auto")) == []
    assert gpus_of(of("cuda")) == gpus_of(of("cuda:0")) == ["cuda:0"]
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "3")
    assert gpus_of(of("cuda:0")) == ["cuda:3"]


def test_a_torch_build_without_cuda_takes_no_gpu_by_default(nvml, monkeypatch) -> None:
    monkeypatch.setattr(neighbours, "_torch_has_no_cuda", lambda: True)
    assert gpus_of(of("auto")) == []


def test_jobs_run_side_by_side_on_two_gpus_and_wait_on_one(nvml, tmp_path) -> None:
    first, other, same = (needs_of(of(device), device) for device in ("cuda:0", "cuda:1", "cuda:0"))
    with at_once(tmp_path, first) as running, Turn(tmp_path, other) as beside:
        assert beside.take(overlap=False, on_wait=unheard) == 1
        assert at_once(tmp_path, same) is None
        assert (beside.leave(), running.leave()) == (0, 1)


# ---- in the record -------------------------------------------------------------------------------------------------


@pytest.fixture
def host(tmp_path, monkeypatch) -> Path:
    """Create the ticket folder of a separate host."""
    folder = tmp_path / "host"
    monkeypatch.setenv("BENCH_HOST_FOLDER", str(folder))
    return folder


def on_cpu(*, overlap: bool = False) -> BenchmarkConfig:
    config = of("cpu")
    config.isolation.share_device = overlap
    return config


def test_a_record_lists_neighbours_at_the_start_and_later_ones(host, tmp_path) -> None:
    config = on_cpu(overlap=True)
    record = new_record(config)
    neighbours._make(host)
    with at_once(host, needs_of(config, "before")), among_neighbours(config, record, tmp_path, unheard):
        assert record.neighbours == Neighbours(at_start=1, came=0, waited_s=record.neighbours.waited_s)
        record.status = "ok"
        record.write(tmp_path)
        for _ in range(2):
            at_once(host, needs_of(config, "later"), overlap=True).leave()
    assert (record.neighbours.at_start, record.neighbours.came) == (1, 2)
    assert Record.read(tmp_path) == record


def test_the_wait_is_not_part_of_the_jobs_time(host, tmp_path) -> None:
    neighbours._make(host)
    other = at_once(host, needs_of(on_cpu(), "other"))
    record = new_record(on_cpu())
    heard = threading.Event()

    def let_go() -> None:
        assert heard.wait(30)
        other.leave()

    thread = threading.Thread(target=let_go)
    thread.start()
    before_s = record.started_at_s
    with among_neighbours(on_cpu(), record, tmp_path, lambda *_: heard.set()):
        assert record.neighbours.waited_s > 0
        assert record.started_at_s - before_s >= record.neighbours.waited_s * 0.9  # two clocks
    thread.join()


def test_ctrl_c_while_waiting_leaves_a_record_of_a_job_that_did_not_run(host, tmp_path) -> None:
    def interrupt(neighbour: str | None, waited_s: float) -> None:
        if neighbour is not None:
            raise KeyboardInterrupt

    neighbours._make(host)
    with at_once(host, needs_of(on_cpu(), "eager")):
        record = new_record(on_cpu())
        with pytest.raises(KeyboardInterrupt), among_neighbours(on_cpu(), record, tmp_path, interrupt):
            raise AssertionError("it ran")
    kept = Record.read(tmp_path)
    assert (kept.status, kept.stage, kept.iterations) == ("interrupted", "start", [])
    assert kept.error.message == f"by the user, while it waited for eager, pid {os.getpid()}"


@pytest.mark.parametrize("trouble", ["a file", "no permission", "read-only", "held"])
def test_with_an_unusable_folder_the_job_runs_and_says_why(host, tmp_path, monkeypatch, trouble) -> None:
    held = contextlib.nullcontext()
    if trouble == "a file":
        host.write_text("")
        why = "Not a directory"
    elif trouble == "held":
        monkeypatch.setattr(neighbours, "REGISTRY_S", 0.05)
        neighbours._make(host)
        held = neighbours._registry(host)
        why = "another process has held its lock for 0.05 s"
    else:
        number = {"no permission": neighbours.errno.EACCES, "read-only": neighbours.errno.EROFS}[trouble]
        why = os.strerror(number)

        def refuse(*_: object) -> None:
            raise OSError(number, why)

        monkeypatch.setattr(Path, "mkdir" if trouble == "no permission" else "chmod", refuse)
    record = new_record(on_cpu())
    with held, among_neighbours(on_cpu(), record, tmp_path, unheard):
        pass
    assert record.neighbours.unknown == f"{host}: {why}"
    assert (record.neighbours.at_start, record.neighbours.came) == (0, 0)


def test_the_folder_can_be_chosen(monkeypatch) -> None:
    monkeypatch.setenv("BENCH_HOST_FOLDER", "/somewhere/else")
    assert host_folder() == Path("/somewhere/else")
    for unset in ("", None):
        monkeypatch.delenv("BENCH_HOST_FOLDER", raising=False)
        if unset is not None:
            monkeypatch.setenv("BENCH_HOST_FOLDER", unset)
        assert host_folder() == neighbours.DEFAULT_FOLDER


# ---- real jobs -----------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def model(tmp_path_factory) -> Path:
    return make_model(tmp_path_factory.mktemp("faulty") / "model")


@contextlib.contextmanager
def together(
    tmp_path: Path, model: Path, *arguments: str, cores: tuple[int | None, int | None] = (None, None)
) -> Iterator[tuple[Started, Started]]:
    """Start two commands at the same time in two folders, each on its core if one is named."""

    def prepare(core: int | None) -> Callable[[], None]:
        def pin() -> None:
            for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
                signal.signal(number, signal.SIG_DFL)
            if core is not None:
                os.sched_setaffinity(0, {core})

        return pin

    folders = [tmp_path / "one", tmp_path / "two"]
    for each in folders:
        each.mkdir()
    with (
        started(folders[0], model, *arguments, prepare=prepare(cores[0])) as first,
        started(folders[1], model, *arguments, prepare=prepare(cores[1])) as second,
    ):
        yield first, second


def finished(*runs: Started) -> list[Record]:
    """Return the records of single runs, the earliest first; all must be ok."""
    for each in runs:
        assert each.process.wait(300) == 0, each.out + each.err
    found = [Record.read(path) for run in runs for path in run.folder.glob(f"outputs/*/{RECORD_NAME}")]
    assert len(found) == len(runs)
    return sorted(found, key=lambda record: record.started_at_s)


def overlap_s(first: Record, second: Record) -> float:
    assert first.ended_at_s is not None
    return first.ended_at_s - second.started_at_s


@pytest.fixture
def held(model) -> Iterator[Path]:
    """Create a model whose jobs stay in their first call until the file `leave` exists."""
    faults.plant(model, {1: ("wait_for_leave", 0)})
    yield model
    (model / "leave").unlink(missing_ok=True)


def tickets(folder: Path) -> list[str]:
    """Return the states that the tickets give."""
    return sorted(each.suffix for each in folder.glob(TICKETS))


@pytest.mark.slow
def test_two_jobs_started_at_once_run_one_after_the_other(host, held, tmp_path) -> None:
    with together(tmp_path, held, "fidelity.reference=eager") as runs:
        runs[0].wait_until(lambda: any("waiting for a neighbour: " in each.out for each in runs))
        assert tickets(host) == [".running", ".waiting"]  # the first is at its reference run
        (held / "leave").touch()
        first, second = finished(*runs)
    assert overlap_s(first, second) <= 0
    assert first.neighbours.waited_s < second.neighbours.waited_s
    assert second.neighbours.waited_s >= 1
    for each in (first, second):
        assert (each.neighbours.count, each.neighbours.unknown) == (0, None)
    assert sorted(each.out.count("waiting for a neighbour: ") for each in runs) == [0, 1]
    assert tickets(host) == []


@pytest.mark.slow
@pytest.mark.parametrize(
    ("arguments", "cores"),
    [
        (("isolation.share_device=true",), (None, None)),
        pytest.param(
            (),
            (0, 1),
            marks=pytest.mark.skipif(not {0, 1} <= os.sched_getaffinity(0), reason="needs the cores 0 and 1"),
        ),
    ],
    ids=["because they may", "on cores of their own"],
)
def test_two_jobs_run_side_by_side_and_each_has_a_neighbour(host, held, tmp_path, arguments, cores) -> None:
    with together(tmp_path, held, *arguments, cores=cores) as runs:
        runs[0].wait_until(lambda: tickets(host) == [".running", ".running"])
        (held / "leave").touch()
        first, second = finished(*runs)
    assert overlap_s(first, second) > 0
    assert [(each.neighbours.at_start, each.neighbours.came) for each in (first, second)] == [(0, 1), (1, 0)]
    assert all("1 job had neighbours on the same host" in each.out for each in runs)


def holds(process: psutil.Process, folder: Path) -> bool:
    """Return whether a process has the folder or a file in it open."""
    files = [str(each.readlink()) for each in Path(f"/proc/{process.pid}/fd").iterdir()]
    return any(each.startswith(str(folder)) for each in files)


@pytest.mark.slow
def test_a_job_killed_with_all_its_processes_blocks_no_other(host, model, tmp_path) -> None:
    faults.plant(model, {1: ("measure_on", 3)})
    dead = tmp_path / "dead"
    dead.mkdir()
    with started(dead, model) as run:
        run.wait_for_fault()
        assert tickets(host) == [".running"]
        family = run.family()
        assert [each.name() for each in family if holds(each, host)] == []  # the lock ends with the command itself
        for each in [psutil.Process(run.process.pid), *family]:
            with contextlib.suppress(psutil.Error):
                each.kill()
        run.process.wait(60)
        assert alive_after(family, 30) == []
    assert tickets(host) == [".running"]  # no process was left to remove it
    faults.plant(model, {})
    with started(tmp_path, model) as run:
        (record,) = finished(run)
    assert record.neighbours.count == 0
    assert "waiting" not in run.out
    assert tickets(host) == []


@pytest.mark.slow
@pytest.mark.parametrize("command", [(), ("-m", "workload.batch_size=1,2")])
def test_ctrl_c_while_waiting_ends_the_command_at_once(host, model, tmp_path, command) -> None:
    faults.plant(model, {})
    with holder(host), started(tmp_path, model, *command) as run:
        run.wait_until(lambda: "waiting for a neighbour: holder, pid 1\n" in run.out)
        family = run.family()
        run.process.send_signal(signal.SIGINT)
        assert run.process.wait(60) == 130
        assert alive_after(family, 20) == []
    (path,) = [*tmp_path.glob(f"outputs/*/{RECORD_NAME}"), *tmp_path.glob(f"multirun/*/*/{RECORD_NAME}")]
    record = Record.read(path)
    assert (record.status, record.stage, record.iterations) == ("interrupted", "start", [])
    assert record.neighbours.waited_s > 0
    assert "Traceback" not in run.out + run.err
    assert tickets(host) == [".running"]  # the holder's, which was killed


@pytest.mark.slow
@pytest.mark.parametrize("trouble", ["a file", "of another user"])
def test_a_real_job_runs_with_an_unusable_folder(host, model, tmp_path, trouble: str) -> None:
    if trouble == "a file":
        host.write_text("")
        why = "Not a directory"
    elif os.geteuid() == 0:
        pytest.skip("root writes where nobody else may")
    else:
        host.mkdir(mode=0o500)
        why = "Permission denied"
    faults.plant(model, {})
    with started(tmp_path, model) as run:
        (record,) = finished(run)
    assert record.neighbours.unknown == f"{host}: {why}"
    assert "neither counted nor kept apart" in run.out
