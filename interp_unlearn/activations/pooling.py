"""One vector per text from one vector per token."""

from typing import Literal

import torch
from jaxtyping import Bool, Float
from torch import Tensor

from interp_unlearn.errors import ConfigError, DataError

Pool = Literal["mean", "last"]


def pool_tokens(
    activation: Float[Tensor, "batch pos d"], mask: Bool[Tensor, "batch pos"], pool: Pool
) -> Float[Tensor, "batch d"]:
    """Pool the tokens under the mask, in float32 whatever the model's precision.

    Args:
        activation: what a site holds.
        mask: the tokens that count; padding must be outside it.
        pool: "mean" over them, or the "last" of them.

    Raises:
        DataError: a row has no token under the mask.
        ConfigError: another pool.
    """
    counts = mask.sum(1)
    if bool((counts == 0).any()):
        raise DataError("batch", f"row {int((counts == 0).nonzero()[0])} has no token to pool; drop empty texts")
    if pool == "mean":
        # Filled, not multiplied by 0: a padded position may hold NaN.
        return activation.float().masked_fill(~mask[..., None], 0).sum(1) / counts[:, None]
    if pool == "last":
        last = torch.where(mask, torch.arange(mask.shape[1], device=mask.device), -1).argmax(1)
        return activation[torch.arange(len(last), device=last.device), last].float()
    raise ConfigError(f"pool: expected mean or last, got {pool!r}")
