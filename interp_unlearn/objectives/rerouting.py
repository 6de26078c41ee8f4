"""Losses that lead activations away from where the original has them, or to where it has those of another text."""

import torch.nn.functional as F
from jaxtyping import Bool, Float
from torch import Tensor

from interp_unlearn.objectives.tokens import select_tokens


def rerouting_forget(
    h: Float[Tensor, "batch pos d_model"], h0: Float[Tensor, "batch pos d_model"], mask: Bool[Tensor, "batch pos"]
) -> Float[Tensor, ""]:
    """Representation rerouting: mean of `relu(cos(h, h0))` over tokens, 0 once every activation is orthogonal.

    Source: circuit breakers, Zou et al. 2024, arXiv 2406.04313, equation 1.
    """
    return F.relu(F.cosine_similarity(select_tokens(h, mask), select_tokens(h0, mask), dim=-1)).mean()


def distance(
    h: Float[Tensor, "batch pos d_model"], h0: Float[Tensor, "batch pos d_model"], mask: Bool[Tensor, "batch pos"]
) -> Float[Tensor, ""]:
    """Mean over tokens of `||h - h0||_2`, the retain loss of representation rerouting (Zou et al. 2024)."""
    return (select_tokens(h, mask) - select_tokens(h0, mask)).norm(dim=-1).mean()


def counterfactual_forget(
    h: Float[Tensor, "batch pos d_model"], target: Float[Tensor, "batch pos d_model"], mask: Bool[Tensor, "batch pos"]
) -> Float[Tensor, ""]:
    """Mean of `1 - cos(h, h0(x'))` over tokens, x' the same text about an unknown subject; between 0 and 2.

    The one member of the cosine family that aims at a state the original itself would be in. Our reading (a') of Atil
    et al. 2026, arXiv 2605.26454 (abstract only; not the authors' code). The norm of `h` is free under this loss.

    Args:
        h: activations on the forget text.
        target: the original's on the counterpart, token by token; a constant.
        mask: of the forget text; the counterpart has the same tokens where it is set.
    """
    return (1 - F.cosine_similarity(select_tokens(h, mask), select_tokens(target, mask), dim=-1)).mean()
