"""One site through the folds: scores of the probe and of its controls, each from fits that did not see the row."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from jaxtyping import Bool, Float

from interp_unlearn.errors import ConfigError
from interp_unlearn.probes.auroc import Folds, auroc
from interp_unlearn.probes.leace import leace_parts
from interp_unlearn.probes.linear import standardise
from interp_unlearn.probes.regression import Coefficients, LogisticFits
from interp_unlearn.probes.settings import Examples

Vectors = Float[np.ndarray, "row d_model"]
Scores = Float[np.ndarray, " row"]


class SiteRows:
    """The vectors of a site with room for one training fold, so that many fits share one piece of memory.

    Args:
        vectors: single precision.

    Raises:
        ConfigError: they are not finite, or do not vary.
    """

    def __init__(self, vectors: Vectors) -> None:
        broken = np.flatnonzero((~np.isfinite(vectors)).any(1))
        if len(broken):
            raise ConfigError(
                f"{len(broken)} of {len(vectors)} rows are not finite, first row {broken[0]}; collect in float32 or "
                "drop them"
            )
        if (vectors == vectors[0]).all():
            raise ConfigError("the same vector in every row (pool last at embed reads the last token); leave it out")
        self.vectors = vectors
        self.buffer = np.empty_like(vectors)
        self.fits = LogisticFits(standardise(vectors, buffer=self.buffer).matrix)


@dataclass(frozen=True, eq=False)
class OutOfFold:
    """Scores in nats of log-odds, but for the mean difference, whose unit is the L2 norm.

    Attributes:
        logistic: of the probe.
        shuffled: of probes trained on shuffled labels.
        mean_difference: along the difference of the class means.
        erased: of a probe trained again after LEACE; None if it was not asked for.
    """

    logistic: Scores
    shuffled: tuple[Scores, ...]
    mean_difference: Scores
    erased: Scores | None


def cross_validate(site: SiteRows, examples: Examples, strengths: Sequence[float], leace: bool) -> OutOfFold:
    """Standardise each training fold once; all its fits share it.

    Args:
        site: the vectors.
        examples: labels, folds and shuffled labels.
        strengths: C of each fold.
        leace: fit an eraser inside each training fold too, and a probe on what it leaves.
    """
    labels, n = examples.labels, len(examples.labels)
    logistic, difference, erased = np.zeros(n), np.zeros(n), np.zeros(n)
    shuffled = tuple(np.zeros(n) for _ in examples.shuffled)
    for (train, test), C in zip(examples.folds, strengths, strict=True):
        rows = standardise(site.vectors, train, site.buffer)
        matrix, asked = rows.matrix, rows.apply(site.vectors[test])
        logistic[test] = site.fits.fit(matrix, labels[train], C).log_odds(asked)
        for scores, meaningless in zip(shuffled, examples.shuffled, strict=True):
            scores[test] = site.fits.fit(matrix, meaningless[train], C).log_odds(asked)
        difference[test] = asked @ _mean_difference(matrix, labels[train], rows.scale)
        if leace:
            erase = _Eraser(matrix, labels[train])
            erased[test] = site.fits.fit(erase(matrix), labels[train], C).log_odds(erase(asked))
    return OutOfFold(logistic, shuffled, difference, erased if leace else None)


def choose_strengths(site: SiteRows, examples: Examples, grid: Sequence[float]) -> list[float]:
    """C of each fold and last of the fit on all rows: nested cross-validation (Varma and Simon 2006).

    Each is chosen on folds inside the rows that its fit sees, by the mean AUROC over them; of equals the strongest
    penalty.
    """
    return [_choose(site, examples.labels, inner, grid) for inner in examples.inner]


def _choose(site: SiteRows, labels: Bool[np.ndarray, " row"], folds: Folds, grid: Sequence[float]) -> float:
    totals = np.zeros(len(grid))
    for train, test in folds:
        rows = standardise(site.vectors, train, site.buffer)
        asked = rows.apply(site.vectors[test])
        fitted: list[Coefficients] = [site.fits.fit(rows.matrix, labels[train], C) for C in grid]
        totals += [auroc(labels[test], fit.log_odds(asked)) for fit in fitted]
    return grid[int(np.argmax(totals))]


def _mean_difference(matrix: Vectors, labels: Bool[np.ndarray, " row"], scale: np.ndarray) -> np.ndarray:
    """What standardised rows are multiplied with to be projected on the raw difference of the class means."""
    weights = np.where(labels, 1 / labels.sum(), -1 / (~labels).sum()).astype(matrix.dtype)
    return (matrix.T @ weights * scale**2).astype(matrix.dtype)


class _Eraser:
    """LEACE on standardised rows; it is the same map in raw coordinates."""

    def __init__(self, matrix: Vectors, labels: Bool[np.ndarray, " row"]) -> None:
        parts = leace_parts(matrix, labels[:, None].astype(float))
        self.mean, self.read, self.removed = (part.astype(matrix.dtype) for part in parts)

    def __call__(self, matrix: Vectors) -> Vectors:
        return matrix - ((matrix - self.mean) @ self.read.T) @ self.removed.T
