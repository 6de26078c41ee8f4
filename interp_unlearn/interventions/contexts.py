"""What an edit is told about the tokens it is applied to."""

import inspect
from collections.abc import Callable, Mapping
from dataclasses import dataclass, fields
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
        rows: index in the batch of the row that each row belongs to; continuations of one prompt share it.
        lengths: tokens of each row, BOS included; while generating, of its prompt.
        columns: column of the batch as it was given in which each token stood; generated tokens count on.
        completion: tokens of the completion, where the batch knows them; while generating, what was generated.
    """

    mask: Bool[Tensor, "batch pos"]
    content: Bool[Tensor, "batch pos"]
    positions: Int[Tensor, "batch pos"]
    rows: Int[Tensor, " batch"]
    lengths: Int[Tensor, " batch"]
    columns: Int[Tensor, "batch pos"]
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
        return self._map(lambda tensor: tensor[:, -n:] if tensor.ndim == 2 else tensor)

    def covers(self, n_rows: int, width: int) -> bool:
        """Whether something given for each token of a batch fits this pass: the whole batch, or tokens after it."""
        last = int(self.columns.max())
        return int(self.rows.max()) + 1 == n_rows and (last + 1 == width or int(self.columns.min()) >= width)

    def on(self, device: torch.device) -> "EditContext":
        """The same context on another device: a model may be spread over several."""
        if device == self.mask.device:
            return self
        if device not in self._elsewhere:
            self._elsewhere[device] = self._map(lambda tensor: tensor.to(device))
        return self._elsewhere[device]

    @cached_property
    def _elsewhere(self) -> "dict[torch.device, EditContext]":
        return {}

    def _map(self, change: Callable[[Tensor], Tensor]) -> "EditContext":
        changed: dict[str, Any] = {part.name: getattr(self, part.name) for part in fields(self)}
        for name, tensor in changed.items():
            changed[name] = None if tensor is None else change(tensor)
        return EditContext(**changed)


def context_of_batch(batch: TokenBatch) -> EditContext:
    """The context of a pass over a whole batch."""
    n_rows, width = batch.input_ids.shape
    return EditContext(
        batch.mask,
        batch.content_mask,
        batch.position_ids,
        rows=torch.arange(n_rows, device=batch.device),
        lengths=batch.lengths,
        columns=torch.arange(width, device=batch.device).expand(n_rows, width),
        completion=batch.completion_mask,
    )


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
    past = positions[:, :1] if mask is None else mask.shape[1] - width
    return EditContext(
        real,
        content,
        positions,
        rows=torch.arange(n_rows, device=tokens.device),
        lengths=positions[:, -1] + 1 if mask is None else mask.sum(1),
        columns=(torch.arange(width, device=tokens.device) + past).expand(n_rows, width),
    )


def _positions(kwargs: Mapping[str, Any], mask: Tensor | None, width: int, device: torch.device) -> Tensor:
    if mask is not None:
        return (mask.long().cumsum(1) - 1).clamp(min=0)
    cache = kwargs.get("past_key_values")
    past = cache.get_seq_length() if cache is not None else 0
    return torch.arange(past, past + width, device=device)[None]
