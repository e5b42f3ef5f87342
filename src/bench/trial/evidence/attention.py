"""Read which attention ran from the operators and kernels of one profiled call, by phase.

The name in a model's config says what transformers was asked for, not what the device did: a function can be swapped, a
backend can decline, a shared cache can hold code made for another backend. One short call is therefore profiled after
the measurement, and what it shows is sorted into families:

    eager                  matrix products and a softmax as operators of their own
    math, flash_attention, efficient_attention, cudnn_attention, overrideable
                           the backends of torch's scaled_dot_product_attention
    flex_attention         the kernel that torch compiles for it
    flash_attention_2, …   kernels of the flash-attn packages
    decomposed             inside compiled code, without a kernel of its own: what the compiler makes of eager and math,
                           which it splits up and fuses with their neighbours; the two look alike there, but not in the
                           prefill, which generate compiles only if it comes in chunks

Not covered: attention in one layer that differs from that of the others, but for eager attention among layers of sdpa
where nothing is compiled, and implementations whose kernels have no known name; what they ran is not judged.
"""

from __future__ import annotations

import dataclasses
import functools
import re
from collections.abc import Sequence
from typing import Any

from bench.results.record import AttentionObserved, CompileEvent, OperatorTime, PhaseEvidence
from bench.trial.compat import torch_internals
from bench.trial.evidence.compilation import FLEX_FILES
from bench.trial.evidence.profiling import DECODE, PREFILL

# Of the profiled call: the prefill's, and those of the decoding steps. One step shows what each of them runs, unless
# its code is compiled: the first of such may still be recorded as a graph.
NEW_TOKENS, COMPILED_NEW_TOKENS = 2, 3
SDPA_FAMILIES = ("math", "flash_attention", "efficient_attention", "cudnn_attention", "overrideable")
DECOMPOSED = "decomposed"

# Operators by which a family is known. The flash-attn packages and their hub builds register operators under names of
# their own: flash_attn::_flash_attn_forward, flash_attn_3::fwd, _flash_attn2_cuda_…::fwd.
OPERATORS = {
    "math": r"aten::_scaled_dot_product_attention_math(_for_mps)?$",
    "flash_attention": r"aten::_(scaled_dot_product_flash_attention(_for_cpu)?|flash_attention_forward)$",
    "efficient_attention": r"aten::_(scaled_dot_product_efficient_attention|efficient_attention_forward)$",
    "cudnn_attention": r"aten::_(scaled_dot_product_cudnn_attention|cudnn_attention_forward)$",
    "overrideable": r"aten::_scaled_dot_product_fused_attention_overrideable$",
    "flash_attention_3": r"\w*flash_attn_?3\w*::|FlashAttn3\w*Func",
    "flash_attention_2": r"\w*flash_attn(_?2)?(?!_?[3-9])\w*::|FlashAttn(Varlen)?(QKVPacked)?Func",
}
# Kernels, for where the host shows no operator: a CUDA graph is replayed as a whole.
KERNELS = {
    "flash_attention": r"pytorch_flash::",
    "efficient_attention": r"fmha_cutlass|AttentionKernel<",
    "cudnn_attention": r"cudnn\w*_sdpa",
    "flex_attention": r"flex_(attention|decoding)",
    "flash_attention_3": r"flash::FlashAttnFwdSm90|flash::FlashAttn\w*Sm\d+",
    "flash_attention_2": r"(?<!pytorch_)flash::flash_fwd|(^|\s)flash_fwd_(splitkv_)?kernel",
}
# What eager attention is made of. Products of matrices elsewhere in a model are mm and addmm, not batched.
EAGER_OPERATORS = r"aten::(bmm|baddbmm|_softmax)$"
SOFTMAX = "aten::_softmax"
GRAPH_LAUNCH = "cudaGraphLaunch"  # in some builds with the version of the API behind it


def read(
    events: Sequence[Any], compiled: Sequence[CompileEvent], *, on_gpu: bool, layers: int | None = None
) -> tuple[PhaseEvidence | None, PhaseEvidence | None]:
    """Sort a profile into what prefill and decoding ran.

    Args:
        events: of `torch.profiler.profile.events()`, with the marks of `bench.trial.evidence.profiling`.
        compiled: what torch.compile did in this process; it names the function of each compiled region.
        on_gpu: whether kernels count, or operators on the host.
        layers: of the model, to find those that ran eager attention among others; None: not known.

    Returns:
        Prefill and decoding; None for one that the profile does not hold.
    """
    # A graph may break inside flex_attention's code while another function is compiled.
    made = [each for each in compiled if each.kind in ("graph", "recompile") and each.file is not None]
    own = {each.compile_id for each in made if each.file is not None and each.file.endswith(FLEX_FILES)}
    host = [each for each in events if not _is_on_gpu(each)]
    marks = {name: [each for each in host if each.name == name] for name in (PREFILL, DECODE)}
    # The mark after the last token closes at once and holds no forward pass.
    if len(marks[DECODE]) > 1:
        marks[DECODE] = marks[DECODE][:-1]
    prefill, decode = (_phase(events, marks[name], own, on_gpu=on_gpu, layers=layers) for name in (PREFILL, DECODE))
    return prefill, decode


