"""The subspace in which pairs differ, and a weight matrix that can no longer write into it."""

from typing import Literal

import torch
from jaxtyping import Float
from torch import Tensor

from interp_unlearn.errors import ConfigError

Centre = Literal["mean", "singular_vector", "none"]
"""What is taken out of the differences of pairs first, see `difference_subspace`."""


def difference_subspace(
    positive: Float[Tensor, "pairs d"], negative: Float[Tensor, "pairs d"], rank: int, centre: Centre = "mean"
) -> tuple[Float[Tensor, "rank d"], Float[Tensor, " rank"]]:
    """The top right singular vectors of `D = (positive - negative) / 2`, D freed of the negatives' common direction.

    Source: ProFS (DeTox), Uppaal et al. 2025, arXiv 2405.13967, section 4: what toxic and civil twins of a sentence
    share is dropped by the difference, and of what remains the corpus mean is no property of either class.

    Args:
        positive: one vector a pair, of the class to be removed.
        negative: its partner's.
        rank: k, how many directions.
        centre: the direction projected out of D: "mean", the mean of the negatives; "singular_vector", their first
            right singular vector, uncentred, as in the authors' code; or "none".

    Returns:
        Orthonormal rows, the widest difference first, and the share of D's squared singular values that each has.

    Raises:
        ConfigError: there are fewer independent differences than `rank`.
    """
    if centre not in ("mean", "singular_vector", "none"):
        raise ConfigError(f"centre must be mean, singular_vector or none, got {centre!r}")
    # In double precision on the CPU: small matrices, and a projector of float32 noise would not be one.
    toxic, civil = positive.detach().double().cpu(), negative.detach().double().cpu()
    difference = (toxic - civil) / 2
    if centre != "none":
        common = civil.mean(0) if centre == "mean" else torch.linalg.svd(civil, full_matrices=False).Vh[0]
        common = common / common.norm().clamp_min(1e-300)
        difference = difference - torch.outer(difference @ common, common)
    _, values, vectors = torch.linalg.svd(difference, full_matrices=False)
    found = int((values > 1e-6 * values[0]).sum()) if values[0] > 0 else 0
    if not 1 <= rank <= found:
        raise ConfigError(
            f"rank must be between 1 and the number of directions in which the pairs differ, {found}, got {rank}; "
            "lower it, or give more pairs"
        )
    return vectors[:rank], values[:rank].square() / values.square().sum()


def without_subspace(
    weight: Float[Tensor, "out in"], basis: Float[Tensor, "rank out"], output_dim: int = 0
) -> Float[Tensor, "out in"]:
    """`(I - P) W` with `P = basis^T basis`: whatever goes in, nothing comes out along the basis.

    Args:
        weight: the matrix; a bias beside it still writes.
        basis: orthonormal rows.
        output_dim: the dimension that is the output: 0 of a Linear layer's weight, 1 of a Conv1D's.
    """
    rows = weight.detach().cpu().double()
    rows = rows if output_dim == 0 else rows.T
    basis = basis.to(rows)
    kept = rows - basis.T @ (basis @ rows)
    return (kept if output_dim == 0 else kept.T).to(weight)
