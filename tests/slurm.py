"""Run a one-node Slurm with its own munge, folder and ports: real daemons that do not affect the system's
installation."""

from __future__ import annotations

import os
import platform
import shutil
import signal
import socket
import subprocess
import time
from pathlib import Path

PROGRAMS = ("munged", "slurmctld", "slurmd", "sbatch", "srun", "squeue", "scancel", "scontrol")
CONFIG = """\
ClusterName=bench
SlurmctldHost={host}(127.0.0.1)
SlurmctldPort={ports[0]}
SlurmdPort={ports[1]}
AuthType=auth/munge
AuthInfo=socket={folder}/munge/socket
CryptoType=crypto/munge
SlurmUser=root
SlurmdUser=root
StateSaveLocation={folder}/state
SlurmdSpoolDir={folder}/spool
SlurmctldPidFile={folder}/slurmctld.pid
SlurmdPidFile={folder}/slurmd.pid
SlurmctldLogFile={folder}/slurmctld.log
SlurmdLogFile={folder}/slurmd.log
ProctrackType=proctrack/linuxproc
TaskPlugin={task_plugin}
SelectType=select/cons_tres
SelectTypeParameters=CR_CPU
SchedulerType=sched/builtin
SwitchType=switch/none
MpiDefault=none
ReturnToService=2
JobAcctGatherType=jobacct_gather/none
AccountingStorageType=accounting_storage/none
KillWait=15
JobRequeue=1
OverTimeLimit=0
MinJobAge=300
NodeName={host} NodeAddr=127.0.0.1 CPUs=2 RealMemory=4000 State=UNKNOWN
PartitionName=main Nodes={host} Default=YES MaxTime=INFINITE State=UP
"""


class UnavailableError(Exception):
    """Raised where Slurm cannot be started; the text says why."""


class Slurm:
    """The daemons of one Slurm. `environment` points Slurm's commands to them."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.environment = {"SLURM_CONF": str(folder / "slurm.conf")}
        self._processes: list[subprocess.Popen[bytes]] = []

    def start(self) -> None:
        """Start the daemons and wait until a job has run; raise UnavailableError if that fails."""
        if missing := [each for each in PROGRAMS if shutil.which(each, path=_path()) is None]:
            raise UnavailableError(f"not installed: {', '.join(missing)} (Debian: slurm-wlm munge)")
        if os.geteuid() != 0:
            raise UnavailableError("slurmd needs root")
        for name in ("munge", "state", "spool"):
            (self.folder / name).mkdir(parents=True, exist_ok=True)
        key = self.folder / "munge" / "key"
        key.write_bytes(os.urandom(1024))
        key.chmod(0o400)
        config = CONFIG.format(
            host=platform.node().partition(".")[0],
            ports=_free_ports(2),
            folder=self.folder,
            task_plugin="task/affinity",
        )
        (self.folder / "slurm.conf").write_text(config, encoding="utf-8")
        munge = self.folder / "munge"
        self._run(
            *("munged", "--foreground", "--force", "--num-threads=2", f"--key-file={key}", f"--socket={munge}/socket"),
            *(f"--pid-file={munge}/pid", f"--log-file={munge}/log", f"--seed-file={munge}/seed"),
        )
        self._wait_for((munge / "socket").exists, "munged")
        self._run("slurmctld", "-D", "-c")
        self._run("slurmd", "-D", "-c")
        self._wait_for(lambda: "idle" in self.ask("sinfo", "--noheader", "--format=%T"), "the node")
        self._wait_for(lambda: self.ask("srun", "--time=1", "echo", "ran").strip() == "ran", "a first job")

    def ask(self, *command: str) -> str:
        """Return the output of one of Slurm's commands; "" if it fails."""
        done = subprocess.run(
            command, env=self.full_environment(), capture_output=True, text=True, timeout=60, check=False
        )
        return done.stdout if done.returncode == 0 else ""

    def full_environment(self) -> dict[str, str]:
        """Return this process's environment with this Slurm."""
        return os.environ | {"PATH": _path()} | self.environment

    def stop(self) -> None:
        """End jobs and daemons."""
        self.ask("scancel", "--user=root", "--signal=KILL", "--full")
        self.ask("scancel", "--user=root")
        for each in reversed(self._processes):
            each.send_signal(signal.SIGTERM)
        for each in self._processes:
            try:
                each.wait(20)
            except subprocess.TimeoutExpired:
                each.kill()
                each.wait()

    def _run(self, *command: str) -> None:
        with (self.folder / f"{command[0]}.out").open("wb") as out:
            self._processes.append(
                subprocess.Popen(command, env=self.full_environment(), stdout=out, stderr=out, start_new_session=True)
            )

    def _wait_for(self, condition, what: str) -> None:
        deadline_s = time.monotonic() + 60
        while not condition():
            ended = [each for each in self._processes if each.poll() is not None]
            if ended or time.monotonic() > deadline_s:
                program = str((ended or self._processes)[-1].args[0])
                said = (self.folder / f"{program}.out").read_text(errors="replace").strip().splitlines()[-1:]
                self.stop()
                raise UnavailableError(f"{what} does not come up; {program} says {said}")
            time.sleep(0.2)


def _path() -> str:
    return f"{os.environ.get('PATH', '')}:/usr/sbin:/sbin"


def _free_ports(count: int) -> list[int]:
    sockets = [socket.create_server(("127.0.0.1", 0)) for _ in range(count)]
    ports = [each.getsockname()[1] for each in sockets]
    for each in sockets:
        each.close()
    return ports
