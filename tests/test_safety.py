"""Test what bench must not do: read pickles, run a model's code unasked, write outside its folder, leak secrets."""

from __future__ import annotations

import ast
import json
import os
import pickle
import shlex
import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
import torch
import transformers
from hypothesis import given, settings
from hypothesis import strategies as st
from safetensors.torch import load_file

from bench.config.rules import ConfigError
from bench.config.schema import BenchmarkConfig, ModelConfig, SweepConfig
from bench.jobs.planning.plan import short_name
from bench.results.file_names import file_name
from bench.results.record import Failure
from bench.tracking.pages.links import ui_command
from bench.tracking.store.store import Store
from bench.trial.model.loading import load
from bench.trial.model.tokenizer import byte_tokenizer
from conftest import run_bench
from factories import make_record

SRC = Path(__file__).parents[1] / "src"
TOKEN, PASSWORD = "hf_Recognise4ble0123456789", "Recognise4ble-Password"

# ---- no data is run ----------------------------------------------------------------------------------------------

# Modules that run what they read, and whose mere import asks for a reason.
BANNED_MODULES = {"pickle", "_pickle", "cPickle", "dill", "cloudpickle", "joblib", "shelve", "marshal", "code", "runpy"}
BANNED_CALLS = {
    "torch.load", "torch.hub.load", "torch.jit.load", "torch.package.PackageImporter", "pandas.read_pickle",
    "yaml.load", "yaml.load_all", "yaml.unsafe_load", "yaml.unsafe_load_all", "yaml.full_load", "yaml.full_load_all",
    "eval", "exec", "compile", "os.system", "os.popen", "subprocess.getoutput", "subprocess.getstatusoutput",
    "multiprocessing.Queue", "multiprocessing.SimpleQueue", "multiprocessing.JoinableQueue", "multiprocessing.Pool",
    "multiprocessing.Manager", "concurrent.futures.ProcessPoolExecutor", "asyncio.create_subprocess_shell",
}  # fmt: skip
# keyword: the values with which no call may have it
BANNED_KEYWORDS: dict[str, tuple[object, ...]] = {
    "allow_pickle": (True,),
    "shell": (True,),
    "trust_remote_code": (True,),
    "use_safetensors": (False, None),
    "weights_only": (False,),
}
SAFE_LOADERS = {"yaml.BaseLoader", "yaml.SafeLoader", "yaml.CSafeLoader"}


def dangers(source: str) -> Iterator[tuple[int, str]]:
    """Return line and name of each place where a source runs data or passes it to a shell."""
    tree = ast.parse(source)
    names: dict[str, str] = {}  # in this source → in full
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            for alias in node.names:
                names[alias.asname or alias.name.partition(".")[0]] = (
                    alias.name if alias.asname else alias.name.partition(".")[0]
                )
                if alias.name.partition(".")[0] in BANNED_MODULES:
                    yield node.lineno, alias.name
        elif isinstance(node, ast.ImportFrom):
            names |= {alias.asname or alias.name: f"{node.module}.{alias.name}" for alias in node.names}
            if not node.level and str(node.module).partition(".")[0] in BANNED_MODULES:
                yield node.lineno, str(node.module)
    for node in ast.walk(tree):
        if isinstance(node, ast.Call):
            problems = problems_of_call(node, dotted(node.func, names), names)
            yield from ((node.lineno, problem) for problem in dict.fromkeys(problems))


def dotted(node: ast.expr, names: dict[str, str]) -> str:
    """Return the full name of the called function; for an attribute of an expression, `?.attribute`."""
    match node:
        case ast.Name(id=name):
            return names.get(name, name)
        case ast.Attribute(value=value, attr=attribute):
            return f"{dotted(value, names)}.{attribute}"
    return "?"


def problems_of_call(node: ast.Call, name: str, names: dict[str, str]) -> Iterator[str]:
    loaders = {dotted(each, names) for each in [*node.args[1:], *(keyword.value for keyword in node.keywords)]}
    if name in BANNED_CALLS and not (name in ("yaml.load", "yaml.load_all") and loaders & SAFE_LOADERS):
        yield name
    if (
        name.endswith(".recv") and not node.args and not node.keywords
    ):  # a Connection's unpickles; a socket's has a size
        yield name
    if name.endswith((".Queue", ".SimpleQueue", ".Pool")) and name.partition(".")[0] not in ("queue", "asyncio"):
        yield name
    if name.startswith("subprocess.") and node.args and is_text(node.args[0]):
        yield f"{name} of a text"
    for keyword in node.keywords:
        if keyword.arg in BANNED_KEYWORDS and isinstance(keyword.value, ast.Constant):
            if any(keyword.value.value is each for each in BANNED_KEYWORDS[keyword.arg]):
                yield f"{keyword.arg}={keyword.value.value}"
        elif keyword.arg in ("allow_pickle", "shell"):
            yield f"{keyword.arg} that is no constant"


