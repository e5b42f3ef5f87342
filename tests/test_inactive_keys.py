"""Test that a typed key without effect under the chosen policy is refused with what to type instead."""

from __future__ import annotations

from pathlib import Path

import pytest

from bench.config.inactive import DEPENDENCES
from bench.config.schema import BenchmarkConfig, walk
from refusals import answer, refused


def file(folder: Path, text: str) -> tuple[str, ...]:
    path = folder / "mine/experiment/mine.yaml"
    path.parent.mkdir(parents=True)
    path.write_text(f"# @package _global_\n{text}\n", encoding="utf-8")
    return ("--config-dir", "mine", "experiment=mine")


def test_every_key_of_a_dependence_exists() -> None:
    known = {path for path, *_ in walk(BenchmarkConfig)}
    named = {f"{each.section}.{leaf}" for each in DEPENDENCES for leaf in each.leaves}
    assert named | {each.policy for each in DEPENDENCES} <= known


@pytest.mark.parametrize(
    ("typed", "line"),
    [
        (("warmup=auto", "warmup.iterations=3"),
         "warmup.iterations=3: has no effect with warmup.policy=auto; leave it out, or set warmup.policy=fixed"),
        (("warmup.window=9",),
         "warmup.window=9: has no effect with warmup.policy=fixed; leave it out, or set warmup.policy=auto"),
        (("measurement=adaptive", "measurement.iterations=30"),
         "measurement.iterations=30: has no effect with measurement.policy=adaptive; leave it out, or set "
         "measurement.policy=fixed"),
        (("measurement.half_width=0.1",),
         "measurement.half_width=0.1: has no effect with measurement.policy=fixed; leave it out, or set "
         "measurement.policy=adaptive"),
        (("compile.cache=shared",),
         "compile.cache=shared: has no effect with compile.mode=null; leave it out, or set compile.mode=default"),
        (("compile.options.triton.cudagraphs=true",),
         "compile.options.triton.cudagraphs=true: has no effect with compile.mode=null; leave it out, or set "
         "compile.mode=default"),
        (("monitor.enabled=false", "monitor.interval_s=1"),
         "monitor.interval_s=1: has no effect with monitor.enabled=false; leave it out, or set monitor.enabled=true"),
        (("isolation.mode=none", "isolation.timeout_s=9"),
         "isolation.timeout_s=9: has no effect with isolation.mode=none; leave it out, or set "
         "isolation.mode=forkserver"),
        (("-m", "attention=eager,sdpa", "sweep.order=given", "sweep.seed=2"),
         "sweep.seed=2: has no effect with sweep.order=given; leave it out, or set sweep.order=shuffled"),
    ],
)  # fmt: skip
def test_a_typed_key_of_an_inactive_policy_is_refused(tmp_path, typed: tuple[str, ...], line: str) -> None:
    assert refused(tmp_path, *typed) == line


@pytest.mark.parametrize(
    "typed",
    [
        ("warmup=auto", "warmup.window=9"),
        ("warmup.iterations=3", "measurement.iterations=3"),
        ("attention=flex", "compile.cache=shared"),
        ("compile=default", "compile.cache=shared", "compile.options.x=1"),
    ],
)
def test_a_typed_key_of_the_active_policy_is_accepted(tmp_path, typed: tuple[str, ...]) -> None:
    assert answer(tmp_path, *typed).status == 0


def test_an_inactive_value_in_a_file_is_accepted(tmp_path) -> None:
    found = answer(tmp_path, *file(tmp_path, "warmup: {iterations: 10}"), "warmup=auto")
    assert (found.status, found.config.warmup.policy) == (0, "auto")


def test_an_inactive_value_in_a_files_sweep_is_accepted(tmp_path) -> None:
    text = "hydra: {sweeper: {params: {attention: 'eager,sdpa', warmup.iterations: 3}}}"
    assert len(answer(tmp_path, "-m", *file(tmp_path, text), "warmup=auto").points) == 2


@pytest.mark.parametrize("policy", ["warmup=fixed,auto", "warmup.policy=fixed,auto"])
def test_a_key_active_in_one_point_of_a_sweep_is_accepted(tmp_path, policy: str) -> None:
    assert len(answer(tmp_path, "-m", policy, "warmup.iterations=3").points) == 2


def test_a_key_active_in_no_point_of_a_sweep_is_refused(tmp_path) -> None:
    line = refused(tmp_path, "-m", "warmup=auto", "warmup.iterations=3,5")
    assert line.startswith("warmup.iterations=3: has no effect with warmup.policy=auto; ")


def test_a_search_refuses_an_inactive_key_unless_the_policy_is_searched(tmp_path) -> None:
    search = ("-m", "hydra/sweeper=optuna", "attention=eager,sdpa", "warmup.iterations=1,2")
    line = refused(tmp_path, *search, "warmup.policy=auto")
    assert line.startswith("warmup.iterations=1: has no effect with warmup.policy=auto; ")
    for policy in ("warmup.policy=auto,fixed", "warmup=auto,fixed"):
        assert answer(tmp_path, *search, policy).space is not None
