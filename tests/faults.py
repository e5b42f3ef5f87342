"""A model with injected faults: the checkpoint's own code makes a real job fail.

`make_model` writes a checkpoint folder (a small random Llama whose `forward` first reads `faults.json` beside it).
The keys of that file are batch sizes, so that one sweep over `workload.batch_size` holds jobs that end differently; a
fault is removed by `plant` without it, and the setting stays the same setting.
"""

from __future__ import annotations

import json
from pathlib import Path

ARCHITECTURE = {
    "model_type": "llama",
    "architectures": ["FaultyForCausalLM"],
    "auto_map": {"AutoModelForCausalLM": "modeling_faulty.FaultyForCausalLM"},
    "vocab_size": 258,
    "hidden_size": 32,
    "intermediate_size": 64,
    "num_hidden_layers": 1,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "max_position_embeddings": 512,
    "initializer_range": 0.2,
}
CODE = """
import ctypes, json, os, signal, subprocess, sys, time
from pathlib import Path

import torch
from transformers import LlamaForCausalLM

HERE = Path({folder!r})


def plain_exception():
    raise RuntimeError("planted failure")


def sys_exit():
    sys.exit(3)


def os_exit():
    os._exit(7)


def segmentation_fault():
    ctypes.string_at(0)


def abort():
    os.abort()


def sigkill():
    os.kill(os.getpid(), signal.SIGKILL)


def allocation():
    torch.empty(10**15, dtype=torch.uint8)


def cuda_out_of_memory():
    raise torch.OutOfMemoryError(
        "CUDA out of memory. Tried to allocate 2.50 GiB. GPU 0 has a total capacity of 79.11 GiB of which 18.50 MiB is "
        "free. Process 1 has 78.00 GiB memory in use."
    )


def sticky_cuda_error():
    raise RuntimeError("CUDA error: an illegal memory access was encountered\\nCompile with TORCH_USE_CUDA_DSA")


def eat_memory():
    kept = []
    while True:
        kept.append(bytearray(32 << 20))


def hang_in_python():
    while True:
        time.sleep(1)


def hang_in_native_code():
    native, mutex = ctypes.PyDLL(None), ctypes.create_string_buffer(128)
    native.pthread_mutex_lock(mutex)
    native.pthread_mutex_lock(mutex)  # holds Python's lock: no handler and no thread of this process runs any more


def hang_with_signals_blocked():
    signal.pthread_sigmask(signal.SIG_BLOCK, set(signal.Signals) - {{signal.SIGKILL, signal.SIGSTOP}})
    while True:
        time.sleep(1)


def leave_processes():
    subprocess.Popen(["sleep", "98765"])
    subprocess.Popen(["sleep", "98765"], start_new_session=True)
    if os.fork() == 0:  # a daemon as daemons are made: nobody's child, a session of its own
        os.setsid()
        if os.fork() == 0:
            os.execvp("sleep", ["sleep", "98765"])
        os._exit(0)
    os.wait()


def leave_processes_and_die():
    leave_processes()
    sigkill()


def leave_processes_and_hang():
    leave_processes()
    hang_in_python()


def fill_log():
    line = b"x" * 1023 + b"\\n"
    for _ in range(60):
        os.write(1, line * 1024)
    print("the last line", flush=True)


def half_a_record():
    folder = Path(os.readlink("/proc/self/fd/1")).parent  # of worker.log
    (folder / "record.json").write_text('{{"schema_version": 4, "trial_id": "ab')
    (folder / ".record-left.json").write_text("{{")
    sigkill()


def parent_of(pid):
    return int(Path(f"/proc/{{pid}}/stat").read_text().rpartition(")")[2].split()[1])


def kill_the_fork_server():
    os.kill(parent_of(os.getppid()), signal.SIGKILL)


def kill_the_supervisor():
    os.kill(os.getppid(), signal.SIGKILL)
    time.sleep(100)


def nap():
    time.sleep(0.3)


class FaultyForCausalLM(LlamaForCausalLM):
    calls = 0

    def forward(self, input_ids=None, **keywords):
        # A prefill is the beginning of a call; the sizes alone are tried out on the meta device.
        if input_ids is not None and input_ids.shape[1] > 1 and input_ids.device.type != "meta":
            fault, call = json.loads((HERE / "faults.json").read_text()).get(str(input_ids.shape[0]), (None, 0))
            if fault and (self.calls == call or fault == "nap"):
                globals()[fault]()
            type(self).calls += 1
        return super().forward(input_ids=input_ids, **keywords)
"""


def make_model(folder: Path) -> Path:
    """Write the checkpoint folder; no fault is planted yet."""
    from bench.trial.model.tokenizer import byte_tokenizer

    folder.mkdir(parents=True, exist_ok=True)
    (folder / "config.json").write_text(json.dumps(ARCHITECTURE), encoding="utf-8")
    (folder / "modeling_faulty.py").write_text(CODE.format(folder=str(folder)), encoding="utf-8")
    byte_tokenizer().save_pretrained(folder)
    plant(folder, {})
    return folder


def plant(folder: Path, faults: dict[int, tuple[str, int]]) -> None:
    """Inject faults: batch size → (function in the model's code, the call before which it runs: 0 is validation)."""
    text = json.dumps({str(size): fault for size, fault in faults.items()})
    (folder / "faults.json").write_text(text, encoding="utf-8")


def arguments(folder: Path) -> list[str]:
    """Return overrides that run the model: random weights, short calls, no optional steps."""
    return [
        f"model.id={folder}", "model.weights=random", "model.architecture=null", "model.trust_remote_code=true",
        "workload.sequence_length=8", "workload.num_tokens_to_generate=4", "warmup.iterations=1",
        "measurement.iterations=3", "monitor.enabled=false", "fidelity.reference=none",
    ]  # fmt: skip
