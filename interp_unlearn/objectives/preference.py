"""Preference of one completion over another: what a loss on pairs is made of."""

import torch
import torch.nn.functional as F
from jaxtyping import Bool, Float, Int
from torch import Tensor

from interp_unlearn.errors import ConfigError
from interp_unlearn.objectives.language_modeling import token_nll


def sequence_log_probability(
    logits: Float[Tensor, "batch pos vocab"], ids: Int[Tensor, "batch pos"], mask: Bool[Tensor, "batch pos"]
) -> Float[Tensor, " batch"]:
    """Summed log-probability of each row's masked tokens that have a predecessor, in nats; 0 for a row without any."""
    log_probability = -token_nll(logits, ids, mask)
    rows = mask[:, 1:].nonzero()[:, 0]
    return torch.zeros(len(ids), device=logits.device, dtype=log_probability.dtype).index_add(0, rows, log_probability)


def preference_margin(
    chosen: Float[Tensor, " pairs"],
    rejected: Float[Tensor, " pairs"],
    reference_chosen: Float[Tensor, " pairs"],
    reference_rejected: Float[Tensor, " pairs"],
) -> Float[Tensor, " pairs"]:
    """How much further than the reference the model prefers the chosen completion, in nats a pair.

    `log p(chosen) - log p0(chosen) - (log p(rejected) - log p0(rejected))`, the implicit reward margin of DPO at
    beta = 1 (Rafailov et al. 2023, arXiv 2305.18290, section 4).
    """
    return (chosen - reference_chosen) - (rejected - reference_rejected)


def dpo(margin: Float[Tensor, " pairs"], beta: float) -> Float[Tensor, ""]:
    """Mean over pairs of `-log sigmoid(beta * margin)`; log 2 for a model equal to its reference.

    Source: direct preference optimisation, Rafailov et al. 2023, arXiv 2305.18290, equation 7. Caveat: only the
    difference is rewarded, so it may fall while both completions become unlikelier; look at each.

    Args:
        margin: of `preference_margin`; the reference's part of it is a constant.
        beta: inverse temperature, above 0; the weaker, the further the model may leave its reference.

    Raises:
        ConfigError: beta is not positive.
    """
    if not beta > 0:
        raise ConfigError(f"beta must be more than 0, got {beta}")
    return -F.logsigmoid(beta * margin).mean()
