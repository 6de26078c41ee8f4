"""What a probe is compared with that needs no fit to the vectors: words alone, length alone, random directions."""

from collections.abc import Sequence

import numpy as np
from jaxtyping import Bool, Float
from numpy.typing import ArrayLike

from interp_unlearn.probes.auroc import Folds, fold_auroc
from interp_unlearn.probes.linear import logistic_pipeline

N_RANDOM_DIRECTIONS = 10


def random_direction_auroc(
    vectors: Float[np.ndarray, "row d_model"], labels: Bool[np.ndarray, " row"], folds: Folds, seed: int
) -> float:
    """Mean out-of-fold AUROC of ten Gaussian directions, each turned by its training fold to point at the positives."""
    rng = np.random.default_rng(seed)
    directions = rng.normal(size=(vectors.shape[1], N_RANDOM_DIRECTIONS)).astype(vectors.dtype)
    projections = vectors @ directions
    scores = np.zeros_like(projections)
    for train, test in folds:
        gap = projections[train][labels[train]].mean(0) - projections[train][~labels[train]].mean(0)
        scores[test] = projections[test] * np.sign(gap)
    return float(np.mean([fold_auroc(labels, column, folds) for column in scores.T]))


def length_auroc(lengths: Float[np.ndarray, " row"], labels: Bool[np.ndarray, " row"], folds: Folds) -> float:
    """Out-of-fold AUROC of logistic regression on the number of tokens."""
    column, scores = lengths[:, None], np.zeros(len(labels))
    for train, test in folds:
        scores[test] = logistic_pipeline(1.0).fit(column[train], labels[train]).decision_function(column[test])
    return fold_auroc(labels, scores, folds)


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
