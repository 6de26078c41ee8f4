"""Collecting activations: pooled inside the hook, so that no token-level activation outlives its block."""

import logging
from collections import defaultdict
from collections.abc import Iterator, Sequence
from contextlib import nullcontext
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from jaxtyping import Bool
from numpy.typing import ArrayLike
from torch import Tensor
from tqdm import tqdm

from interp_unlearn.activations.plan import CollectionPlan, dtype_name, make_plan
from interp_unlearn.activations.pooling import Pool, pool_tokens
from interp_unlearn.activations.shards import TOKEN_COUNTS, TOKEN_IDS, ShardWriter
from interp_unlearn.activations.store import IDENTITY, ActivationStore, hash_data
from interp_unlearn.activations.tokenized import TokenizedTexts
from interp_unlearn.artifacts import claimed, environment
from interp_unlearn.errors import ConfigError, DataError
from interp_unlearn.interventions.contexts import context_of_batch
from interp_unlearn.interventions.selections import Span, Tokens, check_tokens, selected_tokens
from interp_unlearn.models import TokenBatch
from interp_unlearn.models.processes import ALONE, Processes
from interp_unlearn.sites import Site

if TYPE_CHECKING:
    import pandas as pd

    from interp_unlearn.interventions import HookedModel

_LOG = logging.getLogger(__name__)

BATCH_TOKENS = 4096
"""Tokens of a pass, padding included: enough to fill two CPU cores; more helps on a GPU."""


def collect(
    model: "HookedModel",
    texts: Sequence[str],
    sites: Sequence[Site],
    pool: Pool = "mean",
    *,
    tokens: Tokens | None = None,
    completions: Sequence[str] | None = None,
    labels: ArrayLike | None = None,
    groups: Sequence[object] | None = None,
    keep_texts: bool = True,
    out: str | Path | None = None,
    batch_tokens: int = BATCH_TOKENS,
    max_length: int | None = None,
    include_bos: bool = False,
    progress: bool = True,
    processes: Processes = ALONE,
) -> ActivationStore:
    """Read the sites on every text and pool over its tokens; rows come in the order of the texts.

    With ``out`` vectors are streamed to that folder and memory stays bounded by one shard; the same call on a folder
    that an interrupted collection left behind does only what is missing.
    Several processes share the work by whole shards, see `processes`; the store is that of one process, byte for byte,
    and either can take up what the other left behind.
    Caveat: edits active around the call (``model.edited``) are in the vectors but not in the store's identity; give
    each its own folder. ``batch_tokens`` decides which texts share a pass, and so the last bits of the vectors.

    Args:
        model: the model; every pass ends after the deepest site.
        texts: prompts, where ``completions`` are given.
        sites: where to read.
        pool: "mean" over a text's tokens or the "last" of them, in float32; "none" keeps every token's vector, in the
            model's precision.
        tokens: which tokens count: "all", "last", "prompt", "completion" or a `Span`; None for the completion where
            completions are given, otherwise all.
        completions: appended to the texts.
        labels: one integer or boolean per text, kept in the store.
        groups: one key per text, kept in the store as a string; rows of a group never straddle a probe's folds.
        keep_texts: keep the texts (with their completions) in the store; the bag-of-words control needs them.
        out: folder to stream to; None keeps everything in memory.
        batch_tokens: tokens of a pass, padding included; texts of similar length share one.
        max_length: tokens after which a text is cut; None for the model's context length. The plan says how many are.
        include_bos: count the beginning-of-sequence token too.
        progress: show a progress bar.
        processes: those that make this very call together, see `Processes.of_torchrun`: each does its share of the
            shards on its own device, and all of them return the whole store.

    Raises:
        DataError: there are no texts, one has no token to pool, or an activation is not finite.
        ConfigError: settings out of range, or lengths that differ.
        SiteError: the model has no such site.
        ArtifactError: ``out`` holds something else.
    """
    tokens = _checked(texts, sites, pool, tokens, completions)
    if out is None and processes.size > 1:
        raise ConfigError("several processes share a store on disk; give out, a folder that all of them see")
    rows = _describe_rows(texts, completions, labels, groups, keep_texts)
    max_length = _length(max_length, model)
    tokenized = TokenizedTexts.of(model.tokenizer, texts, completions, max_length)
    plan = make_plan(model, tokenized, sites, pool, batch_tokens, max_length)
    metadata: dict[str, Any] = {
        "model": model.name,
        "model_hash": model.hash(),
        "data_hash": hash_data([*texts, None, *(completions or ())]),
        "pool": pool,
        "tokens": tokens if isinstance(tokens, str) else repr(tokens),
        "include_bos": include_bos,
        "max_length": max_length,
        "batch_tokens": batch_tokens,
        "token_ids_hash": tokenized.hash(),
        "rows_hash": hash_data([rows[name].tolist() if name in rows else None for name in ("label", "group")]),
        "dtype": dtype_name(model.dtype),
        "backend": model.backend,
        "versions": environment(),
    }
    # The first process holds the folder for all of them, until the last one is done.
    with nullcontext() if out is None or not processes.is_first else claimed(out, None):
        with processes.first_before_others():
            writer = (
                None
                if out is None
                else ShardWriter(
                    Path(out), tuple(sites), plan.shard_starts, len(texts), metadata, IDENTITY, goes_on=True
                )
            )
        if processes.is_first:
            _LOG.log(logging.WARNING if plan.n_cut else logging.INFO, "%s", plan)
        shards = processes.own(list(zip(plan.shard_starts, plan.passes, strict=True)))
        parts: list[dict[str, Tensor]] = []
        reader = _Reader(model, sites, pool, tokens, include_bos)
        with tqdm(
            total=sum(_padded(tokenized, passes) for _, passes in shards),
            unit="token",
            unit_scale=True,
            desc="collect",
            disable=not (progress and processes.is_first),
        ) as bar:
            for start, passes in shards:
                if writer is not None and writer.has(start):
                    bar.update(_padded(tokenized, passes))
                    continue
                shard = _in_order(passes, _read_passes(reader, tokenized, passes, bar), start, pool)
                if writer is None:
                    parts.append(shard)
                else:
                    writer.write(start, shard)
        if writer is not None:
            processes.wait()
            with processes.first_before_others():
                if processes.is_first:
                    rows["n_tokens"] = writer.read_token_counts()
                    writer.finish(rows)
            return ActivationStore.open(str(out))
        whole = parts[0] if len(parts) == 1 else {name: torch.cat([part[name] for part in parts]) for name in parts[0]}
        rows["n_tokens"] = whole[TOKEN_COUNTS].numpy()
        return ActivationStore({site: whole[str(site)] for site in sites}, rows, metadata, whole.get(TOKEN_IDS))