def _phase(
    events: Sequence[Any], marks: Sequence[Any], flex_regions: set[str | None], *, on_gpu: bool, layers: int | None
) -> PhaseEvidence | None:
    if not marks:
        return None
    spans = [(each.time_range.start, each.time_range.end) for each in marks]
    inside = [each for each in events if each not in marks and any(a <= each.time_range.start < b for a, b in spans)]
    kernels = [each for each in inside if _is_kernel(each)]
    host = [each for each in inside if not _is_on_gpu(each)]
    duration_us = sum(b - a for a, b in spans)
    regions = [(each, match.group(1)) for each in host if (match := torch_internals.REGION.match(each.name))]
    flex = [each for each, name in regions if name in flex_regions]
    found = operator_families(host) or _by_kernel(kernels)
    if flex:  # on a GPU its kernel by name: in a compiled step the regions of its own only make the mask
        found.setdefault("flex_attention", flex)
    # Fewer than one a layer: not judged by the count alone, for not every layer need have attention.
    scarce = layers is not None and not regions and sum(map(len, found.values())) < layers * len(marks)
    if (scarce or not found) and (eager := _eager(host)):
        found["eager"] = eager
    if not found and len(regions) > len(flex) and (kernels or not on_gpu):
        found[DECOMPOSED] = []
    ran = [each for group in found.values() for each in group]
    total_us = sum(_duration_us(each) for each in kernels) if on_gpu else duration_us
    attention_us = sum(_time_us(each, on_gpu=on_gpu) for each in ran)
    return PhaseEvidence(
        steps=len(marks),
        duration_s=duration_us / 1e6,
        families=sorted(found),
        operators=_operators(ran, on_gpu=on_gpu),
        attention_share=attention_us / total_us if ran and total_us > 0 else None,
        compiled_regions=len(regions) - len(flex),
        cudagraph_launches=sum(each.name.startswith(GRAPH_LAUNCH) for each in host),
    )


def operator_families(events: Sequence[Any]) -> dict[str, list[Any]]:
    """Return the operators of each family on the host, the outermost only: some call each other."""
    found: dict[str, list[Any]] = {}
    for each in events:
        family = None if _is_on_gpu(each) else _family_of_operator(each.name)
        if family and not _below(each, OPERATORS.values()):
            found.setdefault(family, []).append(each)
    return found


def _by_kernel(kernels: Sequence[Any]) -> dict[str, list[Any]]:
    found: dict[str, list[Any]] = {}
    for each in kernels:
        if family := _family_of_kernel(each.name):
            found.setdefault(family, []).append(each)
    return found


def _eager(host: Sequence[Any]) -> list[Any]:
    """Return the operators of eager attention; none without a softmax and a batched product.

    Those that another family's operator called are that one's.
    """
    parts = [each for each in host if re.match(EAGER_OPERATORS, each.name) and not _below(each, OPERATORS.values())]
    names = {each.name for each in parts}
    return parts if SOFTMAX in names and len(names) > 1 else []


# Thousands of events share some dozens of names.
@functools.cache
def _family_of_operator(name: str) -> str | None:
    return _family(name, OPERATORS)


@functools.cache
def _family_of_kernel(name: str) -> str | None:
    return _family(name, KERNELS)


def _family(name: str, patterns: dict[str, str]) -> str | None:
    return next((family for family, pattern in patterns.items() if re.search(pattern, name)), None)


def _below(event: Any, patterns: Any) -> bool:
    """Check whether an operator that matches one of these patterns called this one."""
    parent = event.cpu_parent
    while parent is not None:
        if any(re.search(pattern, parent.name) for pattern in patterns):
            return True
        parent = parent.cpu_parent
    return False


def _is_on_gpu(event: Any) -> bool:
    return _is_gpu(event.device_type)


@functools.cache  # to write the name of torch's enumeration takes microseconds
def _is_gpu(device_type: Any) -> bool:
    return str(device_type).rpartition(".")[2] == "CUDA"


def _is_kernel(event: Any) -> bool:
    """Check whether an event is a kernel: the profiler repeats each annotation of the host there too."""
    return _is_on_gpu(event) and not event.is_user_annotation


def _duration_us(event: Any) -> float:
    return float(event.time_range.end - event.time_range.start)


def _time_us(event: Any, *, on_gpu: bool) -> float:
    """Return what an operator took: on a GPU the kernels that it started, on the CPU itself and its callees."""
    if on_gpu and not _is_on_gpu(event):
        return float(event.device_time_total)
    return _duration_us(event)


def _operators(ran: Sequence[Any], *, on_gpu: bool) -> list[OperatorTime]:
    names: dict[str, list[float]] = {}
    for each in ran:
        names.setdefault(each.name, []).append(_time_us(each, on_gpu=on_gpu) / 1e6)
    times = [OperatorTime(name=name, calls=len(each), total_s=sum(each)) for name, each in names.items()]
    return sorted(times, key=lambda each: each.total_s, reverse=True)


def without_evidence(attention: AttentionObserved, reason: str) -> AttentionObserved:
    """Return the observation with the reason why there is no evidence."""
    return dataclasses.replace(attention, error=reason)


def with_evidence(
    attention: AttentionObserved, prefill: PhaseEvidence | None, decode: PhaseEvidence | None, *, on_gpu: bool
) -> AttentionObserved:
    """Return the observation with what was seen, or with the reason if the profiler saw no kernel on the GPU."""
    error = None
    phases = [each for each in (prefill, decode) if each is not None]
    if not phases:
        error = "the profile holds no step"
    elif on_gpu and not any(each.attention_share for each in phases):
        error = "the profiler saw no kernel on the GPU; profiling it may need a permission (CUPTI)"
    return dataclasses.replace(attention, prefill=prefill, decode=decode, error=error)
