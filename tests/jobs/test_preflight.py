"""Test the check of all settings before a sweep: what it refuses, and that its one process ends."""

from __future__ import annotations

import http.server
import json
import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import psutil
import pytest

from bench.config.rules import ConfigError
from bench.config.schema import BenchmarkConfig, IsolationConfig, ModelConfig
from bench.jobs.planning import preflight as module
from bench.jobs.planning.preflight import preflight
from bench.jobs.process.child import Child
from bench.jobs.process.fork_server import start_fork_server

pytestmark = pytest.mark.slow


class CountedChild(Child):
    """Count the processes that are started."""

    runs = 0

    def run(self, *arguments, **keywords):
        CountedChild.runs += 1
        return super().run(*arguments, **keywords)


@pytest.fixture
def processes(monkeypatch) -> Iterator[None]:
    """Check that exactly one process is used and that it ends."""
    start_fork_server()
    before = {each.pid for each in psutil.Process().children(recursive=True)}
    CountedChild.runs = 0
    monkeypatch.setattr(module, "Child", CountedChild)
    yield
    assert CountedChild.runs == 1
    left = {each.pid for each in psutil.Process().children(recursive=True)} - before
    assert left == set()


@pytest.mark.usefixtures("processes")
def test_good_settings_pass(tiny) -> None:
    assert preflight([tiny(), tiny(batch_size=4), tiny(attn_implementation="flash_attention_2")]) is None


@pytest.mark.usefixtures("processes")
def test_the_first_bad_setting_is_refused_in_one_line(tiny, tmp_path) -> None:
    missing = tmp_path / "none"
    bad = tiny()
    bad.model = ModelConfig(id=str(missing))
    with pytest.raises(ConfigError) as error:
        preflight([tiny(), bad, tiny(sequence_length=5000)])
    assert str(error.value) == f"model.id={missing}: there is no such folder"


@pytest.mark.usefixtures("processes")
def test_a_value_of_any_type_arrives_as_typed(tiny) -> None:
    config = tiny()
    config.model.architecture = {**config.model.architecture, "hidden_size": [1, 2]}
    with pytest.raises(ConfigError, match=r"model\.architecture\.hidden_size=\[1, 2\]: must be a whole number"):
        preflight([config])


@pytest.mark.usefixtures("processes")
@pytest.mark.parametrize("mode", ["spawn", "none"])
def test_a_new_interpreter_checks_the_settings_if_no_job_needs_the_fork_server(tiny, mode: str) -> None:
    with pytest.raises(ConfigError, match=r"workload\.sequence_length=5000: with 4 new tokens makes 5004 positions"):
        preflight([tiny(sequence_length=5000, isolation=IsolationConfig(mode=mode))])


@pytest.mark.usefixtures("processes")
def test_with_the_fork_server_running_the_check_imports_nothing(tiny) -> None:
    def span_s(mode: str) -> float:
        start = time.perf_counter()
        preflight([tiny(isolation=IsolationConfig(mode=mode), batch_size=size) for size in (1, 2)])
        return time.perf_counter() - start

    preflight([tiny()])
    forked_s = min(span_s("forkserver") for _ in range(3))
    spawned_s = min(span_s("spawn") for _ in range(2))
    CountedChild.runs = 1
    assert forked_s < spawned_s / 2


def own_code(folder: Path, code: str) -> BenchmarkConfig:
    """Create a model with custom code that runs `code`."""
    classes = {"AutoConfig": "own.Config", "AutoModelForCausalLM": "own.Own"}
    (folder / "config.json").write_text(json.dumps({"model_type": "own", "auto_map": classes}), encoding="utf-8")
    (folder / "own.py").write_text(code, encoding="utf-8")
    return BenchmarkConfig(device="cpu", model=ModelConfig(id=str(folder), trust_remote_code=True))


