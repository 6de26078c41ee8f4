"""Linear probes in raw residual coordinates, from standardised rows or from the class means."""

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
from jaxtyping import Bool, Float, Int

from interp_unlearn.errors import ConfigError

if TYPE_CHECKING:
    from sklearn.pipeline import Pipeline


@dataclass(frozen=True, eq=False)
class LinearProbe:
    """``scale * (h . direction + bias)`` is the log-odds; ``h . direction + bias`` is a distance in L2 units of h."""

    direction: Float[np.ndarray, " d_model"]
    bias: float
    scale: float


@dataclass(frozen=True, eq=False)
class Standardised:
    """Rows as ``z = (h - mean) / scale`` by coordinate, in single precision, and the way back.

    Attributes:
        matrix: the standardised rows.
        mean: of the rows.
        scale: their standard deviation; 1 where a coordinate does not vary beyond rounding.
    """

    matrix: Float[np.ndarray, "row d_model"]
    mean: Float[np.ndarray, " d_model"]
    scale: Float[np.ndarray, " d_model"]

    def apply(self, vectors: Float[np.ndarray, "other d_model"]) -> Float[np.ndarray, "other d_model"]:
        """Other rows (a test fold's) by the mean and scale of these."""
        return (vectors - self.mean.astype(np.float32)) / self.scale.astype(np.float32)

    def to_raw(self, coef: Float[np.ndarray, " d_model"], intercept: float) -> LinearProbe:
        """The decision ``c . z + b`` in raw coordinates: ``(c / s) . h + b - (c / s) . m``, at a unit direction.

        Raises:
            ConfigError: the coefficients are zero.
        """
        slope = coef / self.scale
        norm = float(np.linalg.norm(slope))
        if norm == 0:
            raise ConfigError("the vectors do not differ between the classes; leave the site out")
        return LinearProbe(slope / norm, (float(intercept) - float(slope @ self.mean)) / norm, norm)


def standardise(
    vectors: Float[np.ndarray, "all d_model"],
    rows: Int[np.ndarray, " row"] | None = None,
    buffer: Float[np.ndarray, "space d_model"] | None = None,
) -> Standardised:
    """Some rows as scikit-learn's StandardScaler makes them, which takes twenty times as long.

    Args:
        vectors: single precision.
        rows: which; None for all.
        buffer: memory to put them into where they fit; the result is then good until its next use.
    """
    chosen = np.arange(len(vectors)) if rows is None else rows
    space = None if buffer is None or len(chosen) > len(buffer) else buffer[: len(chosen)]
    matrix = np.take(vectors, chosen, axis=0, out=space, mode="clip")  # any other mode goes through another copy
    mean = matrix.mean(0, dtype=np.float64)
    matrix -= mean.astype(np.float32)
    scale = np.sqrt(np.einsum("ij,ij->j", matrix, matrix).astype(np.float64) / len(matrix))
    scale[scale <= np.finfo(np.float32).eps * np.abs(mean)] = 1
    matrix /= scale.astype(np.float32)
    return Standardised(matrix, mean, scale)


def logistic_pipeline(C: float) -> "Pipeline":
    """Standardise, then L2-regularised logistic regression: in one object, a fold's scaler sees no test row."""
    from sklearn.linear_model import LogisticRegression
    from sklearn.pipeline import make_pipeline
    from sklearn.preprocessing import StandardScaler

    return make_pipeline(StandardScaler(), LogisticRegression(C=C, max_iter=2000, tol=1e-4))


def fit_mean_difference(vectors: Float[np.ndarray, "row d_model"], labels: Bool[np.ndarray, " row"]) -> LinearProbe:
    """Unit difference of the class means, with the border half-way between them; the scale is 1 (no log-odds).

    Raises:
        ConfigError: the class means are equal.
    """
    positive, negative = (vectors[rows].mean(0, dtype=np.float64) for rows in (labels, ~labels))
    norm = float(np.linalg.norm(positive - negative))
    if norm == 0:
        raise ConfigError("the vectors do not differ between the classes; leave the site out")
    direction = (positive - negative) / norm
    return LinearProbe(direction, -float(direction @ (positive + negative)) / 2, 1.0)
