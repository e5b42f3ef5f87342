"""Test the observer effect's statistics on series with known effects, and that it runs. No test judges this machine."""

from __future__ import annotations

import json
from types import ModuleType

import numpy as np
import pytest
from overhead_bench import observer


@pytest.fixture(scope="module")
def overhead() -> ModuleType:
    """Return the part that measures the observer effect."""
    return observer


def series(
    overhead, seed: int, *, calls: int = 200, noise: float = 0.05, factors: dict[str, float] | None = None
) -> dict[str, list[float]]:
    """Build each arm's E2E: 80 ms with drift, log-normal noise, one call in twenty twice as long, and its factor."""
    chance = np.random.default_rng(seed)
    drift = np.linspace(1.0, 1.3, calls)
    times = {}
    for arm in overhead.ARMS:
        spikes = np.where(chance.random(calls) < 0.05, 2.0, 1.0)
        factor = (factors or {}).get(arm, 1.0)
        times[arm] = list(0.08 * drift * spikes * factor * np.exp(noise * chance.standard_normal(calls)))
    return times


def changed(overhead, times) -> set[str]:
    noise = overhead.effect(overhead.AGAIN, times).reach
    return {arm for arm in overhead.ARMS[2:] if overhead.is_change(overhead.effect(arm, times), noise)}


# ---- statistics -----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("factor", [1.04, 0.96])
def test_a_known_effect_is_found_only_in_its_arm(overhead, factor) -> None:
    times = series(overhead, 0, factors={"streamer": factor})
    found = overhead.effect("streamer", times)
    assert found.low <= factor - 1 <= found.high
    assert changed(overhead, times) == {"streamer"}
    lines, any_change = overhead.table(times)
    assert any_change
    assert "CHANGES the figure by" in next(line for line in lines if line.startswith("streamer "))


def test_drift_and_outliers_common_to_all_arms_do_not_widen_the_interval(overhead) -> None:
    still = {arm: [0.08] * 50 for arm in overhead.ARMS}
    shared = {arm: list(np.linspace(0.08, 0.8, 50)) for arm in overhead.ARMS}
    assert overhead.effect("bench", shared).reach == overhead.effect("bench", still).reach == 0


@pytest.mark.parametrize("noise", [0.01, 0.05, 0.2])
def test_arms_without_effect_are_rarely_reported(overhead, noise) -> None:
    accused = [bool(changed(overhead, series(overhead, seed, calls=60, noise=noise))) for seed in range(200)]
    assert np.mean(accused) < 0.10  # any of four arms


def test_the_interval_has_its_nominal_coverage(overhead) -> None:
    found = [
        overhead.effect("monitor", series(overhead, seed, calls=40, factors={"monitor": 1.02})) for seed in range(400)
    ]
    assert np.mean([each.low <= 0.02 <= each.high for each in found]) > 0.93


def test_an_effect_below_one_percent_is_no_change_however_significant(overhead) -> None:
    times = series(overhead, 0, noise=0.0001, factors={"bench": 1.008})
    assert overhead.effect("bench", times).low > 0
    assert changed(overhead, times) == set()
    assert overhead.verdict(overhead.effect("bench", times), 0.0) == "within 1 %"


def test_a_small_effect_is_within_one_percent_only_if_its_whole_interval_is(overhead) -> None:
    found = overhead.Effect(arm="bench", median_s=0.08, change=0.001, low=-0.02, high=0.02)
    assert overhead.verdict(found, 0.015) == "within the noise (±2.0 %)"


def test_an_effect_below_the_noise_is_no_change_and_says_so(overhead) -> None:
    found = overhead.Effect(arm="bench", median_s=0.08, change=0.03, low=0.01, high=0.05)
    assert not overhead.is_change(found, noise=0.04)
    assert overhead.verdict(found, 0.04) == "within the noise (±5.0 %)"
    assert overhead.is_change(found, noise=0.02)


def test_each_block_has_every_arm_once_in_its_own_order(overhead) -> None:
    drawn = list(overhead.blocks(100, seed=1))
    assert all(sorted(block) == sorted(overhead.ARMS) for block in drawn)
    assert {block[0] for block in drawn} == set(overhead.ARMS)
    assert drawn == list(overhead.blocks(100, seed=1))
    assert drawn != list(overhead.blocks(100, seed=2))


def test_the_table_fits_100_columns(overhead) -> None:
    for times in (series(overhead, 0), series(overhead, 0, calls=6, noise=0.7, factors={"streamer + monitor": 9.0})):
        lines, _ = overhead.table(times)
        assert len(lines) == 1 + len(overhead.ARMS)
        assert max(map(len, lines)) <= 100


# ---- the command ----------------------------------------------------------------------------------------------------


def test_the_command_writes_every_time(overhead, tmp_path, capsys) -> None:
    file = tmp_path / "overhead.json"
    few = ["--calls", "6", "--prompt-tokens", "8", "--new-tokens", "3", "--device", "cpu"]
    status = overhead.main([*few, "--json", str(file)])
    printed = capsys.readouterr().out.splitlines()
    assert [line[:18].rstrip() for line in printed] == ["arm", *overhead.ARMS]
    written = json.loads(file.read_text(encoding="utf-8"))
    assert {arm: len(times) for arm, times in written["e2e_s"].items()} == dict.fromkeys(overhead.ARMS, 6)
    assert [each["arm"] for each in written["effects"]] == list(overhead.ARMS[1:])
    assert written["setting"]["workload"]["num_tokens_to_generate"] == 3
    assert status == any("CHANGES" in line for line in printed)


def test_every_arm_makes_the_call_of_its_name(overhead, monkeypatch) -> None:
    """Checked in generate and the monitor: which arm has a streamer, and which calls are sampled."""
    seen = []

    class Monitor:
        error = None
        sampling = False

        def begin(self) -> None:
            self.sampling = True

        def end(self, start: float) -> None:
            self.sampling = False

    class Model:
        def generate(self, *, streamer=None, **_) -> None:
            seen.append((streamer is not None, monitor.sampling))

    class Loaded:
        model, device = Model(), overhead.torch.device("cpu")

    monitor = Monitor()
    monkeypatch.setattr(overhead, "make_inputs", lambda config, loaded: {})
    monkeypatch.setattr(overhead, "make_generation_config", lambda config, loaded, new: None)
    arms = overhead.make_arms(overhead.BenchmarkConfig(), None, Loaded(), monitor)
    for arm in overhead.ARMS[:-1]:
        arms[arm]()
    assert seen == [(False, False), (False, False), (True, False), (False, True), (True, True)]


def test_too_few_calls_are_refused(overhead, capsys) -> None:
    with pytest.raises(SystemExit) as end:
        overhead.main(["--calls", "5"])
    assert end.value.code == 2
    assert "--calls 5" in capsys.readouterr().err


def test_a_setting_that_cannot_run_is_refused_in_one_line(overhead, capsys) -> None:
    assert overhead.main(["--device", "cuda:99"]) == 2
    assert capsys.readouterr().err.startswith("overhead: device=cuda:99")


def test_only_the_changed_arm_misses_the_target_and_the_others_stay_undecided(overhead) -> None:
    rows = overhead.figures(series(overhead, 0, factors={"monitor": 1.2}), "64 + 32 tokens")
    assert {each.name.strip().partition(":")[0]: each.verdict for each in rows} == {
        "64 + 32 tokens, bare": "",
        "bare again": "",
        "streamer": "noise",
        "monitor": "MISSED",
        "streamer + monitor": "noise",
        "bench": "noise",
    }
