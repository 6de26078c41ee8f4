"""Quantisation: rounding may take away the small changes that unlearning made."""

from collections.abc import Iterator
from dataclasses import dataclass
from functools import partial

import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor

from interp_unlearn.attacks.attack import Attack, Attempt, Record, Target
from interp_unlearn.attacks.weights import MATRICES, changed_matrices
from interp_unlearn.errors import ConfigError


@dataclass(frozen=True)
class Quantise(Attack):
    """Round the matrices of the blocks to a few bits, ask, and put them back.

    Source: Zhang et al. 2024, arXiv 2410.16454: unlearned knowledge returns at 4 bits. Computed with the rounded values
    in the model's own precision, on any device.
    Caveat: plain rounding without calibration; a library's 4 bits (NF4, GPTQ) round otherwise. Rounding also costs what
    both models know, so a share below that of the original's own loss is no proof of forgetting. Of models of a few
    million weights 8 bits change next to nothing: they say something of large ones.

    Attributes:
        bits: of a weight, 2 to 16.
        group_sizes: weights of an output channel that share a scale; None for the whole channel.
        roles: of the matrices.
    """

    bits: tuple[int, ...] = (8, 4)
    group_sizes: tuple[int | None, ...] = (None, 64)
    roles: tuple[str, ...] = MATRICES

    def __post_init__(self) -> None:
        super().__post_init__()
        if not self.bits or not all(2 <= bits <= 16 for bits in self.bits):
            raise ConfigError(f"bits: expected 2 to 16, got {self.bits}")
        if not self.group_sizes or any(size is not None and size < 1 for size in self.group_sizes):
            raise ConfigError(f"group_sizes: expected at least 1 or None for a whole channel, got {self.group_sizes}")

    @property
    def name(self) -> str:
        return "quantise"

    def attempts(self, target: Target, record: Record) -> Iterator[Attempt]:
        for bits in self.bits:
            for size in self.group_sizes:
                with changed_matrices(target.model, partial(round_to_nearest, bits=bits, group_size=size), self.roles):
                    items = target.measured()
                yield Attempt({"bits": bits, "group_size": size or "channel"}, items)


def round_to_nearest(
    weight: Float[Tensor, "out in"], bits: int, group_size: int | None = None
) -> Float[Tensor, "out in"]:
    """Symmetric round-to-nearest: `s round(w / s)` with `s = max|w| / (2^(bits - 1) - 1)` of each group.

    Args:
        weight: rows are output channels.
        bits: of a weight; its integers lie between `-(2^(bits - 1) - 1)` and the same above 0.
        group_size: weights of a row that share a scale, a row's last group being what is left; None for the whole row.
    """
    n_out, n_in = weight.shape
    size = n_in if group_size is None else min(group_size, n_in)
    groups = F.pad(weight, (0, -n_in % size)).reshape(n_out, -1, size)
    largest = 2 ** (bits - 1) - 1
    scale = groups.abs().amax(-1, keepdim=True) / largest
    scale = scale.where(scale > 0, 1.0)
    rounded = (groups / scale).round().clamp(-largest, largest) * scale
    return rounded.reshape(n_out, -1)[:, :n_in]
