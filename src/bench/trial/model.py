"""From a model config to a model on the device, with its tokenizer.

Weights come from safetensors or GGUF, never from a pickle, or they are random. Random weights are made on the device
itself, so that a model of eight billion parameters needs no download and no minute of a CPU's random numbers.

`draft` is the same way without the weights: it builds the model on torch's meta device and reads no more of a
checkpoint than the headers of its files, and it refuses what cannot work. Each load begins with it, and so does the
examination before a sweep (`bench.trial.preflight`), so that both refuse the same in the same words. It does not
judge what is a limit of this machine, such as an attention implementation that is missing: see `bench.trial.support`.
"""

from __future__ import annotations

import contextlib
import copy
import dataclasses
import json
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any, NoReturn

import huggingface_hub
import psutil
import torch
import transformers
from huggingface_hub import errors as hub_errors
from safetensors import SafetensorError, safe_open

from bench.config import BenchmarkConfig, ModelConfig, flatten
from bench.rules import ConfigError
from bench.trial.environment import memory_limit_bytes
from bench.trial.prompt import token_ids
from bench.trial.support import one_line

MOST_LAYERS = 1000  # ten times the deepest known; each takes Python a millisecond and more to build
MOST = 2**31 - 1
# Sizes under the names that most architectures share. Some have others, which only building them tests.
SIZES = (
    "vocab_size",
    "hidden_size",
    "intermediate_size",
    "num_hidden_layers",
    "num_attention_heads",
    "num_key_value_heads",
    "head_dim",
    "max_position_embeddings",
)
# Of the many errors that a forward pass on the meta device can end in, those that say that sizes do not fit together.
MISFIT = r"must match the size|shapes cannot be multiplied|is invalid for input of size|broadcast a dimension"
WEIGHTS, INDEX = "model.safetensors", "model.safetensors.index.json"


@dataclasses.dataclass(frozen=True, kw_only=True)
class LoadedModel:
    """A model ready to generate."""

    model: Any  # transformers.PreTrainedModel, in eval mode, on `device`
    tokenizer: Any
    device: torch.device


@dataclasses.dataclass(frozen=True, kw_only=True)
class Draft:
    """A model without its weights: what can be told before they are read."""

    architecture: Any  # transformers.PreTrainedConfig
    tokenizer: Any
    device: torch.device
    rows: int  # of the embedding: token ids must be below


def load(config: BenchmarkConfig) -> LoadedModel:
    """Load or make the model that the config names, on the device that it names.

    Raises:
        ConfigError: the request cannot be met on this machine or by this model, or the model cannot be found.
        ValueError, ImportError: as transformers raises them.
    """
    device = resolve_device(config.device)
    model_config = config.model
    if config.profile.memory_snapshot and device.type != "cuda":
        raise NoSnapshotError(f"torch keeps no history of memory on {device.type}")
    if device.type == "cuda":
        torch.cuda.set_device(device)  # for what asks for the current GPU: Triton, kernels that others wrote, NVTX
    plan = draft(model_config, device)
    check_workload(config, plan)
    _seed(model_config.seed)
    if model_config.weights == "random":
        model = _random_model(config, plan)
    else:
        with _refusing(model_config):
            model = _pretrained_model(config, plan).to(device)
    model = model.eval()
    # A checkpoint's own habits (sampling, penalties) would reach each call through this; ours spells out everything.
    model.generation_config = transformers.GenerationConfig()
    # A fresh seed, so that what loading consumed does not matter to anything after it.
    _seed(model_config.seed)
    return LoadedModel(model=model, tokenizer=plan.tokenizer, device=device)


def draft(model_config: ModelConfig, device: torch.device) -> Draft:
    """Everything of a model but its weights. Raises ConfigError for what cannot become a model on `device`."""
    if model_config.id is None:
        raise ConfigError("model.id", None, "name a model: a group (model=tiny), a hub id or a folder")
    if not model_config.architecture:
        _check_origin(model_config)
    architecture = _architecture(model_config)
    _check_layers(model_config, architecture)
    skeleton = _skeleton(model_config, architecture)
    if skeleton is not None:
        _check_memory(model_config, architecture, skeleton, device)
        if model_config.weights == "random":
            _check_fit(model_config, skeleton)
        elif model_config.gguf_file is None:
            _check_checkpoint(model_config, architecture, skeleton)
    tokenizer = _byte_tokenizer() if model_config.architecture else _tokenizer(model_config)
    rows = architecture.get_text_config().vocab_size
    if skeleton is not None and (embedding := skeleton.get_input_embeddings()) is not None:
        rows = getattr(embedding, "num_embeddings", rows)
    _check_tokenizer(model_config, tokenizer, rows)
    return Draft(architecture=architecture, tokenizer=tokenizer, device=device, rows=rows)


