"""What the fork server imports once, so that each job's process has it from its first moment.

transformers imports lazily: the classes that a job will touch are touched here. Nothing may start a thread or
initialise CUDA, for neither survives a fork.
"""

from __future__ import annotations

import torch._dynamo
import torch._inductor  # noqa: F401
from transformers import AutoConfig, AutoModelForCausalLM, AutoTokenizer, CompileConfig, GenerationConfig  # noqa: F401
from transformers.models.llama import modeling_llama  # noqa: F401

import bench.trial.worker  # noqa: F401
