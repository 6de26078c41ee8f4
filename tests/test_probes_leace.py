"""LEACE against its definition, brute force, the paper's own formula and probes trained after it."""

import numpy as np
import pytest
import torch
from probe_stores import LATE, make_store, planted
from scipy.linalg import pinvh
from scipy.optimize import minimize
from sklearn.linear_model import LogisticRegression
from sklearn.metrics import roc_auc_score
from sklearn.model_selection import cross_val_predict
from sklearn.preprocessing import StandardScaler

from interp_unlearn.errors import ConfigError
from interp_unlearn.probes import fit_leace, fit_probes

KINDS = {"more rows": (300, 6), "fewer rows": (12, 20), "repeated dimensions": (300, 6)}


def example(kind: str, classes: int = 2) -> tuple[torch.Tensor, np.ndarray]:
    n, width = KINDS[kind]
    rng = np.random.default_rng(0)
    labels = np.arange(n) % classes
    vectors = rng.normal(size=(n, width)) @ rng.normal(size=(width, width)) + 5
    vectors += rng.normal(size=(classes, width))[labels] * 2
    if kind == "repeated dimensions":
        vectors = np.concatenate([vectors, vectors[:, :3], np.full((n, 1), 7.0)], axis=1)
    return torch.from_numpy(vectors), labels


def one_hot(labels: np.ndarray) -> np.ndarray:
    return np.eye(labels.max() + 1)[labels]


@pytest.mark.parametrize("classes", [2, 3])
@pytest.mark.parametrize("kind", KINDS)
class TestErasure:
    def test_class_means_become_equal_and_the_mean_stays(self, kind: str, classes: int) -> None:
        vectors, labels = example(kind, classes)
        erased = fit_leace(vectors, labels)(vectors)
        assert (vectors[labels == 0].mean(0) - vectors[labels == 1].mean(0)).norm() > 1
        for label in range(classes):
            torch.testing.assert_close(erased[labels == label].mean(0), vectors.mean(0), atol=1e-9, rtol=0)
        centred = one_hot(labels) - one_hot(labels).mean(0)
        assert np.abs(erased.numpy().T @ centred / len(labels)).max() < 1e-9

    def test_it_is_the_papers_formula(self, kind: str, classes: int) -> None:
        """I - W+ P W with W the pseudo-inverse of the covariance's root, and P on the whitened cross-covariance."""
        vectors, labels = example(kind, classes)
        x = vectors.numpy() - vectors.numpy().mean(0)
        z = one_hot(labels) - one_hot(labels).mean(0)
        values, axes = np.linalg.eigh(x.T @ x / len(x))
        root = axes * np.sqrt(np.clip(values, 0, None)) @ axes.T
        whitening = pinvh(root, rtol=1e-6)
        cross = whitening @ x.T @ z / len(x)
        projection = cross @ np.linalg.pinv(cross, rcond=1e-6)
        expected = vectors.numpy() - x @ (pinvh(whitening, rtol=1e-6) @ projection @ whitening).T
        np.testing.assert_allclose(fit_leace(vectors, labels)(vectors).numpy(), expected, atol=1e-4)

    def test_a_probe_trained_again_says_the_base_rate(self, kind: str, classes: int) -> None:
        vectors, labels = example(kind, classes)
        erased = fit_leace(vectors, labels)(vectors).numpy()
        for data, reads in ((vectors.numpy(), True), (erased, False)):
            scaled = StandardScaler().fit_transform(data)
            coef = LogisticRegression(C=1e4, tol=1e-10, max_iter=10_000).fit(scaled, labels).coef_
            assert np.abs(coef).max() > 0.1 if reads else np.abs(coef).max() < 1e-4

    def test_erasing_twice_changes_nothing(self, kind: str, classes: int) -> None:
        vectors, labels = example(kind, classes)
        erase = fit_leace(vectors, labels)
        torch.testing.assert_close(erase(erase(vectors)), erase(vectors))


@pytest.mark.parametrize("metric", [np.eye(2), np.array([[4.0, 1.0], [1.0, 0.5]])], ids=["plain", "another norm"])
def test_no_smaller_affine_edit_erases(metric: np.ndarray) -> None:
    """Two dimensions, by brute force: any map ``h -> M h + c`` with equal class means, and the mean square change."""
    rng = np.random.default_rng(0)
    labels = np.arange(200) % 2
    x = rng.normal(size=(200, 2)) @ np.array([[2.0, 0.3], [0.5, 1.0]]) + labels[:, None] * np.array([1.0, 2.0])
    x -= x.mean(0)  # then the best c is 0

    def change(erased: np.ndarray) -> float:
        return float(np.einsum("ni,ij,nj->", erased - x, metric, erased - x) / len(x))

    gap = x[labels == 1].mean(0) - x[labels == 0].mean(0)
    orthogonal = np.array([-gap[1], gap[0]])  # M gap = 0 leaves M = v orthogonal'
    best = minimize(lambda v: change(x @ np.outer(v, orthogonal).T), np.ones(2), tol=1e-12)
    found = fit_leace(x, labels)(torch.from_numpy(x)).numpy()
    assert change(found) == pytest.approx(best.fun, rel=1e-6)
    np.testing.assert_allclose(found, x @ np.outer(best.x, orthogonal).T, atol=1e-4)
    projected = x - np.outer(x @ gap, gap) / (gap @ gap)  # the orthogonal projection erases too, and changes more
    assert np.allclose(projected[labels == 1].mean(0), projected[labels == 0].mean(0))
    assert change(found) < 0.9 * change(projected)


