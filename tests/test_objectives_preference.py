"""The loss on pairs: sums over completions, the closed form, the gradient against differences, TRL's formula."""

import math

import pytest
import torch
from torch import Tensor

from interp_unlearn.errors import ConfigError
from interp_unlearn.objectives import dpo, preference_margin, sequence_log_probability, token_nll

BATCH, POS, VOCAB = 3, 5, 7


@pytest.fixture
def predictions() -> tuple[Tensor, Tensor, Tensor]:
    """Logits, ids and a mask of completions that begin at positions 1, 2 and 3 of rows of 5, 4 and 4 tokens."""
    generator = torch.Generator().manual_seed(0)
    logits = torch.randn(BATCH, POS, VOCAB, generator=generator, dtype=torch.float64)
    ids = torch.randint(VOCAB, (BATCH, POS), generator=generator)
    columns = torch.arange(POS)[None]
    mask = (columns >= torch.tensor([1, 2, 3])[:, None]) & (columns < torch.tensor([5, 4, 4])[:, None])
    return logits.masked_fill(~(columns < 5)[..., None], torch.nan), ids, mask


def pairs(n: int, seed: int = 1) -> list[Tensor]:
    """Log-probabilities of n chosen and rejected completions, of a model and its reference."""
    generator = torch.Generator().manual_seed(seed)
    return [-5 * torch.rand(n, generator=generator, dtype=torch.float64) for _ in range(4)]


def test_a_row_is_the_sum_over_its_own_tokens(predictions: tuple[Tensor, Tensor, Tensor]):
    logits, ids, mask = predictions
    found = sequence_log_probability(logits, ids, mask)
    for row in range(BATCH):
        by_hand = sum(math.log(logits[row, t - 1].softmax(-1)[ids[row, t]]) for t in range(1, POS) if mask[row, t])
        assert found[row].item() == pytest.approx(by_hand)
    torch.testing.assert_close(found.sum(), -token_nll(logits, ids, mask).sum())
    assert len({round(value, 6) for value in found.tolist()}) == BATCH


def test_what_is_outside_the_mask_enters_neither_value_nor_gradient(predictions: tuple[Tensor, Tensor, Tensor]):
    logits, ids, mask = predictions
    spoiled = logits.clone()
    spoiled[1, 3:] = torch.nan  # predicts the padding of the second row
    spoiled.requires_grad_()
    found = sequence_log_probability(spoiled, ids, mask)
    torch.testing.assert_close(found, sequence_log_probability(logits, ids, mask))
    found.sum().backward()
    assert spoiled.grad is not None
    assert spoiled.grad.isfinite().all()
    assert (spoiled.grad[1, 3:] == 0).all() and (spoiled.grad[1, 1:3] != 0).all()


def test_a_row_without_tokens_is_certain(predictions: tuple[Tensor, Tensor, Tensor]):
    logits, ids, mask = predictions
    mask = mask.clone()
    mask[1] = False
    assert sequence_log_probability(logits, ids, mask)[1] == 0


def test_the_loss_by_hand():
    chosen, rejected = torch.tensor([-1.0, -4.0]), torch.tensor([-3.0, -2.0])
    margin = preference_margin(chosen, rejected, torch.tensor([-2.0, -2.0]), torch.tensor([-2.0, -2.5]))
    assert margin.tolist() == [2.0, -2.5]
    expected = (math.log1p(math.exp(-0.2)) + math.log1p(math.exp(0.25))) / 2
    assert dpo(margin, 0.1).item() == pytest.approx(expected)


def test_a_model_equal_to_its_reference_has_log_two():
    chosen, rejected, *_ = pairs(6)
    assert dpo(preference_margin(chosen, rejected, chosen, rejected), 0.1).item() == pytest.approx(math.log(2))


def test_it_is_the_formula_of_trl():
    """`-logsigmoid(beta * ((pi_c - pi_r) - (ref_c - ref_r)))`, as trl and torchtune write it, in plain numbers."""
    chosen, rejected, reference_chosen, reference_rejected = pairs(9)
    each = []
    for c, r, c0, r0 in zip(*(part.tolist() for part in pairs(9)), strict=True):
        pi_logratio, reference_logratio = c - r, c0 - r0
        each.append(-math.log(1 / (1 + math.exp(-0.3 * (pi_logratio - reference_logratio)))))
    loss = dpo(preference_margin(chosen, rejected, reference_chosen, reference_rejected), 0.3)
    assert loss.item() == pytest.approx(sum(each) / 9)


def test_the_gradient_is_that_of_differences_and_points_at_the_chosen():
    values = [part.requires_grad_() for part in pairs(4)]

    def loss_of(*parts: Tensor) -> Tensor:
        return dpo(preference_margin(*parts), 0.5)

    assert torch.autograd.gradcheck(loss_of, values)
    chosen, rejected, *_ = torch.autograd.grad(loss_of(*values), values)
    assert (chosen < 0).all() and (rejected > 0).all()
    # Rafailov et al. 2023, section 4: beta * sigmoid(-beta * margin), of each pair.
    weight = 0.5 * torch.sigmoid(-0.5 * preference_margin(*values)) / 4
    torch.testing.assert_close(rejected, weight.detach())


def test_beta_must_be_positive():
    with pytest.raises(ConfigError, match="beta"):
        dpo(torch.zeros(2), 0.0)
