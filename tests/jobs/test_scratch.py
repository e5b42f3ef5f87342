"""Test a job's temporary disk use: the bounded log, the compile cache and the space reserved for the record."""

from __future__ import annotations

import dataclasses
import errno
import fcntl
import os
import signal
import subprocess
import sys
import tempfile
import threading
import time
from pathlib import Path

import pytest

from bench.config.schema import BenchmarkConfig, IsolationConfig, MeasurementConfig, MonitorConfig, WarmupConfig
from bench.host import cache_folder
from bench.host.cache_folder import LOCK_NAME
from bench.jobs.folders.scratch import (
    LEAST_FREE_BYTES,
    LOG_HEAD_BYTES,
    LOG_LIMIT_BYTES,
    LOG_TAIL_BYTES,
    bound_log,
    check_space,
    compile_cache,
    last_lines,
    record_bytes,
    remove_stale_caches,
    reserved_space,
)
from bench.jobs.job import new_record, run_job
from bench.results.file_names import RECORD_NAME, RESERVE_NAME
from bench.results.record import Energy, Iteration, Monitor, MonitorSample, Output, Record
from factories import make_evidence, make_record
from small_disk import fill, make_read_only, small_disk
from snapshots import snapshot

pytestmark = pytest.mark.as_user

# ---- log -----------------------------------------------------------------------------------------------------------


def numbered(first: int, count: int) -> bytes:
    return b"".join(b"line %010d\n" % number for number in range(first, first + count))


def test_a_log_within_the_limit_is_unchanged(tmp_path) -> None:
    log = tmp_path / "worker.log"
    log.write_bytes(b"x" * LOG_LIMIT_BYTES)
    assert bound_log(log) == 0
    assert log.stat().st_size == LOG_LIMIT_BYTES


