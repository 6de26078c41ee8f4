"""Pruning: small weights are where small changes hide."""

from collections.abc import Iterator
from dataclasses import dataclass
from functools import partial

from jaxtyping import Float
from torch import Tensor

from interp_unlearn.attacks.attack import Attack, Attempt, Record, Target
from interp_unlearn.attacks.weights import MATRICES, changed_matrices
from interp_unlearn.errors import ConfigError


@dataclass(frozen=True)
class Prune(Attack):
    """Set the smallest weights of every matrix of the blocks to 0, ask, and put them back.

    Magnitude pruning by matrix (Han et al. 2015, arXiv 1506.02626).
    Caveat: high sparsities break both models; that nothing comes back there says little.

    Attributes:
        sparsities: shares of each matrix, 0 to below 1.
        roles: of the matrices.
    """

    sparsities: tuple[float, ...] = (0.1, 0.3, 0.5)
    roles: tuple[str, ...] = MATRICES

    def __post_init__(self) -> None:
        super().__post_init__()
        if not self.sparsities or not all(0 <= share < 1 for share in self.sparsities):
            raise ConfigError(f"sparsities: expected shares from 0 to below 1, got {self.sparsities}")

    @property
    def name(self) -> str:
        return "prune"

    def attempts(self, target: Target, record: Record) -> Iterator[Attempt]:
        for sparsity in self.sparsities:
            with changed_matrices(target.model, partial(prune_smallest, sparsity=sparsity), self.roles):
                items = target.measured()
            yield Attempt({"sparsity": sparsity}, items)


def prune_smallest(weight: Float[Tensor, "out in"], sparsity: float) -> Float[Tensor, "out in"]:
    """The matrix with the `floor(sparsity * size)` weights of smallest magnitude at 0."""
    smallest = weight.abs().flatten().topk(int(sparsity * weight.numel()), largest=False).indices
    pruned = weight.flatten().clone()
    pruned[smallest] = 0
    return pruned.reshape(weight.shape)