# ---- the device --------------------------------------------------------------------------------------------------


def resolve_device(name: str) -> torch.device:
    """The torch device of the key `device`; ConfigError when this machine lacks it."""
    if name == "auto":
        name = "cuda" if torch.cuda.is_available() else "cpu"
    if not name.startswith("cuda"):
        return torch.device(name)
    if torch.cuda._is_in_bad_fork():  # noqa: SLF001 - torch's own answer would be an exception far from here
        remedy = "the fork server has initialised CUDA, which no process forked from it can use; set it to spawn"
        raise ConfigError("isolation.mode", "forkserver", remedy)
    if not torch.cuda.is_available():
        raise ConfigError("device", name, "torch finds no CUDA GPU here; use device=cpu")
    index = int(name.partition(":")[2] or 0)  # torch.device would wrap a large one around
    count = torch.cuda.device_count()
    if index >= count:
        raise ConfigError("device", name, f"this machine has {count} CUDA GPU(s), counted from cuda:0")
    return torch.device("cuda", index)


class NoSnapshotError(RuntimeError):
    """Only torch's allocator on a GPU keeps a history."""


def _seed(seed: int) -> None:
    torch.manual_seed(seed)  # seeds the GPUs as well


def _check_memory(model_config: ModelConfig, architecture: Any, skeleton: Any, device: torch.device) -> None:
    if getattr(architecture, "quantization_config", None) is not None:
        return  # the skeleton has the tensors that it would have unquantised
    tensors = {id(each): each for each in (*skeleton.parameters(), *skeleton.buffers())}
    needed = sum(each.numel() * each.element_size() for each in tensors.values())
    if device.type == "cuda":
        present = torch.cuda.get_device_properties(device).total_memory
    else:
        host = psutil.virtual_memory().total
        present = min(host, memory_limit_bytes() or host) + psutil.swap_memory().total
    if needed <= present:
        return
    remedy = f"makes weights of {needed / 2**30:.4g} GiB, and {device} has {present / 2**30:.4g} GiB; use less"
    if model_config.architecture:
        key = _outlier(model_config.architecture, architecture)
        raise ConfigError(f"model.architecture.{key}", model_config.architecture[key], remedy)
    raise ConfigError("model.id", model_config.id, remedy.replace("use less", "use a smaller model"))


def _outlier(given: dict[str, Any], architecture: Any) -> str:
    """The size that exceeds the architecture's usual one most: most likely the one that is wrong."""
    usual = type(architecture)()
    ratios = {
        key: given[key] / getattr(usual, key)
        for key in SIZES
        if isinstance(given.get(key), int) and isinstance(getattr(usual, key, None), int)
    }
    return max(ratios, key=lambda key: ratios[key], default="model_type")


# ---- where a model comes from ------------------------------------------------------------------------------------


def _check_origin(model_config: ModelConfig) -> None:
    """Refuse a path that leads nowhere; what is no path is the hub's to know."""
    name = str(model_config.id)
    path = Path(name)
    if path.is_dir():
        if model_config.revision is not None:
            raise ConfigError(
                "model.revision", model_config.revision, f"{name} is a folder and has none; set it to null"
            )
        if model_config.gguf_file is None:
            _check_config_file(name, path / "config.json")
        if model_config.gguf_file is not None:
            _check_gguf(model_config, path / model_config.gguf_file)
    elif path.exists():
        remedy = "is a file; name its folder"
        if path.suffix == ".gguf":
            remedy += f": model.id={path.parent} model.gguf_file={path.name}"
        raise ConfigError("model.id", name, remedy)
    elif name.startswith(("/", ".", "~")) or name.count("/") > 1:
        hint = "; ~ is written out in full here" if name.startswith("~") else ""
        raise ConfigError("model.id", name, f"there is no such folder{hint}")