def is_text(node: ast.expr) -> bool:
    """Return whether a command is one string, which a shell would split."""
    match node:
        case ast.JoinedStr() | ast.Constant(value=str()):
            return True
        case ast.BinOp(left=left):
            return is_text(left)
        case ast.Call(func=ast.Attribute(attr="format" | "join", value=ast.Constant(value=str()))):
            return True
    return False


def test_nothing_in_the_sources_runs_data() -> None:
    files = sorted(SRC.rglob("*.py"))
    assert len(files) > 50
    found = [
        f"{path.relative_to(SRC)}:{line}: {name}"
        for path in files
        for line, name in dangers(path.read_text(encoding="utf-8"))
    ]
    assert found == []


@pytest.mark.parametrize(
    "source",
    [
        "import pickle",
        "from pickle import loads",
        "def f():\n    import cloudpickle as data",
        "import joblib",
        "import shelve",
        "import marshal",
        "import torch\ntorch.load(path)",
        "import torch as t\nt.load(path, weights_only=True)",
        "from torch import load\nload(path)",
        "from torch import load as read\nread(path)",
        "import numpy as np\nnp.load(path, allow_pickle=True)",
        "import numpy\nnumpy.load(path, allow_pickle=trusted)",
        "import yaml\nyaml.load(text)",
        "import yaml\nyaml.load(text, Loader=yaml.Loader)",
        "from yaml import unsafe_load\nunsafe_load(text)",
        "eval(text)",
        "exec(text)",
        "compile(text, 'file', 'exec')",
        "connection.recv()",
        "self.pipe.recv()",
        "import multiprocessing\nmultiprocessing.Queue()",
        "context.SimpleQueue()",
        "import os\nos.system('ls')",
        "from os import popen\npopen('ls')",
        "import subprocess\nsubprocess.run(command, shell=True)",
        "import subprocess\nsubprocess.Popen(command, shell=flag)",
        "import subprocess\nsubprocess.run('ls')",
        "import subprocess\nsubprocess.check_output(f'ls {folder}')",
        "import subprocess as s\ns.run('ls %s' % folder)",
        "from subprocess import run\nrun(' '.join(parts))",
        "load(path, trust_remote_code=True)",
        "load(path, use_safetensors=None)",
    ],
)
def test_each_way_to_run_data_is_found(source: str) -> None:
    assert [line for line, _ in dangers(source)] == [source.count("\n") + 1]


@pytest.mark.parametrize(
    "source",
    [
        "import re\nre.compile(text)",
        "import torch\ntorch.compile(model)",
        "import json\njson.load(file)",
        "import yaml\nyaml.load(text, Loader=yaml.SafeLoader)\nyaml.safe_load(text)",
        "model.eval()",
        "connection.recv_bytes()",
        "socket.recv(100)",
        "import subprocess\nsubprocess.run([git, 'status'], shell=False)",
        "import queue\nqueue.SimpleQueue()",
        "import numpy as np\nnp.load(path, allow_pickle=False)",
        "load(path, trust_remote_code=config.trust_remote_code, use_safetensors=True)",
    ],
)
def test_sources_that_run_no_data_pass(source: str) -> None:
    assert list(dangers(source)) == []


# ---- checkpoints -------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def saved(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Save a tiny Llama with transformers."""
    folder = tmp_path_factory.mktemp("saved")
    architecture = transformers.AutoConfig.for_model(
        "llama", vocab_size=258, hidden_size=16, intermediate_size=32, num_hidden_layers=1, num_attention_heads=2
    )
    transformers.AutoModelForCausalLM.from_config(architecture).save_pretrained(folder)
    byte_tokenizer().save_pretrained(folder)
    return folder


@pytest.fixture
def checkpoint(saved: Path, tmp_path: Path) -> Path:
    return Path(shutil.copytree(saved, tmp_path / "checkpoint"))


class Bomb:
    """An object whose pickle creates a file when it is read."""

    def __init__(self, spy: Path) -> None:
        self.spy = spy

    def __reduce__(self) -> tuple[object, ...]:
        return (open, (str(self.spy), "w"))


def refusal(model: ModelConfig) -> str:
    with pytest.raises(ConfigError) as caught:
        load(BenchmarkConfig(device="cpu", model=model))
    assert "\n" not in str(caught.value)
    return str(caught.value)


