"""Rows sorted by length and cut into batches: little padding, and the order of the input kept in the indices."""

from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING

from tqdm import tqdm

from interp_unlearn.errors import ConfigError
from interp_unlearn.models import TokenBatch
from interp_unlearn.models.encoding import encode_rows

if TYPE_CHECKING:
    from interp_unlearn.interventions import HookedModel

TokenRow = tuple[int, ...]
MOST_PADDING = 0.05
"""Share of a batch's tokens that may be padding where a batch could end earlier."""


def token_rows(model: "HookedModel", texts: Sequence[str]) -> list[TokenRow]:
    """The token ids of each text, with BOS and without padding.

    Raises:
        DataError: there are no texts, or one has no tokens.
    """
    return [tuple(row) for row in encode_rows(model.tokenizer, texts).rows]


def cut_buckets(lengths: Sequence[int], *, rows: int | None = None, tokens: int | None = None) -> list[list[int]]:
    """Indices of rows sorted by length, shortest first, and cut into batches.

    With a limit on tokens a batch also ends where the next row would lengthen it so much that more than a twentieth
    of it were padding, once it holds an eighth of the limit: few texts then cost no more a token than many.

    Args:
        lengths: tokens of each row.
        rows: most rows of a batch.
        tokens: most tokens of a batch, padding included; a row that is longer is a batch by itself.

    Raises:
        ConfigError: a limit is not positive.
    """
    for name, limit in (("batch_size", rows), ("batch_tokens", tokens)):
        if limit is not None and limit < 1:
            raise ConfigError(f"{name} must be at least 1, got {limit}")
    buckets: list[list[int]] = []
    bucket: list[int] = []
    real = 0
    for index in sorted(range(len(lengths)), key=lambda i: lengths[i]):
        n_rows = len(bucket) + 1
        size = n_rows * lengths[index]
        full = rows is not None and n_rows > rows
        if tokens is not None:
            padding = 1 - (real + lengths[index]) / size
            full = full or size > tokens or (padding > MOST_PADDING and real >= tokens / 8)
        if bucket and full:
            buckets.append(bucket)
            bucket, real = [], 0
        bucket.append(index)
        real += lengths[index]
    return [*buckets, bucket] if bucket else buckets


def length_buckets(
    model: "HookedModel",
    rows: Sequence[TokenRow],
    batch_size: int,
    *,
    completion_starts: Sequence[int] | None = None,
    completions: Sequence[Sequence[bool]] | None = None,
    progress: str | None = None,
) -> Iterator[tuple[list[int], TokenBatch]]:
    """Batches of rows of similar length, right-padded, with the index of each row; longest last.

    Args:
        completion_starts: for each row, the index of its first completion token.
        completions: instead, for each token whether it belongs to a completion.
        progress: label of a progress bar; None shows none.

    Raises:
        ConfigError: the batch size is not positive.
    """
    bos: int | None = model.tokenizer.bos_token_id  # pyright: ignore[reportAssignmentType]
    with tqdm(total=len(rows), desc=progress, disable=progress is None) as bar:
        for chosen in cut_buckets([len(row) for row in rows], rows=batch_size):
            batch = TokenBatch.from_rows(
                [rows[i] for i in chosen],
                bos_token_id=bos,
                completion_starts=None if completion_starts is None else [completion_starts[i] for i in chosen],
                completions=None if completions is None else [completions[i] for i in chosen],
            )
            yield chosen, batch.to(model.device)
            bar.update(len(chosen))
