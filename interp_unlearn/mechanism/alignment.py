"""Whether two changes of the weights point the same way, part by part."""

from collections.abc import Sequence
from typing import TYPE_CHECKING

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor

from interp_unlearn.errors import ConfigError
from interp_unlearn.interventions import HookedModel
from interp_unlearn.mechanism.delta import WeightDelta
from interp_unlearn.mechanism.places import GroupKind, tensor_groups

if TYPE_CHECKING:
    import pandas as pd


def align_deltas(
    model: HookedModel,
    first: WeightDelta,
    second: WeightDelta,
    *,
    kinds: Sequence[GroupKind] = ("all", "layer", "part"),
    n_null: int = 1000,
    seed: int = 0,
) -> "pd.DataFrame":
    """Cosine between two deltas, over all tensors and by place, beside that of deltas with signs flipped.

    Under the null the signs of whole rows and whole columns of each matrix of the second delta are drawn anew (of each
    element of a vector): every size, every singular value and the rank stay as they are, what is lost is which way it
    points. Our reading; permuting single elements would make the null far too narrow for deltas of low rank.

    Caveat: two runs from one start, with one retain loss and one optimiser, agree in more than what they unlearn; read
    a cosine beside that of two seeds of the same goal. A cosine near 0 is no proof of distinct mechanisms: in many
    dimensions almost everything is orthogonal, and one function may be changed in many ways.

    Args:
        model: any model of the architecture; it says where each tensor sits.
        first: one delta.
        second: the other.
        kinds: ways to group tensors.
        n_null: draws of signs.
        seed: of the draws.

    Returns:
        One row a group: kind, group, layer, part, cosine (NaN where either delta has no change in it), null_low,
        null_high (central 95% of the null), p_value (two-sided, the observed one counted among the draws; NaN with it),
        shared_tensors (changed by both).

    Raises:
        ConfigError: no draws, or tensors of different shapes.
    """
    import pandas as pd

    if n_null < 1:
        raise ConfigError(f"n_null: a cosine without a null says nothing; got {n_null}")
    shared = sorted(first.changes.keys() & second.changes.keys())
    products: dict[str, np.ndarray] = {}
    generator = torch.Generator().manual_seed(seed)
    for name in shared:
        one, other = first.changes[name].double().cpu(), second.changes[name].double().cpu()
        if one.shape != other.shape:
            raise ConfigError(f"{name}: deltas of shape {tuple(one.shape)} and {tuple(other.shape)}; of one model?")
        products[name] = _inner_products(one * other, n_null, generator)
    rows: list[dict[str, object]] = []
    for group in tensor_groups(model, kinds):
        norms = first.restricted(group.tensors).norm * second.restricted(group.tensors).norm
        members = [name for name in shared if name in group.tensors]
        total = np.sum([products[name] for name in members], axis=0) if members else np.zeros(1 + n_null)
        cosines = total / norms if norms > 0 else np.full(1 + n_null, np.nan)
        low, high = np.quantile(cosines[1:], [0.025, 0.975])
        hits = int((np.abs(cosines[1:]) >= abs(cosines[0]) * (1 - 1e-12)).sum())  # equal in exact arithmetic counts
        rows.append(
            {
                "kind": group.kind,
                "group": group.name,
                "layer": group.layer,
                "part": group.part,
                "cosine": float(cosines[0]),
                "null_low": float(low),
                "null_high": float(high),
                "p_value": (1 + hits) / (1 + n_null) if norms > 0 else float("nan"),
                "shared_tensors": len(members),
            }
        )
    return pd.DataFrame(rows).astype({"layer": "Int64"})


def _inner_products(
    product: Float[Tensor, "*shape"], n_null: int, generator: torch.Generator
) -> Float[np.ndarray, " 1+draw"]:
    """Sum of an elementwise product, as it is and with the signs of its rows and columns drawn anew."""
    matrix = product.reshape(-1, product.shape[-1]) if product.ndim > 1 else product.reshape(1, -1)
    rows, columns = (torch.randint(2, (n_null, size), generator=generator).double() * 2 - 1 for size in matrix.shape)
    drawn = ((rows @ matrix) * columns).sum(1)
    return torch.cat([matrix.sum()[None], drawn]).numpy()
