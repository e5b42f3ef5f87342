from __future__ import annotations

import itertools

import pytest
from hypothesis import given
from hypothesis import strategies as st

from bench.tracking.runs.run_names import KEYS, PATHS, VALUES, last_part, short_name

MODES = ["null", "default", "reduce-overhead", "max-autotune", "max-autotune-no-cudagraphs"]


@pytest.mark.parametrize(
    ("swept", "name"),
    [
        ({"attention": "eager", "compile": "default"}, "eager default"),
        ({"attention": "sdpa", "workload.batch_size": "2", "workload.sequence_length": "24"}, "sdpa b2 s24"),
        ({"attention": "flash2", "workload.num_tokens_to_generate": "128"}, "fa2 n128"),
        ({"compile.mode": "max-autotune-no-cudagraphs"}, "autotune-nocg"),
        ({"compile.mode": "null", "warmup.iterations": "0"}, "off w0"),
        ({"model.id": "org/Llama-3.1-8B", "model.dtype": "bfloat16"}, "Llama-3.1-8B bf16"),
        ({"model.id": "/checkpoints/tiny/"}, "tiny"),
        ({"attention.sdpa_backend": "'null'"}, "any"),
        ({"compile.fullgraph": "true", "++generation.kv_cache": "static"}, "fullgraph=true static"),
        ({"sweep.label": "before"}, "before"),
        ({"workload.prompt_file": "my prompts.txt"}, '"my prompts.txt"'),
        ({}, ""),
    ],
)
def test_a_setting_is_called_by_its_swept_values(swept, name):
    assert short_name(swept, {key: [value] for key, value in swept.items()}) == name


def test_the_usual_axes_together_fit_the_column_of_names():
    attention, sizes = ["eager", "sdpa", "flex", "flash2"], ["1", "64"]
    among = {
        "attention": attention,
        "compile": [mode for mode in MODES if mode != "null"],
        "workload.batch_size": sizes,
    }
    names = [short_name(dict(zip(among, values, strict=True)), among) for values in itertools.product(*among.values())]
    assert max(map(len, names)) <= 24


def test_two_models_of_one_name_keep_what_tells_them_apart():
    among = {"model.id": ["meta/tiny", "mine/tiny", "mine/small"]}
    assert [short_name({"model.id": each}, among) for each in among["model.id"]] == among["model.id"]


def test_a_value_that_looks_like_the_short_form_of_another_keeps_them_apart():
    among = {"model.id": ["org/tiny", "tiny"]}
    assert [short_name({"model.id": each}, among) for each in among["model.id"]] == ["org/tiny", "tiny"]


def test_a_word_that_looks_like_a_number_with_its_letter_keeps_them_apart():
    among = {"workload.batch_size": ["0", "b0"]}
    names = [short_name({"workload.batch_size": each}, among) for each in among["workload.batch_size"]]
    assert names == ["workload.batch_size=0", "workload.batch_size=b0"]


def test_without_the_sweeps_values_a_value_stands_as_typed():
    assert (
        short_name({"model.id": "org/tiny", "compile": "max-autotune-no-cudagraphs"}, {})
        == "org/tiny max-autotune-no-cudagraphs"
    )


def test_a_setting_that_lacks_a_key_of_its_sweep_names_its_own():
    among = {"attention.implementation": ["eager"], "compile.backend": ["eager"]}
    assert short_name({"compile.backend": "eager"}, among) == "compile.backend=eager"
    assert short_name({"attention.implementation": "eager"}, among) == "attention.implementation=eager"


def test_a_name_is_never_cut():
    long = "x" * 200
    assert short_name({"sweep.label": long}, {"sweep.label": [long, f"{long}y"]}) == long


def test_no_two_values_of_a_key_have_one_short_form():
    for key, forms in VALUES.items():
        assert len(set(forms.values())) == len(forms), key
        assert set(forms).isdisjoint(forms.values()), key
    assert len(set(KEYS.values())) == len(KEYS)


words = st.text("ab/ '\".-0", min_size=1, max_size=6).filter(lambda text: text.strip("'\"") == text)
values = st.one_of(words, st.sampled_from([*MODES, "autotune-nocg", "off", "meta/tiny", "tiny", "1", "12"]))
keys = st.sampled_from([*PATHS, "compile.mode", "workload.batch_size", "attention", "attention.sdpa_backend"])


@given(st.dictionaries(keys, st.lists(values, min_size=1, max_size=4, unique=True), min_size=1, max_size=3))
def test_no_two_settings_of_a_sweep_have_one_name(among):
    settings = [dict(zip(among, each, strict=True)) for each in itertools.product(*among.values())]
    assert len({short_name(each, among) for each in settings}) == len(settings)


@pytest.mark.parametrize(("path", "part"), [("a/b", "b"), ("a/b/", "b"), ("b", "b"), ("/", "/"), ("", "")])
def test_of_a_path_the_last_part_is_known(path, part):
    assert last_part(path) == part
