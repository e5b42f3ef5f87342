"""What one would write by hand in place of a sweep: load, and for each setting generate so many times. Nothing is kept.

Reads its settings from the JSON file that it is given, and prints the last tokens of each, so that the part `sweep` can
see that it generated the same. It imports nothing of bench.
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
model.generation_config = transformers.GenerationConfig()  # a checkpoint's own may sample
new, length = asked["new_tokens"], asked["prompt_tokens"]
prompt = torch.tensor([(tokens * (length // len(tokens) + 1))[:length]], device=device)
wanted = {"max_new_tokens": new, "min_new_tokens": new, "do_sample": False, "disable_compile": True}
wanted |= {"eos_token_id": end, "pad_token_id": 0}  # the end is suppressed until then, and nothing padded
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
