"""Check that the reported hub kernels are installed, and that unavailable ones are a limit with a reason.

The tests with the package run where it is installed. Elsewhere a model stands in whose `set_use_kernels` does what the
package does: it puts a forward on each marked layer, the kernel's where there is one, else that of the layer's class.
"""

from __future__ import annotations

import types
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from torch import nn

from bench.config.schema import BenchmarkConfig
from bench.trial.model import hub_kernels
from bench.trial.model.hub_kernels import NoKernelError, kernelize
from bench.trial.model.loading import load
from bench.trial.unsupported import limit_reached

CPU = torch.device("cpu")
with_package = pytest.mark.skipif(not hub_kernels.is_available(), reason="needs the package kernels")
without_package = pytest.mark.skipif(hub_kernels.is_available(), reason="the package kernels is installed")


class Norm(nn.Module):
    kernel_layer_name = "Norm"

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return x


class Rotary(nn.Module):
    kernel_layer_name = "Rotary"

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return x


class Kernel(nn.Module):
    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return x + 1


class Kernelizable(nn.Module):
    """Two marked layers, a plain one and a function; `kernel_for` are the names that have a kernel."""

    def __init__(self, *kernel_for: str) -> None:
        super().__init__()
        self.first, self.second, self.plain = Norm(), Norm(), nn.Linear(2, 2)
        self.plain.__dict__["_kernel_funcs"] = {"rotate": Rotary()}
        self.kernel_for = kernel_for
        self.modes: list[object] = []

    def set_use_kernels(self, use_kernels: bool, mode: object) -> None:
        assert use_kernels
        self.modes.append(mode)
        marked = {"first": self.first, "second": self.second, "plain.rotate": self.plain._kernel_funcs["rotate"]}
        for name, module in marked.items():
            source = Kernel if name in self.kernel_for else type(module)
            module.forward = types.MethodType(source.forward, module)


@pytest.fixture
def package(monkeypatch: pytest.MonkeyPatch) -> None:
    """As if the package were there."""
    monkeypatch.setattr(hub_kernels, "is_available", lambda: True)
    monkeypatch.setattr(hub_kernels, "_mode", lambda compiled: "compiled" if compiled else "plain")


def reason_for(model: object) -> str:
    """The line with which the setting is skipped."""
    with pytest.raises(NoKernelError) as caught:
        kernelize(model, CPU, compiled=False)
    reason = limit_reached(caught.value, BenchmarkConfig(kernelize=True))
    assert reason is not None
    assert limit_reached(caught.value, BenchmarkConfig()) is None  # nobody asked
    return reason


@pytest.mark.usefixtures("package")
def test_the_names_are_those_of_layers_and_functions_that_run_a_kernel() -> None:
    model = Kernelizable("second", "plain.rotate")
    assert kernelize(model, CPU, compiled=False) == ["second", "plain.rotate"]


@pytest.mark.usefixtures("package")
def test_layers_that_kept_their_own_forward_make_the_setting_a_limit() -> None:
    model = Kernelizable()
    reason = reason_for(model)
    assert "forward" in vars(model.first)  # it was put there, and it is the class's own
    assert reason.startswith("generation.kernelize=true cannot run here: no layer of this model has a kernel for cpu")
    assert reason.endswith("; use generation.kernelize=false")


@pytest.mark.usefixtures("package")
@pytest.mark.parametrize("compiled", [True, False])
def test_compiled_settings_ask_for_kernels_that_can_be_compiled(compiled: bool) -> None:
    model = Kernelizable("first")
    kernelize(model, CPU, compiled=compiled)
    assert model.modes == ["compiled" if compiled else "plain"]


@pytest.mark.usefixtures("package")
@pytest.mark.parametrize(
    "error",
    [
        ValueError("Version 3 of 'a/b' is not available in the local cache and Hugging Face Hub is in offline mode."),
        ConnectionError("Name or service not known"),
        FileNotFoundError("Cannot find a build variant for this system in a/b"),
    ],
)
def test_kernels_out_of_reach_are_a_limit_with_the_cause(error: Exception, monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(*_: object, **__: object) -> None:
        raise error

    monkeypatch.setattr(Kernelizable, "set_use_kernels", fail)
    reason = reason_for(Kernelizable())
    assert f"the kernels cannot be fetched: {type(error).__name__}: {str(error)[:60]}" in reason
    assert reason.endswith("; fill the hub's cache where there is a network, or use generation.kernelize=false")


@pytest.mark.usefixtures("package")
def test_a_kernel_that_does_not_fit_its_layer_is_no_limit(monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(*_: object, **__: object) -> None:
        raise TypeError("Forward signature does not match `Norm`: different number of arguments.")

    monkeypatch.setattr(Kernelizable, "set_use_kernels", fail)
    with pytest.raises(TypeError, match="different number") as caught:
        kernelize(Kernelizable(), CPU, compiled=False)
    assert limit_reached(caught.value, BenchmarkConfig(kernelize=True)) is None


@without_package
def test_without_the_package_the_setting_is_a_limit_that_says_what_to_install(tiny: Callable) -> None:
    loaded = load(tiny(kernelize=True))
    reason = reason_for(loaded.model)
    assert reason.startswith(
        "generation.kernelize=true cannot run here: this transformers needs the package kernels>=0."
    )
    assert reason.endswith("which is not installed; install it, or use generation.kernelize=false")
    assert hub_kernels.kernelized(loaded.model) == []


@with_package
def test_no_layer_of_the_tiny_model_has_a_kernel_for_the_cpu(tiny: Callable) -> None:
    assert "no layer of this model has a kernel for cpu" in reason_for(load(tiny(kernelize=True)).model)


# The fields that the package asks for (kernels 0.16.2 with kernels-data).
METADATA = """{"id": "doubled", "name": "doubled", "version": 1, "license": "apache-2.0", "python-depends": [],
"backend": {"type": "cpu"}}"""

LOCAL_KERNEL = """
import torch
from torch import nn


class Doubled(nn.Module):
    can_torch_compile = True

    def forward(self, hidden_states: torch.Tensor) -> torch.Tensor:
        return hidden_states * 2
"""


@with_package
def test_a_kernel_from_a_local_folder_is_seen_and_runs(tiny: Callable, tmp_path: Path) -> None:
    import kernels as package  # not installed everywhere

    folder = tmp_path / "doubled"
    folder.mkdir()
    (folder / "layers.py").write_text(LOCAL_KERNEL, encoding="utf-8")
    (folder / "__init__.py").write_text("from . import layers\n", encoding="utf-8")
    (folder / "metadata.json").write_text(METADATA, encoding="utf-8")
    repository = package.LocalLayerRepository(folder, layer_name="Doubled")
    loaded = load(tiny(kernelize=True))
    with package.use_kernel_mapping({"RMSNorm": {"cpu": {package.Mode.INFERENCE: repository}}}):
        names = kernelize(loaded.model, CPU, compiled=False)
    assert names[-1] == "model.norm"
    assert len(names) == 2 * loaded.model.config.num_hidden_layers + 1
    assert loaded.model.model.norm(torch.ones(1, 1, 4)).tolist() == [[[2.0] * 4]]
