"""How many directions several categories of toxicity span: one shared direction, or one each."""

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
from jaxtyping import Bool, Float
from numpy.typing import ArrayLike

from interp_unlearn.activations import ActivationStore
from interp_unlearn.directions.direction_set import Directions, residual_directions
from interp_unlearn.directions.nulls import random_unit_vectors
from interp_unlearn.errors import ConfigError, SiteError
from interp_unlearn.probes import ProbeSet
from interp_unlearn.sites import Site
from interp_unlearn.statistics import effective_rank

if TYPE_CHECKING:
    import pandas as pd

Categories = Sequence[str] | Mapping[str, ArrayLike]
"""The category of each text; or, where a text may be of several, a boolean mask of all texts for each category."""


def subspace_rank(
    source: Mapping[str, Directions | ProbeSet] | ActivationStore,
    categories: Categories | None = None,
    neutral: str = "neutral",
    *,
    n_null: int = 200,
    seed: int = 0,
) -> "pd.DataFrame":
    """Singular values of the categories' unit directions at each site, and the effective rank of their span.

    The effective rank is ``exp(entropy of s^2 / sum s^2)`` (after Roy and Vetterli 2007, who take s): 1 where all
    categories share one direction, the number of categories where they are orthogonal.
    Caveat: it falls between two nulls. Random directions give nearly the number of categories. Shuffled categories,
    drawn anew among the texts that are of some category, give what one shared direction and sampling noise give; a rank
    inside that band shows no difference between categories, and few texts raise both.

    Args:
        source: directions by category, at the same sites; or a pooled store, of which the differences between each
            category's mean and the neutral mean are taken.
        categories: of the store's texts.
        neutral: the category of the texts that are of none; with masks, texts outside all of them.
        n_null: draws of either null.
        seed: of the draws.

    Returns:
        One row a site and component: ``site, layer, component`` (counted from 1), ``singular_value, share`` (of the sum
        of squares), ``cumulative_share``; and, alike in all rows of a site, ``effective_rank``, mean and central 95%
        band ``random_rank, random_low, random_high`` of random directions, the same ``shuffled_rank, shuffled_low,
        shuffled_high`` of shuffled categories (NaN where directions were given), ``n_categories, n`` (texts; null where
        directions were given).

    Raises:
        ConfigError: fewer than two categories, an empty one, or widths that differ.
        SiteError: the categories have no site in common, or one outside the residual stream.
    """
    import pandas as pd

    shuffled: dict[Site, Float[np.ndarray, " draw"]] = {}
    n: int | None = None
    if isinstance(source, ActivationStore):
        if categories is None:
            raise ConfigError("a store needs categories: a name for each text, or a mask for each category")
        n = len(source)
        masks, others = _masks(categories, neutral, n)
        given: dict[str, Directions] = _mean_differences(source, masks, others)
        shuffled = _shuffled_ranks(source, masks, others, n_null, seed)
    else:
        given = {name: residual_directions(directions) for name, directions in source.items()}
    if len(given) < 2:
        raise ConfigError(f"a rank needs directions of at least two categories, got {', '.join(given) or 'none'}")
    sites = [site for site in next(iter(given.values())).sites if all(site in d.sites for d in given.values())]
    if not sites:
        raise SiteError("the categories have no site in common; give directions at the same sites")
    rows: list[dict[str, Any]] = []
    for site in sites:
        widths = {len(directions[site]) for directions in given.values()}
        if len(widths) > 1:
            raise ConfigError(f"{site}: the categories' directions are of several widths: {sorted(widths)}")
        squares = _squares(np.stack([directions[site].double().numpy() for directions in given.values()]))
        shares = squares / squares.sum()
        chance = _random_ranks(len(given), widths.pop(), n_null, seed)
        shared = {
            "effective_rank": effective_rank(squares),
            **_band("random", chance),
            **_band("shuffled", shuffled.get(site)),
            "n_categories": len(given),
            "n": n,
        }
        for index, (square, share, total) in enumerate(zip(squares, shares, shares.cumsum(), strict=True)):
            rows.append(
                {
                    "site": str(site),
                    "layer": site.layer,
                    "component": index + 1,
                    "singular_value": float(square) ** 0.5,
                    "share": float(share),
                    "cumulative_share": float(total),
                    **shared,
                }
            )
    return pd.DataFrame(rows).astype({"layer": "Int64", "n": "Int64"})


