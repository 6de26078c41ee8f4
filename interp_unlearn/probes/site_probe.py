"""The probe of one site: fitted, cross-validated, measured."""

from dataclasses import dataclass

import numpy as np
from jaxtyping import Float

from interp_unlearn.probes.auroc import bootstrap_auroc, fold_auroc
from interp_unlearn.probes.calibration import calibration
from interp_unlearn.probes.controls import random_direction_auroc
from interp_unlearn.probes.cross_validation import OutOfFold, SiteRows, choose_strengths, cross_validate
from interp_unlearn.probes.linear import LinearProbe, fit_mean_difference, standardise
from interp_unlearn.probes.settings import Examples, ProbeSettings
from interp_unlearn.probes.stability import direction_stability

_NAN = float("nan")


@dataclass(frozen=True, eq=False)
class SiteProbe:
    """What is known of one site.

    Attributes:
        logistic: fitted on all rows.
        difference: of the class means, on all rows.
        measures: the columns of `ProbeSet.table` that belong to the site.
        strengths: C of each fold, and last of the fit on all rows.
    """

    logistic: LinearProbe
    difference: LinearProbe
    measures: dict[str, float]
    strengths: list[float]


def fit_site(
    vectors: Float[np.ndarray, "row d_model"],
    examples: Examples,
    settings: ProbeSettings,
    strengths: list[float] | None = None,
) -> SiteProbe:
    """Fit and measure the probe of one site.

    Args:
        vectors: single precision.
        examples: labels, groups, folds and shuffled labels.
        settings: of the fit.
        strengths: C of each fold and of the whole; None to choose them here.

    Raises:
        ConfigError: the vectors are not finite, or do not vary.
    """
    labels = examples.labels
    site = SiteRows(vectors)
    strengths = choose_strengths(site, examples, settings.grid) if strengths is None else strengths
    found = cross_validate(site, examples, strengths[:-1], settings.leace)
    whole = standardise(vectors, buffer=site.buffer)
    fitted = site.fits.fit(whole.matrix, labels, strengths[-1])
    probe = whole.to_raw(fitted.coef, fitted.intercept)
    measures = {
        **_measures(found, examples, settings),
        "auroc_random_direction": random_direction_auroc(vectors, labels, examples.folds, settings.seed),
        **direction_stability(site, examples, probe.direction, strengths[-1], settings.resamples, settings.seed),
        "C": strengths[-1],
    }
    return SiteProbe(probe, fit_mean_difference(vectors, labels), measures, strengths)


def _measures(found: OutOfFold, examples: Examples, settings: ProbeSettings) -> dict[str, float]:
    labels, folds = examples.labels, examples.folds
    low, high = _NAN, _NAN
    if settings.bootstrap:
        low, high = bootstrap_auroc(labels, found.logistic, folds, examples.groups, settings.bootstrap, settings.seed)
    pairs = list(zip(examples.shuffled, found.shuffled, strict=True))
    accuracy = float(((found.logistic > 0) == labels).mean())
    accuracy_shuffled = _mean([float(((scores > 0) == of).mean()) for of, scores in pairs])
    return {
        "auroc": fold_auroc(labels, found.logistic, folds),
        "auroc_low": low,
        "auroc_high": high,
        "accuracy": accuracy,
        **calibration(labels, found.logistic),
        "auroc_shuffled": _mean([fold_auroc(of, scores, folds) for of, scores in pairs]),
        "accuracy_shuffled": accuracy_shuffled,
        "selectivity": accuracy - accuracy_shuffled,
        "auroc_mean_difference": fold_auroc(labels, found.mean_difference, folds),
        "auroc_leace": _NAN if found.erased is None else fold_auroc(labels, found.erased, folds),
    }


def _mean(values: list[float]) -> float:
    return float(np.mean(values)) if values else _NAN
