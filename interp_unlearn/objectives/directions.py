"""Control directions: seeded random unit vectors, one for each layer, or one for each token of the vocabulary."""

from collections.abc import Sequence

import torch
from jaxtyping import Float, Int
from torch import Tensor


def random_directions(d_model: int, layers: Sequence[int], seed: int) -> dict[int, Float[Tensor, " d_model"]]:
    """One Gaussian unit vector a layer: the direction u of RMU (Li et al. 2024, arXiv 2403.03218).

    The published code draws from ``torch.rand``, so its directions lie in the positive orthant; these do not. The
    direction of a layer depends on the seed and on that layer alone, not on which other layers are asked for, so a
    single-layer and a multi-layer run share it. The global random state is left alone.
    """
    directions: dict[int, Tensor] = {}
    for layer in layers:
        generator = torch.Generator().manual_seed(seed * 1_000_003 + layer)
        vector = torch.randn(d_model, generator=generator)
        directions[layer] = vector / vector.norm()
    return directions


def token_directions(
    ids: Int[Tensor, " tokens"], d_model: int, layer: int, seed: int
) -> Float[Tensor, "tokens d_model"]:
    """A Gaussian direction for each token, the same for the same id: drawn when asked for, not held for a vocabulary.

    Source: the random mapping of TAR (Tamirisa et al. 2024, arXiv 2408.00761).
    """
    unique, where = ids.unique(return_inverse=True)
    drawn: list[Tensor] = []
    for token in unique.tolist():
        generator = torch.Generator().manual_seed((seed * 1_000_003 + layer) * 1_000_003 + token)
        drawn.append(torch.randn(d_model, generator=generator))
    return torch.stack(drawn).to(ids.device)[where]
