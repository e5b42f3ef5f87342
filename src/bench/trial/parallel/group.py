"""Connect the ranks of a tensor-parallel job: rank 0 broadcasts a command before it uses the model.

Each rank holds a slice of the layers, so a call of generate is one call in all ranks at once: each step waits for the
slices of all. Rank 0 alone decides what is called and when to stop. Before it uses the model it broadcasts a command,
and the others make the same call (`bench.trial.parallel.other_ranks`). A broadcast ends with a barrier, so all ranks
begin within the time of a wake-up; it comes before the clock is read and is in no figure.

Commands have a gloo process group of their own: they work before, between and after the collectives of the model.
"""

from __future__ import annotations

import contextlib
import dataclasses
import os
import re
from datetime import timedelta
from pathlib import Path
from typing import Any, Self

import torch
from torch import distributed

from bench.config.rules import ConfigError
from bench.config.schema import BenchmarkConfig
from bench.results.record import Rank, Record
from bench.trial.hardware import memory
from bench.trial.unsupported import NotHonouredError

# Matches errors that say only that another rank is gone.
LOST = re.compile(
    r"Connection (closed|reset) by peer|Connection refused|Broken pipe|gloo/transport|remote process exited|"
    r"recvBytes|sendBytes|failed to recv|TCPStore|Application timeout caused pair closure",
    re.IGNORECASE,
)
SLACK_S = 60.0  # the timeout of collectives is longer than the job's, which should end a rank that waits


@dataclasses.dataclass(frozen=True, kw_only=True)
class RankCommand:
    """What rank 0 broadcasts to the other ranks."""

    kind: str  # "stage": a stage begins; "generate": make a call; "report": return what was used; "stop"
    stage: str | None = None
    length: int | None = None  # of a call that is cut short: tokens of a row, prompt included
    shows_logits: bool = False  # whether rank 0 has a logits processor
    forced: torch.Tensor | None = None  # tokens that replace those of the call, on the CPU, shape (rows, steps)


@dataclasses.dataclass(frozen=True, kw_only=True)
class RankGroup:
    """This process as one of the ranks of a job."""

    rank: int
    size: int
    scratch: Path  # a folder that all ranks share and that is gone with the job
    control: Any = dataclasses.field(repr=False)  # the process group of commands

    @classmethod
    def join(cls, config: BenchmarkConfig, device_type: str, scratch: Path) -> Self:
        """Join the process groups of the ranks that torch's launcher has started. Blocks until all have joined."""
        rank, size = int(os.environ["RANK"]), int(os.environ["WORLD_SIZE"])
        timeout = timedelta(seconds=config.isolation.timeout_s + SLACK_S)
        if device_type == "cuda":
            device = torch.device("cuda", rank)
            torch.cuda.set_device(device)
            distributed.init_process_group("nccl", timeout=timeout, device_id=device)
        else:
            distributed.init_process_group("gloo", timeout=timeout)
        return cls(
            rank=rank,
            size=size,
            scratch=scratch,
            control=distributed.new_group(backend="gloo", timeout=timeout),
        )

    def announce(self, command: RankCommand) -> None:
        """Broadcast a command from rank 0, and wait until the others are about to obey. RuntimeError: one is gone."""
        distributed.broadcast_object_list([command], src=0, group=self.control)
        self.wait()

    def receive(self) -> RankCommand:
        """Wait, in another rank, for rank 0's next command. RuntimeError: rank 0 is gone."""
        commands: list[Any] = [None]
        distributed.broadcast_object_list(commands, src=0, group=self.control)
        self.wait()
        command: RankCommand = commands[0]
        return command

    def gather(self, mine: Any) -> list[Any]:
        """Return the values of all ranks, in their order, at rank 0; [] at the others."""
        answers: list[Any] = [None] * self.size
        distributed.gather_object(mine, answers if self.rank == 0 else None, dst=0, group=self.control)
        return answers if self.rank == 0 else []

    def wait(self) -> None:
        """Wait until all ranks have reached this line."""
        distributed.barrier(group=self.control)

    def leave(self) -> None:
        """Close the process groups."""
        with contextlib.suppress(Exception):
            distributed.destroy_process_group()


def lost_contact(text: str) -> bool:
    """Check whether an error says only that another rank is gone, so that the cause is found in that rank."""
    return LOST.search(text) is not None


def require_ranks(config: BenchmarkConfig, group: RankGroup | None) -> None:
    """Raise ConfigError for tensor parallelism in a process that is no rank of a job."""
    if config.model.tp_size is not None and group is None:
        remedy = "takes several processes, which only a job starts: use python -m bench"
        raise ConfigError("model.tp_size", config.model.tp_size, remedy)


def gather_ranks(group: RankGroup, record: Record, device: torch.device) -> None:
    """Add to rank 0's record, after the measured calls, what every rank used.

    On GPUs the record's energy becomes the sum over the ranks, None for a call that not all of them know. The counter
    of a CPU is the host's: it counts once, for all, and is no rank's own.

    Raises:
        NotHonouredError: the ranks did not generate the same tokens.
    """
    assert record.output is not None
    on_gpu = device.type == "cuda"
    mine = Rank(
        rank=0,
        device=str(device),
        device_name=memory.device_name(device),
        memory=record.memory,
        joules=record.energy.joules if record.energy is not None and on_gpu else [],
    )
    group.announce(RankCommand(kind="report"))
    answers = group.gather((mine, record.output.token_ids))
    record.ranks = [each for each, _ in answers]
    if record.energy is not None and on_gpu:
        calls = zip(*(each.joules for each in record.ranks), strict=False)  # [] of a rank whose monitor failed
        sums = [None if None in call else sum(call) for call in calls]
        record.energy = dataclasses.replace(record.energy, joules=sums)
    for rank, (_, tokens) in enumerate(answers):
        if tokens != record.output.token_ids:
            raise NotHonouredError(f"model.tp_size: rank {rank} generated other tokens than rank 0")
