"""Compare tokens and logits with a reference, with logits that are known to the last digit."""

from __future__ import annotations

import math

import pytest
import torch

from bench.trial.evidence.fidelity import LogitTap, Reference, compare, kept_steps, read_reference, write_reference

VOCABULARY = 11
EOS = 10


def play(logits: torch.Tensor):
    """A call that has these logits at each step, shape (steps, rows, vocabulary), and decodes greedily."""

    def call(processors, steps=None):
        tokens = []
        for step in logits[:steps]:
            scores = step.clone()
            scores[:, EOS] = -math.inf
            for each in processors:
                scores = each(None, scores)
            tokens.append(scores.argmax(-1))
        return torch.stack(tokens, 1)

    return call


@pytest.fixture
def logits() -> torch.Tensor:
    return torch.randn(4, 2, VOCABULARY, generator=torch.Generator().manual_seed(0))


@pytest.fixture
def reference(logits, tmp_path) -> Reference:
    write_reference(tmp_path / "r.safetensors", play(logits), rows=2, steps=4, vocabulary=VOCABULARY)
    return read_reference(tmp_path / "r.safetensors")


def test_a_reference_comes_back_as_it_was_written(logits, reference) -> None:
    assert reference.steps == [0, 1, 2, 3]
    assert torch.equal(reference.tokens, play(logits)([]))
    assert torch.equal(reference.logits[..., :EOS], logits[..., :EOS])
    assert torch.isinf(reference.logits[..., EOS]).all()


def test_the_same_logits_agree_without_any_difference(logits, reference) -> None:
    call = play(logits)
    found = compare(reference, call([]).tolist(), call, "float32")
    assert (found.agrees, found.reason) == (True, None)
    assert (found.common_prefix_tokens, found.equal_tokens_share, found.first_divergent_token) == (4, 1.0, None)
    assert (found.positions, found.top1_share) == (8, 1.0)
    assert (found.logit_max_abs_diff, found.logit_mean_abs_diff, found.kl_mean_nats) == (0.0, 0.0, 0.0)


def test_figures_are_those_of_a_hand_written_loop(logits, reference) -> None:
    other = logits + 0.1 * torch.randn(logits.shape, generator=torch.Generator().manual_seed(1))
    found = compare(reference, play(other)([]).tolist(), play(other), "float32")
    theirs, ours = logits[..., :EOS].double(), other[..., :EOS].double()
    p, q = theirs.softmax(-1), ours.softmax(-1)
    assert found.kl_mean_nats == pytest.approx(float((p * (p / q).log()).sum(-1).mean()), rel=1e-4)
    assert found.logit_max_abs_diff == pytest.approx(float((theirs - ours).abs().max()), rel=1e-5)
    assert found.logit_mean_abs_diff == pytest.approx(float((theirs - ours).abs().mean()), rel=1e-5)
    relative = (theirs - ours).abs().mean(-1) / theirs.std(-1, unbiased=False)
    assert found.logit_mean_diff_sd == pytest.approx(float(relative.mean()), rel=1e-5)
    assert found.agrees is False


def test_logits_are_compared_over_the_reference_s_tokens(logits, reference) -> None:
    """Whatever the setting would say by itself, each step answers the same question."""
    asked = []

    def call(processors, steps):
        tokens = play(logits.flip(-1))(processors, steps)
        asked.append(tokens)
        return tokens

    compare(reference, [[0] * 4] * 2, call, "float32")
    assert torch.equal(asked[0], reference.tokens)


@pytest.mark.parametrize(("changed", "steps"), [(None, 8), (20, 24)])
def test_where_all_tokens_are_equal_the_first_steps_are_enough(tmp_path, changed, steps) -> None:
    """The second of these settings says something else at a step, by itself."""
    logits = torch.randn(24, 2, VOCABULARY, generator=torch.Generator().manual_seed(0))
    write_reference(tmp_path / "r", play(logits), rows=2, steps=24, vocabulary=VOCABULARY)
    tokens = play(logits)([])
    if changed is not None:
        tokens[1, changed] = (tokens[1, changed] + 1) % EOS
    found = compare(read_reference(tmp_path / "r"), tokens.tolist(), play(logits), "float32")
    assert (found.first_divergent_token, found.positions, found.agrees) == (changed, 2 * steps, True)


def test_enough_steps_are_enough_of_those_whose_logits_are_kept() -> None:
    logits = torch.randn(45, 1, VOCABULARY, generator=torch.Generator().manual_seed(0))
    tokens, kept = play(logits)([]), list(range(0, 45, 4))
    made = []

    def call(processors, steps):
        made.append(steps)
        return play(logits)(processors, steps)

    found = compare(Reference(tokens=tokens, steps=kept, logits=logits[kept]), tokens.tolist(), call, "float32")
    assert (made, found.positions) == ([29], 8)


def test_a_shift_of_all_logits_is_no_other_distribution(logits, reference) -> None:
    found = compare(reference, play(logits)([]).tolist(), play(logits + 3.0), "float32")
    assert found.kl_mean_nats == pytest.approx(0.0, abs=1e-6)
    assert found.logit_mean_abs_diff == pytest.approx(3.0, rel=1e-5)


@pytest.mark.parametrize(
    ("tokens", "prefix", "share", "divergent"),
    [
        ([[1, 2, 3], [4, 5, 6]], 3, 1.0, None),
        ([[1, 2, 9], [4, 5, 6]], 2, 5 / 6, 2),
        ([[1, 2, 9], [9, 5, 6]], 0, 4 / 6, 0),
    ],
)
def test_tokens_are_compared_row_by_row(tokens, prefix, share, divergent) -> None:
    reference = Reference(tokens=torch.tensor([[1, 2, 3], [4, 5, 6]]), steps=[], logits=torch.empty(0))
    found = compare(reference, tokens, None, "float32")
    assert (found.common_prefix_tokens, found.first_divergent_token) == (prefix, divergent)
    assert found.equal_tokens_share == pytest.approx(share)
    assert found.agrees is (True if divergent is None else None)


