"""How the subspaces that drift is about lie to one another: probes', displacements', weight deltas'."""

from collections.abc import Mapping
from functools import cache
from itertools import combinations
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor

from interp_unlearn.directions import Directions
from interp_unlearn.errors import ConfigError, SiteError
from interp_unlearn.probes import ProbeSet
from interp_unlearn.sites import Site

if TYPE_CHECKING:
    import pandas as pd

Subspace = Directions | ProbeSet | Mapping[Site, Float[Tensor, "d k"]]
"""A subspace at each of some sites: columns that span it, or one direction."""


def principal_angles(
    subspaces: Mapping[str, Subspace], *, n_null: int = 200, level: float = 0.95, seed: int = 0
) -> "pd.DataFrame":
    """Principal angles between every two subspaces at every site that both have, beside those of random subspaces.

    The first angle is the smallest between any vector of the one and any of the other, the next the smallest that is
    left at right angles to those, and so on (scipy.linalg.subspace_angles); 0 for a shared direction.
    Caveat: two random subspaces of k dimensions share directions nearly when 2k nears d, so read an angle against its
    null; in few hundred dimensions the null is wide. And activations fill few of their dimensions evenly, so that
    subspaces made from them lie closer than these random ones whatever they are about.

    Args:
        subspaces: at least two, by name: columns at each site (they need be neither orthogonal nor of unit norm), a
            direction at each site, or probes, of which the logistic regression's direction is taken.
        n_null: pairs of random subspaces that the null is made from.
        level: of the null's central band.
        seed: of the draws.

    Returns:
        One row a site, pair and angle: ``site, layer`` (null for the embedding), ``first, second`` (names),
        ``angle`` (counted from 1, the smallest first), ``degrees, cosine``, the band of the same angle between random
        subspaces of the same dimensions ``null_low, null_median, null_high`` (degrees), ``d, k_first, k_second`` (their
        ranks).

    Raises:
        ConfigError: fewer than two subspaces, a matrix that is no span of finite columns, or widths that differ.
        SiteError: no two of them have a site in common.
    """
    import pandas as pd
    from scipy.linalg import subspace_angles

    if len(subspaces) < 2 or n_null < 1 or not 0 < level < 1:
        raise ConfigError(
            f"expected at least two subspaces, n_null of at least 1 and a level between 0 and 1; got "
            f"{', '.join(subspaces) or 'none'}, {n_null}, {level}"
        )
    bases = {name: _bases(name, subspace) for name, subspace in subspaces.items()}

    @cache
    def null(d: int, k: int, other: int) -> Float[np.ndarray, "quantile angle"]:
        return _null_degrees(d, k, other, n_null, level, seed)

    rows: list[dict[str, Any]] = []
    for site in sorted({site for basis in bases.values() for site in basis}):
        there = [name for name in bases if site in bases[name]]
        for first, second in combinations(there, 2):
            a, b = bases[first][site], bases[second][site]
            if len(a) != len(b):
                raise ConfigError(f"{site}: {first} is {len(a)} wide there and {second} {len(b)}; expected one width")
            angles = np.sort(subspace_angles(a, b))
            low, median, high = null(len(a), a.shape[1], b.shape[1])
            for index, angle in enumerate(angles):
                rows.append(
                    {
                        "site": str(site),
                        "layer": site.layer,
                        "first": first,
                        "second": second,
                        "angle": index + 1,
                        "degrees": float(np.degrees(angle)),
                        "cosine": float(np.cos(angle)),
                        "null_low": float(low[index]),
                        "null_median": float(median[index]),
                        "null_high": float(high[index]),
                        "d": len(a),
                        "k_first": a.shape[1],
                        "k_second": b.shape[1],
                    }
                )
    if not rows:
        raise SiteError(f"no two of {', '.join(bases)} have a site in common; give them at the same sites")
    return pd.DataFrame(rows).astype({"layer": "Int64"})


def _bases(name: str, subspace: Subspace) -> dict[Site, Float[np.ndarray, "d k"]]:
    """An orthonormal basis at each site."""
    from scipy.linalg import orth

    if isinstance(subspace, ProbeSet):
        subspace = Directions.of(subspace)
    columns = (
        {site: vector[:, None] for site, vector in subspace.vectors.items()}
        if isinstance(subspace, Directions)
        else dict(subspace)
    )
    found: dict[Site, np.ndarray] = {}
    for site, matrix in columns.items():
        if matrix.ndim != 2 or not matrix.shape[1] or not bool(torch.isfinite(matrix).all()):
            raise ConfigError(f"{name}, {site}: expected finite columns [d, k], got shape {tuple(matrix.shape)}")
        found[site] = orth(matrix.detach().double().cpu().numpy())
        if not found[site].shape[1]:
            raise ConfigError(f"{name}, {site}: all columns are zero; leave the site out")
    return found


def _null_degrees(d: int, k: int, other: int, n: int, level: float, seed: int) -> Float[np.ndarray, "quantile angle"]:
    """Low, middle and high of each angle; one of the two random subspaces may as well be that of the first axes."""
    from scipy.linalg import subspace_angles

    rng = np.random.default_rng(seed)
    axes = np.eye(d, other)
    drawn = np.stack([np.sort(subspace_angles(rng.normal(size=(d, k)), axes)) for _ in range(n)])
    return np.degrees(np.quantile(drawn, [(1 - level) / 2, 0.5, (1 + level) / 2], axis=0))
