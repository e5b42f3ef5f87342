"""Run jobs on Slurm through submitit, or on submitit's local executor, with the keys of hydra-submitit-launcher.

The launcher of hydra-submitit-launcher waits for the state from `sacct`, which many clusters do not provide, and one
lost job discards the results of all others. Here each job ends separately: with its result, or with its Slurm state.

Hydra imports this file at every start, so nothing heavy may be imported at its top.
"""

import contextlib
import io
import json
import math
import shlex
import shutil
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

from hydra.core.utils import JobReturn

from bench.compat.hydra_internals import returned
from bench.results.file_names import ENGINE_JOBS_NAME
from hydra_plugins.bench_launchers.engine import EngineJob, EngineLauncher, OnReturn, lost
from hydra_plugins.bench_launchers.submitit_internals import refusals

POLL_S = (0.5, 10.0)  # interval of checking Slurm and the shared folder: at first, and in a long sweep
GRACE_S = 20.0  # for a result to appear in a shared folder after Slurm reports the job's end
SHORT_GRACE_S = 6.0  # if Slurm itself reports that the job was terminated
CANCEL_S = 60.0  # for cancelled jobs to write their records; Slurm kills them after KillWait, 30 s by default
ASK_S = 30.0  # timeout of Slurm's commands
LEAST_MINUTES = 10  # of a job's time limit beyond isolation.timeout_s
LARGEST_ARRAY = 1000  # jobs: Slurm's MaxArraySize is 1001 by default

# Keys that submitit accepts for all executors; the others have the executor's name as a prefix.
COMMON = (
    *("timeout_min", "cpus_per_task", "gpus_per_node", "tasks_per_node", "mem_gb", "nodes", "name", "stderr_to_stdout"),
)
# Slurm's final job states (squeue(1), "JOB STATE CODES") → a record's status and message; other states are not final.
ENDS = {
    "COMPLETED": ("crashed", "ended without giving anything back"),
    "FAILED": ("crashed", "ended its process with an error"),
    "TIMEOUT": ("timeout", "ended it at the time limit: raise hydra.launcher.timeout_min or ask for less"),
    "DEADLINE": ("timeout", "ended it at its deadline"),
    "CANCELLED": ("interrupted", "says it was cancelled"),
    "PREEMPTED": ("interrupted", "says it was preempted and not queued again"),
    "REVOKED": ("interrupted", "says it was revoked"),
    "OUT_OF_MEMORY": ("oom", "ended it for memory: raise hydra.launcher.mem_gb or ask for less"),
    "NODE_FAIL": ("crashed", "says its node failed"),
    "BOOT_FAIL": ("crashed", "says its node did not boot"),
}


