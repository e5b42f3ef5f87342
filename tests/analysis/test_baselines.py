"""Which settings are the ones that others are compared with."""

from __future__ import annotations

from bench.analysis.baselines import baseline_ids
from bench.analysis.settings import Setting


def setting(attention: str, mode: str) -> Setting:
    name = f"{attention} {mode}"
    return Setting(name=name, setting_id=name, swept={"attention": attention, "compile": mode})


SETTINGS = [setting(attention, mode) for attention in ("eager", "sdpa") for mode in ("off", "default")]


def test_a_value_names_the_baseline_of_each_group():
    assert baseline_ids(SETTINGS, "compile:off") == {"eager off", "sdpa off"}


def test_a_name_names_one():
    assert baseline_ids(SETTINGS, "sdpa off") == {"sdpa off"}


def test_none_is_marked_where_none_was_named_or_the_name_fits_nothing():
    assert baseline_ids(SETTINGS, None) == set()
    assert baseline_ids(SETTINGS, "sdpa") == set()
    assert baseline_ids([], "compile:off") == set()
