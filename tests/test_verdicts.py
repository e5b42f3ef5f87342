"""Test verdicts on real sweeps: a setting is never called faster than itself, and a slower one is called slower.

Real processes, real models, a real clock, so these run by themselves (marker `alone`): beside other tests the noise of
the machine is as large as what they look for.
"""

from __future__ import annotations

import json
import subprocess
import sys
import textwrap
from pathlib import Path

import pytest

from bench.results.record import Record
from conftest import run_bench

pytestmark = [pytest.mark.alone, pytest.mark.slow]

SHORT = ("workload.sequence_length=16", "workload.num_tokens_to_generate=4")
AA = ("-m", "experiment=aa", "sweep.name=aa", "tracking=off", "monitor.enabled=false", *SHORT)

# Runs bench with a `generate` that returns 0.2 s after it was called, and 0.22 s after in every process of the setting
# named "slow": it sleeps for what its own work has left. So a machine whose calls take 15 ms now and 25 ms then, which
# would rightly be called unsteady, cannot decide the test.
PLANT = """
    import sys
    from pathlib import Path

    sys.path.insert(0, str(Path(__file__).parent))

    if __name__ == "__main__":
        from bench.cli import application
        from bench.jobs.process import fork_server

        fork_server._preload.append("sleepy")
        application.main()
"""
SLEEPY = """
    import multiprocessing
    import time

    from transformers.generation.utils import GenerationMixin

    awake = GenerationMixin.generate


    def generate(self, *arguments, **keywords):
        is_slow = multiprocessing.current_process().name == "bench slow"
        ready = time.monotonic() + (0.22 if is_slow else 0.2)
        generated = awake(self, *arguments, **keywords)
        time.sleep(max(0.0, ready - time.monotonic()))
        return generated


    GenerationMixin.generate = generate
"""


def comparisons(folder: Path) -> list[dict]:
    return json.loads((folder / "multirun/aa/comparison.json").read_text(encoding="utf-8"))["comparisons"]


@pytest.mark.parametrize("run", range(2))
def test_a_setting_is_never_called_faster_or_slower_than_itself(run: int, tmp_path) -> None:
    done = run_bench(*AA, f"sweep.seed={run}", folder=tmp_path)
    assert done.returncode == 0, done.stderr
    (compared,) = comparisons(tmp_path)
    assert compared["effect"]["processes"] == 5
    print(compared)
    assert compared["verdict"]["word"] in ("equivalent", "inconclusive")


def run_planted(folder: Path, *arguments: str) -> None:
    """Run bench with the `generate` that sleeps."""
    (folder / "planted.py").write_text(textwrap.dedent(PLANT), encoding="utf-8")
    (folder / "sleepy.py").write_text(textwrap.dedent(SLEEPY), encoding="utf-8")
    command = [sys.executable, "planted.py", *arguments]
    done = subprocess.run(command, cwd=folder, capture_output=True, text=True, timeout=500, check=False)
    assert done.returncode == 0, done.stderr


def test_a_setting_that_sleeps_a_tenth_longer_is_called_slower(tmp_path) -> None:
    run_planted(tmp_path, *AA, "sweep.label=plain,slow", "warmup.iterations=2", "measurement.iterations=10")
    (compared,) = comparisons(tmp_path)
    print(compared)
    assert (compared["setting"], compared["baseline"]) == ("slow", "plain")
    assert compared["verdict"]["word"] == "slower"
    assert 1.08 < compared["effect"]["ratio"] < 1.12


def test_steady_settings_need_under_ten_warm_up_calls_for_the_same_median(tmp_path) -> None:
    policies = ("-m", "experiment=warmup_policies", "sweep.name=aa", "tracking=off", "monitor.enabled=false")
    run_planted(tmp_path, *policies, *SHORT, "fidelity.reference=none", "sweep.repeats=3")
    (compared,) = comparisons(tmp_path)
    records = [Record.read(path) for path in (tmp_path / "multirun/aa").glob("*/record.json")]
    spent = {
        policy: [len(each.calls("warmup")) for each in records if each.name == policy] for policy in ("fixed", "auto")
    }
    print(spent, compared)
    assert spent["fixed"] == [10] * 3
    assert [each.warmup_status for each in records if each.name == "auto"] == ["converged"] * 3
    assert sum(spent["auto"]) < sum(spent["fixed"])
    assert compared["verdict"]["word"] in ("equivalent", "inconclusive")
    assert 0.97 < compared["effect"]["ratio"] < 1.03
