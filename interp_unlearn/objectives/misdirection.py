"""Forget losses that push activations toward a control direction.

Every function takes activations of one layer and a mask, and averages over the masked tokens of all rows together, so
a long row weighs more than a short one.
"""

import torch.nn.functional as F
from jaxtyping import Bool, Float, Int
from torch import Tensor

from interp_unlearn.objectives.directions import token_directions
from interp_unlearn.objectives.tokens import select_tokens


def rmu_forget(
    h: Float[Tensor, "batch pos d_model"], mask: Bool[Tensor, "batch pos"], control: Float[Tensor, " d_model"]
) -> Float[Tensor, ""]:
    """RMU's forget loss: mean squared distance to the control vector ``c * u``, averaged over dimensions as well.

    Source: Li et al. 2024, arXiv 2403.03218, section 4 and the authors' code (``mse_loss``). The average over
    dimensions is theirs: it is why the published retain weights are in the hundreds.
    """
    tokens = select_tokens(h, mask)
    return (tokens - control.to(tokens)).square().mean()


def cosine_forget(
    h: Float[Tensor, "batch pos d_model"], mask: Bool[Tensor, "batch pos"], direction: Float[Tensor, " d_model"]
) -> Float[Tensor, ""]:
    """Cosine RMU: mean of ``1 - cos(h, u)`` over tokens, between 0 and 2.

    Source: our reading of Atil et al. 2026, arXiv 2605.26454, of which only the abstract is public; not the authors'
    code. The norm of ``h`` is free under this loss, so the retain term must hold it.
    """
    tokens = select_tokens(h, mask)
    return (1 - F.cosine_similarity(tokens, direction.to(tokens), dim=-1)).mean()


def token_cosine_forget(
    h: Float[Tensor, "batch pos d_model"],
    mask: Bool[Tensor, "batch pos"],
    ids: Int[Tensor, "batch pos"],
    layer: int,
    seed: int,
) -> Float[Tensor, ""]:
    """Random mapping: mean of `1 - |cos(h, r_token)|`, with one Gaussian direction for each token id.

    Source: the loss that TAR starts from, Tamirisa et al. 2024, arXiv 2408.00761, appendix.
    """
    tokens = select_tokens(h, mask)
    directions = token_directions(ids[mask], h.shape[-1], layer, seed)
    return (1 - F.cosine_similarity(tokens, directions.to(tokens), dim=-1).abs()).mean()


def contrastive_forget(
    h: Float[Tensor, "batch pos d_model"],
    h0: Float[Tensor, "batch pos d_model"],
    mask: Bool[Tensor, "batch pos"],
    direction: Float[Tensor, " d_model"],
    temperature: float = 0.7,
) -> Float[Tensor, ""]:
    """InfoNCE on cosines with the control direction as the positive and the original activation as the negative.

    `mean softplus((cos(h, h0) - cos(h, u)) / temperature)`, log 2 where both are equally near. Our reading of FALCON
    (Hu et al. 2025, arXiv 2502.01472), which takes its negatives from the batch; temperature 0.7 is theirs.
    """
    tokens, original = select_tokens(h, mask), select_tokens(h0, mask)
    positive = F.cosine_similarity(tokens, direction.to(tokens), dim=-1)
    negative = F.cosine_similarity(tokens, original, dim=-1)
    return F.softplus((negative - positive) / temperature).mean()
