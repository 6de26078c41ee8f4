"""Next-token cross-entropy over chosen tokens."""

import torch.nn.functional as F
from jaxtyping import Bool, Float, Int
from torch import Tensor

from interp_unlearn.objectives.tokens import select_predictions, select_targets


def token_nll(
    logits: Float[Tensor, "batch pos vocab"], ids: Int[Tensor, "batch pos"], mask: Bool[Tensor, "batch pos"]
) -> Float[Tensor, " tokens"]:
    """Negative log-likelihood, in nats, of each masked token that has a predecessor, row by row."""
    return F.cross_entropy(select_predictions(logits, mask), select_targets(ids, mask), reduction="none")


def cross_entropy(
    logits: Float[Tensor, "batch pos vocab"], ids: Int[Tensor, "batch pos"], mask: Bool[Tensor, "batch pos"]
) -> Float[Tensor, ""]:
    """Mean negative log-likelihood of the masked tokens, in nats per token."""
    return token_nll(logits, ids, mask).mean()
