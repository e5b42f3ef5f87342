"""Compare a setting's tokens and logits with those of a reference run.

The reference is a run of the same model, workload and dtype with eager attention and nothing compiled, in a process of
its own. It keeps the tokens that it generated and its logits (float32) at each step, or at evenly spaced steps where
all would be too much to keep. A setting is then compared in two ways:

- by its own greedy tokens. After the first near-tie they may differ for good, so equal tokens show much and different
  ones little;
- by the logits over the same tokens: the setting's own generate call runs once more, with the reference's tokens forced
  at each step, so that each step's logits are comparable. These decide. If all tokens are equal, the call ends after
  the first steps: they show the size of rounding errors, and a whole call would add one to the 26 that a job makes.

The bounds are on figures without a scale: the mean Kullback-Leibler divergence, and the mean absolute difference of the
logits in units of their standard deviation at each position. What rounding does depends on the number format, so each
has bounds of its own; `BOUNDS` says where they come from.
"""

from __future__ import annotations

import dataclasses
import itertools
import json
import math
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import torch
import transformers
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file

from bench.results.record import Fidelity

LOGIT_BUDGET_BYTES = 256 * 2**20  # of reference logits kept on disk and in memory

# dtype → figure → the most that still agrees. Seen on a CPU between eager attention and sdpa, its backends, a static
# cache and compiled code, on SmolLM2-135M and on the tiny model, whose logits are sharper: at most 7e-8 nats, 2e-6 SD
# in float32, 6e-5 and 4e-3 in float16, 6e-3 and 4e-2 in bfloat16. What is left is for deeper models. Noise of 1 % in a
# single weight matrix makes 8e-6 to 2e-4 nats and 4e-3 to 6e-3 SD: beyond the bounds in float32, but less than rounding
# does in bfloat16.
BOUNDS = {
    "float32": {"kl_mean_nats": 1e-5, "logit_mean_diff_sd": 1e-3},
    "float16": {"kl_mean_nats": 1e-3, "logit_mean_diff_sd": 1e-2},
    "bfloat16": {"kl_mean_nats": 2e-2, "logit_mean_diff_sd": 1e-1},
}

ENOUGH_STEPS = 8  # of those whose logits are kept, where all tokens are equal

# Runs one call with logits processors, of so many steps (None: all), and returns the new tokens, shape (rows, steps).
Call = Callable[[Any, int | None], torch.Tensor]


@dataclasses.dataclass(frozen=True, kw_only=True)
class Reference:
    """The tokens and logits of the reference run. Rows are the prompts of the batch."""

    tokens: torch.Tensor  # int64, shape (rows, steps)
    steps: list[int]  # at which logits were kept
    logits: torch.Tensor  # float32, shape (kept steps, rows, vocabulary); EOS is -inf, for it may not end a call


class LogitTap(transformers.LogitsProcessor):  # type: ignore[misc]
    """Passes on the logits of each step to a function, and forces the tokens of another run if they are given."""

    def __init__(self, visit: Callable[[int, torch.Tensor], None], forced: torch.Tensor | None = None) -> None:
        self._visit = visit
        self.forced = forced
        self._steps = itertools.count()

    def __call__(self, input_ids: torch.Tensor, scores: torch.Tensor) -> torch.Tensor:  # noqa: ARG002
        """Return the logits that the next tokens are chosen from, shape (rows, vocabulary)."""
        step = next(self._steps)
        self._visit(step, scores)
        if self.forced is None:
            return scores
        return torch.full_like(scores, -math.inf).scatter_(1, self.forced[:, step : step + 1].to(scores.device), 0.0)


def write_reference(path: Path, call: Call, *, rows: int, steps: int, vocabulary: int) -> torch.Tensor:
    """Run the reference's call and write its tokens and logits into a file, whole or not at all.

    Returns:
        The tokens, int64, shape (rows, steps).

    Raises:
        ArithmeticError: the logits are no numbers that anything can be compared with.
    """
    kept = kept_steps(rows, steps, vocabulary)
    logits: list[torch.Tensor] = []

    def visit(step: int, scores: torch.Tensor) -> None:
        if step in kept:
            logits.append(scores.detach().to(device="cpu", dtype=torch.float32, copy=True))

    tokens = call([LogitTap(visit)], None)
    if not all((torch.isfinite(each) | (each == -math.inf)).all() for each in logits):
        raise ArithmeticError("the reference's logits are not all finite numbers")
    temporary = path.with_name(f".{path.name}-{os.getpid()}.tmp")  # a name of this process alone
    save_file(
        {"tokens": tokens.cpu().contiguous(), "logits": torch.stack(logits)},
        temporary,
        metadata={"steps": json.dumps(kept)},
    )
    temporary.replace(path)
    return tokens


