"""How far a probe's direction depends on which groups of texts happened to be there."""

from collections.abc import Callable

import numpy as np
from jaxtyping import Float, Int

from interp_unlearn.probes.cross_validation import SiteRows
from interp_unlearn.probes.linear import standardise
from interp_unlearn.probes.settings import Examples


def direction_stability(
    site: SiteRows, examples: Examples, direction: Float[np.ndarray, " d_model"], C: float, resamples: int, seed: int
) -> dict[str, float]:
    """Cosines, in raw residual coordinates, between directions fitted on different draws of the groups.

    Caveat: a bootstrap resample shares two thirds of its groups with the data, so that even labels without meaning
    give a cosine far above 0 in ``stability``. Disjoint halves share nothing: theirs is near 0 then, but each half
    holds half of the rows, and so it is lower than the stability of the whole.

    Args:
        site: the vectors.
        examples: labels and groups.
        direction: the unit direction fitted on all rows.
        C: as for that one.
        resamples: how many of either kind; each costs a fit and two of half the rows. 0 measures nothing.
        seed: of the draws; equal for all sites.

    Returns:
        ``stability``: mean cosine of `direction` with the directions of bootstrap resamples of the groups;
        ``stability_low``: the 5% quantile of those; ``stability_halves``: mean cosine of the directions of two disjoint
        random halves of the groups. NaN without resamples.
    """
    if resamples == 0:
        return dict.fromkeys(("stability", "stability_low", "stability_halves"), float("nan"))
    rng = np.random.default_rng(seed)
    labels, groups = examples.labels, examples.groups
    n_groups = int(groups.max()) + 1

    def fit(counts: Int[np.ndarray, " group"]) -> Float[np.ndarray, " d_model"]:
        rows = np.repeat(np.arange(len(labels)), counts[groups])
        drawn = standardise(site.vectors, rows, site.buffer)
        fitted = site.fits.fit(drawn.matrix, labels[rows], C)
        return drawn.to_raw(fitted.coef, fitted.intercept).direction

    def holds_both(counts: Int[np.ndarray, " group"]) -> bool:
        return len(np.unique(labels[counts[groups] > 0])) == 2

    def bootstrap() -> Int[np.ndarray, " group"]:
        return rng.multinomial(n_groups, np.full(n_groups, 1 / n_groups))

    def half() -> Int[np.ndarray, " group"]:
        return (rng.permutation(n_groups) < n_groups // 2).astype(int)

    whole, halves = [], []
    for _ in range(resamples):
        whole.append(float(direction @ fit(_first(bootstrap, holds_both))))
        one = _first(half, lambda counts: holds_both(counts) and holds_both(1 - counts))
        halves.append(float(fit(one) @ fit(1 - one)))
    return {
        "stability": float(np.mean(whole)),
        "stability_low": float(np.quantile(whole, 0.05)),
        "stability_halves": float(np.mean(halves)),
    }


def _first(draw: Callable[[], np.ndarray], accepted: Callable[[np.ndarray], bool]) -> np.ndarray:
    """The first draw that is accepted. There is one: the folds have shown that two groups or more hold each class."""
    while not accepted(counts := draw()):
        pass
    return counts
