"""Sign-flip permutation test of paired differences."""

from dataclasses import dataclass
from typing import Literal

import numpy as np
from numpy.typing import ArrayLike

from interp_unlearn.errors import ConfigError
from interp_unlearn.statistics.intervals import checked_column

EXACT_UP_TO = 16

Alternative = Literal["greater", "less", "two-sided"]


@dataclass(frozen=True)
class SignFlip:
    """Mean difference and its p-value; ``exact`` when all sign patterns were enumerated."""

    mean: float
    p_value: float
    n: int
    exact: bool


def sign_flip(
    differences: ArrayLike, alternative: Alternative = "two-sided", n_resamples: int = 10_000, seed: int = 0
) -> SignFlip:
    """Test that paired differences are symmetric about 0 (Fisher 1935), with their mean as the statistic.

    Up to 16 differences all ``2**n`` sign patterns are enumerated; beyond, patterns are drawn at random and the
    observed one is counted among them, ``(1 + hits) / (1 + n_resamples)`` (Phipson and Smyth 2010).
    Caveat: n differences cannot give an exact one-sided p below ``2**-n``: with 3 seeds the smallest is 0.125.

    Args:
        differences: ``[pair]``.
        alternative: the claim, about the mean difference.
        n_resamples: random patterns beyond 16 differences.
        seed: of the random patterns.

    Raises:
        ConfigError: no differences, one that is not finite, or an unknown alternative.
    """
    values = checked_column(differences)
    n = len(values)
    if n <= EXACT_UP_TO:
        signs = 1.0 - 2.0 * ((np.arange(2**n)[:, None] >> np.arange(n)) & 1)
        flipped = signs @ values / n
    else:
        rng = np.random.default_rng(seed)
        flipped = np.array([rng.choice([-1.0, 1.0], size=n) @ values / n for _ in range(n_resamples)])
    mean = float(values.mean())
    tolerance = 1e-12 * float(np.abs(values).max())  # patterns equal in exact arithmetic must count as equal
    if alternative == "greater":
        hits = flipped >= mean - tolerance
    elif alternative == "less":
        hits = flipped <= mean + tolerance
    elif alternative == "two-sided":
        hits = np.abs(flipped) >= abs(mean) - tolerance
    else:
        raise ConfigError(f"alternative: expected greater, less or two-sided, got {alternative!r}")
    if n <= EXACT_UP_TO:
        return SignFlip(mean, float(hits.mean()), n, exact=True)
    return SignFlip(mean, (1 + int(hits.sum())) / (1 + n_resamples), n, exact=False)
