"""How far activations have moved, token by token."""

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING

import torch
import torch.nn.functional as F
from torch import Tensor

from interp_unlearn.activations import ActivationStore
from interp_unlearn.drift.paired import TokenMask, check_paired, paired_chunks
from interp_unlearn.errors import DataError
from interp_unlearn.interventions import HookedModel
from interp_unlearn.interventions.buckets import length_buckets, token_rows
from interp_unlearn.models import TokenBatch
from interp_unlearn.sites import Site
from interp_unlearn.unlearning import Reference

if TYPE_CHECKING:
    import pandas as pd

_NOT_FINITE = "hold infinite values or NaN; use a wider dtype, or check the models' weights"
_MEASURES = ("relative_displacement", "cosine", "norm_ratio")


@torch.no_grad()
def measure_drift(
    model: HookedModel,
    reference: HookedModel | Reference,
    texts: Mapping[str, Sequence[str]],
    sites: Sequence[Site],
    *,
    batch_size: int = 64,
) -> "pd.DataFrame":
    """Compare a model's activations with its original's on the same tokens; BOS and padding do not count.

    Layers below the first changed tensor must come out at exactly 0: that is a check of the whole set-up. Caveat: a few
    dimensions of very large values dominate norms and cosines in large models.

    Args:
        model: the changed model.
        reference: the original: another model, or the values kept during training.
        texts: texts of each corpus ("forget", "retain", ...).
        sites: where to compare.
        batch_size: rows at a time.

    Returns:
        One row a corpus and site, means over tokens: site, layer (null for the embedding), corpus,
        relative_displacement (||h - h0|| / ||h0||), cosine (of h and h0), norm_ratio (||h|| / ||h0||), n_tokens.

    Raises:
        DataError: a corpus is empty, or activations on a text are not finite.
    """
    import pandas as pd

    if not texts:
        raise DataError("texts", 'no corpora; expected for example {"forget": [...], "retain": [...]}')
    rows: list[dict[str, object]] = []
    for corpus, members in texts.items():
        totals = {site: torch.zeros(len(_MEASURES), dtype=torch.float64) for site in sites}
        n_tokens = 0
        for rows_there, batch in length_buckets(model, token_rows(model, members), batch_size):
            mask = batch.content_mask
            n_tokens += int(mask.sum())
            before = _original(model, reference, batch, sites)
            after = model.run(batch, reads=sites)
            for site in sites:
                h, h0 = after[site], before[site].to(model.device)
                for whose, states in (("changed model", h), ("original", h0)):
                    spoiled = ~torch.isfinite(states).all(-1) & mask.to(states.device)
                    if bool(spoiled.any()):
                        text = rows_there[int(spoiled.any(1).nonzero()[0])]
                        raise DataError(corpus, f"text {text}: activations of the {whose} at {site} {_NOT_FINITE}")
                totals[site] += _token_sums(h[mask], h0[mask])
        for site in sites:
            means = dict(zip(_MEASURES, (totals[site] / n_tokens).tolist(), strict=True))
            rows.append({"site": str(site), "layer": site.layer, "corpus": corpus, **means, "n_tokens": n_tokens})
    return pd.DataFrame(rows).astype({"layer": "Int64"})


@torch.no_grad()
def displacement(
    original: ActivationStore, changed: ActivationStore, *, corpus: str = "all", keep: TokenMask | None = None
) -> "pd.DataFrame":
    """The same from two token-level stores, so that one model at a time was in memory.

    Args:
        original: the original's token-level store.
        changed: the changed model's, of the same tokens.
        corpus: what the corpus is called in the table.
        keep: which tokens count; None for all. BOS counts where the stores hold it.

    Returns:
        One row a site, as `measure_drift`.

    Raises:
        ConfigError: the stores do not fit each other.
        DataError: the texts or tokens differ, no token counts, or a store holds values that are not finite.
    """
    import pandas as pd

    rows: list[dict[str, object]] = []
    for site in check_paired(original, changed):
        total, n_tokens = torch.zeros(len(_MEASURES), dtype=torch.float64), 0
        for h0, h in paired_chunks(original, changed, site, keep):
            total += _token_sums(h, h0)
            n_tokens += len(h)
        if not bool(total.isfinite().all()):
            raise DataError(corpus, f"activations at {site} {_NOT_FINITE}")
        if not n_tokens:
            raise DataError("tokens", "none count; widen the mask, or give more texts")
        means = dict(zip(_MEASURES, (total / n_tokens).tolist(), strict=True))
        rows.append({"site": str(site), "layer": site.layer, "corpus": corpus, **means, "n_tokens": n_tokens})
    return pd.DataFrame(rows).astype({"layer": "Int64"})


def _original(
    model: HookedModel, reference: HookedModel | Reference, batch: TokenBatch, sites: Sequence[Site]
) -> Mapping[Site, Tensor]:
    if isinstance(reference, Reference):
        with reference.original():
            trace = model.run(batch, reads=sites)
    else:
        trace = reference.run(batch, reads=sites)
    return {site: trace[site] for site in sites}


def _token_sums(h: Tensor, h0: Tensor) -> Tensor:
    """The measures summed over tokens, in float64."""
    h, h0 = h.double(), h0.double()
    norm = h0.norm(dim=-1).clamp_min(torch.finfo(torch.float64).tiny)
    displacement = (h - h0).norm(dim=-1) / norm
    return torch.stack(
        [displacement.sum(), F.cosine_similarity(h, h0, dim=-1).sum(), (h.norm(dim=-1) / norm).sum()]
    ).cpu()
