"""List the keys without evidence because the installed libraries lack a name that it is read from."""

from __future__ import annotations

from collections.abc import Callable

from bench.compat.private_name import PrivateName
from bench.config.schema import BenchmarkConfig
from bench.results.record import Unverified
from bench.trial.compat import torch_internals, transformers_internals, workarounds
from bench.trial.model.loading import LoadedModel


def missing_evidence(config: BenchmarkConfig, loaded: LoadedModel) -> list[Unverified]:
    """Return the keys for which the installed libraries lack a name that evidence is read from."""
    found = []
    for key, concerns, names in _EVIDENCE:
        if concerns(config, loaded):
            found += [Unverified(key=key, reason=each.unseen()) for each in names if not _is_readable(each, loaded)]
    return found


def _is_readable(name: PrivateName, loaded: LoadedModel) -> bool:
    if name is transformers_internals.ATTENTION:
        return transformers_internals.attention_implementation(loaded.model) is not None
    return name.is_here()


def _compiles(config: BenchmarkConfig, _: LoadedModel) -> bool:
    return config.compile.mode is not None


def _compiles_anything(config: BenchmarkConfig, _: LoadedModel) -> bool:
    return config.compile.mode is not None or config.attention.implementation == workarounds.FLEX


_Concerns = Callable[[BenchmarkConfig, LoadedModel], bool]
# A key, the settings that are concerned, and the names without which not all of it can be seen.
_EVIDENCE: tuple[tuple[str, _Concerns, tuple[PrivateName, ...]], ...] = (
    ("attention.implementation", lambda *_: True, (transformers_internals.ATTENTION,)),
    (
        "attention.implementation",
        lambda config, _: config.generation.continuous_batching,
        (torch_internals.PROFILER_OPTIONS,),
    ),
    (
        "attention.implementation",
        lambda config, _: workarounds.makes_block_masks_ahead(config),
        (transformers_internals.MASK_FUNCTIONS,),
    ),
    ("compile.mode", lambda *_: True, (torch_internals.COUNTERS, torch_internals.COMPILATIONS)),
    (
        "compile.mode",
        _compiles,
        (
            torch_internals.DYNAMO_OPTIONS,
            torch_internals.STANCE,
            torch_internals.GRAPH_BREAKS,
            torch_internals.CALLBACKS,
            torch_internals.COMPILE_ID,
            torch_internals.KEEP_COMPILATIONS,
            torch_internals.MODE_OPTIONS,
        ),
    ),
    (
        "compile.mode",
        lambda config, _: config.generation.continuous_batching,
        (torch_internals.OPTION_TABLE,),
    ),
    ("compile.cache", _compiles_anything, (torch_internals.CLEAR_CODE, torch_internals.CLEAR_COMPILATIONS)),
    (
        "compile.cache",
        lambda config, loaded: _compiles_anything(config, loaded) and loaded.device.type == "cpu",
        torch_internals.HEADER_FOLDERS,
    ),
    ("generation.kernelize", lambda config, _: config.generation.kernelize, (transformers_internals.KERNEL_LAYER,)),
    (
        "profile.memory_snapshot",
        lambda config, _: config.profile.memory_snapshot,
        (torch_internals.RECORD_MEMORY, torch_internals.DUMP_MEMORY),
    ),
)
