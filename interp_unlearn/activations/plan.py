"""What a collection will do, known before it starts: passes, shards and bytes."""

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING

import numpy as np
import torch
from jaxtyping import Int

from interp_unlearn.activations.pooling import Pool, pooled_dtype
from interp_unlearn.activations.tokenized import TokenizedTexts
from interp_unlearn.interventions.buckets import cut_buckets
from interp_unlearn.sites import Site

if TYPE_CHECKING:
    import pandas as pd

    from interp_unlearn.interventions import HookedModel

SHARD_ROWS = 4096
"""Most texts of a shard."""
SHARD_BYTES = 256 * 2**20
"""Bytes at which a shard is full; one shard at a time is in memory."""


@dataclass(frozen=True)
class CollectionPlan:
    """The work of one collection.

    Attributes:
        n_texts: texts to read.
        n_cut: texts that are longer than `max_length` and are cut there.
        max_length: most tokens of a text; None where the model states no context length.
        n_tokens: tokens that are read, BOS included.
        n_padded_tokens: tokens the passes compute, padding included.
        n_passes: forward passes.
        n_vectors: vectors stored for each site; of a token-level store an upper bound.
        n_sites: sites read in each pass.
        deepest: the site after which every pass ends.
        n_bytes: bytes of all vectors.
        shard_starts: the first text of each shard.
        passes: the texts of each pass, shard by shard, longest texts first.
    """

    n_texts: int
    n_cut: int
    max_length: int | None
    n_tokens: int
    n_padded_tokens: int
    n_passes: int
    n_vectors: int
    n_sites: int
    deepest: str
    n_bytes: int
    shard_starts: tuple[int, ...]
    passes: tuple[tuple[tuple[int, ...], ...], ...]

    def __str__(self) -> str:
        padding = 1 - self.n_tokens / self.n_padded_tokens
        cut = f" ({self.n_cut:,} of them cut at {self.max_length} tokens)" if self.n_cut else ""
        return (
            f"{self.n_texts:,} texts{cut}, {self.n_tokens:,} tokens, {self.n_passes:,} passes to {self.deepest} "
            f"({padding:.1%} padding), {self.n_sites} sites, {self.n_bytes / 1e6:,.1f} MB in "
            f"{len(self.shard_starts):,} shard{'s' * (len(self.shard_starts) != 1)}"
        )

    def to_frame(self) -> "pd.DataFrame":
        """One row, without the list of passes."""
        import pandas as pd

        facts = {name: value for name, value in asdict(self).items() if name not in ("passes", "shard_starts")}
        return pd.DataFrame([{**facts, "n_shards": len(self.shard_starts)}])


def make_plan(
    model: "HookedModel",
    texts: TokenizedTexts,
    sites: Sequence[Site],
    pool: Pool,
    batch_tokens: int,
    max_length: int | None,
) -> CollectionPlan:
    """Cut texts into shards and passes.

    Raises:
        ConfigError: the budget of tokens is not positive.
        SiteError: the model has no such site.
    """
    lengths = texts.lengths
    itemsize = pooled_dtype(pool, model.dtype).itemsize
    width = sum(model.architecture.width_at(site) for site in sites) * itemsize
    vectors = lengths if pool == "none" else np.ones_like(lengths)
    starts = _cut_shards(vectors * width)
    passes: list[tuple[tuple[int, ...], ...]] = []
    for start, stop in zip(starts, (*starts[1:], len(texts)), strict=True):
        buckets = cut_buckets(lengths[start:stop].tolist(), tokens=batch_tokens)
        # The longest first: a lack of memory shows at once.
        passes.append(tuple(tuple(start + index for index in bucket) for bucket in reversed(buckets)))
    return CollectionPlan(
        n_texts=len(texts),
        n_cut=texts.n_cut,
        max_length=max_length,
        n_tokens=int(lengths.sum()),
        n_padded_tokens=sum(len(bucket) * int(lengths[list(bucket)].max()) for shard in passes for bucket in shard),
        n_passes=sum(map(len, passes)),
        n_vectors=int(vectors.sum()),
        n_sites=len(sites),
        deepest=str(max(sites)),
        n_bytes=int(vectors.sum()) * width,
        shard_starts=starts,
        passes=tuple(passes),
    )


def _cut_shards(row_bytes: Int[np.ndarray, " text"]) -> tuple[int, ...]:
    """First text of each shard: consecutive texts until a shard is full."""
    starts, size = [0], 0
    for row, more in enumerate(row_bytes.tolist()):
        if row > starts[-1] and (row - starts[-1] >= SHARD_ROWS or size + more > SHARD_BYTES):
            starts.append(row)
            size = 0
        size += more
    return tuple(starts)


def dtype_name(dtype: torch.dtype) -> str:
    """A dtype without the library's name."""
    return str(dtype).removeprefix("torch.")