@pytest.mark.parametrize("broken", [math.nan, math.inf])
def test_logits_that_are_no_numbers_never_agree(logits, reference, broken) -> None:
    other = logits.clone()
    other[2, 0, 3] = broken
    found = compare(reference, play(logits)([]).tolist(), play(other), "bfloat16")
    assert found.agrees is False
    assert "finite" in found.reason


@pytest.mark.parametrize("step", range(4))
def test_a_step_that_is_no_number_leaves_no_largest_difference_of_the_others(logits, reference, step) -> None:
    other = logits + 0.1 * torch.randn(logits.shape, generator=torch.Generator().manual_seed(1))
    other[step, 1, 3] = math.nan
    found = compare(reference, [[0] * 4] * 2, play(other), "float32")
    assert (found.logit_max_abs_diff, found.logit_mean_abs_diff, found.kl_mean_nats) == (None, None, None)
    assert (found.agrees, found.reason) == (False, "its logits are not all finite numbers")


def test_a_reference_may_hold_minus_infinity_and_no_other(logits, tmp_path) -> None:
    """EOS is taken out so; +inf is what an overflow leaves."""
    logits[1, 0, 3] = -math.inf
    write_reference(tmp_path / "r.safetensors", play(logits), rows=2, steps=4, vocabulary=VOCABULARY)
    logits[1, 0, 3] = math.inf
    with pytest.raises(ArithmeticError):
        write_reference(tmp_path / "i.safetensors", play(logits), rows=2, steps=4, vocabulary=VOCABULARY)
    assert not (tmp_path / "i.safetensors").exists()


def test_a_reference_that_is_no_number_is_none(logits, tmp_path) -> None:
    logits[0, 0, 0] = math.nan
    with pytest.raises(ArithmeticError, match="not all finite"):
        write_reference(tmp_path / "r", play(logits), rows=2, steps=4, vocabulary=VOCABULARY)
    assert list(tmp_path.iterdir()) == []


# As docs/why-to-believe-it.md has them: dtype → mean KL in nats, mean difference in standard deviations.
DOCUMENTED = {"float32": (1e-5, 1e-3), "float16": (1e-3, 1e-2), "bfloat16": (2e-2, 1e-1)}


def size_for(measure, wanted: float, power: int) -> float:
    """How large a change must be for a figure that grows with about this power of it to become this."""
    size = 0.01
    for _ in range(5):
        size *= (wanted / measure(size)) ** (1 / power)
    return size


@pytest.mark.parametrize(("share", "agrees"), [(0.9, True), (1.1, False)])
@pytest.mark.parametrize("figure", ["kl_mean_nats", "logit_mean_diff_sd"])
@pytest.mark.parametrize("dtype", sorted(DOCUMENTED))
def test_the_bounds_are_those_that_are_documented(tmp_path, dtype, figure, share, agrees) -> None:
    """A change of one likely token's logit shows in the divergence first, one of all logits in their difference."""
    generator = torch.Generator().manual_seed(2)
    plain = torch.randn(4, 2, VOCABULARY, generator=generator).double()
    change = torch.randn(plain.shape, generator=generator).double()
    if figure == "kl_mean_nats":
        plain[..., 0] += 6.0
        change = torch.zeros_like(plain)
        change[..., 0] = -1.0
    write_reference(tmp_path / "r.safetensors", play(plain), rows=2, steps=4, vocabulary=VOCABULARY)
    reference = read_reference(tmp_path / "r.safetensors")
    wide = Reference(tokens=reference.tokens, steps=reference.steps, logits=plain.clone())
    wide.logits[..., EOS] = -math.inf

    def found(size: float):
        # Tokens that differ have all steps compared.
        return compare(wide, [[-1] * 4] * 2, play(plain + size * change), dtype)

    bound = dict(zip(("kl_mean_nats", "logit_mean_diff_sd"), DOCUMENTED[dtype], strict=True))[figure]
    size = size_for(lambda size: getattr(found(size), figure), share * bound, 2 if figure == "kl_mean_nats" else 1)
    result = found(size)
    assert getattr(result, figure) == pytest.approx(share * bound, rel=0.02)
    assert result.agrees is agrees
    assert result.bounds == dict(zip(("kl_mean_nats", "logit_mean_diff_sd"), DOCUMENTED[dtype], strict=True))
    if not agrees:
        assert result.reason.startswith(figure)


def test_without_bounds_for_a_number_format_nothing_is_judged(logits, reference) -> None:
    found = compare(reference, play(logits)([]).tolist(), play(logits), "float64")
    assert (found.agrees, found.reason) == (None, "there are no bounds for float64")


def test_kept_steps_fill_the_budget_and_hold_both_ends() -> None:
    assert kept_steps(1, 5, 100, budget_bytes=10**9) == [0, 1, 2, 3, 4]
    assert kept_steps(2, 101, 100, budget_bytes=2 * 100 * 4 * 3) == [0, 50, 100]
    assert kept_steps(64, 1000, 256_000, budget_bytes=1) == [0]


def test_a_tap_without_tokens_changes_nothing() -> None:
    scores = torch.tensor([[1.0, 2.0]])
    assert LogitTap(lambda step, scores: None)(None, scores) is scores


def test_a_file_that_is_no_reference_says_so(tmp_path) -> None:
    (tmp_path / "r").write_bytes(b"nonsense")
    with pytest.raises(ValueError, match="is no reference"):
        read_reference(tmp_path / "r")
