"""Rows sorted by length and cut into batches: little padding, and the order of the input kept in the indices."""

from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING

from tqdm import tqdm

from interp_unlearn.errors import ConfigError
from interp_unlearn.models import TokenBatch, tokenize

if TYPE_CHECKING:
    from interp_unlearn.interventions import HookedModel

TokenRow = tuple[int, ...]


def token_rows(model: "HookedModel", texts: Sequence[str]) -> list[TokenRow]:
    """The token ids of each text, with BOS and without padding.

    Raises:
        DataError: there are no texts, or one has no tokens.
    """
    batch = tokenize(model.tokenizer, texts)
    return [tuple(ids[mask].tolist()) for ids, mask in zip(batch.input_ids, batch.mask, strict=True)]


def length_buckets(
    model: "HookedModel",
    rows: Sequence[TokenRow],
    batch_size: int,
    *,
    completion_starts: Sequence[int] | None = None,
    progress: str | None = None,
) -> Iterator[tuple[list[int], TokenBatch]]:
    """Batches of rows of similar length, right-padded, with the index of each row; longest last.

    Args:
        progress: label of a progress bar; None shows none.

    Raises:
        ConfigError: the batch size is not positive.
    """
    if batch_size < 1:
        raise ConfigError(f"batch_size must be at least 1, got {batch_size}")
    order = sorted(range(len(rows)), key=lambda i: len(rows[i]))
    bos: int | None = model.tokenizer.bos_token_id  # pyright: ignore[reportAssignmentType]
    with tqdm(total=len(rows), desc=progress, disable=progress is None) as bar:
        for first in range(0, len(order), batch_size):
            chosen = order[first : first + batch_size]
            starts = None if completion_starts is None else [completion_starts[i] for i in chosen]
            batch = TokenBatch.from_rows([rows[i] for i in chosen], bos_token_id=bos, completion_starts=starts)
            yield chosen, batch.to(model.device)
            bar.update(len(chosen))