class _SubmititLauncher(EngineLauncher):
    """Submit one job of the executor per sweep job."""

    executor = ""
    name = ""

    def run_all(self, job: EngineJob, overrides: list[list[str]], first: int, keep: OnReturn) -> None:
        """Submit arrays of jobs, and wait for all of them."""
        from bench.host.atomic_files import write_whole  # noqa: PLC0415

        executor = self._executor()
        folder = Path(str(self.config.hydra.sweep.dir)).absolute()
        waiting: dict[int, Any] = {}
        try:
            for start in range(0, len(overrides), LARGEST_ARRAY):
                part = overrides[start : start + LARGEST_ARRAY]
                numbers = [first + start + each for each in range(len(part))]
                try:
                    submitted = _submit(executor, job, part, numbers)
                except Exception as error:
                    if not waiting:  # no job was submitted
                        raise
                    for index in range(len(part)):  # submitted jobs continue
                        keep(start + index, lost(error))
                    continue
                waiting |= {start + index: each for index, each in enumerate(submitted)}
                ids = [each.job_id for each in waiting.values()]
                with contextlib.suppress(OSError):
                    write_whole(folder / ENGINE_JOBS_NAME, json.dumps({"engine": self.name, "jobs": ids}))
            self._wait(waiting, keep)
        except BaseException:
            self._cancel(waiting, keep)
            raise
        with contextlib.suppress(OSError):
            (folder / ENGINE_JOBS_NAME).unlink()

    def _executor(self) -> Any:
        import submitit  # noqa: PLC0415 - see above

        given = {key: value for key, value in self.parameters.items() if value is not None}
        if self.config.hydra.launcher.get("timeout_min") is None:
            given["timeout_min"] = math.ceil(float(self.config.isolation.timeout_s) / 60) + LEAST_MINUTES
        folder = given.pop("submitit_folder")
        prefixed = f"{self.executor}_max_num_timeout"
        retries = {prefixed: given.pop("max_num_timeout")} if "max_num_timeout" in given else {}
        # -P in addition to the variable: a cluster may start jobs without this process's variables.
        python = {f"{self.executor}_python": f"{shlex.quote(sys.executable)} -P"}
        executor = submitit.AutoExecutor(folder=folder, cluster=self.executor, **retries, **python)
        named = {key if key in COMMON else f"{self.executor}_{key}": value for key, value in given.items()}
        try:
            executor.update_parameters(**named)
        except (ValueError, TypeError, NameError) as error:
            raise _refused(error) from error
        return executor

    def _wait(self, waiting: dict[int, Any], keep: OnReturn, until: float = math.inf) -> None:
        """Wait until each job has returned a result or has ended without one; at most until a monotonic time."""
        ended: dict[int, float] = {}  # index → the time since which the job counts as ended
        started_s = time.monotonic()
        while waiting and time.monotonic() < until:
            states = self.states([each.job_id for each in waiting.values()])
            for index, each in list(waiting.items()):
                state, node = states.get(each.job_id, ("", None))
                is_over = state in ENDS or state == ""
                over_s = time.monotonic() - ended.setdefault(index, time.monotonic()) if is_over else 0.0
                if not is_over:
                    ended.pop(index, None)
                result = _result_of(each)
                # An interrupted job may be about to be requeued, although it has returned a result.
                if result is None or _is_interrupted(result):
                    if over_s <= self.grace_s(state):
                        continue
                    result = result or lost(self._why(each, state, node))
                keep(index, result)
                del waiting[index]
            if waiting:
                time.sleep(min(POLL_S[1], POLL_S[0] + (time.monotonic() - started_s) / 60))

    def _cancel(self, waiting: dict[int, Any], keep: OnReturn) -> None:
        for each in waiting.values():
            with contextlib.suppress(OSError, subprocess.SubprocessError):
                each.cancel(check=False)
        self._wait(waiting, keep, until=time.monotonic() + CANCEL_S)

    def _why(self, job: Any, state: str, node: str | None) -> Exception:
        from bench.jobs.engine import LostJob  # noqa: PLC0415

        status, text = ENDS.get(state, ("crashed", "knows it no more, and it gave nothing back"))
        if not state and not job.paths.stdout.exists():  # without accounting, Slurm has no data about such a job
            status, text = "interrupted", "knows it no more, and it never began: cancelled while it waited"
        message = f"{self.name} {text} (job {job.job_id}{f', {state}' if state else ''}; its log: {job.paths.stderr})"
        return LostJob(status, message, host=node, engine=self.name, job_id=str(job.job_id))

    def states(self, ids: list[str]) -> dict[str, tuple[str, str | None]]:
        """Return job id → its state and node; unknown jobs are omitted."""
        raise NotImplementedError

    def grace_s(self, state: str) -> float:
        """Return how long a result may take to appear after the job's end, in seconds."""
        return GRACE_S if state == "COMPLETED" or not state else SHORT_GRACE_S


class SlurmLauncher(_SubmititLauncher):
    """Implement hydra/launcher=submitit_slurm."""

    executor, name = "slurm", "slurm"

    def check(self, folder: Path) -> None:
        """Refuse to start without Slurm, or while jobs of an earlier start are in its queue. Raises ConfigError."""
        from bench.config.rules import ConfigError  # noqa: PLC0415

        _need_submitit("submitit_slurm")
        if shutil.which("sbatch") is None or shutil.which("srun") is None:
            raise ConfigError("hydra/launcher", "submitit_slurm", "there is no sbatch here: start it where Slurm is")
        try:
            earlier = json.loads((folder / ENGINE_JOBS_NAME).read_text(encoding="utf-8"))["jobs"]
        except (OSError, ValueError, KeyError, TypeError):
            return
        states = self.states([str(each) for each in earlier])
        if alive := [each for each, (state, _) in states.items() if state not in ENDS]:
            remedy = "jobs of an earlier start are in Slurm's queue still: wait for them, or "
            remedy += f"scancel {' '.join(alive[:5])}{' ...' if len(alive) > 5 else ''}"
            raise ConfigError("sweep.resume", True, remedy)

    def states(self, ids: list[str]) -> dict[str, tuple[str, str | None]]:
        """Return the states from squeue, and from sacct for jobs that squeue omits some minutes after their end."""
        arrays = ",".join(sorted({each.partition("_")[0] for each in ids}))
        answer = _ask("squeue", "--noheader", "--array", "--states=all", f"--jobs={arrays}", "--format=%i|%T|%N")
        if answer is None or (answer.returncode != 0 and "Invalid job id" not in answer.stderr):
            return dict.fromkeys(ids, ("UNKNOWN", None))  # Slurm does not respond: unknown, but not lost
        found = _parsed(answer.stdout)
        if set(ids) - set(found):
            columns = "--format=JobID,State,NodeList"
            past = _ask("sacct", "--noheader", "--allocations", "--parsable2", f"--jobs={arrays}", columns)
            found = _parsed(past.stdout if past is not None and past.returncode == 0 else "") | found
        return {each: found[each] for each in ids if each in found}


