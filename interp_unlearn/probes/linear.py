"""Linear probes in raw residual coordinates: logistic regression, and the difference of the class means."""

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
from jaxtyping import Bool, Float

from interp_unlearn.errors import ConfigError

if TYPE_CHECKING:
    from sklearn.pipeline import Pipeline


@dataclass(frozen=True, eq=False)
class LinearProbe:
    """``scale * (h . direction + bias)`` is the log-odds; ``h . direction + bias`` is a distance in L2 units of h."""

    direction: Float[np.ndarray, " d_model"]
    bias: float
    scale: float


def logistic_pipeline(C: float) -> "Pipeline":
    """Standardise, then L2-regularised logistic regression: in one object, a fold's scaler sees no test row."""
    from sklearn.linear_model import LogisticRegression
    from sklearn.pipeline import make_pipeline
    from sklearn.preprocessing import StandardScaler

    return make_pipeline(StandardScaler(), LogisticRegression(C=C, max_iter=2000, tol=1e-4))


def fit_logistic(vectors: Float[np.ndarray, "row d_model"], labels: Bool[np.ndarray, " row"], C: float) -> LinearProbe:
    """Logistic regression on standardised vectors, taken back to raw coordinates.

    With z = (h - m) / s the decision is ``c . z + b = (c / s) . h + b - (c / s) . m``; dividing by ``||c / s||`` gives
    a unit direction.

    Raises:
        ConfigError: the vectors do not vary.
    """
    scaler: Any
    regression: Any
    scaler, regression = (step for _, step in logistic_pipeline(C).fit(vectors, labels).steps)
    slope = regression.coef_[0] / scaler.scale_
    norm = float(np.linalg.norm(slope))
    if norm == 0:
        raise ConfigError("the vectors do not differ between the classes; leave the site out")
    return LinearProbe(slope / norm, float(regression.intercept_[0] - slope @ scaler.mean_) / norm, norm)


def fit_mean_difference(vectors: Float[np.ndarray, "row d_model"], labels: Bool[np.ndarray, " row"]) -> LinearProbe:
    """Unit difference of the class means, with the border half-way between them; the scale is 1 (no log-odds).

    Raises:
        ConfigError: the class means are equal.
    """
    positive, negative = vectors[labels].mean(0), vectors[~labels].mean(0)
    norm = float(np.linalg.norm(positive - negative))
    if norm == 0:
        raise ConfigError("the vectors do not differ between the classes; leave the site out")
    direction = (positive - negative) / norm
    return LinearProbe(direction, -float(direction @ (positive + negative)) / 2, 1.0)
