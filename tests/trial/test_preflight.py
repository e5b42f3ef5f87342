"""Check the examination of settings without its process."""

from __future__ import annotations

import json

from bench.trial import preflight
from bench.trial.preflight import examine


def question(model: dict, device: str = "cpu", **workload: object) -> dict:
    return {"device": device, "model": model, "workload": workload}


def test_settings_that_can_work_are_not_refused(tiny_model: dict) -> None:
    assert examine([question(tiny_model), question(tiny_model, sequence_length=16)]) == ("examined", [])


def test_the_first_bad_setting_is_the_answer(tiny_model: dict) -> None:
    answer = examine([
        question(tiny_model),
        question(tiny_model, sequence_length=5000),
        question({"id": "/nowhere"}),
    ])  # fmt: skip
    remedy = "with 32 new tokens makes 5032 positions; the model has 4096"
    assert answer == ("refused", "workload.sequence_length", 5000, remedy)
    assert json.loads(json.dumps(answer)) == list(answer)


def test_each_model_is_made_once_however_many_workloads(tiny_model: dict, monkeypatch) -> None:
    made = []
    real = preflight.draft
    monkeypatch.setattr(preflight, "draft", lambda *arguments: made.append(1) or real(*arguments))
    other = {**tiny_model, "seed": 1}
    lengths = (8, 16, 32)
    settings = [question(model, sequence_length=each) for each in lengths for model in (tiny_model, other)]
    assert examine(settings) == ("examined", [])
    assert len(made) == 2


def test_what_cannot_be_told_refuses_nothing_and_stops_nothing(tiny_model: dict, monkeypatch) -> None:
    real = preflight.draft

    def fails(model, device):
        if model.seed == 1:
            raise RuntimeError("the skeleton of a cat\nis no model")
        return real(model, device)

    monkeypatch.setattr(preflight, "draft", fails)
    odd = {**tiny_model, "seed": 1}
    answer = examine([question(odd), question(odd, batch_size=2), question(tiny_model)])
    assert answer == ("examined", ["model.id=tiny could not be examined: RuntimeError: the skeleton of a cat"])
    assert examine([question(odd), question({"id": "/nowhere"})])[0] == "refused"
