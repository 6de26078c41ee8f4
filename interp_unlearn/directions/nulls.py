"""What cosines look like by chance: the exact distribution for directions drawn uniformly in d dimensions.

With x the cosine of a uniform direction and a fixed one, ``(x + 1) / 2`` is Beta((d - 1) / 2, (d - 1) / 2): the mean
of x is 0 and its standard deviation exactly ``1 / sqrt(d)``.
Caveat: activations fill few of their d dimensions evenly, so that vectors made from them are more alike than these.
"""

import torch
from jaxtyping import Float
from torch import Tensor

from interp_unlearn.errors import ConfigError
from interp_unlearn.objectives import random_directions
from interp_unlearn.sites import BLOCK_COMPONENTS, Site


def cosine_quantile(d: int, probability: float, of_largest: int = 1) -> float:
    """Quantile of the cosine of two random directions, or of the largest of several independent ones.

    The largest of n stays below x with probability ``F(x)^n``.

    Args:
        d: dimensions, at least 2.
        probability: of staying below the quantile.
        of_largest: n.

    Raises:
        ConfigError: fewer than two dimensions.
    """
    from scipy.stats import beta

    if d < 2:
        raise ConfigError(f"cosines by chance need at least 2 dimensions, got {d}")
    half = (d - 1) / 2
    return 2 * float(beta.ppf(probability ** (1 / of_largest), half, half)) - 1


def random_unit_vectors(n: int, d: int, seed: int) -> Float[Tensor, "n d"]:
    """Directions drawn uniformly; the global random state is left alone."""
    vectors = torch.randn(n, d, generator=torch.Generator().manual_seed(seed))
    return vectors / vectors.norm(dim=1, keepdim=True)


def random_direction_at(site: Site, width: int, seed: int) -> Float[Tensor, " width"]:
    """The control direction of a site: it depends on the seed and the site alone, not on which others are asked for."""
    place = 0 if site.layer is None else 1 + site.layer * len(BLOCK_COMPONENTS) + BLOCK_COMPONENTS.index(site.component)
    return random_directions(width, [place], seed)[place]