def kept_steps(rows: int, steps: int, vocabulary: int, budget_bytes: int = LOGIT_BUDGET_BYTES) -> list[int]:
    """Return the steps whose logits are kept: as many as the budget allows, evenly spaced, with both ends."""
    affordable = max(1, budget_bytes // (rows * vocabulary * 4))
    return sorted({round(each) for each in np.linspace(0, steps - 1, min(steps, affordable))})


def read_reference(path: Path) -> Reference:
    """Read the file of a reference. OSError, ValueError: it cannot be used."""
    try:
        with safe_open(path, framework="pt") as file:
            steps = json.loads(file.metadata()["steps"])
            return Reference(tokens=file.get_tensor("tokens"), steps=steps, logits=file.get_tensor("logits"))
    except (SafetensorError, KeyError, TypeError) as error:
        raise ValueError(f"{path} is no reference: {error}") from error


def compare(reference: Reference, tokens: list[list[int]], call: Call | None, dtype: str) -> Fidelity:
    """Compare a setting with the reference.

    Args:
        reference: of the same model, workload and dtype.
        tokens: what the setting generated by itself, one list a row.
        call: runs the setting with logits processors; None where it takes none, then only tokens are compared.
        dtype: of the model, for the bounds.
    """
    result = Fidelity(reference="eager", **_compare_tokens(reference.tokens.tolist(), tokens))
    if call is None:
        agrees = True if result.first_divergent_token is None else None
        reason = None if agrees else "tokens differ, and logits cannot be had with generation.continuous_batching"
        return dataclasses.replace(result, agrees=agrees, reason=reason)
    totals = _Totals()
    index = {step: position for position, step in enumerate(reference.steps)}

    def visit(step: int, scores: torch.Tensor) -> None:
        if step in index:
            totals.add(reference.logits[index[step]], scores.detach().float().cpu(), reference.tokens[:, step])

    are_equal = result.first_divergent_token is None
    call([LogitTap(visit, reference.tokens)], _enough(reference.steps) if are_equal else None)
    return dataclasses.replace(result, **totals.figures(), **_verdict(totals, dtype))


def _enough(kept: list[int]) -> int | None:
    """Return after how many steps enough of the kept ones have passed; None: after all."""
    return kept[ENOUGH_STEPS - 1] + 1 if len(kept) > ENOUGH_STEPS else None


def _compare_tokens(expected: list[list[int]], tokens: list[list[int]]) -> dict[str, Any]:
    prefixes, equal, count = [], 0, 0
    for theirs, ours in zip(expected, tokens, strict=True):
        same = [left == right for left, right in zip(theirs, ours, strict=True)]
        prefixes.append(same.index(False) if False in same else len(same))
        equal, count = equal + sum(same), count + len(same)
    shortest = min(prefixes)
    return {
        "common_prefix_tokens": shortest,
        "equal_tokens_share": equal / count,
        "first_divergent_token": None if equal == count else shortest,
    }


class _Totals:
    """Sums over positions (a row at a step)."""

    def __init__(self) -> None:
        self.positions = self.values = self.top1 = 0
        self.max_diff = self.sum_diff = self.sum_diff_sd = self.sum_kl = 0.0

    def add(self, expected: torch.Tensor, scores: torch.Tensor, tokens: torch.Tensor) -> None:
        """Add one step: the logits of both, shape (rows, vocabulary), and the reference's tokens, shape (rows,)."""
        usable = torch.isfinite(expected)  # EOS is left out
        theirs = expected.masked_fill(~usable, -math.inf).log_softmax(-1)
        ours = scores.masked_fill(~usable, -math.inf).log_softmax(-1)
        difference = (scores - expected).masked_fill(~usable, 0.0).abs()
        deviation = _row_deviation(expected, usable)
        terms = (theirs.exp() * (theirs - ours)).masked_fill(~usable, 0.0)
        count = usable.sum(-1)
        self.positions += len(tokens)
        self.values += int(count.sum())
        self.top1 += int((scores.masked_fill(~usable, -math.inf).argmax(-1) == tokens).sum())
        self.sum_kl += float(terms.sum().clamp(min=0.0))  # rounding may leave it just below 0; NaN stays NaN
        self.sum_diff += float(difference.sum())
        self.sum_diff_sd += float((difference.sum(-1) / count / deviation).sum())
        largest = float(difference.max())
        self.max_diff = largest if math.isnan(largest) else max(self.max_diff, largest)

    def figures(self) -> dict[str, Any]:
        """Return the fields of a Fidelity; None where a logit is not a finite number."""
        figures = {
            "logit_max_abs_diff": self.max_diff,
            "logit_mean_abs_diff": self.sum_diff / self.values,
            "logit_mean_diff_sd": self.sum_diff_sd / self.positions,
            "kl_mean_nats": self.sum_kl / self.positions,
        }
        finite = {name: value if math.isfinite(value) else None for name, value in figures.items()}
        return {"positions": self.positions, "top1_share": self.top1 / self.positions, **finite}


def _row_deviation(logits: torch.Tensor, usable: torch.Tensor) -> torch.Tensor:
    """Return the standard deviation over the vocabulary, shape (rows,); never 0."""
    count = usable.sum(-1)
    filled = logits.masked_fill(~usable, 0.0)
    mean = filled.sum(-1) / count
    variance = ((filled - mean[:, None]).masked_fill(~usable, 0.0) ** 2).sum(-1) / count
    return variance.sqrt().clamp(min=torch.finfo(torch.float32).tiny)


def _verdict(totals: _Totals, dtype: str) -> dict[str, Any]:
    bounds = BOUNDS.get(dtype)
    if bounds is None:
        return {"agrees": None, "reason": f"there are no bounds for {dtype}"}
    figures = totals.figures()
    for name, bound in bounds.items():
        value = figures[name]
        if value is None:
            return {"agrees": False, "reason": "its logits are not all finite numbers", "bounds": bounds}
        if value > bound:
            return {"agrees": False, "reason": f"{name} {value:.3g} exceeds {bound:g} ({dtype})", "bounds": bounds}
    return {"agrees": True, "reason": None, "bounds": bounds}
