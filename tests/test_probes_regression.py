"""Fast fits against scikit-learn's own, in double precision and at a strict tolerance."""

import numpy as np
import pytest
from sklearn.linear_model import LogisticRegression
from sklearn.preprocessing import StandardScaler

from interp_unlearn.errors import ConfigError
from interp_unlearn.probes.linear import standardise
from interp_unlearn.probes.regression import LogisticFits


def stream(n: int, width: int, seed: int = 0, decay: float = 1.0, signal: float = 1.0) -> tuple[np.ndarray, np.ndarray]:
    """Rows whose k-th largest variance is k ** -decay, along random axes, with classes apart along one of them."""
    rng = np.random.default_rng(seed)
    axes = np.linalg.qr(rng.normal(size=(width, width)))[0]
    spread = np.sqrt(width) * np.arange(1, width + 1) ** (-decay / 2)
    labels = rng.random(n) < 0.4
    rows = rng.normal(size=(n, width)) * spread @ axes + signal * np.outer(labels, axes[width // 2])
    return (rows + rng.normal(size=width) * 3).astype(np.float32), labels


class TestStandardise:
    def test_it_is_scikit_learns(self) -> None:
        vectors, _ = stream(200, 30)
        vectors[:, 3], vectors[:, 5] = 7.25, 0
        rows = np.arange(0, 200, 3)
        scaler = StandardScaler().fit(vectors[rows].astype(float))
        found = standardise(vectors, rows)
        np.testing.assert_allclose(found.mean, scaler.mean_, rtol=1e-6)
        np.testing.assert_allclose(found.scale, scaler.scale_, rtol=1e-5)
        np.testing.assert_allclose(found.matrix, scaler.transform(vectors[rows].astype(float)), atol=1e-4)
        np.testing.assert_allclose(found.apply(vectors), scaler.transform(vectors.astype(float)), atol=1e-4)

    def test_a_large_mean_costs_no_precision(self) -> None:
        vectors, _ = stream(200, 10)
        vectors += 1000  # massive activations; what single precision keeps of them is all there is
        exact = StandardScaler().fit_transform(vectors.astype(float))
        np.testing.assert_allclose(standardise(vectors).matrix, exact, atol=1e-3)

    def test_the_buffer_is_used_where_it_suffices_and_the_vectors_are_left_alone(self) -> None:
        vectors, _ = stream(50, 4)
        before, buffer = vectors.copy(), np.empty((20, 4), dtype=np.float32)
        few, many = np.arange(20), np.repeat(np.arange(50), 2)
        assert np.shares_memory(standardise(vectors, few, buffer).matrix, buffer)
        found = standardise(vectors, many, buffer)
        assert not np.shares_memory(found.matrix, buffer)
        np.testing.assert_array_equal(found.matrix, standardise(vectors, many).matrix)
        np.testing.assert_array_equal(vectors, before)

    def test_back_to_raw_coordinates(self) -> None:
        vectors, _ = stream(60, 5)
        rows = standardise(vectors)
        coef = np.random.default_rng(1).normal(size=5)
        probe = rows.to_raw(coef, 0.7)
        assert np.linalg.norm(probe.direction) == pytest.approx(1)
        found = probe.scale * (vectors @ probe.direction + probe.bias)
        np.testing.assert_allclose(found, rows.matrix @ coef + 0.7, atol=1e-4)
        with pytest.raises(ConfigError, match="do not differ"):
            rows.to_raw(np.zeros(5), 0.0)


def cosine(one: np.ndarray, other: np.ndarray) -> float:
    return float(one @ other / np.linalg.norm(one) / np.linalg.norm(other))


@pytest.mark.parametrize("C", [1.0, 0.01])
@pytest.mark.parametrize("meaning", [True, False], ids=["labels", "shuffled"])
@pytest.mark.parametrize(("n", "width", "decay"), [(700, 100, 0.0), (700, 100, 2.0), (150, 100, 1.0), (60, 100, 1.0)])
def test_the_optimum_is_scikit_learns(n: int, width: int, decay: float, meaning: bool, C: float) -> None:
    vectors, labels = stream(n, width, decay=decay)
    if not meaning:
        labels = np.random.default_rng(1).permutation(labels)
    everything = standardise(vectors)
    rows = np.arange(0, n, 5)  # not the rows of the head start's Gram matrix
    train = np.setdiff1d(np.arange(n), rows)
    part = standardise(vectors, train)
    found = LogisticFits(everything.matrix).fit(part.matrix, labels[train], C)
    exact = LogisticRegression(C=C, tol=1e-9, max_iter=10_000).fit(part.matrix.astype(float), labels[train])
    assert cosine(found.coef, exact.coef_[0]) > 0.9995
    expected = exact.decision_function(part.apply(vectors[rows]).astype(float))
    error = found.log_odds(part.apply(vectors[rows])) - expected
    assert np.sqrt(np.mean(error**2)) < 0.01 * expected.std()


def test_the_head_start_leaves_little_to_do(monkeypatch: pytest.MonkeyPatch) -> None:
    iterations = []
    fit = LogisticRegression.fit

    def spy(self: LogisticRegression, *arguments: object) -> LogisticRegression:
        fit(self, *arguments)
        iterations.append(int(self.n_iter_[0]))
        return self

    vectors, labels = stream(1500, 200, decay=1.5)
    matrix = standardise(vectors).matrix
    monkeypatch.setattr(LogisticRegression, "fit", spy)
    begun_near = LogisticFits(matrix)
    begun_at_zero = LogisticFits(matrix[:100])  # fewer rows than dimensions: no Gram matrix
    for fits in (begun_near, begun_at_zero):
        fits.fit(matrix, labels, 1.0)
    assert iterations[0] <= 5 < 50 < iterations[1]


def test_dimensions_that_repeat_each_other() -> None:
    vectors, labels = stream(300, 10)
    doubled = standardise(np.concatenate([vectors, vectors, vectors], axis=1))
    found = LogisticFits(doubled.matrix).fit(doubled.matrix, labels, 1e7)  # too weak a penalty to tell them apart
    exact = LogisticRegression(C=1e7, tol=1e-9, max_iter=10_000).fit(doubled.matrix.astype(float), labels)
    np.testing.assert_allclose(found.log_odds(doubled.matrix), exact.decision_function(doubled.matrix), atol=0.02)


def test_fits_repeat_to_the_bit() -> None:
    vectors, labels = stream(300, 40)
    matrix = standardise(vectors).matrix
    fits = LogisticFits(matrix)
    one, again = fits.fit(matrix, labels, 1.0), LogisticFits(matrix).fit(matrix, labels, 1.0)
    fits.fit(matrix[:200], labels[:200], 0.1)  # nothing is carried over
    np.testing.assert_array_equal(one.coef, again.coef)
    np.testing.assert_array_equal(one.coef, fits.fit(matrix, labels, 1.0).coef)