class LocalLauncher(_SubmititLauncher):
    """Implement hydra/launcher=submitit_local: start all processes on this machine at once; their jobs wait in turn."""

    executor, name = "local", "submitit_local"

    def check(self, folder: Path) -> None:  # noqa: ARG002 - no processes remain from an earlier start
        """Refuse to start without submitit. Raises ConfigError."""
        _need_submitit("submitit_local")

    def run_all(self, job: EngineJob, overrides: list[list[str]], first: int, keep: OnReturn) -> None:
        """Run the jobs as on Slurm, but track the processes to query their states."""
        self._processes: dict[str, Any] = {}
        super().run_all(job, overrides, first, keep)

    def _wait(self, waiting: dict[int, Any], keep: OnReturn, until: float = math.inf) -> None:
        self._processes = {each.job_id: each for each in waiting.values()}
        super()._wait(waiting, keep, until)

    def states(self, ids: list[str]) -> dict[str, tuple[str, str | None]]:
        """Return the states of the processes, in Slurm's terms."""
        known = {each: self._processes[each].state for each in ids}
        words = {"INTERRUPTED": "FAILED", "FINISHED": "COMPLETED"}
        return {each: (words.get(state, state), None) for each, state in known.items()}


def _need_submitit(choice: str) -> None:
    from bench.config.rules import ConfigError  # noqa: PLC0415

    try:
        import submitit  # noqa: F401, PLC0415
    except ImportError as error:
        raise ConfigError(
            "hydra/launcher", choice, "needs submitit: pip install -e '.[slurm]' in the checkout"
        ) from error


def _submit(executor: Any, job: EngineJob, overrides: list[list[str]], numbers: list[int]) -> list[Any]:
    """Submit one array of jobs. ConfigError if the engine refuses it."""
    try:
        with contextlib.redirect_stderr(io.StringIO()):  # the error repeats sbatch's own lines
            submitted: list[Any] = executor.map_array(job, overrides, numbers)
    except refusals() as error:
        raise _refused(error) from error
    return submitted


def _refused(error: Exception) -> Exception:
    from bench.config.rules import ConfigError  # noqa: PLC0415

    lines = [each.strip() for each in str(error).splitlines() if each.strip()]
    said = next((each for each in lines if "error" in each.lower()), lines[0] if lines else type(error).__name__)
    return ConfigError("hydra.launcher", "submitit", f"the jobs were refused: {said}")


def _result_of(job: Any) -> JobReturn | None:
    """Return the result of a job; None while there is none."""
    try:
        if not job.paths.result_pickle.exists():  # it is written atomically
            return None
    except OSError:  # the shared folder does not respond: the next check may succeed
        return None
    try:
        result = job.results()[0]
    except Exception as error:  # noqa: BLE001 - submitit raises the job's exception as text
        return lost(RuntimeError(reason_of(error)))
    return result if isinstance(result, JobReturn) else lost(TypeError(f"{type(result).__name__} came back"))


def reason_of(error: Exception) -> str:
    """Return the last line of the traceback in a submitit error, without the paths of its logs."""
    text, _, _ = str(error).partition("You can check full logs")
    lines = [each.strip() for each in text.splitlines() if each.strip(" -")]
    return lines[-1] if lines else type(error).__name__


def _is_interrupted(result: JobReturn) -> bool:
    """Check whether the engine interrupted the job: it may be about to start it again."""
    return getattr(returned(result), "status", None) == "interrupted"


def _ask(*command: str) -> subprocess.CompletedProcess[str] | None:
    """Run a Slurm command and return its output; None if it cannot run or times out."""
    try:
        return subprocess.run(command, capture_output=True, text=True, timeout=ASK_S, check=False)  # noqa: S603
    except (OSError, subprocess.TimeoutExpired):
        return None


def _parsed(text: str) -> dict[str, tuple[str, str | None]]:
    """Parse lines of ID|STATE|NODES; a state may be followed by the user who caused it, as in "CANCELLED by 0"."""
    found = {}
    for line in text.splitlines():
        job, _, rest = line.strip().partition("|")
        state, _, node = rest.partition("|")
        if state:
            found[job] = (state.split()[0].rstrip("+"), node if node and not node.startswith("None") else None)
    return found
