"""Collecting activations: one pass per batch, pooled at once, so that no token-level activation outlives its batch."""

import logging
from collections import defaultdict
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from jaxtyping import Int
from numpy.typing import ArrayLike
from torch import Tensor
from tqdm import tqdm

from interp_unlearn.activations.pooling import Pool, pool_tokens
from interp_unlearn.activations.shards import SHARD_ROWS, TOKEN_COUNTS, ShardWriter
from interp_unlearn.activations.store import IDENTITY, ActivationStore, hash_data
from interp_unlearn.artifacts import environment
from interp_unlearn.errors import ConfigError, DataError
from interp_unlearn.models import TokenBatch
from interp_unlearn.sites import Site

if TYPE_CHECKING:
    import pandas as pd

    from interp_unlearn.interventions import HookedModel

_LOG = logging.getLogger(__name__)


def collect(
    model: "HookedModel",
    texts: Sequence[str],
    sites: Sequence[Site],
    pool: Pool = "mean",
    *,
    completions: Sequence[str] | None = None,
    labels: ArrayLike | None = None,
    groups: Sequence[object] | None = None,
    keep_texts: bool = True,
    out: str | Path | None = None,
    batch_size: int = 32,
    max_length: int | None = None,
    include_bos: bool = False,
    progress: bool = True,
) -> ActivationStore:
    """Read the sites on every text and pool over its tokens, in float32; rows come in the order of the texts.

    With ``out`` vectors are streamed to that folder and memory stays bounded; the same call on a folder that an
    interrupted collection left behind does only what is missing.
    Caveat: edits active around the call (``model.edited``) are in the vectors but not in the store's identity; give
    each its own folder.

    Args:
        model: the model; the pass ends after the deepest site.
        texts: prompts, where ``completions`` are given.
        sites: where to read.
        pool: "mean" over the text's tokens or the "last" one.
        completions: appended to the texts; then only completion tokens are pooled.
        labels: one integer or boolean per text, kept in the store.
        groups: one key per text, kept in the store as a string; rows of a group never straddle a probe's folds.
        keep_texts: keep the texts (with their completions) in the store; the bag-of-words control needs them.
        out: folder to stream to; None keeps everything in memory.
        batch_size: texts in a pass; texts of similar length share one.
        max_length: tokens after which a text is cut.
        include_bos: pool the beginning-of-sequence token too (no effect with completions).
        progress: show a progress bar.

    Raises:
        DataError: there are no texts, or one has no token to pool.
        ConfigError: settings out of range, or lengths that differ.
        SiteError: the model has no such site.
        ArtifactError: ``out`` holds something else.
    """
    if not texts:
        raise DataError("texts", "no texts to collect activations from; expected at least one")
    if batch_size < 1:
        raise ConfigError(f"batch_size: expected at least 1, got {batch_size}")
    if not sites or len(set(sites)) < len(sites):
        raise ConfigError(f"sites: expected at least one and each once, got {', '.join(map(str, sites)) or 'none'}")
    if pool not in ("mean", "last"):
        raise ConfigError(f"pool: expected mean or last, got {pool!r}")
    rows = _describe_rows(texts, completions, labels, groups, keep_texts)
    metadata: dict[str, Any] = {
        "model": model.name,
        "model_hash": model.hash(),
        "data_hash": hash_data([list(texts), None if completions is None else list(completions)]),
        "pool": pool,
        "completions": completions is not None,
        "include_bos": include_bos,
        "max_length": max_length,
        "dtype": str(model.dtype).removeprefix("torch."),
        "backend": str(model.backend),
        "versions": environment(),
    }
    size = len(texts) * len(sites) * model.d_model * 4 / 1e6
    _LOG.info("activations: %d texts x %d sites x %d floats, %.1f MB", len(texts), len(sites), model.d_model, size)

    writer = None if out is None else ShardWriter(Path(out), tuple(sites), len(texts), metadata, IDENTITY)
    parts: list[dict[str, Tensor]] = []
    with tqdm(total=len(texts), unit="text", desc="collect", disable=not progress) as bar:
        for start in range(0, len(texts), SHARD_ROWS):
            shard = slice(start, start + SHARD_ROWS)
            if writer is not None and writer.has(start):
                bar.update(len(texts[shard]))
                continue
            tails = None if completions is None else completions[shard]
            tensors: dict[str, list[Tensor]] = defaultdict(list)
            order = _order_by_length(model, texts[shard], tails, max_length)
            for rows_of_batch in order.split(batch_size):
                batch = _tokenize_rows(model, texts[shard], tails, max_length, rows_of_batch.tolist())
                for name, values in _pool_batch(model, batch, sites, pool, include_bos).items():
                    tensors[name].append(values)
                bar.update(len(batch))
            in_order = {name: torch.cat(values)[order.argsort()] for name, values in tensors.items()}
            if writer is None:
                parts.append(in_order)
            else:
                writer.write(start, in_order)
    if writer is None:
        rows["n_tokens"] = torch.cat([part[TOKEN_COUNTS] for part in parts]).numpy()
        return ActivationStore({site: torch.cat([part[str(site)] for part in parts]) for site in sites}, rows, metadata)
    rows["n_tokens"] = writer.read_token_counts().numpy()
    writer.finish(rows)
    return ActivationStore.open(str(out))


