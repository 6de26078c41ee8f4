"""Debiased CKA against the textbook's formula and all permutations; planted rotations and shifts of components."""

from itertools import permutations
from typing import Any

import numpy as np
import pytest
import torch
from scipy.stats import ortho_group
from test_drift_paired import LATE, gaussian, token_store
from torch import Tensor

from interp_unlearn.drift import debiased_cka, representation_similarity
from interp_unlearn.errors import ConfigError, DataError

N, D = 400, 24


def rotation(seed: int, d: int = D) -> Tensor:
    return torch.from_numpy(ortho_group.rvs(d, random_state=seed))


def by_definition(x: Tensor, y: Tensor) -> float:
    """Song et al. 2012, with the Gram matrices written out."""

    def hsic(k: np.ndarray, l: np.ndarray) -> float:  # noqa: E741
        n, one = len(k), np.ones(len(k))
        k, l = k - np.diag(np.diag(k)), l - np.diag(np.diag(l))  # noqa: E741
        middle = (one @ k @ one) * (one @ l @ one) / ((n - 1) * (n - 2))
        return (np.trace(k @ l) + middle - 2 / (n - 2) * (one @ k @ l @ one)) / (n * (n - 3))

    k, m = (z.numpy() @ z.numpy().T for z in (x, y))
    return float(hsic(k, m) / np.sqrt(hsic(k, k) * hsic(m, m)))


def biased_cka(x: Tensor, y: Tensor) -> float:
    x, y = x - x.mean(0), y - y.mean(0)
    return float((x.T @ y).square().sum() / ((x.T @ x).norm() * (y.T @ y).norm()))


def measured(h0: Tensor, h: Tensor, **options: Any) -> Any:
    return representation_similarity(token_store({LATE: h0}), token_store({LATE: h}), **options).iloc[0]


def test_from_features_as_from_gram_matrices() -> None:
    x = gaussian(0, 30, 8) + 5
    y = x @ gaussian(1, 8, 6) + gaussian(2, 30, 6)
    assert debiased_cka(x, y) == pytest.approx(by_definition(x, y), abs=1e-10)
    assert debiased_cka(x, gaussian(3, 30, 50)) == pytest.approx(by_definition(x, gaussian(3, 30, 50)), abs=1e-10)


def test_rotated_shifted_and_scaled_is_the_same() -> None:
    h0 = gaussian(0, N, D) * torch.linspace(0.2, 3, D)
    row = measured(h0, 2.5 * h0 @ rotation(0) + 7, n_null=20)
    assert row["cka"] == pytest.approx(1, abs=1e-9)
    assert row["null_high"] < 0.1 < row["cka"]


@pytest.mark.parametrize(("n", "d"), [(40, 1000), (200, 400)])
def test_independent_activations_are_at_zero_where_the_biased_one_is_large(n: int, d: int) -> None:
    x, y = gaussian(0, n, d), gaussian(1, n, d)
    row = measured(x, y, n_null=60)
    assert row["null_low"] * 1.3 < row["cka"] < row["null_high"] * 1.3
    assert abs(row["cka"]) < 0.1 and row["null_low"] < 0 < row["null_high"]
    assert biased_cka(x, y) > 0.6


@pytest.mark.parametrize("d", [8, 60])  # by products of the features, and by Gram matrices
def test_neither_the_similarity_nor_its_band_depends_on_a_scale(d: int) -> None:
    h0, h = gaussian(0, 40, d), gaussian(1, 40, d) + gaussian(0, 40, d)
    columns = ["cka", "null_low", "null_high", "cka_standardised", "pca_similarity", "pca_shift"]
    as_it_is = measured(h0, h, n_null=9)[columns].astype(float)
    for scale in (1e-6, 1e4):
        np.testing.assert_allclose(
            measured(scale * h0, scale * h, n_null=9)[columns].astype(float), as_it_is, rtol=1e-9
        )


def test_standardised_each_dimension_counts_alike() -> None:
    h0, h = gaussian(0, 30, 4), gaussian(1, 30, 4)
    h = h0 + 0.5 * h
    scaled = [token_store({LATE: x * torch.tensor([1.0, 100.0, 1e-3, 1.0])}) for x in (h0, h)]
    found = representation_similarity(*scaled, n_null=0)
    expected = by_definition(*((x - x.mean(0)) / x.std(0) for x in (h0, h)))
    assert found["cka_standardised"].tolist() == pytest.approx([expected])
    assert found["cka"].tolist() != pytest.approx([expected], abs=0.02)


def test_the_band_is_of_the_permutations_that_are_drawn() -> None:
    h0, h = gaussian(0, 30, 5), gaussian(1, 30, 5)
    row = measured(h0, h, n_null=40, seed=3)
    rng = np.random.default_rng(3)
    values = [by_definition(h0, h[rng.permutation(30)]) for _ in range(40)]
    np.testing.assert_allclose([row["null_low"], row["null_high"]], np.quantile(values, [0.025, 0.975]), atol=1e-10)


