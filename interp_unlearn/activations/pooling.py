"""One vector per text from one vector per token."""

from typing import Literal

import torch
from jaxtyping import Bool, Float
from torch import Tensor

from interp_unlearn.errors import ConfigError, DataError

Pool = Literal["mean", "last", "none"]
"""The mean over a text's tokens, the last of them, or "none": every token's vector."""


def pool_tokens(
    activation: Float[Tensor, "batch pos *d"], mask: Bool[Tensor, "batch pos"], pool: Pool, *, checked: bool = False
) -> Float[Tensor, "rows width"]:
    """Pool the tokens under the mask; heads, where there are any, side by side.

    Args:
        activation: what a site holds.
        mask: the tokens that count; padding must be outside it.
        pool: "mean" over them or the "last" of them, in float32 whatever the model's precision; "none" for each of
            them, row after row, in the model's precision.
        checked: the caller knows that every row has a token, which saves looking.

    Raises:
        DataError: a row has no token under the mask.
        ConfigError: another pool.
    """
    if not checked and bool((empty := ~mask.any(1)).any()):
        raise DataError("batch", f"row {int(empty.nonzero()[0])} has no token to pool; drop empty texts")
    flat = activation.flatten(2)
    if pool == "mean":
        # Filled, not multiplied by 0: a padded position may hold NaN.
        return flat.float().masked_fill(~mask[..., None], 0).sum(1) / mask.sum(1)[:, None]
    if pool == "last":
        last = torch.where(mask, torch.arange(mask.shape[1], device=mask.device), -1).argmax(1)
        return flat[torch.arange(len(last), device=last.device), last].float()
    if pool == "none":
        return flat[mask]
    raise ConfigError(f"pool: expected mean, last or none, got {pool!r}")


def pooled_dtype(pool: Pool, dtype: torch.dtype) -> torch.dtype:
    """The dtype of pooled vectors of a model of some dtype."""
    return dtype if pool == "none" else torch.float32
