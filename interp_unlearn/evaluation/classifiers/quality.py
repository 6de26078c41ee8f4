"""How well a classifier's probabilities tell labelled texts apart, and how far they can be taken at their word."""

from collections.abc import Sequence
from typing import TYPE_CHECKING

import numpy as np
from jaxtyping import Float
from numpy.typing import ArrayLike

from interp_unlearn.data import TOXIC_FROM
from interp_unlearn.errors import ConfigError
from interp_unlearn.probes.auroc import auroc, bootstrap_auroc
from interp_unlearn.probes.folds import binary_labels, group_codes
from interp_unlearn.statistics.intervals import bootstrap_means, percentile_interval

if TYPE_CHECKING:
    import pandas as pd


def classifier_quality(
    probabilities: Float[np.ndarray, " text"],
    labels: ArrayLike,
    groups: Sequence[object] | None = None,
    *,
    resamples: int = 1000,
    seed: int = 0,
) -> "pd.DataFrame":
    """AUROC, accuracy at 0.5, Brier score (Brier 1950) and expected calibration error.

    Caveat: it holds for texts like these. A classifier that was trained on one corpus is weaker on another, and its
    threshold may not carry over even where its ranking does.

    Args:
        probabilities: of being toxic.
        labels: 1 for toxic, 0 for neutral.
        groups: rows of one group (a pair) are resampled together.
        resamples: of the 95% bootstrap intervals.
        seed: of the resampling.

    Returns:
        One row a measure: measure, value, low, high (NaN for the calibration error, which a bootstrap biases upwards),
        n, n_groups.

    Raises:
        ConfigError: rows differ in number, or there is one class only.
    """
    import pandas as pd

    truth = binary_labels(labels, len(probabilities))
    codes = group_codes(groups, len(probabilities))
    whole = [(np.arange(0), np.arange(len(truth)))]
    hits = (probabilities >= TOXIC_FROM) == truth
    squares = (probabilities - truth) ** 2
    means = bootstrap_means(np.stack([hits, squares], axis=1), codes.tolist(), resamples, seed)
    n_groups = int(codes.max()) + 1
    intervals = [percentile_interval(float(v.mean()), means[:, i], n_groups) for i, v in enumerate((hits, squares))]
    rows = [
        ("auroc", auroc(truth, probabilities), *bootstrap_auroc(truth, probabilities, whole, codes, resamples, seed)),
        *((name, i.mean, i.low, i.high) for name, i in zip(("accuracy", "brier"), intervals, strict=True)),
        ("calibration_error", calibration_error(probabilities, truth), np.nan, np.nan),
    ]
    table = pd.DataFrame(rows, columns=["measure", "value", "low", "high"])
    return table.assign(n=len(truth), n_groups=n_groups)


def calibration_error(probabilities: Float[np.ndarray, " text"], labels: ArrayLike, bins: int = 15) -> float:
    """Expected calibration error of the toxic class, over bins of equal width (Naeini et al. 2015).

    ``sum_b n_b / n |mean probability in b - share of toxic in b|``: 0 where, of texts given p, the share p is toxic.

    Raises:
        ConfigError: there is no bin.
    """
    if bins < 1:
        raise ConfigError(f"bins: expected at least 1, got {bins}")
    index = np.minimum((probabilities * bins).astype(int), bins - 1)
    gaps = np.bincount(index, weights=probabilities - np.asarray(labels, dtype=float), minlength=bins)
    return float(np.abs(gaps).sum() / len(probabilities))