@pytest.mark.usefixtures("processes")
@pytest.mark.parametrize(
    ("code", "how"),
    [("import os; os._exit(3)", "exit status 3"), ("import os; os.kill(os.getpid(), 9)", "signal 9")],
)
def test_a_crashed_check_refuses_nothing(tmp_path, code: str, how: str) -> None:
    line = preflight([own_code(tmp_path, code)])
    assert line == f"the process that should do it ended with {how}"


@pytest.mark.usefixtures("processes")
@pytest.mark.parametrize(
    "busy", ["import time; time.sleep(60)", "while True:\n    try: pass\n    except BaseException: pass"]
)
def test_a_check_that_takes_too_long_is_ended_and_refuses_nothing(tmp_path, busy: str) -> None:
    start = time.monotonic()
    line = preflight([own_code(tmp_path, busy)], timeout_s=6)
    assert time.monotonic() - start < 30  # half of it for the check, the rest to end the process
    assert line is not None
    assert line.startswith("no answer within 3 s")


# ---- below a program of its own ----------------------------------------------------------------------------------

PROGRAM = """
import sys
from bench.config.schema import BenchmarkConfig, ModelConfig
from bench.config.rules import ConfigError
from bench.jobs.planning.preflight import preflight

if __name__ == "__main__":
    for name in sys.argv[2:]:
        config = BenchmarkConfig(device="cpu", model=ModelConfig(id=name))
        try:
            print(preflight([config], timeout_s=float(sys.argv[1])))
        except ConfigError as error:
            print(error)
        except KeyboardInterrupt:
            print("interrupted")
    assert not {"torch", "transformers", "mlflow"} & set(sys.modules)
"""


def start(folder: Path, timeout_s: float, *names: str, **environment: str) -> subprocess.Popen[str]:
    (folder / "program.py").write_text(PROGRAM, encoding="utf-8")
    return subprocess.Popen(
        [sys.executable, str(folder / "program.py"), str(timeout_s), *names],
        env=os.environ | {"HF_HOME": str(folder / "home"), **environment},
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        cwd=folder,
    )


ANSWERS = {
    "no-one/none": (404, "RepoNotFound"),
    "no-one/hidden": (401, "RepoNotFound"),
    "some/gated": (401, "GatedRepo"),
    "some/gated-too": (403, "GatedRepo"),
    "some/unrevised": (404, "RevisionNotFound"),
}


class Hub(http.server.BaseHTTPRequestHandler):
    """Answer as the hub documents; the model's name selects the answer."""

    release = threading.Event()

    def answer(self) -> None:
        if "/some/slow" in self.path:
            self.release.wait(60)
        status, code = next((each for name, each in ANSWERS.items() if f"{name}/" in f"{self.path}/"), (404, None))
        self.send_response(status)
        if code is not None:
            self.send_header("X-Error-Code", code)
        self.send_header("Content-Length", "0")
        self.end_headers()

    do_GET = do_HEAD = answer  # noqa: N815

    def log_message(self, *_: object) -> None:
        pass


@pytest.fixture
def hub() -> Iterator[str]:
    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Hub)
    server.daemon_threads = True
    Hub.release.clear()
    threading.Thread(target=server.serve_forever, daemon=True).start()
    yield f"http://127.0.0.1:{server.server_port}"
    Hub.release.set()
    server.shutdown()
    server.server_close()


def test_answers_of_the_hub_are_distinguished_and_nothing_else_is_printed(hub: str, tmp_path) -> None:
    program = start(tmp_path, 60, *ANSWERS, HF_ENDPOINT=hub, HF_HUB_OFFLINE="0")
    out, err = program.communicate(timeout=120)
    absent = f"{hub} knows no such model, or it is private; check the name, or log in with hf auth login"
    gated = "is gated: accept its licence on the hub, then log in with hf auth login"
    assert out.splitlines() == [
        f"model.id=no-one/none: {absent}",
        f"model.id=no-one/hidden: {absent}",
        f"model.id=some/gated: {gated}",
        f"model.id=some/gated-too: {gated}",
        "model.revision=null: some/unrevised has no branch, tag or commit main on the hub",
    ]
    assert (err, program.returncode) == ("", 0)