def plan_collection(
    model: "HookedModel",
    texts: Sequence[str],
    sites: Sequence[Site],
    pool: Pool = "mean",
    *,
    completions: Sequence[str] | None = None,
    batch_tokens: int = BATCH_TOKENS,
    max_length: int | None = None,
) -> CollectionPlan:
    """What `collect` with these arguments would do: passes, tokens, shards and bytes. No pass is made.

    Raises:
        As `collect`.
    """
    _checked(texts, sites, pool, None, completions)
    max_length = _length(max_length, model)
    tokenized = TokenizedTexts.of(model.tokenizer, texts, completions, max_length)
    return make_plan(model, tokenized, sites, pool, batch_tokens, max_length)


class _Reader:
    """Makes one pass and returns what is kept of it."""

    def __init__(
        self, model: "HookedModel", sites: Sequence[Site], pool: Pool, tokens: Tokens, include_bos: bool
    ) -> None:
        self.model, self.sites, self.include_bos = model, sites, include_bos
        self.pool: Pool = pool
        self.tokens: Tokens = tokens

    @torch.no_grad()
    def read(self, batch: TokenBatch, texts: Sequence[int]) -> dict[str, Tensor]:
        """Pooled vectors by site, token counts, and for single tokens their ids, in the order of the batch."""
        batch = batch.to(self.model.device)
        mask = self._mask(batch)
        counts = mask.sum(1).cpu()
        if not bool(counts.all()):
            row = texts[int((counts == 0).nonzero()[0])]
            raise DataError(
                "texts", f"text {row} has no token to pool ({self.tokens}); drop it, or choose other tokens"
            )
        masks = {mask.device: mask}

        def keep(site: Site, activation: Tensor, context: object) -> Tensor:
            there = masks.setdefault(activation.device, mask.to(activation.device))
            return pool_tokens(activation, there, self.pool, checked=True)

        trace = self.model.run(batch, reads=self.sites, keep=keep)
        found: dict[str, Tensor] = {}
        for site in self.sites:
            name, vectors = str(site), trace[site]
            if not bool(torch.isfinite(vectors).all()):  # looked at where they lie: a GPU reads faster than it copies
                broken = (~torch.isfinite(vectors)).any(1).cpu()
                first = int(broken.nonzero()[0])
                row = first if self.pool != "none" else int(torch.searchsorted(counts.cumsum(0), first, right=True))
                raise DataError(
                    "texts",
                    f"text {texts[row]}: activations at {name} hold infinite values or NaN; use a wider dtype, or "
                    "check the model's weights",
                )
            found[name] = vectors.cpu()
        found[TOKEN_COUNTS] = counts
        return found | ({TOKEN_IDS: batch.input_ids[mask].cpu().int()} if self.pool == "none" else {})

    def _mask(self, batch: TokenBatch) -> Bool[Tensor, "batch pos"]:
        mask = batch.mask if self.include_bos else batch.content_mask
        return mask & selected_tokens(self.tokens, batch.input_ids, context_of_batch(batch))


