"""How alike the directions of different layers are: why a direction belongs to its layer."""

import math
from typing import TYPE_CHECKING

import numpy as np
import torch
from jaxtyping import Bool, Float
from torch import Tensor

from interp_unlearn.activations import ActivationStore
from interp_unlearn.directions.direction_set import Directions, residual_directions
from interp_unlearn.directions.nulls import cosine_quantile
from interp_unlearn.errors import ConfigError
from interp_unlearn.probes import ProbeSet

if TYPE_CHECKING:
    import pandas as pd


def compare_directions(
    directions: Directions | ProbeSet, store: ActivationStore | None = None, level: float = 0.95
) -> "pd.DataFrame":
    """Cosine between the directions of every two sites, beside what chance gives.

    Caveat: raw cosines mislead where activations are anisotropic, as they are in large models: a few dimensions of
    large variance make any two vectors built from activations alike, by far more than ``1 / sqrt(d)``. With a store two
    more columns say what is left of it. ``whitened_cosine`` compares the directions as vectors, in coordinates where
    the activations vary alike in all dimensions (the covariance within classes, Ledoit-Wolf, pooled over the sites at
    equal total variance), so that vectors drawn like activations give ``1 / sqrt(d)`` again. ``score_correlation``
    compares them as readouts: how alike they rank texts of the same class, each at its own layer. A basis that turns
    from layer to layer lowers both cosines and not the correlation.

    Args:
        directions: at several sites of the residual stream.
        store: activations of the model the directions belong to, pooled, at those sites; labels where it has them.
        level: of the band that cosines of random directions fall into.

    Returns:
        One row an ordered pair: ``site_a, site_b, layer_a, layer_b`` (null for the embedding), ``cosine``, the standard
        deviation ``null_std`` and the central band ``null_low, null_high`` for random directions, ``d``; with a store
        ``whitened_cosine``, ``score_correlation`` and the number of texts ``n``.

    Raises:
        SiteError: a direction is outside the residual stream, or the store lacks its site.
        ConfigError: fewer than two sites, widths that differ, or a store of single tokens or of fewer than three texts.
    """
    import pandas as pd

    found = residual_directions(directions)
    if len(found.sites) < 2:
        raise ConfigError(
            f"cosines between layers need directions at two sites, got {', '.join(map(str, found.sites))}"
        )
    widths = sorted({len(vector) for vector in found.vectors.values()})
    if len(widths) > 1:
        raise ConfigError(f"cosines between layers need one width, got {widths}")
    d = widths[0]
    vectors = torch.stack(list(found.vectors.values())).double()
    tables = {"cosine": vectors @ vectors.T}
    if store is not None:
        centred = _within_classes(found, store)
        tables["whitened_cosine"] = _whitened_cosines(vectors, centred)
        scores = np.stack([x @ v.numpy() for x, v in zip(centred, vectors, strict=True)])
        tables["score_correlation"] = torch.from_numpy(np.corrcoef(scores))
    high = cosine_quantile(d, (1 + level) / 2)
    null = {"null_std": 1 / math.sqrt(d), "null_low": -high, "null_high": high, "d": d}
    rows = [
        {"site_a": str(a), "site_b": str(b), "layer_a": a.layer, "layer_b": b.layer}
        | {name: float(table[i, j]) for name, table in tables.items()}
        | null
        for i, a in enumerate(found.sites)
        for j, b in enumerate(found.sites)
    ]
    frame = pd.DataFrame(rows).astype({"layer_a": "Int64", "layer_b": "Int64"})
    return frame if store is None else frame.assign(n=len(store))


def _within_classes(directions: Directions, store: ActivationStore) -> list[Float[np.ndarray, "row d_model"]]:
    """The store's vectors at each site less their class's mean, or the common mean where there are no labels."""
    if store.token_level:
        raise ConfigError("the store holds a vector for each token; collect it pooled, with one for each text")
    if len(store) < 3:
        raise ConfigError(f"a covariance needs at least three texts, the store holds {len(store)}")
    labels = np.zeros(len(store)) if store.labels is None else store.labels
    members: list[Bool[np.ndarray, " row"]] = [labels == label for label in np.unique(labels)]
    centred: list[np.ndarray] = []
    for site, vector in directions.vectors.items():
        values = store.array(site).astype(float)
        if values.shape[1] != len(vector):
            raise ConfigError(f"{site}: the direction is {len(vector)} wide, the store's vectors {values.shape[1]}")
        for rows in members:
            values[rows] -= values[rows].mean(0)
        if not values.any():
            raise ConfigError(f"{site}: the store's vectors are all alike within their class, so nothing varies")
        centred.append(values)
    return centred


def _whitened_cosines(
    vectors: Float[Tensor, "site d_model"], centred: list[Float[np.ndarray, "row d_model"]]
) -> Float[Tensor, "site site"]:
    from sklearn.covariance import ledoit_wolf

    d = vectors.shape[1]
    pooled = np.zeros((d, d))
    for values in centred:
        covariance = ledoit_wolf(values, assume_centered=True)[0]
        pooled += covariance * d / np.trace(covariance)
    lower = torch.linalg.cholesky(torch.from_numpy(pooled / len(centred)))
    white = torch.linalg.solve_triangular(lower, vectors.T, upper=False)
    white = white / white.norm(dim=0)
    return white.T @ white