def test_a_longer_log_keeps_its_head_and_its_tail_and_says_how_much_is_cut(tmp_path) -> None:
    log = tmp_path / "worker.log"
    before = numbered(0, LOG_LIMIT_BYTES // 16 + 1)
    log.write_bytes(before)
    cut = bound_log(log)
    after = log.read_bytes()
    note = b"\n[bench: %d bytes are cut here; a log keeps its beginning and its end]\n" % cut
    assert after == before[:LOG_HEAD_BYTES] + note + before[-LOG_TAIL_BYTES:]
    assert cut == len(before) - LOG_HEAD_BYTES - LOG_TAIL_BYTES


def test_an_appending_writer_continues_at_the_end_of_the_cut_log(tmp_path) -> None:
    log = tmp_path / "worker.log"
    writer = os.open(log, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o644)
    try:
        os.write(writer, numbered(0, LOG_LIMIT_BYTES // 16 + 1))
        bound_log(log)
        size = log.stat().st_size
        os.write(writer, b"after the cut\n")
    finally:
        os.close(writer)
    assert log.stat().st_size == size + len(b"after the cut\n")  # no hole where the writer had been
    assert b"\0" not in log.read_bytes()
    assert log.read_bytes().endswith(b"after the cut\n")


def test_a_repeatedly_cut_log_stays_bounded(tmp_path) -> None:
    log = tmp_path / "worker.log"
    cut = 0
    for _ in range(5):
        with log.open("ab") as file:
            file.write(numbered(0, LOG_LIMIT_BYTES // 16))
        cut += bound_log(log)
    assert log.stat().st_size < LOG_HEAD_BYTES + LOG_TAIL_BYTES + 1000
    assert cut > 4 * LOG_LIMIT_BYTES


def test_a_writer_at_full_speed_loses_only_the_middle(tmp_path) -> None:
    log = tmp_path / "worker.log"
    program = f"""
import os, time
log = os.open({str(log)!r}, os.O_WRONLY | os.O_CREAT | os.O_APPEND)
for block in range(400):
    os.write(log, b"".join(b"line %010d\\n" % (block * 10000 + each) for each in range(10000)))
"""
    with subprocess.Popen([sys.executable, "-c", program]) as writer:
        while writer.poll() is None:
            bound_log(log)
    bound_log(log)
    lines = log.read_bytes().splitlines()
    assert lines[0] == b"line 0000000000"
    assert lines[-1] == b"line 0003999999"
    assert log.stat().st_size <= LOG_LIMIT_BYTES


def test_a_missing_log_is_not_created(tmp_path) -> None:
    assert bound_log(tmp_path / "worker.log") == 0
    assert list(tmp_path.iterdir()) == []


def test_evidence_is_the_end_of_the_log_with_long_lines_cut(tmp_path) -> None:
    log = tmp_path / "worker.log"
    log.write_bytes(numbered(0, 10_000) + b"y" * 1000 + b"\n\xff the end")
    text = last_lines(log, limit=500)
    assert len(text) == 500
    assert text.endswith(f"{'y' * 300}…\n\N{REPLACEMENT CHARACTER} the end")
    log.write_bytes(b"")
    assert last_lines(log) is None
    assert last_lines(tmp_path / "none") is None


# ---- compile cache -------------------------------------------------------------------------------------------------


@pytest.fixture
def temporary(tmp_path, monkeypatch) -> Path:
    """Set the folder for temporary files of this process and its children."""
    folder = tmp_path / "temporary"
    folder.mkdir()
    monkeypatch.setattr(tempfile, "tempdir", str(folder))
    monkeypatch.setenv("TMPDIR", str(folder))
    return folder


def test_a_compile_cache_is_removed_after_use(temporary) -> None:
    with compile_cache() as cache:
        (cache / "deep" / "er").mkdir(parents=True)
        (cache / "deep" / "er" / "code.py").write_text("1", encoding="utf-8")
    assert list(temporary.iterdir()) == []


def test_a_compile_cache_is_removed_after_an_exception(temporary) -> None:
    def work() -> None:
        with compile_cache() as cache:
            (cache / "code.py").write_text("1", encoding="utf-8")
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        work()
    assert list(temporary.iterdir()) == []


def test_an_already_removed_compile_cache_is_no_error(temporary) -> None:
    with compile_cache() as cache:
        for each in cache.iterdir():
            each.unlink()
        cache.rmdir()
    assert list(temporary.iterdir()) == []


HOLDER = """
import time
from bench.jobs.folders.scratch import compile_cache
with compile_cache() as cache:
    (cache / "code").mkdir()
    (cache / "code" / "graph.so").write_bytes(b"1")
    print(cache, flush=True)
    time.sleep(1000)
"""


def test_a_cache_in_use_is_kept_and_one_of_a_killed_parent_is_removed(temporary) -> None:
    with subprocess.Popen([sys.executable, "-c", HOLDER], stdout=subprocess.PIPE, text=True) as holder:
        try:
            cache = Path(holder.stdout.readline().strip())
            assert cache.parent == temporary
            assert remove_stale_caches() == 0
            assert (cache / "code" / "graph.so").exists()
        finally:
            holder.send_signal(signal.SIGKILL)
    assert cache.exists()  # it could not clean up
    assert remove_stale_caches() == 1
    assert list(temporary.iterdir()) == []


def test_a_folder_without_the_lock_file_is_not_ours(temporary) -> None:
    (temporary / "bench-compile-notes").mkdir()
    (temporary / "bench-compile-notes" / "thesis.tex").write_text("mine")
    (temporary / "bench-compile-empty").mkdir()
    before = snapshot(temporary)
    assert remove_stale_caches() == 0
    assert snapshot(temporary) == before


def test_a_partly_removed_cache_is_still_recognised(temporary, monkeypatch) -> None:
    folder, lock = cache_folder.make_temporary()
    for number in range(20):
        (folder / f"graph{number}").mkdir()

    class Killed(BaseException):
        pass

    real = cache_folder.shutil.rmtree
    left = iter(range(10))

    def rmtree(path: Path, **options: object) -> None:
        if next(left, None) is None:
            raise Killed
        real(path, **options)

    monkeypatch.setattr(cache_folder.shutil, "rmtree", rmtree)
    with lock, pytest.raises(Killed):
        cache_folder.remove(folder)
    monkeypatch.undo()
    assert len(list(folder.iterdir())) == 11
    monkeypatch.setattr(tempfile, "tempdir", str(temporary))
    assert remove_stale_caches() == 1


def test_a_symbolic_link_is_not_followed(temporary, tmp_path) -> None:
    elsewhere = tmp_path / "elsewhere"
    elsewhere.mkdir()
    (elsewhere / LOCK_NAME).touch()
    (elsewhere / "thesis.tex").touch()
    (temporary / "bench-compile-trap").symlink_to(elsewhere)
    assert remove_stale_caches() == 0
    assert sorted(each.name for each in elsewhere.iterdir()) == [LOCK_NAME, "thesis.tex"]


def test_removing_a_stale_cache_removes_only_the_link_not_its_target(temporary, tmp_path) -> None:
    (tmp_path / "elsewhere").mkdir()
    (tmp_path / "elsewhere" / "thesis.tex").touch()
    stale = temporary / "bench-compile-old"
    stale.mkdir()
    (stale / LOCK_NAME).touch()
    (stale / "link").symlink_to(tmp_path / "elsewhere")
    assert remove_stale_caches() == 1
    assert (tmp_path / "elsewhere" / "thesis.tex").exists()


def test_another_users_cache_and_other_folders_are_kept(temporary, monkeypatch) -> None:
    (temporary / "bench-compile-theirs").mkdir()
    (temporary / "bench-compile-theirs" / LOCK_NAME).touch()
    (temporary / "bench-preflight-x").mkdir()
    user = os.getuid()
    monkeypatch.setattr(cache_folder.os, "getuid", lambda: user + 1)
    assert remove_stale_caches() == 0
    assert len(list(temporary.iterdir())) == 2


def test_a_file_named_like_a_cache_is_no_cache(temporary) -> None:
    (temporary / "bench-compile-file").write_text("mine", encoding="utf-8")
    assert remove_stale_caches() == 0
    assert (temporary / "bench-compile-file").exists()


def test_a_cache_removed_as_stale_before_its_lock_is_created_again(temporary, monkeypatch) -> None:
    real, taken = fcntl.flock, []

    def flock(file: object, how: int) -> None:
        if not taken and how == fcntl.LOCK_EX:  # between creating the folder and locking it
            taken.append(True)
            assert remove_stale_caches() == 1
        real(file, how)

    monkeypatch.setattr(cache_folder.fcntl, "flock", flock)
    with compile_cache() as cache:
        assert taken
        assert cache.is_dir()
        assert remove_stale_caches() == 0
    assert list(temporary.iterdir()) == []


def test_concurrent_creation_and_removal_of_caches_do_not_conflict(temporary) -> None:
    stop, lost = time.monotonic() + 3, []

    def make() -> None:
        while time.monotonic() < stop:
            with compile_cache() as cache:
                time.sleep(0.001)
                if not (cache / LOCK_NAME).exists():
                    lost.append(cache)

    threads = [threading.Thread(target=make) for _ in range(3)]
    for each in threads:
        each.start()
    while time.monotonic() < stop:
        remove_stale_caches()
    for each in threads:
        each.join()
    assert lost == []
    remove_stale_caches()
    assert list(temporary.iterdir()) == []


# ---- the record's space --------------------------------------------------------------------------------------------


@pytest.fixture
def disk(tmp_path):
    with small_disk(tmp_path / "disk", 40) as folder:
        yield folder


def refused(folder: Path) -> int | None:
    """Return the errno of writing a file of 64 KiB there, None on success."""
    try:
        (folder / "try").write_bytes(b"x" * 65536)
    except OSError as error:
        return error.errno
    finally:
        (folder / "try").unlink(missing_ok=True)
    return None


def test_space_is_reserved_and_released(tmp_path) -> None:
    config = BenchmarkConfig()
    with reserved_space(config, tmp_path):
        reserve = (tmp_path / RESERVE_NAME).stat()
        assert reserve.st_size == record_bytes(config)
        assert reserve.st_blocks * 512 >= record_bytes(config)  # really allocated, not sparse
    assert list(tmp_path.iterdir()) == []


def test_a_full_disk_refuses_a_job_before_it_begins(disk) -> None:
    fill(disk / "filler", leave_bytes=record_bytes(BenchmarkConfig()) - 65536)
    with pytest.raises(OSError) as refusal, reserved_space(BenchmarkConfig(), disk):
        pytest.fail("the job would have begun")
    assert refusal.value.errno == errno.ENOSPC
    assert [each.name for each in disk.iterdir()] == ["filler"]


def test_a_record_is_written_though_the_disk_became_full_meanwhile(disk) -> None:
    record = make_record()
    with reserved_space(BenchmarkConfig(), disk):
        fill(disk / "filler")
        assert refused(disk) == errno.ENOSPC
        record.write(disk)
        assert Record.read(disk) == record
        record.stage = "evidence"  # and once more: a job writes its record more than once
        record.write(disk)
    assert Record.read(disk) == record
    assert sorted(each.name for each in disk.iterdir()) == ["filler", RECORD_NAME]


def test_without_reserved_space_a_record_is_refused_and_the_old_one_stays(disk) -> None:
    record = make_record()
    record.write(disk)
    fill(disk / "filler")
    with pytest.raises(OSError) as refusal:
        dataclasses.replace(record, status="failed").write(disk)
    assert refusal.value.errno == errno.ENOSPC
    assert Record.read(disk) == record
    assert sorted(each.name for each in disk.iterdir()) == ["filler", RECORD_NAME]


def test_a_full_disk_is_noticed_before_a_sweep(disk) -> None:
    check_space(disk / "multirun" / "new")
    assert list((disk / "multirun" / "new").iterdir()) == []  # the attempt leaves no file
    fill(disk / "filler", leave_bytes=LEAST_FREE_BYTES - 65536)
    with pytest.raises(OSError) as refusal:
        check_space(disk / "multirun" / "new")
    assert refusal.value.errno == errno.ENOSPC
    assert list((disk / "multirun" / "new").iterdir()) == []


def test_a_read_only_disk_is_noticed_before_a_sweep(disk) -> None:
    (disk / "there").mkdir()
    make_read_only(disk)
    for folder in (disk / "there", disk / "new"):
        with pytest.raises(OSError) as refusal:
            check_space(folder)
        assert refusal.value.errno == errno.EROFS
    with pytest.raises(OSError) as refusal, reserved_space(BenchmarkConfig(), disk / "there"):
        pytest.fail("the job would have begun")
    assert refusal.value.errno == errno.EROFS


def test_a_file_in_place_of_the_folder_is_noticed_before_a_sweep(tmp_path) -> None:
    (tmp_path / "multirun").touch()
    with pytest.raises(OSError):
        check_space(tmp_path / "multirun" / "name")
    with pytest.raises(OSError):
        check_space(tmp_path / "multirun")


LONGEST = -1.2345678901234567e-105  # in digits
SAMPLE = MonitorSample(
    time_s=LONGEST,
    utilization_percent=LONGEST,
    memory_used_bytes=10**12,
    sm_clock_mhz=LONGEST,
    memory_clock_mhz=LONGEST,
    power_w=LONGEST,
    temperature_c=LONGEST,
    throttle_bits=2**32,
)


def longest_record(config: BenchmarkConfig, measured: int, samples: int) -> Record:
    """Build a record with this many measured calls and samples per call, all numbers at their longest."""
    tokens, rows = config.workload.num_tokens_to_generate, config.workload.batch_size
    calls = [
        Iteration(
            index=index,
            phase="measurement",
            start_s=LONGEST,
            e2e_s=LONGEST,
            token_times_s=[LONGEST] * tokens,
            graphs=10**6,
            compile_s=LONGEST,
            device_reserved_bytes=10**12,
            request_times_s=[[LONGEST] * tokens] * rows if config.generation.continuous_batching else None,
        )
        for index in range(1 + config.warmup.iterations + measured)
    ]
    return make_record(
        **make_evidence()
        | {
            "iterations": calls,
            "monitor": Monitor(source="nvml", interval_s=LONGEST, samples=[[SAMPLE] * samples] * measured),
            "energy": Energy(source="nvml", joules=[LONGEST] * measured),
            "output": Output(
                shape=[rows, tokens], token_ids=[[10**6] * tokens] * rows, text="é" * 5 * tokens, same_in_all_calls=True
            ),
        }
    )


@pytest.mark.parametrize(
    ("keywords", "batching", "measured", "samples"),
    [
        ({}, False, 20, 2),
        ({"num_tokens_to_generate": 2000, "batch_size": 16}, False, 20, 2),
        ({"batch_size": 64}, True, 20, 2),
        ({"num_tokens_to_generate": 2, "batch_size": 2000}, True, 20, 2),
        ({"measurement_iterations": 400, "warmup_iterations": 400}, False, 400, 2),
        ({"measurement": MeasurementConfig(policy="adaptive")}, False, 100, 30),  # ten minutes at 0.1 s
        ({"isolation": IsolationConfig(timeout_s=600)}, False, 20, 300),
        ({"monitor": MonitorConfig(interval_s=0.005), "isolation": IsolationConfig(timeout_s=60)}, False, 20, 600),
    ],
)
def test_the_reserved_space_suffices_for_the_longest_record(
    tmp_path, keywords: dict, batching: bool, measured: int, samples: int
) -> None:
    config = BenchmarkConfig(**keywords)
    config.generation.continuous_batching = batching
    size = longest_record(config, measured, samples).write(tmp_path).stat().st_size
    assert size < record_bytes(config) < 20 * size + (10 << 20)


def test_the_reserved_space_stays_small_for_any_deadline() -> None:
    config = BenchmarkConfig(isolation=IsolationConfig(timeout_s=1e6), monitor=MonitorConfig(interval_s=0.005))
    assert record_bytes(config) < LEAST_FREE_BYTES
    assert record_bytes(BenchmarkConfig()) < LEAST_FREE_BYTES


def test_warm_up_and_measurement_by_rule_are_counted_at_their_bounds() -> None:
    fixed = record_bytes(BenchmarkConfig(gpu_monitoring=False))
    warmup = record_bytes(BenchmarkConfig(gpu_monitoring=False, warmup=WarmupConfig(policy="auto", max_iterations=500)))
    adaptive = MeasurementConfig(policy="adaptive", max_iterations=500)
    measurement = record_bytes(BenchmarkConfig(gpu_monitoring=False, measurement=adaptive))
    one_call = len('{"index": 0, "phase": "measurement", "token_times_s": []}') + 32 * 24
    assert warmup > fixed + 480 * one_call
    assert measurement > fixed + 480 * one_call


def test_the_record_of_a_real_job_fits_the_reserved_space(tiny, tmp_path) -> None:
    config = tiny(measurement_iterations=20)
    record = run_job(config, new_record(config), tmp_path, lambda *_: None)
    assert record.status == "ok"
    assert 1000 < (tmp_path / RECORD_NAME).stat().st_size < record_bytes(config) / 2
    assert not (tmp_path / RESERVE_NAME).exists()