def _check_config_file(name: str, path: Path) -> None:
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError as error:
        remedy = "the folder holds no config.json; name a folder made by save_pretrained"
        raise ConfigError("model.id", name, remedy) from error
    except (OSError, ValueError) as error:
        raise ConfigError(
            "model.id", name, f"its config.json cannot be read ({one_line(error)}); copy it again"
        ) from error
    if not isinstance(content, dict):
        raise ConfigError("model.id", name, "its config.json holds no keys and values; copy it again")


def _check_gguf(model_config: ModelConfig, path: Path) -> None:
    """Refuse what is not there or no GGUF at all; whether it is whole shows when its header is read."""
    name = model_config.gguf_file
    if not path.is_file():
        there = sorted(each.name for each in path.parent.glob("*.gguf"))[:5] if path.parent.is_dir() else []
        raise ConfigError("model.gguf_file", name, f"is not in {path.parent}; there: {', '.join(there) or 'none'}")
    with path.open("rb") as file:
        if file.read(4) != b"GGUF":
            raise ConfigError("model.gguf_file", name, "is no GGUF file; copy or download it again")


@contextlib.contextmanager
def _refusing(model_config: ModelConfig) -> Iterator[None]:
    """Turn what the hub and transformers raise when there is no such model into one line for the user."""
    try:
        yield
    except SafetensorError as error:
        remedy = f"its weights are damaged ({one_line(error)}); copy or download them again"
        raise ConfigError("model.id", model_config.id, remedy) from error
    except OSError as error:
        _refuse_hub(model_config, error)
        raise ConfigError("model.id", model_config.id, f"cannot be loaded: {one_line(error)}") from error
    except ValueError as error:
        if "trust_remote_code" in str(error):
            remedy = (
                f"{model_config.id} needs Python code that comes with it, which is run only with true; read it first"
            )
            raise ConfigError("model.trust_remote_code", False, remedy) from error
        raise


def _refuse_hub(model_config: ModelConfig, error: BaseException) -> None:
    """Say what the hub had against it, if that is what the error comes from."""
    chain = [error]
    while (cause := chain[-1].__cause__ or chain[-1].__context__) is not None and cause not in chain:
        chain.append(cause)
    for kind, key, remedy in _hub_reasons(model_config):
        if any(isinstance(each, kind) for each in chain):
            value = model_config.revision if key == "model.revision" else model_config.id
            raise ConfigError(key, value, remedy) from error


def _hub_reasons(model_config: ModelConfig) -> Iterator[tuple[type[BaseException] | tuple[Any, ...], str, str]]:
    """Errors of the hub's client, special before general, with the key to change and the remedy."""
    endpoint = huggingface_hub.constants.ENDPOINT
    name = "model.id"
    yield hub_errors.HFValidationError, name, "is neither a folder here nor a hub id such as some-org/some-model"
    yield hub_errors.GatedRepoError, name, "is gated: accept its licence on the hub, then log in with hf auth login"
    revision = f"{model_config.id} has no branch, tag or commit {model_config.revision or 'main'} on the hub"
    yield hub_errors.RevisionNotFoundError, "model.revision", revision
    absent = f"{endpoint} knows no such model, or it is private; check the name, or log in with hf auth login"
    yield hub_errors.RepositoryNotFoundError, name, absent
    if huggingface_hub.constants.HF_HUB_OFFLINE:
        absent = "is no folder, and not in the hub's cache, and HF_HUB_OFFLINE=1 keeps from asking the hub; unset it"
    else:
        absent = (
            f"is no folder, and not in the hub's cache, and {endpoint} does not answer; name a folder, or go online"
        )
    yield (hub_errors.OfflineModeIsEnabled, hub_errors.LocalEntryNotFoundError), name, absent
    yield hub_errors.EntryNotFoundError, name, "lacks a file that transformers needs, such as config.json; use another"
    yield hub_errors.HfHubHTTPError, name, f"{endpoint} refuses to send it; check the login, or try again later"


# ---- the architecture --------------------------------------------------------------------------------------------