class TestEraser:
    def test_it_is_affine_equivariant(self) -> None:
        vectors, labels = example("more rows")
        scale, shift = torch.tensor([1.0, 10, 0.1, 3, 7, 0.5], dtype=torch.float64), torch.arange(6.0)
        moved = vectors * scale + shift
        expected = fit_leace(vectors, labels)(vectors) * scale + shift
        torch.testing.assert_close(fit_leace(moved, labels)(moved), expected)

    def test_a_call_is_out_of_place_differentiable_and_keeps_shape_and_dtype(self) -> None:
        vectors, labels = example("more rows")
        erase = fit_leace(vectors, labels)
        assert erase.read.shape == (1, 6) and erase.removed.shape == (6, 1)
        stream = vectors.reshape(50, 6, 6).clone().requires_grad_()
        found = erase(stream)
        assert found.shape == (50, 6, 6)
        assert torch.equal(stream.detach().reshape(-1, 6), vectors)
        torch.testing.assert_close(found.reshape(-1, 6), erase(vectors))
        found.sum().backward()
        assert stream.grad is not None and (stream.grad - 1).abs().max() > 0.01
        half = erase(vectors.bfloat16())
        assert half.dtype == torch.bfloat16
        torch.testing.assert_close(half.double(), erase(vectors), atol=0.3, rtol=0.02)

    def test_numpy_and_single_precision_give_the_same(self) -> None:
        vectors, labels = example("more rows")
        expected = fit_leace(vectors, labels).read
        torch.testing.assert_close(fit_leace(vectors.numpy(), labels.tolist()).read, expected)
        torch.testing.assert_close(fit_leace(vectors.float(), labels).read, expected, rtol=1e-4, atol=1e-6)
        words = np.array(["civil", "toxic"])[labels]
        torch.testing.assert_close(fit_leace(vectors, words).read, expected)

    def test_where_nothing_differs_nothing_is_changed(self) -> None:
        vectors, _ = example("more rows")
        twice = torch.cat([vectors, vectors])
        erase = fit_leace(twice, np.repeat([0, 1], len(vectors)))
        torch.testing.assert_close(erase(twice), twice)

    def test_what_is_wrong_is_said(self) -> None:
        vectors, labels = example("more rows")
        with pytest.raises(ConfigError, match="one per row"):
            fit_leace(vectors, labels[:5])
        with pytest.raises(ConfigError, match="one class"):
            fit_leace(vectors, np.zeros(300))
        with pytest.raises(ConfigError, match="not all finite"):
            fit_leace(vectors / 0, labels)
        with pytest.raises(ConfigError, match="6 wide, the vectors 7"):
            fit_leace(vectors, labels)(torch.zeros(2, 3, 7))


class TestInTheFolds:
    @pytest.mark.parametrize(("n", "width"), [(600, 12), (300, 250), (60, 200)])
    def test_a_probe_trained_again_is_at_chance(self, n: int, width: int) -> None:
        rng = np.random.default_rng(0)
        labels = rng.random(n) < 0.3
        spread = 10 * np.arange(1, width + 1.0) ** -0.7
        store = make_store(
            {LATE: rng.normal(size=(n, width)) * spread + 3 * labels[:, None] * spread / width**0.4}, labels
        )
        row = fit_probes(store, leace=True, progress=False).table.iloc[0]
        assert row["auroc"] > 0.75
        assert row["auroc_leace"] == 0.5  # its coefficients are zero, so that all rows are ties

    def test_it_is_done_on_demand(self) -> None:
        assert fit_probes(planted(200)[0], progress=False).table["auroc_leace"].isna().all()

    def test_new_rows_keep_the_more_the_fewer_rows_were_erased(self) -> None:
        """The documented caveat: a probe trained on erased rows that the eraser never saw."""
        rng, found = np.random.default_rng(0), []
        for n in (96, 8000):
            labels, asked = rng.random(n) < 0.5, rng.random(2000) < 0.5
            vectors, others = (rng.normal(size=(len(of), 80)) + 0.3 * of[:, None] for of in (labels, asked))
            erased = fit_leace(vectors, labels)(torch.from_numpy(others)).numpy()
            scores = cross_val_predict(LogisticRegression(C=0.01), erased, asked, method="decision_function")
            found.append(roc_auc_score(asked, scores))
        assert found == [pytest.approx(0.84, abs=0.06), pytest.approx(0.52, abs=0.04)]
