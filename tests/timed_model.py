"""A model whose calls take a known time: the sum of the times set for batch size, prompt length and attention.

`make_model` writes a checkpoint folder as tests/faults.py does. `plant` sets the time of each value and which
settings fail or hang.
"""

from __future__ import annotations

import json
from pathlib import Path

from faults import ARCHITECTURE

CODE = """
import json, os, time
from pathlib import Path

from transformers import LlamaForCausalLM

HERE = Path({folder!r})


class TimedForCausalLM(LlamaForCausalLM):
    def forward(self, input_ids=None, **keywords):
        # A prefill is the beginning of a call; the sizes alone are tried out on the meta device.
        if input_ids is not None and input_ids.shape[1] > 1 and input_ids.device.type != "meta":
            planted = json.loads((HERE / "times.json").read_text())
            values = [str(input_ids.shape[0]), str(input_ids.shape[1]), self.config._attn_implementation]
            if values[:2] in planted["fails"]:
                raise RuntimeError("planted failure")
            if os.getpid() not in planted["seen"] and len(planted["seen"]) + 1 == planted["hangs"]:
                (HERE / "reached").write_text(str(os.getpid()))
                time.sleep(60)
            planted["seen"] = sorted({{*planted["seen"], os.getpid()}})
            (HERE / "times.json").write_text(json.dumps(planted))
            time.sleep(sum(planted["times_s"].get(value, 0.0) for value in values))
        return super().forward(input_ids=input_ids, **keywords)
"""


def make_model(folder: Path) -> Path:
    """Write the checkpoint folder; every call is as fast as possible."""
    from bench.trial.model.tokenizer import byte_tokenizer

    folder.mkdir(parents=True, exist_ok=True)
    architecture = ARCHITECTURE | {
        "architectures": ["TimedForCausalLM"],
        "auto_map": {"AutoModelForCausalLM": "modeling_timed.TimedForCausalLM"},
    }
    (folder / "config.json").write_text(json.dumps(architecture), encoding="utf-8")
    (folder / "modeling_timed.py").write_text(CODE.format(folder=str(folder)), encoding="utf-8")
    byte_tokenizer().save_pretrained(folder)
    plant(folder)
    return folder


def plant(
    folder: Path, times_s: dict[str, float] | None = None, *, fails: list[list[str]] | None = None, hangs: int = 0
) -> None:
    """Set times, failures and hangs from now on.

    Args:
        folder: the checkpoint's.
        times_s: batch size, prompt length or attention → seconds that it adds to a call.
        fails: batch size and prompt length of the settings that fail.
        hangs: which process from now on, counted from 1, hangs in its first call; 0: none.
    """
    (folder / "reached").unlink(missing_ok=True)
    planted = {"times_s": times_s or {}, "fails": fails or [], "hangs": hangs, "seen": []}
    (folder / "times.json").write_text(json.dumps(planted), encoding="utf-8")


def arguments(folder: Path) -> list[str]:
    """Return overrides that run the model: random weights, two calls in total, no optional steps."""
    return [
        f"model.id={folder}", "model.weights=random", "model.architecture=null", "model.trust_remote_code=true",
        "workload.num_tokens_to_generate=2", "warmup.iterations=0", "measurement.iterations=1",
        "monitor.enabled=false", "fidelity.reference=none",
    ]  # fmt: skip
