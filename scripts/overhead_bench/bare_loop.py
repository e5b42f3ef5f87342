"""Run the hand-written alternative to a sweep: load, and generate repeatedly for each setting. Nothing is recorded.

It reads its settings from the given JSON file and prints the last tokens of each, from which the part `sweep` checks
that both generated the same. It imports nothing of bench.
"""

import json
import sys
from pathlib import Path

import torch
import transformers

asked = json.loads(Path(sys.argv[1]).read_text(encoding="utf-8"))
device = asked["device"] if asked["device"] != "auto" else "cuda" if torch.cuda.is_available() else "cpu"
torch.manual_seed(0)
if asked["architecture"]:
    with torch.device(device):
        config = transformers.AutoConfig.for_model(**asked["architecture"])
        model = transformers.AutoModelForCausalLM.from_config(config, dtype=torch.float32)
    tokens, end = asked["tokens"], asked["end"]
else:
    model = transformers.AutoModelForCausalLM.from_pretrained(asked["checkpoint"], dtype="auto").to(device)
    tokenizer = transformers.AutoTokenizer.from_pretrained(asked["checkpoint"])
    tokens, end = tokenizer(asked["text"])["input_ids"], tokenizer.eos_token_id
model.eval()
model.generation_config = transformers.GenerationConfig()  # a checkpoint's own config may sample
new, length = asked["new_tokens"], asked["prompt_tokens"]
prompt = torch.tensor([(tokens * (length // len(tokens) + 1))[:length]], device=device)
wanted = {"max_new_tokens": new, "min_new_tokens": new, "do_sample": False, "disable_compile": True}
wanted |= {"eos_token_id": end, "pad_token_id": 0}  # the end token is suppressed until then, and nothing is padded
for setting in asked["settings"]:
    model.set_attn_implementation(setting["attention"])
    guard = {"inference_mode": torch.inference_mode, "no_grad": torch.no_grad}[setting["grad_mode"]]
    for _ in range(asked["calls"]):
        with guard():
            output = model.generate(
                prompt, attention_mask=torch.ones_like(prompt), cache_implementation=setting["kv_cache"], **wanted
            )
        if device != "cpu":
            torch.cuda.synchronize()
    print(json.dumps(output[0, length:].tolist()))
