"""Whether a probe's log-odds mean what they say: Brier score, log-loss, expected calibration error and slope."""

from typing import Any

import numpy as np
from jaxtyping import Bool, Float

N_BINS = 10


def calibration(labels: Bool[np.ndarray, " row"], log_odds: Float[np.ndarray, " row"]) -> dict[str, float]:
    """How well out-of-fold log-odds agree with the shares of class 1.

    Caveat: a high AUROC says nothing of it. Many dimensions and a weak penalty make a probe too sure of itself.

    Returns:
        ``brier``: mean squared error of the probability of class 1 (0 is best; always saying the base rate p gives
        p(1 - p)). ``log_loss``: mean negative log-likelihood in nats (saying the base rate gives its entropy, 0.69 for
        equal classes). ``calibration_error``: see `expected_calibration_error`. ``calibration_slope``: see
        `calibration_slope`.
    """
    from scipy.special import expit

    probabilities = expit(log_odds)
    losses = np.logaddexp(0, np.where(labels, -log_odds, log_odds))
    return {
        "brier": float(np.mean((probabilities - labels) ** 2)),
        "log_loss": float(losses.mean()),
        "calibration_error": expected_calibration_error(labels, probabilities),
        "calibration_slope": calibration_slope(labels, log_odds),
    }


def expected_calibration_error(
    labels: Bool[np.ndarray, " row"], probabilities: Float[np.ndarray, " row"], bins: int = N_BINS
) -> float:
    """Mean gap between probability and share of class 1 over bins of equally many rows (Naeini et al. 2015).

    Rows are sorted by their probability and cut into ten bins whose sizes differ by one at most; a bin's gap is
    ``|mean probability - share of class 1|``, and gaps are weighted by the rows of their bin.
    Caveat: it is above 0 even for a calibrated probe, by about ``0.8 sqrt(p(1 - p) bins / n)``: 0.04 for 1,000 rows
    whose probabilities are near a half.
    """
    order = np.argsort(probabilities, kind="stable")
    parts = np.array_split(order, min(bins, len(order)))
    gaps = [len(rows) * abs(probabilities[rows].mean() - labels[rows].mean()) for rows in parts]
    return float(sum(gaps) / len(order))


def calibration_slope(labels: Bool[np.ndarray, " row"], log_odds: Float[np.ndarray, " row"]) -> float:
    """Slope of the logistic regression of the labels on the log-odds (Cox 1958): the factor that calibrates them.

    1 is calibrated, below 1 too sure, above 1 not sure enough. NaN where the log-odds are all equal or part the
    classes without an error, for no finite factor is best then.
    """
    from sklearn.linear_model import LogisticRegression

    negative, positive = log_odds[~labels], log_odds[labels]
    if np.ptp(log_odds) == 0 or negative.max() < positive.min() or positive.max() < negative.min():
        return float("nan")
    spread = float(log_odds.std())
    regression: Any = LogisticRegression(C=np.inf, tol=1e-6, max_iter=1000)
    return float(regression.fit(log_odds[:, None] / spread, labels).coef_[0, 0]) / spread
