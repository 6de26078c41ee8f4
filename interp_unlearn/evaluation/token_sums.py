"""A quantity of every token, summed over each text's completion, or its whole content where it has none."""

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import torch
from jaxtyping import Float
from torch import Tensor

from interp_unlearn.errors import DataError, ScoreError
from interp_unlearn.interventions.buckets import length_buckets
from interp_unlearn.models import TokenBatch, tokenize

if TYPE_CHECKING:
    from interp_unlearn.interventions import HookedModel

TokenScore = Callable[[TokenBatch, Tensor], Float[Tensor, " tokens"]]
"""From a batch and the mask of counted tokens to a value for each of them that has a predecessor, row by row."""


@dataclass(frozen=True)
class TokenSums:
    """One entry a text, in input order.

    Attributes:
        sums: the quantity, summed over the counted tokens.
        tokens: how many were counted.
    """

    sums: list[float]
    tokens: list[int]

    @property
    def mean(self) -> float:
        """Mean per token, all tokens of all texts weighing the same.

        Raises:
            DataError: no token was counted.
        """
        if sum(self.tokens) == 0:
            raise DataError("texts", "no token has a predecessor to be predicted from; give longer texts")
        return sum(self.sums) / sum(self.tokens)


@torch.no_grad()
def sum_tokens(
    model: "HookedModel",
    texts: Sequence[str] | TokenBatch,
    completions: Sequence[str] | None,
    score: TokenScore,
    *,
    batch_size: int,
    max_length: int | None = None,
    progress: str | None = None,
) -> TokenSums:
    """Sum a quantity over the tokens of each text. Neither the BOS nor a token without a predecessor is counted.

    Texts longer than `max_length`, or where that is None than the model's context, are cut, which is logged.

    Raises:
        DataError: there are no texts, or one has no tokens.
        ScoreError: the quantity is infinite or NaN.
    """
    if isinstance(texts, TokenBatch):
        batch = texts.padded("right")
    else:
        kept = max_length or model.context_length
        batch = tokenize(model.tokenizer, texts, completions=completions, max_length=kept)
    counted = batch.content_mask if batch.completion_mask is None else batch.completion_mask
    rows = [tuple(ids[mask].tolist()) for ids, mask in zip(batch.input_ids, batch.mask, strict=True)]
    marks: list[list[bool]] = [row[mask].tolist() for row, mask in zip(counted, batch.mask, strict=True)]
    result = TokenSums([0.0] * len(rows), [0] * len(rows))
    for chosen, bucket in length_buckets(model, rows, batch_size, completions=marks, progress=progress):
        assert bucket.completion_mask is not None
        counts: list[int] = bucket.completion_mask[:, 1:].sum(1).tolist()
        if not any(counts):
            continue
        values = score(bucket, bucket.completion_mask).double()
        for row, count, part in zip(chosen, counts, values.split(counts), strict=True):
            result.sums[row], result.tokens[row] = float(part.sum()), count
            if not math.isfinite(result.sums[row]):
                raise ScoreError(
                    f"text {row}: the sum over its tokens is {result.sums[row]}; check the model's weights, or use a "
                    "wider dtype"
                )
    return result
