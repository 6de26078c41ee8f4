"""Subspaces of pair differences, and what is projected out of a matrix, on planted directions and by brute force."""

import pytest
import torch
from torch import Tensor

from interp_unlearn.errors import ConfigError
from interp_unlearn.objectives import (
    ProjectionScale,
    difference_subspace,
    projection_scale,
    subspace_distance,
    subspace_hinge,
    without_subspace,
)

D = 12


def planted(rank: int, n: int = 60, seed: int = 0, offset: float = 3.0) -> tuple[Tensor, Tensor, Tensor]:
    """Pairs that differ in a span of `rank` directions, around a mean that is orthogonal to it; and the span."""
    generator = torch.Generator().manual_seed(seed)
    frame = torch.linalg.qr(torch.randn(D, D, generator=generator, dtype=torch.float64)).Q.T
    span, mean = frame[:rank], frame[rank]
    # What both sides share lies in neither the span nor along the mean.
    shared = torch.randn(n, D - rank - 1, generator=generator, dtype=torch.float64) @ frame[rank + 1 :]
    civil = offset * mean + shared - shared.mean(0)
    sizes = torch.arange(rank, 0, -1)
    return civil + torch.randn(n, rank, generator=generator, dtype=torch.float64) * sizes @ span, civil, span


def projector(rows: Tensor) -> Tensor:
    return rows.T @ torch.linalg.pinv(rows.T)


@pytest.mark.parametrize("centre", ["mean", "singular_vector", "none"])
@pytest.mark.parametrize("rank", [1, 3])
def test_a_planted_span_is_found_exactly(rank: int, centre: str):
    # The first singular vector of the civil side is its mean only if the mean is what varies most.
    toxic, civil, span = planted(rank, offset=50.0)
    basis, shares = difference_subspace(toxic, civil, rank, centre)
    if centre == "singular_vector":
        common = torch.linalg.svd(civil).Vh[0]
        span = span - torch.outer(span @ common, common)
    torch.testing.assert_close(projector(basis), projector(span), rtol=0, atol=1e-7)
    torch.testing.assert_close(basis @ basis.T, torch.eye(rank, dtype=torch.float64), rtol=0, atol=1e-10)
    assert shares.sum().item() == pytest.approx(1.0)
    assert (shares[:-1] >= shares[1:]).all()


@pytest.mark.parametrize("centre", ["mean", "singular_vector"])
def test_the_common_direction_is_not_among_the_differences(centre: str):
    """Toxic texts that only lie further along the civil mean differ in nothing that is their own."""
    toxic, civil, span = planted(1, offset=50.0)
    mean = civil.mean(0) if centre == "mean" else torch.linalg.svd(civil).Vh[0]
    toxic = toxic + 40 * mean / mean.norm()  # larger than the planted difference
    centred, _ = difference_subspace(toxic, civil, 1, centre)
    plain, _ = difference_subspace(toxic, civil, 1, "none")
    assert abs(centred[0] @ mean / mean.norm()) < 1e-8
    assert abs(plain[0] @ mean / mean.norm()) > 0.9
    assert abs(centred[0] @ span[0]) > 0.99


def test_it_is_the_singular_value_decomposition_written_out():
    generator = torch.Generator().manual_seed(3)
    toxic, civil = (torch.randn(20, D, generator=generator, dtype=torch.float64) for _ in range(2))
    basis, shares = difference_subspace(toxic, civil, 2, "mean")
    mean = civil.mean(0) / civil.mean(0).norm()
    centred = ((toxic - civil) / 2) @ (torch.eye(D, dtype=torch.float64) - torch.outer(mean, mean))
    values, vectors = torch.linalg.eigh(centred.T @ centred)
    torch.testing.assert_close(projector(basis), vectors[:, -2:] @ vectors[:, -2:].T, rtol=0, atol=1e-9)
    torch.testing.assert_close(shares, values.flip(0)[:2] / values.sum())


def test_more_directions_than_differences_are_refused():
    toxic, civil, _ = planted(2)
    with pytest.raises(ConfigError, match="differ, 2, got 3"):
        difference_subspace(toxic, civil, 3, "none")
    with pytest.raises(ConfigError, match="differ, 0, got 1"):
        difference_subspace(civil, civil, 1)
    with pytest.raises(ConfigError, match="rank"):
        difference_subspace(toxic, civil, 0)
    with pytest.raises(ConfigError, match="centre"):
        difference_subspace(toxic, civil, 1, "median")