def test_over_all_permutations_the_mean_is_zero_and_the_spread_depends_on_n_alone() -> None:
    n = 6
    for x, y in ((gaussian(0, n, 2), gaussian(1, n, 9)), (gaussian(0, n, 3).exp(), gaussian(0, n, 3).exp() ** 2)):
        values = [debiased_cka(x, y[list(order)]) for order in permutations(range(n))]
        assert np.mean(values) == pytest.approx(0, abs=1e-12)
        assert np.std(values) == pytest.approx((2 / (n * (n - 3))) ** 0.5, rel=1e-9)


def test_the_first_component_turned_by_a_known_angle() -> None:
    h0 = gaussian(0, N, D) * torch.tensor([8.0] + [0.5] * (D - 1)).double()
    turn = torch.eye(D).double()
    angle = torch.tensor(0.7)
    turn[:2, :2] = torch.tensor([[angle.cos(), -angle.sin()], [angle.sin(), angle.cos()]])
    row = measured(h0, h0 @ turn.T, n_null=0)
    assert row["pca_similarity"] == pytest.approx(np.cos(0.7), abs=1e-3)
    assert row["pca_shift"] < 0.1 and np.isnan(row["null_low"])
    away = measured(h0, h0 @ rotation(3), n_null=0)
    assert away["pca_similarity"] < away["pca_null_high"]


def test_the_mean_shifted_by_known_standard_deviations() -> None:
    h0 = gaussian(0, N, D) * torch.tensor([8.0] + [0.5] * (D - 1)).double()
    spread = float((h0 - h0.mean(0)).T.cov(correction=0).diagonal()[0]) ** 0.5
    shift = torch.zeros(D).double()
    shift[0] = -3 * spread
    row = measured(h0, h0 + shift, n_null=0)
    assert row["pca_shift"] == pytest.approx(3, rel=0.01)
    assert row["pca_similarity"] == pytest.approx(1) and row["cka"] == pytest.approx(1)


def test_a_dimension_that_is_constant_counts_for_nothing() -> None:
    x, y = gaussian(0, 60, 6), gaussian(1, 60, 6)
    still = torch.full((60, 1), 3.0, dtype=torch.float64)
    tables = [
        representation_similarity(token_store({LATE: a}), token_store({LATE: b}), n_null=2)
        for a, b in ((x, y), (torch.cat([x, still], 1), torch.cat([y, still], 1)))
    ]
    without, beside = (float(table["cka_standardised"].iloc[0]) for table in tables)
    assert beside == pytest.approx(without, abs=1e-12)


def test_one_huge_dimension_hides_what_the_standardised_one_shows() -> None:
    huge = 1000 * gaussian(0, N, 1)
    x, y = (torch.cat([huge, gaussian(seed, N, D - 1)], dim=1) for seed in (1, 2))
    row = measured(x, y, n_null=0)
    assert row["cka"] > 0.99 and row["cka_standardised"] < 0.2


def test_tokens_are_drawn_where_there_are_many_and_kept_ones_alone_count() -> None:
    h0 = gaussian(0, N, D)
    h = torch.where((torch.arange(N) < 100)[:, None], h0, gaussian(1, N, D))
    keep = np.arange(N) < 100
    assert measured(h0, h, keep=keep, n_null=0)["cka"] == pytest.approx(1)
    assert measured(h0, h, keep=~keep, n_null=0)["cka"] < 0.1
    row = measured(h0, h0, keep=~keep, max_tokens=50, n_null=0)
    assert row["n_tokens"] == 50 and row["cka"] == pytest.approx(1)


def test_what_does_not_vary_has_no_similarity() -> None:
    h0 = torch.ones(N, D).double()
    row = measured(h0, gaussian(0, N, D), n_null=3)
    assert row[["cka", "null_low", "pca_similarity", "pca_shift"]].isna().all()
    with pytest.raises(DataError, match="at least 4"):
        measured(h0, h0, keep=np.arange(N) < 3)
    with pytest.raises(ConfigError, match="an entry for each of"):
        measured(h0, h0, keep=np.ones(N - 1, dtype=bool))
    for x, y in ((h0, h0[1:]), (h0[0], h0[0]), (h0[None], h0)):
        with pytest.raises(ConfigError, match="of the same tokens, got"):
            debiased_cka(x, y)
    with pytest.raises(DataError, match="at least 4, got 3"):
        debiased_cka(h0[:3], h0[:3])
    with pytest.raises(ConfigError, match="max_tokens"):
        measured(h0, h0, max_tokens=3)
    with pytest.raises(ConfigError, match="same tokens"):
        debiased_cka(h0, h0[1:])
