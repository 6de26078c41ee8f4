"""Massive activations: a few dimensions that are so large that norms and cosines are about them alone."""

from typing import TYPE_CHECKING

import torch
from jaxtyping import Float
from torch import Tensor

from interp_unlearn.activations import ActivationStore
from interp_unlearn.drift.paired import TokenMask, check_paired, paired_chunks
from interp_unlearn.errors import ConfigError, DataError
from interp_unlearn.sites import Site

if TYPE_CHECKING:
    import pandas as pd


def massive_activations(
    original: ActivationStore,
    changed: ActivationStore,
    *,
    corpus: str = "all",
    keep: TokenMask | None = None,
    above: float = 10.0,
) -> "pd.DataFrame":
    """How far the largest dimension stands out of the stream, and the displacement without such dimensions.

    A dimension's size is its mean magnitude over the tokens. After Sun et al. 2024, "Massive activations in large
    language models" (arXiv 2402.17762), who look at single activations; most of those are at the BOS token.

    Args:
        original: the original's token-level store.
        changed: the changed model's, of the same tokens.
        corpus: what the corpus is called in the table.
        keep: which tokens count; None for all.
        above: times the median size from which on a dimension of the original is massive.

    Returns:
        One row a site: site, layer, corpus; ratio and ratio_changed (largest over median dimension, of the original and
        the changed model; NaN where the median is 0); dimension, the original's largest; n_massive;
        relative_displacement (mean over tokens of ||h - h0|| / ||h0||) and relative_displacement_without, the same of
        the dimensions that are not massive; n_tokens; d.

    Raises:
        ConfigError: `above` is not above 1, or the stores do not fit each other.
        DataError: the texts or tokens differ, or no token counts.
    """
    import pandas as pd

    if not above > 1:
        raise ConfigError(f"above: expected more than 1 median, got {above}")
    rows: list[dict[str, object]] = []
    for site in check_paired(original, changed):
        sizes, n_tokens = _sizes(original, changed, site, keep)
        median = sizes.median(1).values
        ratios = [
            float(size.max() / middle) if middle > 0 else float("nan")
            for size, middle in zip(sizes, median, strict=True)
        ]
        massive = sizes[0] > above * median[0]
        moved = torch.zeros(2, dtype=torch.float64)
        for h0, h in paired_chunks(original, changed, site, keep):
            for number, kept in enumerate((torch.ones_like(massive), ~massive)):
                norms = h0.double()[:, kept].norm(dim=1).clamp_min(torch.finfo(torch.float64).tiny)
                moved[number] += ((h.double() - h0.double())[:, kept].norm(dim=1) / norms).sum()
        of_all, without = (moved / n_tokens).tolist()
        rows.append(
            {
                "site": str(site),
                "layer": site.layer,
                "corpus": corpus,
                "ratio": ratios[0],
                "ratio_changed": ratios[1],
                "dimension": int(sizes[0].argmax()),
                "n_massive": int(massive.sum()),
                "relative_displacement": of_all,
                "relative_displacement_without": without,
                "n_tokens": n_tokens,
                "d": sizes.shape[1],
            }
        )
    return pd.DataFrame(rows).astype({"layer": "Int64"})


def _sizes(
    original: ActivationStore, changed: ActivationStore, site: Site, keep: TokenMask | None
) -> tuple[Float[Tensor, "two d"], int]:
    """Mean magnitude of every dimension, of the original and of the changed model, and over how many tokens."""
    totals: Tensor | None = None
    n_tokens = 0
    for h0, h in paired_chunks(original, changed, site, keep):
        found = torch.stack([h0.double().abs().sum(0), h.double().abs().sum(0)])
        totals = found if totals is None else totals + found
        n_tokens += len(h)
    if totals is None or not n_tokens:
        raise DataError("tokens", "none count; widen the mask, or give more texts")
    return totals / n_tokens, n_tokens