def _architecture(model_config: ModelConfig) -> Any:
    """The transformers config: from sizes, from the model's own config.json or from its GGUF file."""
    if model_config.architecture:
        return _named_architecture(model_config.architecture)
    source = {"gguf_file": model_config.gguf_file} if model_config.gguf_file else {}
    try:
        with _refusing(model_config):
            return transformers.AutoConfig.from_pretrained(
                model_config.id,
                revision=model_config.revision,
                trust_remote_code=model_config.trust_remote_code,
                **source,
            )
    except ConfigError:
        raise
    except Exception as error:
        # transformers and the classes of its models raise here whatever comes: ValueError, KeyError, TypeError, …
        if model_config.gguf_file:
            remedy = f"cannot be read, for it is truncated, damaged or of an unknown kind: {_reason(error)}"
            raise ConfigError("model.gguf_file", model_config.gguf_file, remedy) from error
        reason = _reason(error)
        if "does not recognize this architecture" in str(error):
            reason = f"transformers {transformers.__version__} does not know this model_type; a newer one may"
        raise ConfigError("model.id", model_config.id, f"its config.json cannot serve: {reason}") from error


def _named_architecture(named: dict[str, Any]) -> Any:
    sizes = copy.deepcopy(named)
    model_type = sizes.pop("model_type")
    known = transformers.CONFIG_MAPPING
    if model_type not in known:
        remedy = "transformers knows no such architecture; see model_type in a config.json"
        raise ConfigError("model.architecture.model_type", model_type, remedy)
    usual = known[model_type]
    for key in SIZES:
        if key in sizes:
            _check_size(key, sizes[key], usual)
    try:
        return transformers.AutoConfig.for_model(model_type, **sizes)
    except Exception as error:  # noqa: BLE001 - each architecture checks its sizes in its own way, or divides by them
        _refuse_architecture(named, error)


def _check_size(key: str, value: Any, usual: type) -> None:
    try:
        default = getattr(usual(), key, None)
    except Exception:  # noqa: BLE001 - an architecture without defaults of its own
        default = None
    if isinstance(value, list) and isinstance(default, list):
        return  # one size a layer
    if value is None and default is None:
        return
    if isinstance(value, bool) or not isinstance(value, int) or not 1 <= value <= MOST:
        kind = "" if isinstance(value, int) and not isinstance(value, bool) else f", not a {type(value).__name__}"
        raise ConfigError(f"model.architecture.{key}", value, f"must be a whole number from 1 to {MOST}{kind}")


def _refuse_architecture(named: dict[str, Any], error: Exception) -> NoReturn:
    """Name the value that the error is about, where it says so, else the architecture as a whole."""
    if isinstance(error, KeyError):
        for key, value in flatten(named).items():
            if error.args == (value,):
                raise ConfigError(f"model.architecture.{key}", value, "transformers knows no such value") from error
    field = re.search(r"field '(\w+)'", str(error))
    if field and field[1] in named:
        raise ConfigError(f"model.architecture.{field[1]}", named[field[1]], _reason(error)) from error
    remedy = f"makes no model: {_reason(error)}"
    raise ConfigError("model.architecture", named["model_type"], remedy) from error


def _reason(error: BaseException) -> str:
    """What a nested error says at its end, as one line."""
    lines = [line.strip() for line in str(error).splitlines() if line.strip()]
    if len(lines) > 1 and lines[0].endswith(":"):
        return lines[1].removeprefix("ValueError: ").removeprefix("TypeError: ")
    text = one_line(error, 200)
    return f"{type(error).__name__}: {text}" if isinstance(error, LookupError) else text


def _check_layers(model_config: ModelConfig, architecture: Any) -> None:
    layers = getattr(architecture.get_text_config(), "num_hidden_layers", None)
    if not isinstance(layers, int) or layers <= MOST_LAYERS:
        return
    remedy = f"bench builds at most {MOST_LAYERS} layers"
    if model_config.architecture:
        raise ConfigError("model.architecture.num_hidden_layers", layers, remedy)
    raise ConfigError("model.id", model_config.id, f"its config.json asks for {layers} layers; {remedy}")


def _skeleton(model_config: ModelConfig, architecture: Any) -> Any:
    """The model on the meta device: shapes, no memory. None where that way says nothing about the real one."""
    if type(architecture).__module__.startswith("transformers_modules"):
        return None  # code that comes with the model, which need not know the meta device
    try:
        with torch.device("meta"):
            return transformers.AutoModelForCausalLM.from_config(
                copy.deepcopy(architecture),
                # Two bytes where only the weights' own file says how many: too little refuses nothing wrongly.
                dtype=_dtype(model_config) or getattr(architecture, "dtype", None) or _unknown_dtype(model_config),
                attn_implementation="eager",  # the one that every model has; the requested one is judged by the load
                trust_remote_code=model_config.trust_remote_code,
            )
    except Exception as error:  # noqa: BLE001 - whatever a model raises while it is built
        if "meta tensor" in str(error):
            return None
        _refuse_model(model_config, error)


