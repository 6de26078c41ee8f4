"""Retain losses: how far a model has moved from its frozen original, in activations or in predictions.

h0 and p0 are the original's; they are constants, so compute them without gradients.
"""

import torch
import torch.nn.functional as F
from jaxtyping import Bool, Float
from torch import Tensor

from interp_unlearn.objectives.tokens import select_predictions, select_tokens


def mse(
    h: Float[Tensor, "batch pos d_model"], h0: Float[Tensor, "batch pos d_model"], mask: Bool[Tensor, "batch pos"]
) -> Float[Tensor, ""]:
    """RMU's retain loss: squared distance to the original activation, averaged over tokens and dimensions.

    Source: Li et al. 2024, arXiv 2403.03218, section 4 and the authors' code.
    """
    return (select_tokens(h, mask) - select_tokens(h0, mask)).square().mean()


def relative_mse(
    h: Float[Tensor, "batch pos d_model"], h0: Float[Tensor, "batch pos d_model"], mask: Bool[Tensor, "batch pos"]
) -> Float[Tensor, ""]:
    """Mean over tokens of ``||h - h0||^2 / ||h0||^2``; dimensionless.

    Equals ``(r - 1)^2 + 2 r (1 - cos(h, h0))`` with ``r = ||h|| / ||h0||``: it holds the angle and the norm together,
    and the tokens of large norm do not drown the others. Our reading of Atil et al. 2026, arXiv 2605.26454.
    """
    original = select_tokens(h0, mask)
    squared_norm = original.square().sum(-1).clamp_min(torch.finfo(original.dtype).tiny)
    return ((select_tokens(h, mask) - original).square().sum(-1) / squared_norm).mean()


def kl(
    p_logits: Float[Tensor, "batch pos vocab"],
    q_logits: Float[Tensor, "batch pos vocab"],
    mask: Bool[Tensor, "batch pos"],
) -> Float[Tensor, ""]:
    """``KL(p || q)`` in nats per token, averaged over the predictions *of* the masked tokens.

    With p the frozen original and q the model this is the retain term; with p an edited or another model it is
    distillation (Hinton et al. 2015, arXiv 1503.02531, at temperature 1). Gradients flow to both arguments.
    """
    return token_kl(p_logits, q_logits, mask).mean()


def token_kl(
    p_logits: Float[Tensor, "batch pos vocab"],
    q_logits: Float[Tensor, "batch pos vocab"],
    mask: Bool[Tensor, "batch pos"],
) -> Float[Tensor, " tokens"]:
    """``KL(p || q)`` in nats at the prediction of each masked token, row by row."""
    log_p = F.log_softmax(select_predictions(p_logits, mask), dim=-1)
    log_q = F.log_softmax(select_predictions(q_logits, mask), dim=-1)
    # A vocabulary entry masked with -inf has p = 0 and contributes 0, not 0 * inf.
    terms = log_p.exp() * (log_p - log_q)
    return terms.masked_fill(log_p == float("-inf"), 0.0).sum(-1)