def _order_by_length(
    model: "HookedModel", texts: Sequence[str], completions: Sequence[str] | None, max_length: int | None
) -> Int[Tensor, " row"]:
    """Row indices, longest text first: little padding, and a lack of memory shows at once."""
    lengths = model.tokenize(texts, completions=completions, max_length=max_length).lengths.cpu()
    return lengths.argsort(descending=True, stable=True)


def _tokenize_rows(
    model: "HookedModel",
    texts: Sequence[str],
    completions: Sequence[str] | None,
    max_length: int | None,
    rows: list[int],
) -> TokenBatch:
    """Some rows, padded to the longest of them only."""
    tails = None if completions is None else [completions[row] for row in rows]
    return model.tokenize([texts[row] for row in rows], completions=tails, max_length=max_length)


def _pool_batch(
    model: "HookedModel", batch: TokenBatch, sites: Sequence[Site], pool: Pool, include_bos: bool
) -> dict[str, Tensor]:
    if batch.completion_mask is not None:
        mask = batch.completion_mask
    else:
        mask = batch.mask if include_bos else batch.content_mask
    with torch.no_grad():
        trace = model.run(batch, reads=list(sites))
    pooled = {str(site): pool_tokens(trace[site], mask, pool).cpu() for site in sites}
    return {**pooled, TOKEN_COUNTS: mask.sum(1).cpu()}


def _describe_rows(
    texts: Sequence[str],
    completions: Sequence[str] | None,
    labels: ArrayLike | None,
    groups: Sequence[object] | None,
    keep_texts: bool,
) -> "pd.DataFrame":
    """The table of rows, checked before any pass is made."""
    import pandas as pd

    columns: dict[str, Any] = {"n_tokens": np.zeros(len(texts), dtype=np.int64)}
    for name, given in (("completions", completions), ("groups", groups)):
        if given is not None and len(given) != len(texts):
            raise ConfigError(f"{name}: expected one per text ({len(texts)}), got {len(given)}")
    if keep_texts:
        tails = completions or [""] * len(texts)
        columns["text"] = [text + tail for text, tail in zip(texts, tails, strict=True)]
    if labels is not None:
        values = np.asarray(labels)
        if values.shape != (len(texts),) or values.dtype.kind not in "biu":
            raise ConfigError(f"labels: expected {len(texts)} integers or booleans, got {values.dtype} {values.shape}")
        columns["label"] = values.astype(np.int64)
    if groups is not None:
        columns["group"] = [str(group) for group in groups]
    return pd.DataFrame(columns)