def _unknown_dtype(model_config: ModelConfig) -> torch.dtype:
    return torch.float32 if model_config.weights == "random" else torch.float16


def _refuse_model(model_config: ModelConfig, error: Exception) -> NoReturn:
    named, text = model_config.architecture, str(error)
    if "trust_remote_code" in text:
        with _refusing(model_config):
            raise error
    if "Unrecognized configuration class" in text:
        remedy = "is no language model that generates (AutoModelForCausalLM); use another"
        key, value = ("architecture.model_type", named["model_type"]) if named else ("id", model_config.id)
        raise ConfigError(f"model.{key}", value, remedy) from error
    if named:
        _refuse_architecture(named, error)
    raise ConfigError("model.id", model_config.id, f"its config.json makes no model: {_reason(error)}") from error


def _check_fit(model_config: ModelConfig, skeleton: Any) -> None:
    """Whether the sizes of a random model fit together: two tokens through it, on the meta device."""
    named = model_config.architecture or {}
    heads, groups = named.get("num_attention_heads"), named.get("num_key_value_heads")
    if isinstance(heads, int) and isinstance(groups, int) and heads % groups:
        remedy = f"must divide model.architecture.num_attention_heads={heads}"
        raise ConfigError("model.architecture.num_key_value_heads", groups, remedy)
    ids = torch.zeros(1, 2, dtype=torch.int64, device="meta")
    try:
        with torch.no_grad():
            skeleton(input_ids=ids, attention_mask=torch.ones_like(ids), use_cache=False)
    except Exception as error:  # noqa: BLE001 - most say only that this model cannot run on the meta device
        if re.search(MISFIT, str(error)):
            _refuse_model(model_config, error)


# ---- the checkpoint ----------------------------------------------------------------------------------------------


def _check_checkpoint(model_config: ModelConfig, architecture: Any, skeleton: Any) -> None:
    """Whether the weights are there, whole, and all that the model needs; on a hub as far as they are in the cache."""
    folder = _folder_of(model_config)
    special = (folder / "adapter_config.json").is_file() if folder else True
    if folder is None or special or getattr(architecture, "transformers_weights", None):
        return  # transformers finds those by rules of its own, and the load checks what it found
    tensors: dict[str, torch.Tensor] = {}
    for path in _weight_files(model_config, folder):
        tensors.update(_header(model_config, path))
    if getattr(architecture, "quantization_config", None) is not None:
        return  # what each kind of quantised tensor becomes is known to the library that reads it
    try:
        # transformers' own way of loading, with all its renaming, merging and tying, on tensors without content.
        _, found = type(skeleton).from_pretrained(
            None,
            config=copy.deepcopy(architecture),
            state_dict=tensors,
            dtype=_dtype(model_config) or "auto",
            device_map={"": "meta"},
            attn_implementation="eager",
            output_loading_info=True,
            ignore_mismatched_sizes=True,
        )
    except Exception:  # noqa: BLE001 - a way that not every model knows; the load itself finds what is missing
        return
    _check_tensors(model_config, found)


def _folder_of(model_config: ModelConfig) -> Path | None:
    """Where the checkpoint lies on this machine; None when (some of) its weights are still to be fetched."""
    path = Path(str(model_config.id))
    if path.is_dir():
        return path
    for name in (WEIGHTS, INDEX):
        found = huggingface_hub.try_to_load_from_cache(str(model_config.id), name, revision=model_config.revision)
        if isinstance(found, str):
            return Path(found).parent
    return None


