"""AUROC under weights, and its bootstrap, against scikit-learn and brute force."""

import numpy as np
import pytest
from sklearn.metrics import roc_auc_score

from interp_unlearn.probes.auroc import auroc, bootstrap_auroc, fold_auroc, weighted_auroc
from interp_unlearn.probes.controls import shuffle_within_folds
from interp_unlearn.probes.folds import make_folds

RNG = np.random.default_rng(0)


@pytest.mark.parametrize("decimals", [8, 1, 0])  # rounding makes ties, down to a handful of values
def test_weighted_auroc_agrees_with_scikit_learn(decimals: int) -> None:
    labels = RNG.random(200) < 0.3
    scores = np.round(RNG.normal(size=200) + labels, decimals)
    weights = RNG.integers(0, 4, size=(5, 200)).astype(float)
    expected = [roc_auc_score(labels, scores, sample_weight=row) for row in weights]
    np.testing.assert_allclose(weighted_auroc(labels, scores, weights), expected)
    assert auroc(labels, scores) == pytest.approx(roc_auc_score(labels, scores))


def test_one_class_has_no_auroc() -> None:
    assert np.isnan(auroc(np.ones(5, dtype=bool), np.arange(5.0)))


def test_scores_of_different_folds_are_never_compared() -> None:
    labels = np.array([False, True] * 20)
    folds = [(np.arange(20, 40), np.arange(20)), (np.arange(20), np.arange(20, 40))]
    scores = labels + np.repeat([0.0, -100.0], 20)  # perfect within each fold, on different scales
    assert fold_auroc(labels, scores, folds) == 1
    assert roc_auc_score(labels, scores) < 0.8


def test_bootstrap_agrees_with_a_loop_over_resampled_groups() -> None:
    labels, groups = RNG.random(240) < 0.5, np.repeat(np.arange(80), 3)
    scores = RNG.normal(size=240) + labels + np.repeat(RNG.normal(size=80), 3)
    folds = make_folds(labels, groups, 4, seed=0)
    low, high = bootstrap_auroc(labels, scores, folds, groups, n=3000, seed=1)
    loop = []
    for _ in range(250):
        drawn = RNG.integers(80, size=80)
        values = []
        for _, test in folds:
            rows = np.concatenate([test[groups[test] == group] for group in drawn])
            values.append(roc_auc_score(labels[rows], scores[rows]))
        loop.append(np.mean(values))
    assert low == pytest.approx(np.quantile(loop, 0.025), abs=0.02)
    assert high == pytest.approx(np.quantile(loop, 0.975), abs=0.02)


def test_folds_never_split_a_group_and_cover_every_row_once() -> None:
    labels, groups = RNG.random(300) < 0.3, RNG.integers(0, 40, size=300)
    folds = make_folds(labels, np.unique(groups, return_inverse=True)[1], 5, seed=0)
    for train, test in folds:
        assert not set(groups[train]) & set(groups[test])
        assert sorted([*train, *test]) == list(range(300))
    assert sorted(np.concatenate([test for _, test in folds])) == list(range(300))


def test_shuffling_keeps_the_classes_of_each_fold() -> None:
    labels = RNG.random(100) < 0.3
    folds = make_folds(labels, np.arange(100), 5, seed=0)
    shuffled = shuffle_within_folds(labels, folds, seed=0)
    assert [shuffled[test].sum() for _, test in folds] == [labels[test].sum() for _, test in folds]
    assert (shuffled != labels).sum() > 20