@pytest.mark.parametrize("name", ["pytorch_model.bin", "pytorch_model-00001-of-00001.bin"])
def test_a_pickle_in_a_checkpoint_is_refused_unread(checkpoint: Path, name: str) -> None:
    spy = checkpoint.parent / "was-read"
    weights: dict[str, object] = dict(load_file(checkpoint / "model.safetensors"))
    (checkpoint / "model.safetensors").unlink()
    torch.save(weights | {"model.norm.weight": Bomb(spy)}, checkpoint / name)
    index = {"metadata": {}, "weight_map": dict.fromkeys(weights, name)}
    if name != "pytorch_model.bin":
        (checkpoint / "pytorch_model.bin.index.json").write_text(json.dumps(index), encoding="utf-8")
    torch.load(checkpoint / name, weights_only=False)
    assert spy.exists()  # it goes off in the hands of those who read it
    spy.unlink()
    assert refusal(ModelConfig(id=str(checkpoint))).startswith(f"model.id={checkpoint}"[:100])
    assert not spy.exists()


@pytest.mark.parametrize("weights", ["pretrained", "random"])
def test_code_that_comes_with_a_model_is_not_run_unasked(checkpoint: Path, weights: str) -> None:
    spy = checkpoint.parent / "was-run"
    (checkpoint / "own.py").write_text(f"open({str(spy)!r}, 'w')\nraise ImportError('no')", encoding="utf-8")
    config = json.loads((checkpoint / "config.json").read_text(encoding="utf-8"))
    config |= {"model_type": "own", "auto_map": {"AutoConfig": "own.Config", "AutoModelForCausalLM": "own.Own"}}
    (checkpoint / "config.json").write_text(json.dumps(config), encoding="utf-8")
    line = refusal(ModelConfig(id=str(checkpoint), weights=weights))
    assert "model.trust_remote_code" in line
    assert not spy.exists()
    with pytest.raises(Exception, match=""):  # it would run
        load(BenchmarkConfig(device="cpu", model=ModelConfig(id=str(checkpoint), trust_remote_code=True)))
    assert spy.exists()


# ---- names -------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("key", ["name", "label"])
@pytest.mark.parametrize(
    "value",
    [
        "..", ".", "../up", "a/../../b", "a/b", "a\\b", "/etc", "~", "~root", "", " ", "-rf", ".hidden", "a\0b", "a\nb",
        "a\n", "a b", "a\tb", "x" * 300, "x" * 101, "é", "a\u202eb", "a\u2215b", "a\uff0fb", "a\u2024\u2024", "\ud800", "$HOME",
        "${name}", "a;b", "a'b", "con\u0000", "*", "名" * 99,
    ],
)  # fmt: skip
def test_names_that_are_not_plain_folder_names_are_refused(key: str, value: str) -> None:
    config = BenchmarkConfig()
    setattr(config.sweep, key, value)
    with pytest.raises(ConfigError, match=rf"^sweep\.{key}=") as caught:
        config.check()
    assert str(caught.value).isprintable()
    with pytest.raises(ConfigError):
        BenchmarkConfig(sweep=SweepConfig(**{key: value}))


@given(name=st.from_regex(r"\A[A-Za-z0-9_.\\/~\w-]{1,120}\Z") | st.text(max_size=120))
@settings(deadline=None, derandomize=True, max_examples=300)
def test_a_name_that_is_accepted_stays_in_its_folder(name: str) -> None:
    try:
        BenchmarkConfig(sweep=SweepConfig(name=name, label=name))
    except ConfigError:
        return
    folder = Path("/multirun")
    assert os.path.normpath(folder / name) == f"/multirun/{name}"
    assert len(os.fsencode(name)) <= 255


ANY_TEXT = st.text(max_size=200) | st.sampled_from(
    ["..", "../..", "/etc/passwd", "a/../..", "\0", "x" * 999, "-", ".", "\ud800"]
)


@given(swept=st.dictionaries(ANY_TEXT, ANY_TEXT, max_size=3), text=ANY_TEXT)
@settings(deadline=None, derandomize=True, max_examples=300)
def test_a_jobs_folder_is_inside_its_sweep_whatever_was_typed(swept: dict[str, str], text: str) -> None:
    for name in (file_name(short_name(swept)), file_name(text), file_name(f"0_{short_name(swept)}_r1")):
        assert name.isascii()
        assert 0 < len(name) <= 100
        assert name[0] not in ".-"
        assert Path(os.path.normpath(Path("/sweep") / name)).parent == Path("/sweep")
        assert file_name(name) == name


# ---- the UI ------------------------------------------------------------------------------------------------------


def store(uri: str) -> Store:
    return Store(uri=uri, experiment_id="1", experiment="bench", client=None)


