"""Area under the ROC curve, averaged over folds, with a bootstrap over groups."""

import numpy as np
from jaxtyping import Bool, Float, Int

Folds = list[tuple[Int[np.ndarray, " train"], Int[np.ndarray, " test"]]]

_CELLS_AT_ONCE = 4_000_000  # resamples x rows held in memory at a time, 8 bytes each


def weighted_auroc(
    labels: Bool[np.ndarray, " row"], scores: Float[np.ndarray, " row"], weights: Float[np.ndarray, "resample row"]
) -> Float[np.ndarray, " resample"]:
    """AUROC under several row weightings at once: the share of (positive, negative) pairs in order, ties counted half.

    The scores are sorted once for all weightings, which is what makes a bootstrap of many probes affordable.
    NaN where a weighting leaves a class empty.
    """
    order = np.argsort(scores, kind="stable")
    starts = np.concatenate([[0], np.flatnonzero(np.diff(scores[order])) + 1])
    sorted_weights, positive = weights[:, order], labels[order]
    positives = np.add.reduceat(sorted_weights * positive, starts, axis=1)
    negatives = np.add.reduceat(sorted_weights * ~positive, starts, axis=1)
    below = np.cumsum(negatives, axis=1) - negatives
    pairs = positives.sum(1) * negatives.sum(1)
    ordered = (positives * (below + negatives / 2)).sum(1)
    return np.divide(ordered, pairs, out=np.full(len(weights), np.nan), where=pairs > 0)


def auroc(labels: Bool[np.ndarray, " row"], scores: Float[np.ndarray, " row"]) -> float:
    """Plain AUROC; NaN if there is one class only."""
    return float(weighted_auroc(labels, scores, np.ones((1, len(labels))))[0])


def fold_auroc(labels: Bool[np.ndarray, " row"], scores: Float[np.ndarray, " row"], folds: Folds) -> float:
    """Mean over folds of the AUROC within each test fold (Forman and Scholz 2010).

    Scores of one fold are never ranked against another fold's: they come from different fits, whose intercepts lean
    against the class shares of their test fold, so that pooling them biases the AUROC downwards.
    """
    return float(np.mean([auroc(labels[test], scores[test]) for _, test in folds]))


def bootstrap_auroc(
    labels: Bool[np.ndarray, " row"],
    scores: Float[np.ndarray, " row"],
    folds: Folds,
    groups: Int[np.ndarray, " row"],
    n: int,
    seed: int,
    level: float = 0.95,
) -> tuple[float, float]:
    """Percentile interval of `fold_auroc`, drawing groups with replacement and holding the fitted probes fixed.

    Caveat: it covers the choice of test texts, not that of training texts.

    Args:
        labels: the class of each row.
        scores: out-of-fold scores.
        folds: the folds they come from.
        groups: integer key of each row, ``0 .. n_groups - 1``.
        n: resamples.
        seed: of the resampling; equal seeds give equal draws, so that sites stay comparable.
        level: coverage aimed at.
    """
    rng = np.random.default_rng(seed)
    n_groups = int(groups.max()) + 1
    share = np.full(n_groups, 1 / n_groups)
    chunk = max(1, _CELLS_AT_ONCE // len(labels))
    values: list[np.ndarray] = []
    for start in range(0, n, chunk):
        counts = rng.multinomial(n_groups, share, size=min(chunk, n - start)).astype(float)
        by_fold = [weighted_auroc(labels[test], scores[test], counts[:, groups[test]]) for _, test in folds]
        values.append(_mean_of_present(np.stack(by_fold)))
    low, high = np.nanquantile(np.concatenate(values), [(1 - level) / 2, (1 + level) / 2])
    return float(low), float(high)


def _mean_of_present(values: Float[np.ndarray, "fold resample"]) -> Float[np.ndarray, " resample"]:
    """Mean over the folds that still hold both classes in a resample."""
    present = ~np.isnan(values)
    count = present.sum(0)
    total = np.where(present, values, 0).sum(0)
    return np.divide(total, count, out=np.full(values.shape[1], np.nan), where=count > 0)
