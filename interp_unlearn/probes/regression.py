"""Logistic regression by scikit-learn, begun close to its optimum, so that 8,000 x 4,096 takes half a second.

A residual stream is ill-conditioned: a few directions hold most of the variance, and L-BFGS, scikit-learn's solver,
then needs hundreds of passes over the rows. In coordinates whitened by an upper bound of the Hessian (Böhning and
Lindsay 1988) the same objective takes about twenty. The optimum is scikit-learn's: its solver goes on from there until
its own criterion is met.
"""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
from jaxtyping import Bool, Float

Rows = Float[np.ndarray, "row d_model"]
Point = Float[np.ndarray, " coefficients_and_intercept"]

TOLERANCE = 1e-5
"""Largest entry of the gradient of the mean loss where scikit-learn stops. At its default, 1e-4, directions in 4,096
dimensions were still up to 10 degrees from the optimum."""

_HEAD_START = {"gtol": 1e-5, "ftol": 0.0, "maxls": 8, "maxiter": 500}  # nearer, single precision ends the search
_MAX_ITERATIONS = 5000


@dataclass(frozen=True, eq=False)
class Coefficients:
    """A fitted regression in standardised coordinates."""

    coef: Float[np.ndarray, " d_model"]
    intercept: float

    def log_odds(self, matrix: Rows) -> Float[np.ndarray, " row"]:
        """Of class 1 for standardised rows, in nats."""
        return (matrix @ self.coef.astype(matrix.dtype)).astype(np.float64) + self.intercept


class LogisticFits:
    """Regressions on (parts of) the rows of one site, all begun near their optimum.

    One Gram matrix of the site serves every fold, labelling and C. It knows no labels, and decides how soon an optimum
    is reached, not where it is. With fewer rows than dimensions there is none, and scikit-learn begins at zero.

    Args:
        matrix: all rows of the site, standardised.
    """

    def __init__(self, matrix: Rows) -> None:
        rows, width = matrix.shape
        self._rows = rows
        self._bound = matrix.T @ matrix if rows >= width else None  # of one array with itself: at half the cost
        if self._bound is not None:
            self._bound /= np.float32(4 * rows)
        self._factors: dict[float, np.ndarray | None] = {}

    def fit(self, matrix: Rows, labels: Bool[np.ndarray, " row"], C: float) -> Coefficients:
        """L2-regularised logistic regression on standardised rows; the intercept is not penalised.

        Should it not converge, scikit-learn's ConvergenceWarning says so.
        """
        from sklearn.linear_model import LogisticRegression

        share = float(labels.mean())
        start = np.append(np.zeros(matrix.shape[1]), np.log(share / (1 - share)))  # the optimum if nothing can be read
        factor = self._factor(C)
        if factor is not None:
            start = _near_optimum(start, matrix, labels, C, factor)
        regression: Any = LogisticRegression(C=C, tol=TOLERANCE, max_iter=_MAX_ITERATIONS, warm_start=True)
        regression.coef_, regression.intercept_ = start[None, :-1], start[-1:]
        regression.fit(matrix, labels)
        return Coefficients(regression.coef_[0].astype(np.float64), float(regression.intercept_[0]))

    def _factor(self, C: float) -> np.ndarray | None:
        """Cholesky factor of ``Z'Z / 4n + I / Cn``, an upper bound of the Hessian of the mean loss on all rows."""
        from scipy.linalg import LinAlgError, cholesky

        if self._bound is None:
            return None
        if C not in self._factors:
            bound = self._bound.copy(order="F")
            bound[np.diag_indices(len(bound))] += np.float32(1 / (C * self._rows))
            try:
                self._factors[C] = cholesky(bound, lower=True, overwrite_a=True)
            except LinAlgError:  # dimensions that repeat each other; there is no head start then
                self._factors[C] = None
        return self._factors[C]


def _near_optimum(start: Point, matrix: Rows, labels: Bool[np.ndarray, " row"], C: float, factor: np.ndarray) -> Point:
    """Minimise the mean log-loss + ``|w|^2 / 2Cn`` over ``u = L'w``, where L is the Cholesky factor; `start` has
    w = 0."""
    from scipy.linalg import get_blas_funcs
    from scipy.optimize import minimize
    from scipy.special import expit

    solve: Callable[..., np.ndarray]
    (solve,) = get_blas_funcs(("trsv",), (factor,))
    n = len(matrix)
    target, penalty = labels.astype(np.float32), 1 / (C * n)

    def objective(point: Point) -> tuple[float, np.ndarray]:
        coef = solve(factor, point[:-1].astype(np.float32), lower=1, trans=1)
        scores = matrix @ coef + np.float32(point[-1])
        excess = expit(scores) - target
        gradient = matrix.T @ (excess / n) + penalty * coef
        losses = np.logaddexp(np.float32(0), scores) - target * scores
        loss = float(losses.mean(dtype=np.float64)) + penalty / 2 * float(coef @ coef)
        whitened = solve(factor, gradient.astype(np.float32), lower=1)
        return loss, np.append(whitened.astype(np.float64), excess.mean(dtype=np.float64))

    point = minimize(objective, start, jac=True, method="L-BFGS-B", options=_HEAD_START).x
    return np.append(solve(factor, point[:-1].astype(np.float32), lower=1, trans=1), point[-1])