@pytest.mark.slow  # the hub's client tries again for half a minute
def test_an_unreachable_hub_is_distinguished_from_a_missing_model(tmp_path) -> None:
    program = start(tmp_path, 100, "some/model", HF_ENDPOINT="http://127.0.0.1:9", HF_HUB_OFFLINE="0")
    out, err = program.communicate(timeout=200)
    assert out == (
        "model.id=some/model: is no folder, and not in the hub's cache, and http://127.0.0.1:9 does not answer; "
        "name a folder, or go online\n"
    )
    assert (err, program.returncode) == ("", 0)


def test_a_slow_hub_refuses_nothing(hub: str, tmp_path) -> None:
    program = start(tmp_path, 8, "some/slow", HF_ENDPOINT=hub, HF_HUB_OFFLINE="0")
    out, err = program.communicate(timeout=120)
    assert (out, err, program.returncode) == ("no answer within 5 s\n", "", 0)


def test_ctrl_c_ends_the_check_and_leaves_no_process(hub: str, tmp_path) -> None:
    program = start(tmp_path, 100, "some/slow", HF_ENDPOINT=hub, HF_HUB_OFFLINE="0")
    parent = psutil.Process(program.pid)
    deadline = time.monotonic() + 60
    # Fork server, resource tracker, supervisor and worker: then it asks the hub, which does not answer.
    while len(family := parent.children(recursive=True)) < 4 and time.monotonic() < deadline:
        time.sleep(0.1)
    time.sleep(1)
    program.send_signal(signal.SIGINT)
    out, err = program.communicate(timeout=30)
    assert (out, err, program.returncode) == ("interrupted\n", "", 0)
    _, alive = psutil.wait_procs(family, timeout=10)
    assert alive == []


# ---- the hub's cache ---------------------------------------------------------------------------------------------


@pytest.fixture
def cached(tmp_path) -> Path:
    """Create a model's snapshot in a hub cache below `home`, with weights in several files."""
    import transformers

    from bench.trial.model.tokenizer import byte_tokenizer

    snapshot = tmp_path / "home/hub/models--some--model/snapshots" / ("a" * 40)
    sizes = {"hidden_size": 32, "intermediate_size": 64, "num_hidden_layers": 2, "num_attention_heads": 4}
    architecture = transformers.AutoConfig.for_model("llama", vocab_size=258, **sizes)
    model = transformers.AutoModelForCausalLM.from_config(architecture)
    model.save_pretrained(snapshot, max_shard_size="40KB")
    byte_tokenizer().save_pretrained(snapshot)
    references = snapshot.parents[1] / "refs"
    references.mkdir()
    (references / "main").write_text("a" * 40, encoding="utf-8")
    return snapshot


def answer_offline(folder: Path) -> str:
    out, err = start(folder, 60, "some/model", HF_HUB_OFFLINE="1").communicate(timeout=120)
    assert err == ""
    return out


def test_a_model_in_the_cache_passes_offline(cached: Path, tmp_path) -> None:
    assert answer_offline(tmp_path) == "None\n"


def test_a_cache_without_weights_is_refused_offline(cached: Path, tmp_path) -> None:
    shards = sorted(cached.glob("model-*.safetensors"))
    shards[0].unlink()
    assert answer_offline(tmp_path) == (
        f"model.id=some/model: 1 of {len(shards)} files of weights are not in the hub's cache; unset HF_HUB_OFFLINE\n"
    )


def test_a_damaged_file_in_the_cache_is_refused(cached: Path, tmp_path) -> None:
    shard = min(cached.glob("model-*.safetensors"))
    os.truncate(shard, shard.stat().st_size - 4)
    assert answer_offline(tmp_path).startswith(f"model.id=some/model: {shard.name} is truncated or damaged (")