@pytest.mark.parametrize("path", ["/home/me/mlflow.db", "/a b/$(touch x)/`y`/'q'/\";rm -rf .;/m.db", "/x\ny/m.db"])
def test_the_ui_listens_only_on_this_machine_and_its_address_has_no_space(path: str) -> None:
    words = shlex.split(ui_command(store(f"sqlite:///{path}")))
    assert words[-4:] == ["--backend-store-uri", f"sqlite:///{path}", "--host", "127.0.0.1"]


def test_the_address_of_a_store_is_shown_without_its_password() -> None:
    for uri in (
        f"https://me:{PASSWORD}@host:5000/x",
        f"postgresql://me:{PASSWORD}@host/db",
        f"https://host/?token={TOKEN}",
    ):
        shown = ui_command(store(uri))
        assert PASSWORD not in shown
        assert TOKEN not in shown
        assert "host" in shown


# ---- secrets -----------------------------------------------------------------------------------------------------

# Makes the child log what no child should, so that the log has something to hide.
LEAK = """
import logging, multiprocessing, os
plain = logging.basicConfig
def leaky(**options):
    plain(**options)
    if multiprocessing.parent_process() is not None:
        logging.getLogger("leaky").warning("sent Authorization: Bearer %s", os.environ["HF_TOKEN"])
logging.basicConfig = leaky
"""


def test_no_secret_of_the_environment_is_in_any_output(tmp_path: Path) -> None:
    folder, hooks = tmp_path / "run", tmp_path / "hooks"
    folder.mkdir()
    hooks.mkdir()
    (hooks / "sitecustomize.py").write_text(LEAK, encoding="utf-8")
    secret = {"HF_TOKEN": TOKEN, "MLFLOW_TRACKING_PASSWORD": PASSWORD, "MLFLOW_TRACKING_USERNAME": "me"}
    few = [
        "warmup.iterations=1",
        "measurement.iterations=2",
        "workload.num_tokens_to_generate=4",
        "fidelity.reference=none",
    ]
    done = subprocess.run(
        [sys.executable, "-m", "bench", *few, "tracking.uri=sqlite:///mlflow.db"],
        cwd=folder,
        env=os.environ | secret | {"PYTHONPATH": str(hooks), "COLUMNS": "100"},
        capture_output=True,
        timeout=500,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    files = {str(path.relative_to(folder)): path.read_bytes() for path in folder.rglob("*") if path.is_file()}
    names = {Path(name).name for name in files}
    assert {"mlflow.db", "record.json", "worker.log", "config.yaml"} <= names
    assert any(name.startswith("mlartifacts") for name in files)
    assert any(b"Bearer" in content for name, content in files.items() if name.endswith("worker.log"))
    held = files | {"stdout": done.stdout, "stderr": done.stderr}
    assert [name for name, content in held.items() if TOKEN.encode() in content or PASSWORD.encode() in content] == []


def test_a_record_omits_a_secret_repeated_by_an_error(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HF_TOKEN", TOKEN)
    uri = f"https://me:{PASSWORD}@host/x"
    error = Failure(type="HTTPError", message=f"401 for {TOKEN}", detail=f"Traceback\n  token={TOKEN!r}\n  {uri}")
    text = make_record(status="failed", error=error).write(tmp_path).read_text(encoding="utf-8")
    assert TOKEN not in text
    assert PASSWORD not in text
    assert "401 for ***" in text


@pytest.mark.parametrize("sweep", [[], ["-m", "attention=eager,sdpa"]], ids=["one", "sweep"])
@pytest.mark.parametrize(
    "uri", ["http://me:{}@127.0.0.1:5000", "postgresql://me:{}@127.0.0.1/db", "http://127.0.0.1:5000/?token={}"]
)
def test_a_password_typed_into_the_tracking_address_is_refused(tmp_path: Path, uri: str, sweep: list[str]) -> None:
    done = run_bench(*sweep, f"tracking.uri='{uri.format(PASSWORD)}'", folder=tmp_path)
    assert done.returncode == 2
    assert done.stderr.startswith("bench: tracking.uri=")
    assert len(done.stderr.splitlines()) == 1
    assert PASSWORD not in done.stderr + done.stdout
    assert "MLFLOW_TRACKING_PASSWORD" in done.stderr
    assert list(tmp_path.iterdir()) == []


def test_the_test_pickle_runs_code_when_loaded(tmp_path: Path) -> None:
    """Reading these pickles has the effect that the tests look for."""
    pickle.loads(pickle.dumps(Bomb(tmp_path / "was-read"))).close()
    assert (tmp_path / "was-read").exists()