def category_directions(
    store: ActivationStore, categories: Categories, neutral: str = "neutral"
) -> dict[str, Directions]:
    """For each category the unit difference between its mean and the mean of the neutral texts, at every site.

    Args:
        store: pooled activations.
        categories: of its texts.
        neutral: the category of the texts that are of none; with masks, texts outside all of them.

    Raises:
        ConfigError: there are no neutral texts, a category is empty or its mean that of the neutral texts, or the store
            holds single tokens.
    """
    masks, others = _masks(categories, neutral, len(store))
    return _mean_differences(store, masks, others)


def _masks(
    categories: Categories, neutral: str, n: int
) -> tuple[dict[str, Bool[np.ndarray, " text"]], Bool[np.ndarray, " text"]]:
    """A mask for each category, in order of first appearance, and that of the neutral texts."""
    if isinstance(categories, Mapping):
        masks = {name: np.asarray(mask).astype(bool) for name, mask in categories.items()}
    else:
        names = np.asarray(list(categories), dtype=object)
        masks = {name: names == name for name in dict.fromkeys(names.tolist()) if name != neutral}
    wrong = [name for name, mask in masks.items() if mask.shape != (n,)]
    if wrong or not masks:
        raise ConfigError(f"categories: expected an entry for each of {n} texts and a category beside {neutral!r}")
    empty = [name for name, mask in masks.items() if not mask.any()]
    others = ~np.logical_or.reduce(list(masks.values()))
    if empty or not others.any():
        raise ConfigError(f"categories: no text is {empty[0] if empty else neutral}; each needs at least one")
    return masks, others


def _mean_differences(
    store: ActivationStore, masks: Mapping[str, Bool[np.ndarray, " text"]], others: Bool[np.ndarray, " text"]
) -> dict[str, Directions]:
    import torch

    if store.token_level:
        raise ConfigError("the store holds a vector for each token; collect it pooled, with one for each text")
    found: dict[str, dict[Site, Any]] = {name: {} for name in masks}
    for site in store.sites:
        vectors = store.array(site).astype(float)
        for name, mask in masks.items():
            found[name][site] = torch.from_numpy(vectors[mask].mean(0) - vectors[others].mean(0))
    kept = {key: store.metadata[key] for key in ("model", "model_hash", "pool") if key in store.metadata}
    metadata = {"source": "mean differences of a store", **kept}
    return {name: Directions(vectors, name=name, metadata=metadata) for name, vectors in found.items()}


def _shuffled_ranks(
    store: ActivationStore,
    masks: Mapping[str, Bool[np.ndarray, " text"]],
    others: Bool[np.ndarray, " text"],
    n: int,
    seed: int,
) -> dict[Site, Float[np.ndarray, " draw"]]:
    """Effective ranks after dealing the categories out anew among the texts that have one, whole memberships moving."""
    members = np.flatnonzero(~others)
    weights = np.stack(list(masks.values()))[:, members].astype(float)
    weights /= weights.sum(1, keepdims=True)
    rng = np.random.default_rng(seed)
    orders = [rng.permutation(len(members)) for _ in range(n)]
    ranks: dict[Site, np.ndarray] = {}
    for site in store.sites:
        vectors = store.array(site).astype(float)
        away = vectors[members] - vectors[others].mean(0)
        drawn = [weights[:, order] @ away for order in orders]
        ranks[site] = np.array([effective_rank(_squares(x / np.linalg.norm(x, axis=1, keepdims=True))) for x in drawn])
    return ranks


def _random_ranks(k: int, d: int, n: int, seed: int) -> Float[np.ndarray, " draw"]:
    drawn = random_unit_vectors(n * k, d, seed).double().numpy().reshape(n, k, d)
    return np.array([effective_rank(_squares(rows)) for rows in drawn])


def _squares(rows: Float[np.ndarray, "k d"]) -> Float[np.ndarray, " k"]:
    """Squared singular values, the largest first."""
    return np.linalg.svd(rows, compute_uv=False) ** 2


def _band(name: str, ranks: Float[np.ndarray, " draw"] | None) -> dict[str, float]:
    if ranks is None:
        return {f"{name}_{part}": float("nan") for part in ("rank", "low", "high")}
    low, high = np.quantile(ranks, [0.025, 0.975])
    return {f"{name}_rank": float(ranks.mean()), f"{name}_low": float(low), f"{name}_high": float(high)}
