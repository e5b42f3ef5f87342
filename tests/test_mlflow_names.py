"""Compare the names refused before the start with those that MLflow itself refuses."""

from __future__ import annotations

import pytest
from hypothesis import example, given
from hypothesis import strategies as st
from mlflow.exceptions import MlflowException
from mlflow.store.tracking.dbmodels.models import SqlExperiment, SqlRun, SqlTag
from mlflow.utils import validation

from bench.config.mlflow_names import (
    LONGEST_EXPERIMENT,
    LONGEST_NAME,
    LONGEST_RUN_NAME,
    LONGEST_TAG,
    OWN_TAGS,
    accepted_name,
    accepted_tags,
    problem_of_experiment,
    problem_of_name,
    problem_of_tag,
)
from bench.config.rules import ConfigError
from bench.config.schema import BenchmarkConfig, TrackingConfig

NAMES = st.text(st.sampled_from("aZ9_-.:/ %\\+@é名\n\t=\"'"), max_size=12) | st.text(max_size=300)


def takes(name: str) -> bool:
    """Return whether MLflow accepts the name of a tag; the same rule holds for params and metrics."""
    try:
        validation._validate_tag(name, "value")
        validation._validate_param(name, "value")
        validation._validate_metric(name, 1.0, 0, 0)
    except MlflowException:
        return False
    return True


@given(NAMES)
@example("")
@example("a" * LONGEST_NAME)
@example("a" * (LONGEST_NAME + 1))
@example("a//b")
@example("../a")
@example("..a")
@example("a/..b")
@example("a/.")
@example("/a")
@example("a/")
def test_a_name_is_refused_where_mlflow_refuses_it(name: str) -> None:
    if not name.endswith("\n"):  # which MLflow accepts by oversight
        assert (problem_of_name(name) is None) == takes(name)


@given(NAMES)
def test_every_name_is_converted_to_one_that_mlflow_accepts(name: str) -> None:
    assert takes(accepted_name(name))
    assert problem_of_name(accepted_name(name)) is None


@given(NAMES)
def test_a_name_that_mlflow_accepts_is_kept(name: str) -> None:
    if problem_of_name(name) is None:
        assert accepted_name(name) == name


def test_long_names_with_the_same_beginning_stay_distinct() -> None:
    one, other = "a" * 300 + "b", "a" * 300 + "c"
    assert accepted_name(one) != accepted_name(other)


def test_the_lengths_are_those_of_mlflow() -> None:
    assert LONGEST_NAME == validation.MAX_ENTITY_KEY_LENGTH == SqlTag.__table__.c.key.type.length
    assert LONGEST_TAG == validation.MAX_TAG_VAL_LENGTH == SqlTag.__table__.c.value.type.length
    assert SqlExperiment.__table__.c.name.type.length == LONGEST_EXPERIMENT
    assert LONGEST_EXPERIMENT <= validation.MAX_EXPERIMENT_NAME_LENGTH
    assert SqlRun.__table__.c.name.type.length == LONGEST_RUN_NAME


@given(st.dictionaries(NAMES | st.sampled_from(sorted(OWN_TAGS)) | st.just("mlflow.runName"), st.text(max_size=5)))
@example({"a%": "1", "a_": "2", "a+": "3"})
@example({"kind": "1", "user.kind": "2", "Kind": "3"})
def test_every_tag_can_be_stored_with_the_others_and_overrides_none_of_ours(tags: dict[str, str]) -> None:
    accepted = accepted_tags(tags)
    assert sorted(value for value, _ in accepted.values()) == sorted(tags.values())
    names = [each.casefold() for each in accepted]
    assert len(set(names)) == len(names)
    assert not OWN_TAGS & set(names)
    assert all(takes(each) and not each.startswith("mlflow.") for each in names)
    for stored, (value, name) in accepted.items():
        assert tags[stored if name is None else name] == value


@pytest.mark.parametrize(
    ("tags", "words"),
    [
        ({"a%b": "x"}, "'%'"),
        ({"a\nb": "x"}, r"'\n'"),
        ({"": "x"}, "must not be empty"),
        ({"a//b": "x"}, "takes a name for a path"),
        ({"../x": "x"}, "takes a name for a path"),
        ({".": "x"}, "takes a name for a path"),
        ({"a" * 251: "x"}, "at most 250 characters"),
        ({"mlflow.runName": "x"}, "MLflow's own"),
        ({"MLflow.user": "x"}, "MLflow's own"),
        ({"kind": "x"}, "such as my_kind"),
        ({"Status": "x"}, "such as my_status"),
        ({"complete": "yes"}, "such as my_complete"),
        ({"note": "x" * 8001}, "8000 characters"),
        ({"team": "x", "Team": "y"}, "by case alone"),
    ],
)
def test_a_tag_that_cannot_be_stored_is_refused_with_its_key_and_the_reason(tiny, tags, words: str) -> None:
    with pytest.raises(ConfigError, match=r"tracking\.tags\.") as refused:
        tiny(tracking=TrackingConfig(tags=tags)).check()
    assert words in str(refused.value)
    assert "\n" not in str(refused.value)


@pytest.mark.parametrize(
    "tags", [{}, {"team": "x"}, {"git/branch": "a b"}, {"名": "名\nb"}, {"n": "3"}, {"a": "x" * 8000}]
)
def test_a_tag_that_can_be_stored_is_accepted(tiny, tags) -> None:
    tiny(tracking=TrackingConfig(tags=tags)).check()


@pytest.mark.parametrize("name", ["", " ", "a\nb", "a\tb", "a" * 257])
def test_an_invalid_experiment_name_is_refused(tiny, name: str) -> None:
    assert problem_of_experiment(name) is not None
    with pytest.raises(ConfigError, match=r"tracking\.experiment="):
        tiny(tracking=TrackingConfig(experiment=name)).check()


@pytest.mark.parametrize("name", ["bench", "team/night", "a%b", "名 two", "a" * 256])
def test_a_valid_experiment_name_is_accepted(tiny, name: str) -> None:
    config: BenchmarkConfig = tiny(tracking=TrackingConfig(experiment=name))
    config.check()


@pytest.mark.parametrize("name", ["x", "a.b", "a b"])
def test_a_users_tag_is_valid_on_its_own(name: str) -> None:
    assert problem_of_tag(name, "value", [name]) is None