def _weight_files(model_config: ModelConfig, folder: Path) -> list[Path]:
    if (folder / WEIGHTS).is_file():
        return [folder / WEIGHTS]
    if not (folder / INDEX).is_file():
        if any(folder.glob("pytorch_model*.bin")):
            remedy = "its weights are pickles (pytorch_model.bin), which are never read; convert them to safetensors"
            raise ConfigError("model.id", model_config.id, remedy)
        raise ConfigError("model.id", model_config.id, f"the folder holds no weights ({WEIGHTS}); copy them there")
    try:
        index = json.loads((folder / INDEX).read_text(encoding="utf-8"))
        names = sorted(set(index["weight_map"].values()))
    except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
        raise ConfigError("model.id", model_config.id, f"{INDEX} cannot be read; copy it again") from error
    missing = [name for name in names if not (folder / name).is_file()]
    if not missing:
        return [folder / name for name in names]
    if Path(str(model_config.id)).is_dir():
        remedy = f"lacks {len(missing)} of {len(names)} files of weights ({_some(missing)}); copy them there"
        raise ConfigError("model.id", model_config.id, remedy)
    if huggingface_hub.constants.HF_HUB_OFFLINE:
        remedy = f"{len(missing)} of {len(names)} files of weights are not in the hub's cache; unset HF_HUB_OFFLINE"
        raise ConfigError("model.id", model_config.id, remedy)
    return [folder / name for name in names if name not in missing]


def _header(model_config: ModelConfig, path: Path) -> dict[str, torch.Tensor]:
    """The tensors of a safetensors file, without their content. The library compares header and size of the file."""
    try:
        with safe_open(path, framework="pt") as file:
            names = list(file.keys())
            slices = {name: file.get_slice(name) for name in names}
            return {
                name: torch.empty(each.get_shape(), dtype=_stored_dtype(each.get_dtype()), device="meta")
                for name, each in slices.items()
            }
    except SafetensorError as error:
        remedy = f"{path.name} is truncated or damaged ({one_line(error)}); copy or download it again"
        raise ConfigError("model.id", model_config.id, remedy) from error


def _stored_dtype(name: str) -> torch.dtype:
    """Only shapes matter here: what is no plain float may pass for one."""
    return {"F64": torch.float64, "F32": torch.float32, "BF16": torch.bfloat16}.get(name, torch.float16)


def _check_tensors(model_config: ModelConfig, found: dict[str, Any]) -> None:
    """Refuse weights that are not all the checkpoint's: transformers fills the gaps with random ones and a warning."""
    key, value = (
        ("model.gguf_file", model_config.gguf_file) if model_config.gguf_file else ("model.id", model_config.id)
    )
    if missing := sorted(found["missing_keys"]):
        remedy = f"lacks {len(missing)} of the model's tensors ({_some(missing)}), which would be random; "
        raise ConfigError(key, value, remedy + "use a whole checkpoint of this architecture")
    if wrong := sorted(found["mismatched_keys"]):
        name, there, wanted = wrong[0]
        remedy = f"{name} has the shape {list(there)} where config.json makes it {list(wanted)}"
        more = f", and {len(wrong) - 1} more" if len(wrong) > 1 else ""
        raise ConfigError(key, value, f"{remedy}{more}; use the weights and the config.json of one checkpoint")


def _some(names: list[str]) -> str:
    return ", ".join(names[:2]) + (", ..." if len(names) > 2 else "")


def _pretrained_model(config: BenchmarkConfig, plan: Draft) -> Any:
    model_config = config.model
    source: dict[str, Any]
    if model_config.gguf_file:
        source = {"gguf_file": model_config.gguf_file, "config": plan.architecture} | _dense_gguf(
            model_config.gguf_file
        )
    else:
        source = {"use_safetensors": True}
    model, found = transformers.AutoModelForCausalLM.from_pretrained(
        model_config.id,
        revision=model_config.revision,
        dtype=_dtype(model_config) or "auto",
        attn_implementation=config.attention.implementation,
        trust_remote_code=model_config.trust_remote_code,
        output_loading_info=True,
        ignore_mismatched_sizes=True,  # so that they are listed, and refused below in one line
        **source,
    )
    _check_tensors(model_config, found)
    return model


def _dense_gguf(gguf_file: str) -> dict[str, Any]:
    """Ask for dense weights by name where transformers can keep GGUF blocks; before, it always made dense ones."""
    if not hasattr(transformers, "GgufConfig"):
        return {}
    return {"quantization_config": transformers.GgufConfig(gguf_file=gguf_file, dequantize=True)}


