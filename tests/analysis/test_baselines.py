"""Test which settings are the baselines."""

from __future__ import annotations

from bench.analysis.baselines import baseline_ids
from bench.analysis.settings import Setting


def setting(attention: str, mode: str) -> Setting:
    name = f"{attention} {mode}"
    return Setting(name=name, setting_id=name, swept={"attention": attention, "compile": mode})


SETTINGS = [setting(attention, mode) for attention in ("eager", "sdpa") for mode in ("off", "default")]


def test_a_value_names_the_baseline_of_each_group():
    assert baseline_ids(SETTINGS, "compile:off") == {"eager off", "sdpa off"}


def test_the_name_of_a_setting_selects_that_baseline():
    assert baseline_ids(SETTINGS, "sdpa off") == {"sdpa off"}


def test_without_a_matching_name_no_setting_is_a_baseline():
    assert baseline_ids(SETTINGS, None) == set()
    assert baseline_ids(SETTINGS, "sdpa") == set()
    assert baseline_ids([], "compile:off") == set()
