"""AUROC under weights, and its bootstrap, against scikit-learn and brute force."""

import numpy as np
import pytest
from sklearn.metrics import roc_auc_score

from interp_unlearn.errors import ConfigError
from interp_unlearn.probes import auroc as module
from interp_unlearn.probes.auroc import auroc, bootstrap_auroc, fold_auroc, weighted_auroc
from interp_unlearn.probes.controls import random_direction_auroc
from interp_unlearn.probes.folds import make_folds, make_inner_folds, shuffle_within_folds

RNG = np.random.default_rng(0)


@pytest.mark.parametrize("decimals", [8, 1, 0])  # rounding makes ties, down to a handful of values
def test_weighted_auroc_agrees_with_scikit_learn(decimals: int) -> None:
    labels = RNG.random(200) < 0.3
    scores = np.round(RNG.normal(size=200) + labels, decimals)
    weights = RNG.integers(0, 4, size=(5, 200)).astype(float)
    expected = [roc_auc_score(labels, scores, sample_weight=row) for row in weights]
    np.testing.assert_allclose(weighted_auroc(labels, scores, weights), expected)
    assert auroc(labels, scores) == pytest.approx(roc_auc_score(labels, scores))


def test_one_pair_is_enough() -> None:
    assert auroc(np.array([True, False]), np.array([2.0, 1.0])) == 1
    assert auroc(np.array([True, False]), np.array([1.0, 2.0])) == 0
    assert auroc(np.array([True, False]), np.array([1.0, 1.0])) == 0.5


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


@pytest.mark.parametrize("cells", [10**9, 450])  # all resamples at once, and three at a time
def test_every_resample_that_was_asked_for_counts(cells: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "_CELLS_AT_ONCE", cells)
    labels, groups = RNG.random(150) < 0.5, np.repeat(np.arange(50), 3)
    scores = RNG.normal(size=150) + labels
    folds = make_folds(labels, groups, 4, seed=0)
    found = bootstrap_auroc(labels, scores, folds, groups, n=8, seed=3)
    rng, values = np.random.default_rng(3), []
    for _ in range(8):
        counts = rng.multinomial(50, np.full(50, 1 / 50))
        by_fold = [roc_auc_score(labels[t], scores[t], sample_weight=counts[groups[t]]) for _, t in folds]
        values.append(np.mean(by_fold))
    assert found == pytest.approx(tuple(np.quantile(values, [0.025, 0.975])))


def test_the_random_control_is_the_mean_of_ten_directions() -> None:
    labels, vectors = RNG.random(90) < 0.5, RNG.normal(size=(90, 6))
    folds = make_folds(labels, np.arange(90), 3, seed=0)
    directions, scores = np.random.default_rng(7).normal(size=(6, 10)), np.zeros((90, 10))
    for train, test in folds:
        means = (vectors[train][labels[train] == positive].mean(0) for positive in (True, False))
        positive, negative = (mean @ directions for mean in means)
        scores[test] = vectors[test] @ directions * np.sign(positive - negative)
    aurocs = [[roc_auc_score(labels[t], column[t]) for _, t in folds] for column in scores.T]
    assert random_direction_auroc(vectors, labels, folds, seed=7) == pytest.approx(np.mean(aurocs))


def test_folds_never_split_a_group_and_cover_every_row_once() -> None:
    labels, groups = RNG.random(300) < 0.3, RNG.integers(0, 40, size=300)
    folds = make_folds(labels, np.unique(groups, return_inverse=True)[1], 5, seed=0)
    for train, test in folds:
        assert not set(groups[train]) & set(groups[test])
        assert sorted([*train, *test]) == list(range(300))
    assert sorted(np.concatenate([test for _, test in folds])) == list(range(300))


def test_inner_folds_stay_inside_the_rows_and_never_split_a_group() -> None:
    labels, groups = RNG.random(300) < 0.4, RNG.integers(0, 60, size=300)
    rows = np.flatnonzero(groups % 5 > 0)
    folds = make_inner_folds(labels, groups, rows, seed=0)
    assert sorted(np.concatenate([test for _, test in folds])) == rows.tolist()
    for train, test in folds:
        assert sorted([*train, *test]) == rows.tolist()
        assert not set(groups[train]) & set(groups[test])
    with pytest.raises(ConfigError, match="choosing C needs 3 folds inside"):
        make_inner_folds(labels, groups, rows[groups[rows] < 3], seed=0)


@pytest.mark.parametrize("per_group", [1, 4])
def test_shuffling_keeps_the_classes_of_each_fold(per_group: int) -> None:
    labels, groups = np.repeat(RNG.random(100) < 0.3, per_group), np.repeat(np.arange(100), per_group)
    folds = make_folds(labels, groups, 5, seed=0)
    shuffled = shuffle_within_folds(labels, groups, folds, seed=0)
    assert [shuffled[test].sum() for _, test in folds] == [labels[test].sum() for _, test in folds]
    assert (shuffled != labels).mean() > 0.2
    assert (shuffle_within_folds(labels, groups, folds, seed=0) == shuffled).all()
    assert (shuffle_within_folds(labels, groups, folds, seed=1) != shuffled).any()
    by_group = shuffled.reshape(100, per_group)
    assert (by_group == by_group[:, :1]).all()  # one random label a group


def test_shuffling_gives_groups_of_unequal_size_one_label_each_but_for_one_a_fold() -> None:
    groups = np.repeat(np.arange(60), RNG.integers(1, 9, size=60))
    labels = (RNG.random(60) < 0.5)[groups]
    folds = make_folds(labels, groups, 3, seed=0)
    shuffled = shuffle_within_folds(labels, groups, folds, seed=0)
    for _, test in folds:
        assert shuffled[test].sum() == labels[test].sum()
        split = [group for group in np.unique(groups[test]) if len(np.unique(shuffled[groups == group])) == 2]
        assert len(split) <= 1
    assert 0.3 < (shuffled != labels).mean() < 0.7


def test_shuffling_permutes_inside_groups_that_hold_both_classes() -> None:
    labels, groups = np.tile([True, False], 200), np.repeat(np.arange(200), 2)
    folds = make_folds(labels, groups, 5, seed=0)
    shuffled = shuffle_within_folds(labels, groups, folds, seed=0)
    assert (shuffled.reshape(-1, 2).sum(1) == 1).all()
    assert 0.4 < shuffled[::2].mean() < 0.6  # either order is as likely
