"""What a probe's AUROC is compared with: labels that mean nothing, words alone, length alone, a random direction."""

from collections.abc import Sequence

import numpy as np
from jaxtyping import Bool, Float
from numpy.typing import ArrayLike

from interp_unlearn.probes.auroc import Folds, fold_auroc
from interp_unlearn.probes.linear import fit_mean_difference, logistic_pipeline

N_RANDOM_DIRECTIONS = 10


def out_of_fold_scores(
    vectors: Float[np.ndarray, "row d_model"], labels: Bool[np.ndarray, " row"], folds: Folds, C: float
) -> Float[np.ndarray, " row"]:
    """Decision values of the logistic pipeline, each from the fit that did not see the row."""
    scores = np.zeros(len(labels))
    for train, test in folds:
        scores[test] = logistic_pipeline(C).fit(vectors[train], labels[train]).decision_function(vectors[test])
    return scores


def shuffle_within_folds(labels: Bool[np.ndarray, " row"], folds: Folds, seed: int) -> Bool[np.ndarray, " row"]:
    """Labels permuted inside each test fold: every fold keeps its classes, so the null value is 0.5 exactly."""
    rng = np.random.default_rng(seed)
    shuffled = labels.copy()
    for _, test in folds:
        shuffled[test] = rng.permutation(labels[test])
    return shuffled


def shuffled_auroc(
    vectors: Float[np.ndarray, "row d_model"],
    labels: Bool[np.ndarray, " row"],
    folds: Folds,
    C: float,
    seeds: Sequence[int],
) -> float:
    """Mean out-of-fold AUROC of probes trained on shuffled labels: 0.5 but for chance; NaN without seeds.

    It shows the spread of the null at this number of rows and dimensions, and a fault in the procedure; it cannot show
    near-duplicate texts in different folds, which is what groups are for.
    """
    values: list[float] = []
    for seed in seeds:
        shuffled = shuffle_within_folds(labels, folds, seed)
        values.append(fold_auroc(shuffled, out_of_fold_scores(vectors, shuffled, folds, C), folds))
    return float(np.mean(values)) if values else float("nan")


def mean_difference_auroc(
    vectors: Float[np.ndarray, "row d_model"], labels: Bool[np.ndarray, " row"], folds: Folds
) -> float:
    """Out-of-fold AUROC of the difference of the class means."""
    scores = np.zeros(len(labels))
    for train, test in folds:
        scores[test] = vectors[test] @ fit_mean_difference(vectors[train], labels[train]).direction
    return fold_auroc(labels, scores, folds)


def random_direction_auroc(
    vectors: Float[np.ndarray, "row d_model"], labels: Bool[np.ndarray, " row"], folds: Folds, seed: int
) -> float:
    """Mean out-of-fold AUROC of ten Gaussian directions, each turned by its training fold to point at the positives."""
    rng = np.random.default_rng(seed)
    projections = vectors @ rng.normal(size=(vectors.shape[1], N_RANDOM_DIRECTIONS))
    scores = np.zeros_like(projections)
    for train, test in folds:
        gap = projections[train][labels[train]].mean(0) - projections[train][~labels[train]].mean(0)
        scores[test] = projections[test] * np.sign(gap)
    return float(np.mean([fold_auroc(labels, column, folds) for column in scores.T]))


def length_auroc(lengths: Float[np.ndarray, " row"], labels: Bool[np.ndarray, " row"], folds: Folds) -> float:
    """Out-of-fold AUROC of the number of tokens."""
    return fold_auroc(labels, out_of_fold_scores(lengths[:, None], labels, folds, C=1.0), folds)


def bag_of_words_auroc(texts: Sequence[str], labels: Bool[np.ndarray, " row"], folds: Folds, C: float) -> float:
    """Out-of-fold AUROC of logistic regression on word counts: what needs no model at all.

    A probe that does not beat it has shown nothing beyond which words were said.
    """
    words = np.asarray(texts, dtype=object)
    scores = np.zeros(len(labels))
    for train, test in folds:
        scores[test] = bag_of_words_scores(words[train].tolist(), labels[train], words[test].tolist(), C)
    return fold_auroc(labels, scores, folds)


def bag_of_words_scores(
    texts: Sequence[str], labels: ArrayLike, asked: Sequence[str], C: float = 1.0
) -> Float[np.ndarray, " asked"]:
    """Decision values for `asked` of logistic regression on the word counts of `texts`."""
    from sklearn.feature_extraction.text import CountVectorizer
    from sklearn.linear_model import LogisticRegression
    from sklearn.pipeline import make_pipeline

    counts = CountVectorizer(token_pattern=r"(?u)\S+")  # the default drops one-letter words and punctuation
    pipeline = make_pipeline(counts, LogisticRegression(C=C, max_iter=2000))
    return pipeline.fit(texts, np.asarray(labels)).decision_function(asked)
