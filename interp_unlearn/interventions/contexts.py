"""What an edit is told about the tokens it is applied to."""

import inspect
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import torch
from jaxtyping import Bool, Int
from torch import Tensor, nn

from interp_unlearn.errors import BackendError
from interp_unlearn.models.batches import TokenBatch, content_mask


@dataclass(frozen=True, eq=False)
class EditContext:
    """The tokens of one forward pass.

    Attributes:
        mask: real tokens; padding and rows that have finished generating are False.
        content: real tokens that are not the leading BOS.
        positions: position of each token in its own row, counted from 0, cached tokens included.
        rows: index of each row in the batch.
        completion: tokens of the completion, where the batch knows them.
    """

    mask: Bool[Tensor, "batch pos"]
    content: Bool[Tensor, "batch pos"]
    positions: Int[Tensor, "batch pos"]
    rows: Int[Tensor, " batch"]
    completion: Bool[Tensor, "batch pos"] | None = None

    @cached_property
    def mask_column(self) -> Bool[Tensor, "batch pos 1"]:
        return self.mask.unsqueeze(-1)

    @cached_property
    def content_column(self) -> Bool[Tensor, "batch pos 1"]:
        return self.content.unsqueeze(-1)

    def last(self, n: int) -> "EditContext":
        """The last n positions, for logits that were computed for those only."""
        if n == self.mask.shape[1]:
            return self
        completion = None if self.completion is None else self.completion[:, -n:]
        return EditContext(self.mask[:, -n:], self.content[:, -n:], self.positions[:, -n:], self.rows, completion)


def context_of_batch(batch: TokenBatch) -> EditContext:
    """The context of a pass over a whole batch."""
    rows = torch.arange(len(batch), device=batch.device)
    return EditContext(batch.mask, batch.content_mask, batch.position_ids, rows, batch.completion_mask)


def context_of_call(
    model: nn.Module, args: tuple[Any, ...], kwargs: Mapping[str, Any], bos_token_id: int | None
) -> EditContext:
    """The context of a plain call of a Hugging Face model, with or without cached tokens.

    With `inputs_embeds` instead of ids a BOS cannot be told apart and counts as content.

    Raises:
        BackendError: the attention mask is not [batch, pos].
    """
    if args:
        # The class's own signature: a library that wraps the model may have put another forward on the object.
        kwargs = {**inspect.signature(type(model).forward).bind_partial(model, *args).arguments, **kwargs}
    ids: Tensor | None = kwargs.get("input_ids")
    tokens: Tensor = kwargs["inputs_embeds"] if ids is None else ids
    n_rows, width = tokens.shape[:2]
    mask: Tensor | None = kwargs.get("attention_mask")
    if mask is not None and mask.ndim != 2:
        raise BackendError(f"edits need an attention mask [batch, pos], got one of {mask.ndim} dimensions; pass that")
    positions: Tensor | None = kwargs.get("position_ids")
    if positions is None:
        positions = _positions(kwargs, mask, width, tokens.device)
    positions = positions[:, -width:].expand(n_rows, width)
    real = torch.ones_like(positions, dtype=torch.bool) if mask is None else mask[:, -width:].bool()
    content = real if ids is None else content_mask(ids, real, positions, bos_token_id)
    return EditContext(real, content, positions, torch.arange(n_rows, device=tokens.device))


def _positions(kwargs: Mapping[str, Any], mask: Tensor | None, width: int, device: torch.device) -> Tensor:
    if mask is not None:
        return (mask.long().cumsum(1) - 1).clamp(min=0)
    cache = kwargs.get("past_key_values")
    past = cache.get_seq_length() if cache is not None else 0
    return torch.arange(past, past + width, device=device)[None]