def _padded(texts: TokenizedTexts, passes: Sequence[Sequence[int]]) -> int:
    """Tokens that some passes compute, padding included."""
    return sum(len(chosen) * int(texts.lengths[list(chosen)].max()) for chosen in passes)


def _read_passes(
    reader: _Reader, texts: TokenizedTexts, passes: Sequence[Sequence[int]], bar: "tqdm[Any]"
) -> Iterator[dict[str, Tensor]]:
    for chosen in passes:
        batch = texts.batch(chosen)
        yield reader.read(batch, chosen)
        bar.update(batch.input_ids.numel())


def _in_order(
    passes: Sequence[Sequence[int]], found: Iterator[dict[str, Tensor]], start: int, pool: Pool
) -> dict[str, Tensor]:
    """What the passes of one shard found, in the order of the texts."""
    if pool != "none":
        return _pooled_in_order(passes, found, start)
    parts: dict[str, list[Tensor]] = defaultdict(list)
    for one in found:
        for name, values in one.items():
            parts[name].append(values)
    order = torch.tensor([text - start for chosen in passes for text in chosen]).argsort()
    counts = torch.cat(parts.pop(TOKEN_COUNTS))
    ends = counts.cumsum(0)
    rows = torch.cat([torch.arange(int(ends[i] - counts[i]), int(ends[i])) for i in order.tolist()])
    shard = {TOKEN_COUNTS: counts[order]}
    while parts:
        name, values = parts.popitem()
        shard[name] = torch.cat(values)[rows]
    return shard


def _pooled_in_order(
    passes: Sequence[Sequence[int]], found: Iterator[dict[str, Tensor]], start: int
) -> dict[str, Tensor]:
    """The same for one vector a text, each put in its place at once: the shard is held in memory only once."""
    n_rows = sum(map(len, passes))
    shard: dict[str, Tensor] = {}
    for chosen, one in zip(passes, found, strict=True):
        places = torch.tensor(chosen) - start
        for name, values in one.items():
            if name not in shard:
                shard[name] = values.new_empty(n_rows, *values.shape[1:])
            shard[name][places] = values
    return shard


def _length(max_length: int | None, model: "HookedModel") -> int | None:
    """After how many tokens texts are cut."""
    if max_length is not None and max_length < 1:
        raise ConfigError(f"max_length must be at least 1, got {max_length}")
    return max_length or model.context_length


def _checked(
    texts: Sequence[str], sites: Sequence[Site], pool: Pool, tokens: Tokens | None, completions: Sequence[str] | None
) -> Tokens:
    """Refuse settings that make no sense; the tokens that count."""
    if not texts:
        raise DataError("texts", "no texts to collect activations from; expected at least one")
    if not sites or len(set(sites)) < len(sites):
        raise ConfigError(f"sites: expected at least one and each once, got {', '.join(map(str, sites)) or 'none'}")
    if pool not in ("mean", "last", "none"):
        raise ConfigError(f"pool: expected mean, last or none, got {pool!r}")
    if tokens is None:
        return "all" if completions is None else "completion"
    check_tokens(tokens)
    if not isinstance(tokens, str | Span):
        raise ConfigError(f"tokens: a collection takes a name or a Span, got {type(tokens).__name__}")
    return tokens


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
        whole = texts if completions is None else [a + b for a, b in zip(texts, completions, strict=True)]
        columns["text"] = list(whole)
    if labels is not None:
        values = np.asarray(labels)
        if values.shape != (len(texts),) or values.dtype.kind not in "biu":
            raise ConfigError(f"labels: expected {len(texts)} integers or booleans, got {values.dtype} {values.shape}")
        columns["label"] = values.astype(np.int64)
    if groups is not None:
        columns["group"] = [str(group) for group in groups]
    return pd.DataFrame(columns)
