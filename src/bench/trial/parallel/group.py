"""The processes of one tensor-parallel job, as each of them sees it: which one it is, and how rank 0 leads the others.

Every rank holds a slice of the layers, so a call of generate is one call in all ranks at once: each step waits for the
slices of all. Rank 0 alone decides what is called and when to stop. Before it uses the model it announces the call, and
the others make the same one (`bench.trial.parallel.other_ranks`). An announcement ends with a barrier, so all ranks
begin within the time of a wake-up; it comes before the clock is read and is in no figure.

Announcements have a gloo group of their own: they work before, between and after the collectives of the model.
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

# How an error reads that says no more than that another rank is gone.
LOST = re.compile(
    r"Connection (closed|reset) by peer|Connection refused|Broken pipe|gloo/transport|remote process exited|"
    r"recvBytes|sendBytes|failed to recv|TCPStore|Application timeout caused pair closure",
    re.IGNORECASE,
)
SLACK_S = 60.0  # beyond the job's deadline, which shall be what ends a rank that waits


@dataclasses.dataclass(frozen=True, kw_only=True)
class RankCommand:
    """What rank 0 announces."""

    kind: str  # "stage": a stretch of the job begins; "generate": a call; "report": tell what was used; "stop"
    stage: str | None = None
    length: int | None = None  # of a call that is cut short: tokens of a row, prompt included
    shows_logits: bool = False  # whether a logits processor looks on
    forced: torch.Tensor | None = None  # tokens that replace those of the call, on the CPU, shape (rows, steps)


@dataclasses.dataclass(frozen=True, kw_only=True)
class RankGroup:
    """A rank among its peers."""

    rank: int
    size: int
    scratch: Path  # a folder that all ranks share and that is gone with the job
    control: Any = dataclasses.field(repr=False)  # the process group of announcements

    @classmethod
    def join(cls, config: BenchmarkConfig, device_type: str, scratch: Path) -> Self:
        """Meet the other ranks that torch's launcher has started. Blocks until all are there."""
        rank, size = int(os.environ["RANK"]), int(os.environ["WORLD_SIZE"])
        patience = timedelta(seconds=config.isolation.timeout_s + SLACK_S)
        if device_type == "cuda":
            device = torch.device("cuda", rank)
            torch.cuda.set_device(device)
            distributed.init_process_group("nccl", timeout=patience, device_id=device)
        else:
            distributed.init_process_group("gloo", timeout=patience)
        return cls(
            rank=rank,
            size=size,
            scratch=scratch,
            control=distributed.new_group(backend="gloo", timeout=patience),
        )

    def announce(self, command: RankCommand) -> None:
        """Rank 0: tell the others what comes, and wait until they are about to begin. RuntimeError: one is gone."""
        distributed.broadcast_object_list([command], src=0, group=self.control)
        self.wait()

    def receive(self) -> RankCommand:
        """The other ranks: sleep until rank 0 announces something. RuntimeError: it is gone."""
        commands: list[Any] = [None]
        distributed.broadcast_object_list(commands, src=0, group=self.control)
        self.wait()
        command: RankCommand = commands[0]
        return command

    def gather(self, mine: Any) -> list[Any]:
        """What each rank has to say, in the order of ranks, at rank 0; [] at the others."""
        answers: list[Any] = [None] * self.size
        distributed.gather_object(mine, answers if self.rank == 0 else None, dst=0, group=self.control)
        return answers if self.rank == 0 else []

    def wait(self) -> None:
        """Until all ranks have come here."""
        distributed.barrier(group=self.control)

    def leave(self) -> None:
        """Close what connects the ranks."""
        with contextlib.suppress(Exception):
            distributed.destroy_process_group()


def lost_contact(text: str) -> bool:
    """Whether an error says only that another rank is gone: then the reason is to be found there."""
    return LOST.search(text) is not None


def require_ranks(config: BenchmarkConfig, group: RankGroup | None) -> None:
    """Refuse tensor parallelism in a process that has no peers."""
    if config.model.tp_size is not None and group is None:
        remedy = "takes several processes, which only a job starts: use python -m bench"
        raise ConfigError("model.tp_size", config.model.tp_size, remedy)


def gather_ranks(group: RankGroup, record: Record, device: torch.device) -> None:
    """Rank 0, after the measured calls: put into its record what every rank used.

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
