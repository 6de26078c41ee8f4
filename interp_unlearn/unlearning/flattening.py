"""A teacher that knows which answers there are, and gives each of them the same probability."""

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import chain

import torch
from torch import Tensor

from interp_unlearn.errors import ConfigError
from interp_unlearn.interventions import Edit, EditContext
from interp_unlearn.settings import check_fields


@dataclass(frozen=True, eq=False)
class Flatten(Edit):
    """Share the probability of a pool of tokens equally among them; at the logits. All other probabilities stay.

    Distilled from the frozen original on forget texts, it forgets which answer of a pool is the true one and keeps that
    one of them comes there. Privileged: it needs the pools, which a user may not have. Answers of several tokens are
    flattened at their first alone, and what follows the BOS directly stays as it is, for the BOS is never edited.

    Attributes:
        pools: token ids of each pool; no id twice.
    """

    pools: Sequence[Sequence[int]]

    def __post_init__(self) -> None:
        super().__post_init__()
        check_fields(self)
        ids = list(chain.from_iterable(self.pools))
        if not ids or min(map(len, self.pools)) == 0 or len(ids) != len(set(ids)):
            raise ConfigError(
                f"pools must be non-empty and share no token, got {[len(pool) for pool in self.pools]} ids"
            )

    def transform(self, activation: Tensor, context: EditContext) -> Tensor:
        flat = activation.clone()
        for pool in self.pools:
            index = torch.tensor(list(pool), device=activation.device)
            # In log space, so that a tiny pool does not underflow: the mean of the pool's probabilities.
            shared = activation[..., index].float().logsumexp(-1, keepdim=True) - torch.tensor(len(pool)).log()
            flat[..., index] = shared.to(activation.dtype)
        return flat
