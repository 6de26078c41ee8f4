"""The losses that the unlearning of knowledge brought, against closed forms in float64 and loops over tokens."""

import math

import pytest
import torch

from interp_unlearn.errors import ConfigError
from interp_unlearn.objectives import (
    contrastive_forget,
    cosine_forget,
    counterfactual_forget,
    distance,
    npo,
    rerouting_forget,
    simnpo,
    token_cosine_forget,
    token_directions,
)

D = 6


@pytest.fixture
def ragged():
    generator = torch.Generator().manual_seed(0)
    h, h0 = torch.randn(2, 3, 4, D, generator=generator, dtype=torch.float64)
    mask = torch.arange(4)[None] < torch.tensor([4, 2, 1])[:, None]
    return h.masked_fill(~mask[..., None], torch.nan), h0.masked_fill(~mask[..., None], torch.nan), mask


def cosines(a, b, mask):
    pairs = [(a[i, t], b[i, t]) for i, t in mask.nonzero().tolist()]
    return torch.stack([x @ y / (x.norm() * y.norm()) for x, y in pairs])


def test_npo_is_the_written_formula_and_begins_at_log_two():
    log_p, reference = torch.tensor([-3.0, -8.0], dtype=torch.float64), torch.tensor([-2.0, -9.0], dtype=torch.float64)
    by_hand = [-(2 / 0.5) * math.log(1 / (1 + math.exp(0.5 * ratio))) for ratio in (-1.0, 1.0)]
    assert npo(log_p, reference, 0.5).item() == pytest.approx(sum(by_hand) / 2, rel=1e-12)
    assert npo(reference, reference, 0.1).item() == pytest.approx(20 * math.log(2), rel=1e-12)


def test_npo_becomes_gradient_ascent_as_beta_vanishes():
    log_p = torch.tensor([-3.0, -8.0], dtype=torch.float64, requires_grad=True)
    (slope,) = torch.autograd.grad(npo(log_p, torch.tensor([-2.0, -9.0]), 1e-6), log_p)
    torch.testing.assert_close(slope, torch.full_like(slope, 0.5), rtol=1e-5, atol=0)


def test_simnpo_is_the_written_formula():
    nll = torch.tensor([0.5, 3.0], dtype=torch.float64)
    by_hand = [(2 / 4.5) * math.log(1 + math.exp(-4.5 * (value - 0.25))) for value in (0.5, 3.0)]
    assert simnpo(nll, 4.5, 0.25).item() == pytest.approx(sum(by_hand) / 2, rel=1e-12)


@pytest.mark.parametrize("beta", [0.0, -1.0])
def test_an_inverse_temperature_is_positive(beta):
    with pytest.raises(ConfigError, match="beta"):
        npo(torch.zeros(1), torch.zeros(1), beta)
    with pytest.raises(ConfigError, match="beta"):
        simnpo(torch.zeros(1), beta)


def test_rerouting_counts_only_what_still_points_there(ragged):
    h, h0, mask = ragged
    found = cosines(h, h0, mask)
    assert (found < 0).any() and (found > 0).any()
    torch.testing.assert_close(rerouting_forget(h, h0, mask), found.clamp(min=0).mean())
    assert rerouting_forget(-h0, h0, mask).item() == 0.0
    assert rerouting_forget(2 * h0, h0, mask).item() == pytest.approx(1.0)


def test_distance_is_the_mean_norm_of_the_difference(ragged):
    h, h0, mask = ragged
    by_hand = [(h[i, t] - h0[i, t]).norm().item() for i, t in mask.nonzero().tolist()]
    assert distance(h, h0, mask).item() == pytest.approx(sum(by_hand) / len(by_hand), rel=1e-12)


def test_the_counterfactual_loss_is_zero_along_its_target_whatever_the_norm(ragged):
    h, h0, mask = ragged
    torch.testing.assert_close(counterfactual_forget(h, h0, mask), (1 - cosines(h, h0, mask)).mean())
    assert counterfactual_forget(7 * h0, h0, mask).item() == pytest.approx(0.0, abs=1e-12)


def test_the_contrastive_loss_is_log_two_between_its_poles(ragged):
    h, h0, mask = ragged
    u = torch.randn(D, dtype=torch.float64, generator=torch.Generator().manual_seed(1))
    along = u.expand_as(h0)
    expected = torch.log1p(torch.exp((cosines(h, h0, mask) - cosines(h, along, mask)) / 0.7)).mean()
    torch.testing.assert_close(contrastive_forget(h, h0, mask, u), expected)
    between = h0 / h0.norm(dim=-1, keepdim=True) + along / u.norm()
    assert contrastive_forget(between, h0, mask, u).item() == pytest.approx(math.log(2), rel=1e-6)


def test_each_token_has_a_direction_of_its_own():
    ids = torch.tensor([3, 9, 3, 4])
    drawn = token_directions(ids, D, layer=2, seed=0)
    assert torch.equal(drawn[0], drawn[2]) and not torch.equal(drawn[0], drawn[1])
    assert torch.equal(token_directions(torch.tensor([9]), D, 2, 0)[0], drawn[1])  # whatever is asked for beside it
    assert not torch.equal(token_directions(ids, D, 3, 0), drawn) and not torch.equal(
        token_directions(ids, D, 2, 1), drawn
    )


def test_the_token_loss_ignores_sign_and_is_the_cosine_loss_of_each_direction(ragged):
    h, _, mask = ragged
    ids = torch.tensor([[3, 9, 3, 4], [4, 4, 0, 0], [9, 0, 0, 0]])
    found = token_cosine_forget(h, mask, ids, layer=1, seed=5)
    parts = []
    for i, t in mask.nonzero().tolist():
        u = token_directions(ids[i, t : t + 1], D, 1, 5)[0].double()
        one = cosine_forget(h[i : i + 1, t : t + 1], mask[i : i + 1, t : t + 1], u)
        parts.append(1 - (1 - one).abs())
    torch.testing.assert_close(found, torch.stack(parts).mean())
    torch.testing.assert_close(token_cosine_forget(-h, mask, ids, 1, 5), found)
