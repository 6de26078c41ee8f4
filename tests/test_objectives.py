"""Losses against closed forms in float64, loops over tokens, and scikit-like brute force."""

import math

import pytest
import torch

from interp_unlearn.errors import ConfigError
from interp_unlearn.objectives import (
    ProjectionScale,
    cosine_forget,
    cross_entropy,
    kl,
    mse,
    projection_hinge,
    projection_scale,
    random_directions,
    relative_mse,
    rmu_forget,
    token_kl,
    token_nll,
)

BATCH, POS, D, VOCAB = 3, 5, 8, 11


@pytest.fixture
def ragged():
    """Activations, their originals and a mask of rows of 5, 3 and 2 tokens; NaN wherever the mask is off."""
    generator = torch.Generator().manual_seed(0)
    h = torch.randn(BATCH, POS, D, generator=generator, dtype=torch.float64)
    h0 = torch.randn(BATCH, POS, D, generator=generator, dtype=torch.float64)
    mask = torch.arange(POS)[None] < torch.tensor([5, 3, 2])[:, None]
    return h.masked_fill(~mask[..., None], torch.nan), h0.masked_fill(~mask[..., None], torch.nan), mask


def tokens_of(h, mask):
    return [h[i, t] for i in range(BATCH) for t in range(POS) if mask[i, t]]


def test_rmu_forget_is_the_token_mean_of_squared_distance(ragged):
    h, _, mask = ragged
    control = torch.arange(D, dtype=torch.float64)
    expected = sum(((x - control) ** 2).sum() / D for x in tokens_of(h, mask)) / 10
    torch.testing.assert_close(rmu_forget(h, mask, control), expected)


def test_cosine_forget_takes_its_three_known_values():
    u = torch.tensor([0.0, 1.0], dtype=torch.float64)
    h = torch.tensor([[[0.0, 7.0]], [[3.0, 0.0]], [[0.0, -0.1]]], dtype=torch.float64)
    mask = torch.ones(3, 1, dtype=torch.bool)
    losses = [cosine_forget(h[i : i + 1], mask[i : i + 1], u).item() for i in range(3)]
    assert losses == pytest.approx([0.0, 1.0, 2.0], abs=1e-12)
    assert cosine_forget(h, mask, u).item() == pytest.approx(1.0, abs=1e-12)


def test_cosine_forget_ignores_the_norm(ragged):
    h, _, mask = ragged
    u = torch.ones(D, dtype=torch.float64)
    torch.testing.assert_close(cosine_forget(h * 100, mask, u), cosine_forget(h, mask, u))


def test_relative_mse_is_angle_and_norm(ragged):
    h, h0, mask = ragged
    expected = torch.tensor(0.0, dtype=torch.float64)
    for x, x0 in zip(tokens_of(h, mask), tokens_of(h0, mask), strict=True):
        r, cos = x.norm() / x0.norm(), torch.dot(x, x0) / (x.norm() * x0.norm())
        expected += ((r - 1) ** 2 + 2 * r * (1 - cos)) / 10
    torch.testing.assert_close(relative_mse(h, h0, mask), expected)


def test_mse_is_the_published_mean(ragged):
    h, h0, mask = ragged
    torch.testing.assert_close(mse(h, h0, mask), torch.nn.functional.mse_loss(h[mask], h0[mask]))


def test_padding_enters_neither_value_nor_gradient(ragged):
    h, h0, mask = ragged
    h = h.clone().requires_grad_()
    u = torch.ones(D, dtype=torch.float64)
    scale = ProjectionScale(0.0, 1.0)
    total = cosine_forget(h, mask, u) + relative_mse(h, h0, mask) + projection_hinge(h, mask, u, scale)
    total.backward()
    assert total.isfinite()
    assert h.grad is not None
    assert h.grad[mask].isfinite().all()
    assert (h.grad[~mask] == 0).all()
    assert (h.grad[mask] != 0).any()


def test_token_weighting_does_not_depend_on_the_split_into_batches(ragged):
    h, h0, mask = ragged
    parts = [(relative_mse(h[i : i + 1], h0[i : i + 1], mask[i : i + 1]), int(mask[i].sum())) for i in range(BATCH)]
    torch.testing.assert_close(relative_mse(h, h0, mask), sum(loss * n for loss, n in parts) / 10)


