"""Token batches: texts are tokenised once, here, and every backend gets ids, mask and positions."""

import logging
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import TYPE_CHECKING, Literal

import torch
from jaxtyping import Bool, Int
from torch import Tensor

from interp_unlearn.errors import DataError
from interp_unlearn.models.encoding import encode_rows, special_id

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase

logger = logging.getLogger(__name__)

PaddingSide = Literal["left", "right"]
TensorMap = Callable[[Tensor], Tensor]


@dataclass(frozen=True, eq=False)
class TokenBatch:
    """Token rows of one length, with what a model needs to tell tokens from padding.

    Attributes:
        input_ids: token ids; padding holds some id, so only the mask says what is real.
        attention_mask: 1 on real tokens, 0 on padding.
        position_ids: position of each token in its own row, counted from 0 at the first real token.
        bos_token_id: id of the beginning-of-sequence token, if the tokenizer has one.
        completion_mask: True on the tokens of the completion, where texts were given as prompt and completion.
    """

    input_ids: Int[Tensor, "batch pos"]
    attention_mask: Int[Tensor, "batch pos"]
    position_ids: Int[Tensor, "batch pos"]
    bos_token_id: int | None = None
    completion_mask: Bool[Tensor, "batch pos"] | None = None

    @classmethod
    def from_rows(
        cls,
        rows: Sequence[Sequence[int]],
        *,
        bos_token_id: int | None = None,
        pad_token_id: int = 0,
        padding_side: PaddingSide = "right",
        completion_starts: Sequence[int] | None = None,
        completions: Sequence[Sequence[bool]] | None = None,
    ) -> "TokenBatch":
        """Pad rows of token ids to one length.

        Args:
            rows: token ids, BOS included where it is wanted.
            bos_token_id: which id counts as BOS at the start of a row.
            pad_token_id: id written into the padding; it may equal a real token.
            padding_side: "right", or "left" as generation needs it.
            completion_starts: for each row, the index of its first completion token.
            completions: instead, for each token whether it belongs to a completion: there may be several in a row.

        Raises:
            DataError: there are no rows, or one of them is empty.
        """
        if not rows:
            raise DataError("batch", "no rows; expected at least one text")
        lengths = [len(row) for row in rows]
        width = max(lengths)
        if min(lengths) == 0:
            raise DataError("batch", f"row {lengths.index(0)} has no tokens; drop empty texts")
        columns = torch.arange(width).expand(len(rows), width)
        length = torch.tensor(lengths)[:, None]
        if padding_side == "right":
            ids = [[*row, *[pad_token_id] * (width - len(row))] for row in rows]
            positions = columns
        else:
            ids = [[*[pad_token_id] * (width - len(row)), *row] for row in rows]
            positions = columns - (width - length)
        mask = (positions >= 0) & (positions < length)
        completion = None
        if completion_starts is not None:
            completion = mask & (positions >= torch.tensor(completion_starts)[:, None])
        elif completions is not None:
            completion = torch.zeros_like(mask)
            completion[mask] = torch.tensor([token for row in completions for token in row])
        return cls(torch.tensor(ids), mask.long(), positions * mask, bos_token_id, completion)

    @cached_property
    def mask(self) -> Bool[Tensor, "batch pos"]:
        """Real tokens, BOS included."""
        return self.attention_mask.bool()

    @cached_property
    def content_mask(self) -> Bool[Tensor, "batch pos"]:
        """Real tokens that are not the leading BOS."""
        return content_mask(self.input_ids, self.mask, self.position_ids, self.bos_token_id)

    @cached_property
    def lengths(self) -> Int[Tensor, " batch"]:
        """Number of real tokens in each row, BOS included."""
        return self.attention_mask.sum(1)

    @cached_property
    def longest(self) -> int:
        """Real tokens of the longest row; 0 where there are no rows."""
        return int(self.lengths.max()) if len(self) else 0

    @cached_property
    def id_range(self) -> tuple[int, int]:
        """The smallest and the largest id, padding included."""
        smallest, largest = self.input_ids.aminmax()
        return int(smallest), int(largest)

    @property
    def device(self) -> torch.device:
        return self.input_ids.device

    def __len__(self) -> int:
        return self.input_ids.shape[0]

    def select(self, rows: slice | Sequence[int] | Tensor) -> "TokenBatch":
        """The given rows, at the same width."""
        index = torch.as_tensor(rows, dtype=torch.long, device=self.device) if isinstance(rows, Sequence) else rows
        return self._map(lambda tensor: tensor[index])

    def to(self, device: str | torch.device) -> "TokenBatch":
        """The same batch on another device; the batch itself if it is there already."""
        return self if self.device == torch.device(device) else self._map(lambda tensor: tensor.to(device))

    def padded(self, side: PaddingSide) -> "TokenBatch":
        """The same rows with all padding on one side, for generation (left) or scoring (right)."""
        order = self.order(side)
        if torch.equal(order, torch.arange(order.shape[1], device=self.device).expand_as(order)):
            return self
        return self._map(lambda tensor: tensor.gather(1, order))

    def order(self, side: PaddingSide) -> Int[Tensor, "batch pos"]:
        """The columns that the tokens come from when all padding is put on one side."""
        return torch.argsort(self.mask.long(), dim=1, stable=True, descending=side == "right")

    def _map(self, change: TensorMap) -> "TokenBatch":
        return TokenBatch(
            change(self.input_ids),
            change(self.attention_mask),
            change(self.position_ids),
            self.bos_token_id,
            None if self.completion_mask is None else change(self.completion_mask),
        )


def content_mask(
    input_ids: Int[Tensor, "batch pos"],
    mask: Bool[Tensor, "batch pos"],
    positions: Int[Tensor, "batch pos"],
    bos_token_id: int | None,
) -> Bool[Tensor, "batch pos"]:
    """Real tokens that are not the leading BOS; a BOS id in the middle of a row is content."""
    if bos_token_id is None:
        return mask
    return mask & ~((input_ids == bos_token_id) & (positions == 0))


def tokenize(
    tokenizer: "PreTrainedTokenizerBase",
    texts: Sequence[str],
    *,
    completions: Sequence[str] | None = None,
    add_bos: bool = True,
    max_length: int | None = None,
    padding_side: PaddingSide = "right",
) -> TokenBatch:
    """Turn texts into one batch. The mask comes from the lengths, never from comparing ids with the padding id.

    Args:
        tokenizer: a Hugging Face tokenizer; its own special tokens are not added.
        texts: the texts, or the prompts where completions are given.
        completions: tokenised apart and appended, so that the border falls between tokens; marked in
            `completion_mask`. Each brings its own leading space or none (`encode_continuations`).
        add_bos: prepend one BOS if the tokenizer has one.
        max_length: longest row in tokens, BOS included; what is over is cut at the end, and how many are is logged.
        padding_side: where shorter rows are padded.

    Raises:
        DataError: there are no texts, one is no text or has no tokens, or `max_length` cuts a whole completion away.
        ConfigError: the numbers of texts and completions differ.
    """
    encoded = encode_rows(tokenizer, texts, completions=completions, add_bos=add_bos, max_length=max_length)
    if encoded.n_cut:
        logger.warning("%d of %d texts are cut at %d tokens", encoded.n_cut, len(texts), max_length)
    pad = next((i for i in (special_id(tokenizer, "pad"), special_id(tokenizer, "eos")) if i is not None), 0)
    return TokenBatch.from_rows(
        encoded.rows,
        bos_token_id=special_id(tokenizer, "bos"),
        pad_token_id=pad,
        padding_side=padding_side,
        completion_starts=encoded.completion_starts,
    )