@pytest.mark.parametrize("output_dim", [0, 1])
@pytest.mark.parametrize("dtype", [torch.float64, torch.float32, torch.bfloat16])
def test_nothing_is_written_along_the_basis_any_more(output_dim: int, dtype: torch.dtype):
    generator = torch.Generator().manual_seed(0)
    weight = torch.randn(D, 2 * D, generator=generator).to(dtype)
    weight = weight if output_dim == 0 else weight.T.contiguous()
    _, _, basis = planted(2)
    edited = without_subspace(weight, basis, output_dim)
    assert edited.dtype == dtype and edited.shape == weight.shape
    inputs = torch.randn(5, 2 * D, generator=generator, dtype=torch.float64)
    rows, before = (w.double() if output_dim == 0 else w.double().T for w in (edited, weight))
    written, original = inputs @ rows.T, inputs @ before.T
    tolerance = {torch.float64: 1e-12, torch.float32: 1e-5, torch.bfloat16: 0.05}[dtype]
    assert (written @ basis.T).abs().max() < tolerance < (original @ basis.T).abs().max()
    # Everything else is written as before.
    other = torch.eye(D, dtype=torch.float64) - basis.T @ basis
    torch.testing.assert_close(written @ other, original @ other, rtol=0, atol=20 * tolerance)
    again = without_subspace(edited, basis, output_dim)
    torch.testing.assert_close(again, edited, rtol=0, atol=tolerance)


def test_the_distance_penalty_by_hand_and_against_a_loop():
    basis = torch.eye(3, dtype=torch.float64)[:2]
    h = torch.tensor([[[3.0, 4.0, 100.0], [0.0, -2.0, 7.0], [1.0, 0.0, 0.0], [9.0, 9.0, 9.0]]], dtype=torch.float64)
    mask = torch.tensor([[True, True, True, False]])
    centre = torch.zeros(2, dtype=torch.float64)
    assert subspace_distance(h[mask], basis, centre).tolist() == [5.0, 2.0, 1.0]
    scale = ProjectionScale(neutral_median=1.0, gap=2.0)
    # Beyond by 2, 1/2 and 0 gaps: both signs of a direction count.
    assert subspace_hinge(h, mask, basis, centre, scale).item() == pytest.approx((4 + 0.25) / 3)


def test_a_parity_lies_apart_in_its_plane_and_along_no_direction():
    """Forget tokens at (1, 1) and (-1, -1), neutral ones near the origin: the hinge has no direction to penalise."""
    generator = torch.Generator().manual_seed(0)
    signs = torch.tensor([1.0, -1.0]).repeat(200)[:, None]
    forget = signs * torch.tensor([1.0, 1.0]) + 0.05 * torch.randn(400, 2, generator=generator)
    neutral = 0.3 * torch.randn(400, 2, generator=generator)
    for angle in torch.linspace(0, 3.1, 8):
        direction = torch.stack([angle.cos(), angle.sin()])
        medians = [torch.quantile(part @ direction, 0.5) for part in (forget, neutral)]
        assert abs(medians[0] - medians[1]) < 0.2
    centre = neutral.mean(0)
    far, near = (subspace_distance(part, torch.eye(2), centre) for part in (forget, neutral))
    scale = projection_scale(far, near, quantile=0.9)
    penalties = [
        subspace_hinge(part[None], torch.ones(1, 400).bool(), torch.eye(2), centre, scale) for part in (forget, neutral)
    ]
    assert penalties[0] > 20 * penalties[1] > 0


def test_a_higher_quantile_spares_neutral_tokens():
    generator = torch.Generator().manual_seed(1)
    neutral = torch.randn(4001, generator=generator)
    forget = neutral + 5
    shares = []
    for quantile in (0.5, 0.9, 1.0):
        scale = projection_scale(forget, neutral, quantile)
        assert scale.gap == pytest.approx(5.0, abs=1e-4)  # the gap is that of the medians, whatever the quantile
        assert scale.start == pytest.approx(float(neutral.quantile(quantile)), abs=1e-5)
        shares.append(float((neutral > scale.start).float().mean()))
    assert shares == pytest.approx([0.5, 0.1, 0.0], abs=1e-3)
    assert projection_scale(forget, neutral).start == projection_scale(forget, neutral).neutral_median
    with pytest.raises(ConfigError, match="quantile"):
        projection_scale(forget, neutral, 1.5)