def test_projection_hinge_by_hand():
    w = torch.tensor([1.0, 0.0], dtype=torch.float64)
    h = torch.tensor([[[1.0, 9.0], [3.0, 9.0], [5.0, 9.0], [100.0, 0.0]]], dtype=torch.float64)
    mask = torch.tensor([[True, True, True, False]])
    # q = 2, s = 2: beyond by -1/2, 1/2, 3/2 gaps.
    loss = projection_hinge(h, mask, w, ProjectionScale(neutral_median=2.0, gap=2.0))
    assert loss.item() == pytest.approx((0 + 0.25 + 2.25) / 3)


def test_projection_scale_recovers_a_planted_gap():
    generator = torch.Generator().manual_seed(1)
    noise = torch.randn(4001, generator=generator)
    scale = projection_scale(forget=noise + 5, neutral=noise + 2)
    assert scale.gap == pytest.approx(3.0, abs=1e-5)
    assert scale.neutral_median == pytest.approx(2 + float(noise.median()), abs=1e-5)


def test_a_direction_of_the_wrong_sign_is_refused():
    with pytest.raises(ConfigError, match="wrong sign"):
        projection_scale(forget=torch.tensor([0.0, 1.0]), neutral=torch.tensor([2.0, 3.0]))


@pytest.fixture
def predictions():
    generator = torch.Generator().manual_seed(2)
    p, q = (torch.randn(BATCH, POS, VOCAB, generator=generator, dtype=torch.float64) for _ in range(2))
    ids = torch.randint(VOCAB, (BATCH, POS), generator=generator)
    mask = (torch.arange(POS)[None] < torch.tensor([5, 3, 2])[:, None]) & (torch.arange(POS)[None] > 0)
    return p, q, ids, mask


def test_kl_is_that_of_the_predicting_positions(predictions):
    p, q, _, mask = predictions
    each = []
    for i in range(BATCH):
        for t in range(POS):
            if mask[i, t]:
                a, b = p[i, t - 1].softmax(-1), q[i, t - 1].softmax(-1)
                each.append((a * (a / b).log()).sum())
    torch.testing.assert_close(token_kl(p, q, mask), torch.stack(each))
    torch.testing.assert_close(kl(p, q, mask), torch.stack(each).mean())


def test_kl_is_zero_only_for_equal_distributions_and_not_symmetric(predictions):
    p, q, _, mask = predictions
    assert kl(p, p + 3.0, mask).item() == pytest.approx(0.0, abs=1e-12)
    assert kl(p, q, mask) > 0.1
    assert abs(kl(p, q, mask) - kl(q, p, mask)) > 1e-3


def test_kl_of_a_forbidden_entry_is_finite(predictions):
    p, q, _, mask = predictions
    p[..., 4] = float("-inf")
    q[..., 4] = float("-inf")
    without = [i for i in range(VOCAB) if i != 4]
    torch.testing.assert_close(kl(p, q, mask), kl(p[..., without], q[..., without], mask))


def test_cross_entropy_matches_probabilities(predictions):
    p, _, ids, mask = predictions
    each = [
        -math.log(p[i, t - 1].softmax(-1)[ids[i, t]]) for i in range(BATCH) for t in range(POS) if mask[i, t]
    ]  # position 0 predicts position 1
    torch.testing.assert_close(token_nll(p, ids, mask), torch.tensor(each, dtype=torch.float64))
    assert cross_entropy(p, ids, mask).item() == pytest.approx(sum(each) / len(each))


def test_an_empty_mask_is_refused(ragged):
    h, h0, mask = ragged
    with pytest.raises(ConfigError, match="no token"):
        relative_mse(h, h0, torch.zeros_like(mask))


def test_low_precision_is_averaged_in_float32():
    h = torch.full((1, 4096, 1), 1.0, dtype=torch.bfloat16)
    h[0, 0] = 1024.0
    loss = rmu_forget(h, torch.ones(1, 4096, dtype=torch.bool), torch.zeros(1))
    assert loss.dtype == torch.float32
    assert loss.item() == pytest.approx((1024**2 + 4095) / 4096, rel=1e-6)


def test_random_directions_are_unit_seeded_and_layerwise():
    before = torch.get_rng_state()
    many = random_directions(2000, [1, 2, 5], seed=3)
    assert torch.equal(torch.get_rng_state(), before)
    assert torch.equal(random_directions(2000, [5], seed=3)[5], many[5])
    assert not torch.equal(random_directions(2000, [5], seed=4)[5], many[5])
    for vector in many.values():
        assert vector.norm().item() == pytest.approx(1.0, abs=1e-6)
        assert 0.4 < (vector > 0).float().mean() < 0.6  # Gaussian, not the positive orthant
    assert abs(many[1] @ many[2]) < 0.1
