"""Forget losses on what the model says: they lower the likelihood of the forget texts.

Each takes log-likelihoods that `token_nll` or `sequence_log_probability` give, so that a caller decides over which
tokens, and whether the original's are constants.
"""

import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor

from interp_unlearn.errors import ConfigError


def npo(log_probability: Float[Tensor, " batch"], reference: Float[Tensor, " batch"], beta: float) -> Float[Tensor, ""]:
    """Negative preference optimisation: `-(2/beta) mean log sigmoid(-beta (log p(y) - log p0(y)))`.

    `(2/beta) log 2` for a model equal to its reference; as beta goes to 0 its gradient becomes that of gradient ascent.
    Source: Zhang et al. 2024, arXiv 2404.05868, equation 3.

    Args:
        log_probability: of each forget row, summed over its tokens, in nats.
        reference: the same under the frozen original; a constant.
        beta: inverse temperature, above 0.

    Raises:
        ConfigError: beta is not positive.
    """
    _require_positive(beta)
    return -(2 / beta) * F.logsigmoid(-beta * (log_probability - reference)).mean()


def simnpo(nll: Float[Tensor, " batch"], beta: float, margin: float = 0.0) -> Float[Tensor, ""]:
    """NPO without a reference, by length: `-(2/beta) mean log sigmoid(beta (nll - margin))`.

    Source: Fan et al. 2024, arXiv 2410.07163, with the margin as the authors' code has it (inside the bracket).

    Args:
        nll: mean negative log-likelihood of each forget row, in nats per token.
        beta: inverse temperature, above 0.
        margin: nats per token that count as forgotten half-way.

    Raises:
        ConfigError: beta is not positive.
    """
    _require_positive(beta)
    return -(2 / beta) * F.logsigmoid(beta * (nll - margin)).mean()


def _require_positive(beta: float) -> None:
    if not beta > 0:
        raise ConfigError(f"beta must be more than 0, got {beta}")
