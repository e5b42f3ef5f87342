from __future__ import annotations

import dataclasses
import json

import pytest

from bench.results.record import Iteration, Record, RecordError
from factories import make_record

pytestmark = pytest.mark.contract


def call(times: list[float]) -> Iteration:
    return Iteration(index=0, phase="measurement", start_s=0.0, e2e_s=1.0, token_times_s=times, graphs=0, compile_s=0.0)


def test_latencies_follow_from_the_token_times() -> None:
    one = call([0.25, 0.5, 1.0])
    assert one.ttft_s == 0.25
    assert one.itl_s == [0.25, 0.5]
    assert one.decode_s == 0.75
    assert one.tpot_s == 0.375


def test_a_call_of_n_tokens_has_n_minus_one_gaps() -> None:
    assert len(call([float(index) for index in range(32)]).itl_s) == 31


def test_a_record_reads_back_as_it_was_written(tmp_path) -> None:
    record = make_record()
    record.fail("failed", "RuntimeError", "went wrong", "traceback")
    record.write(tmp_path)
    assert Record.read(tmp_path) == record


def test_writing_leaves_only_the_record(tmp_path) -> None:
    make_record().write(tmp_path)
    assert [path.name for path in tmp_path.iterdir()] == ["record.json"]


def test_a_failed_write_keeps_the_old_record(tmp_path) -> None:
    make_record(name="old").write(tmp_path)
    with pytest.raises(ValueError, match="JSON"):
        make_record(phases_s={"load": float("nan")}).write(tmp_path)
    assert Record.read(tmp_path).name == "old"
    assert [path.name for path in tmp_path.iterdir()] == ["record.json"]


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        ("", "not JSON"),
        ('{"schema_version": 1, "trial_id": "ab', "not JSON"),
        ("[]", "not a record"),
        ("{}", "not a record"),
        ('{"schema_version": 99}', "schema version 99"),
        ('{"schema_version": 4}', "missing"),
    ],
)
def test_a_file_that_is_no_record_is_refused_with_the_reason(tmp_path, text: str, reason: str) -> None:
    (tmp_path / "record.json").write_text(text, encoding="utf-8")
    with pytest.raises(RecordError, match=reason) as caught:
        Record.read(tmp_path)
    assert str(tmp_path) in str(caught.value)
    assert "\n" not in str(caught.value)


def test_a_missing_file_is_a_record_error(tmp_path) -> None:
    with pytest.raises(RecordError, match="No such file"):
        Record.read(tmp_path / "record.json")


def test_a_field_of_the_wrong_type_is_named(tmp_path) -> None:
    data = make_record().to_dict()
    data["iterations"][3]["e2e_s"] = "fast"
    (tmp_path / "record.json").write_text(json.dumps(data), encoding="utf-8")
    with pytest.raises(RecordError, match=r"record.iterations\[3\].e2e_s is str, not float"):
        Record.read(tmp_path)


def test_an_unknown_field_is_named(tmp_path) -> None:
    data = make_record().to_dict() | {"speed": 1}
    (tmp_path / "record.json").write_text(json.dumps(data), encoding="utf-8")
    with pytest.raises(RecordError, match="no field speed"):
        Record.read(tmp_path)


def test_measured_facts_cannot_be_changed() -> None:
    with pytest.raises(dataclasses.FrozenInstanceError):
        call([0.1, 0.2]).e2e_s = 0.0
