"""Two token-level stores of the same texts, one of the original and one of the changed model, read side by side.

A reviewer holds one model at a time: each is read once into a store, and what follows needs the stores alone.
"""

from collections.abc import Iterator

import numpy as np
import torch
from jaxtyping import Bool, Float
from torch import Tensor

from interp_unlearn.activations import ActivationStore
from interp_unlearn.errors import ConfigError, DataError
from interp_unlearn.sites import Site

TOKENS_AT_ONCE = 8192
"""Vectors of one store held in memory at a time, in double precision; a longer text is taken whole."""

TokenMask = Bool[np.ndarray, " token"]
"""Which tokens count, one entry for each vector of a token-level store."""


def check_paired(original: ActivationStore, changed: ActivationStore) -> tuple[Site, ...]:
    """Refuse two stores whose vectors do not belong to the same tokens at the same sites.

    Args:
        original: the original model's, collected with ``pool="none"``.
        changed: the changed model's.

    Returns:
        The sites, in the order of the pass.

    Raises:
        ConfigError: a store holds one vector a text, or the sites or their widths differ.
        DataError: the texts differ, or their tokens.
    """
    for name, store in (("original", original), ("changed", changed)):
        if not store.token_level:
            raise ConfigError(f"{name}: the store holds one vector per text; collect it with pool='none'")
    if set(original.sites) != set(changed.sites):
        odd = sorted(set(original.sites) ^ set(changed.sites))
        raise ConfigError(f"the stores hold different sites: {_listed(odd)} only in one; collect both at the same ones")
    _check_texts(original, changed)
    for site in original.sites:
        widths = [store.read(site, [0]).shape[1] for store in (original, changed)]
        if widths[0] != widths[1]:
            raise ConfigError(f"{site}: {widths[0]} wide in the original's store, {widths[1]} in the changed model's")
    return tuple(sorted(original.sites))


def token_chunks(
    store: ActivationStore, site: Site, keep: TokenMask | None = None
) -> Iterator[Float[Tensor, "tokens width"]]:
    """The vectors of a site in double precision, some texts at a time, those outside ``keep`` left out.

    Raises:
        SiteError: the store does not hold the site.
        ConfigError: ``keep`` does not fit the store's tokens, or the store holds one vector a text.
    """
    if not store.token_level:
        raise ConfigError("the store holds one vector per text; collect it with pool='none'")
    ends = store.rows["n_tokens"].to_numpy().cumsum()
    total = int(ends[-1])
    if keep is not None and keep.shape != (total,):
        raise ConfigError(f"a mask of tokens needs an entry for each of {total} tokens, got shape {keep.shape}")
    first, start = 0, 0
    while first < len(store):
        last = max(first + 1, int(np.searchsorted(ends, start + TOKENS_AT_ONCE, side="right")))
        stop = int(ends[last - 1])
        vectors = store.read(site, slice(first, last)).double()
        if keep is not None:
            vectors = vectors[torch.from_numpy(keep[start:stop])]
        if len(vectors):
            yield vectors
        first, start = last, stop


def paired_chunks(
    original: ActivationStore, changed: ActivationStore, site: Site, keep: TokenMask | None = None
) -> Iterator[tuple[Float[Tensor, "tokens width"], Float[Tensor, "tokens width"]]]:
    """The vectors of the same tokens in both stores, which `check_paired` has passed."""
    return zip(token_chunks(original, site, keep), token_chunks(changed, site, keep), strict=True)


def _check_texts(original: ActivationStore, changed: ActivationStore) -> None:
    if len(original) != len(changed):
        raise DataError("changed", f"{len(changed)} texts there, {len(original)} in the original's store")
    if original.texts is not None and changed.texts is not None:
        pairs = enumerate(zip(original.texts, changed.texts, strict=True))
        different = [row for row, (ours, theirs) in pairs if ours != theirs]
        if different:
            raise DataError(
                "changed", f"text {different[0]} is another one than in the original's store; collect the same texts"
            )
    counts, others = (store.rows["n_tokens"].to_numpy() for store in (original, changed))
    hint = "collect both with the same tokenizer, tokens, max_length and include_bos"
    if (counts != others).any():
        row = int(np.flatnonzero(counts != others)[0])
        raise DataError(
            "changed", f"text {row} has {others[row]} tokens there, {counts[row]} in the original's; {hint}"
        )
    ids, other_ids = (store.token_frame()["token_id"].to_numpy() for store in (original, changed))
    if (ids != other_ids).any():
        place = int(np.flatnonzero(ids != other_ids)[0])
        row = int(np.searchsorted(counts.cumsum(), place, side="right"))
        raise DataError("changed", f"the tokens of text {row} have other ids there than in the other store; {hint}")


def _listed(sites: list[Site]) -> str:
    return ", ".join(map(str, sites[:6])) + (", ..." if len(sites) > 6 else "")