def _random_model(config: BenchmarkConfig, plan: Draft) -> Any:
    dtype = _dtype(config.model) or getattr(plan.architecture, "dtype", None) or torch.float32
    with plan.device:
        return transformers.AutoModelForCausalLM.from_config(
            plan.architecture,
            dtype=dtype,
            attn_implementation=config.attention.implementation,
            trust_remote_code=config.model.trust_remote_code,
        )


def _dtype(model_config: ModelConfig) -> torch.dtype | None:
    return None if model_config.dtype == "auto" else getattr(torch, model_config.dtype)


def revision_of(model: Any) -> str | None:
    """The hub commit that the weights came from; None for folders and random weights."""
    commit = getattr(model.config, "_commit_hash", None)
    return str(commit) if commit else None


# ---- the tokenizer and the workload ------------------------------------------------------------------------------


def _tokenizer(model_config: ModelConfig) -> Any:
    source = {"gguf_file": model_config.gguf_file} if model_config.gguf_file else {}
    try:
        with _refusing(model_config):
            return transformers.AutoTokenizer.from_pretrained(
                model_config.id,
                revision=model_config.revision,
                trust_remote_code=model_config.trust_remote_code,
                **source,
            )
    except ConfigError:
        raise
    except Exception as error:
        # As for the architecture, whatever a broken file makes of the reader: JSONDecodeError, KeyError, …
        if "instantiate the backend tokenizer" in str(error):
            remedy = "it comes with no tokenizer that can be read; put its tokenizer.json beside config.json"
        else:
            whence = model_config.gguf_file or "tokenizer.json"
            remedy = f"its tokenizer cannot be read ({_reason(error)}); copy or download {whence} again"
        raise ConfigError("model.id", model_config.id, remedy) from error


def _byte_tokenizer() -> Any:
    """A tokenizer without a vocabulary file: one token a byte, then a padding and an end token. 258 tokens."""
    from tokenizers import Tokenizer, decoders, models, pre_tokenizers  # noqa: PLC0415 - only random models need it

    letters = sorted(pre_tokenizers.ByteLevel.alphabet())
    tokenizer = Tokenizer(models.BPE(vocab={letter: index for index, letter in enumerate(letters)}, merges=[]))
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    special = {"pad_token": "<pad>", "eos_token": "<eos>"}
    return transformers.PreTrainedTokenizerFast(tokenizer_object=tokenizer, **special)


def _check_tokenizer(model_config: ModelConfig, tokenizer: Any, rows: int) -> None:
    if tokenizer.pad_token_id is None and tokenizer.eos_token_id is None:
        remedy = "its tokenizer has neither a padding nor an end token; set eos_token in its tokenizer_config.json"
        raise ConfigError("model.id", model_config.id, remedy)
    if model_config.architecture:
        if len(tokenizer) > rows:
            remedy = f"is smaller than the tokenizer's {len(tokenizer)} tokens"
            raise ConfigError("model.architecture.vocab_size", rows, remedy)
        return
    # A token that was added for another purpose (an image's place) may lie beyond the embedding and never be used, as
    # in Gemma 3 of a billion parameters; so only the tokenizer's own vocabulary counts, and what a call does use.
    used = [
        each for each in (tokenizer.pad_token_id, tokenizer.eos_token_id, tokenizer.bos_token_id) if each is not None
    ]
    largest = max([tokenizer.vocab_size - 1, *used])
    if largest >= rows:
        remedy = f"its tokenizer has token {largest}, its embedding only {rows} rows; use the tokenizer of this model"
        raise ConfigError("model.id", model_config.id, remedy)


def check_workload(config: BenchmarkConfig, plan: Draft) -> None:
    """Refuse a workload that does not fit the model, or whose prompt makes no tokens of it."""
    workload = config.workload
    total = workload.sequence_length + workload.num_tokens_to_generate
    positions = getattr(plan.architecture.get_text_config(), "max_position_embeddings", None)
    if positions is not None and total > positions:
        remedy = f"with {workload.num_tokens_to_generate} new tokens makes {total} positions; the model has {positions}"
        raise ConfigError("workload.sequence_length", workload.sequence_length, remedy)
    start, body = token_ids(plan.tokenizer, workload)
    if (largest := max(start + body)) >= plan.rows:
        remedy = f"its tokenizer makes token {largest} of the prompt, its embedding has only {plan.rows} rows"
        raise ConfigError("model.id", config.model.id, remedy)
