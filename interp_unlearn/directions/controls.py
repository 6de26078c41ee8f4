"""The control of every causal claim: the same tokens moved as far, along a random direction instead."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import torch
from jaxtyping import Float
from torch import Tensor

from interp_unlearn.directions.direction_set import Directions
from interp_unlearn.directions.nulls import random_direction_at
from interp_unlearn.interventions import Edit, EditContext
from interp_unlearn.interventions.buckets import length_buckets, token_rows
from interp_unlearn.sites import Site

if TYPE_CHECKING:
    from interp_unlearn.interventions import HookedModel

Moves = dict[Site, Float[Tensor, "batch pos"]]
"""How far an intervention moved each token of a pass at each site, signed along its direction, 0 where it did not."""


@dataclass(frozen=True, eq=False)
class Recorded(Edit):
    """Another edit, which leaves behind how far it moved each token along a direction.

    Attributes:
        edit: what is done.
        direction: unit direction along which it moves.
        site: where; the key in ``moves``.
        moves: filled by each pass.
    """

    edit: Edit
    direction: Float[Tensor, " width"]
    site: Site
    moves: Moves

    def transform(self, activation: Tensor, context: EditContext) -> Tensor:
        edited = self.edit.transform(activation, context)
        moved = (edited - activation).float() @ self.direction.to(activation.device)
        self.moves[self.site] = moved * context.content
        return edited


@dataclass(frozen=True, eq=False)
class Move(Edit):
    """Move each token by its own distance, or all by one, along a vector.

    Attributes:
        vector: unit vector.
        distances: one for each token of the pass, or one for all.
    """

    vector: Float[Tensor, " width"]
    distances: Float[Tensor, "batch pos"] | float

    def transform(self, activation: Tensor, context: EditContext) -> Tensor:
        vector = self.vector.to(activation.device)
        if isinstance(self.distances, Tensor):
            distances = self.distances.to(activation.device)[..., None]
            return activation + (distances * vector).to(activation.dtype)
        return activation + (self.distances * vector).to(activation.dtype)


def recorded(edits: Mapping[Site, Edit], directions: Directions) -> tuple[dict[Site, Edit], Moves]:
    """The same edits, and the record that each pass with them fills."""
    moves: Moves = {}
    return {site: Recorded(edit, directions[site], site, moves) for site, edit in edits.items()}, moves


def random_moves(
    distances: Mapping[Site, Float[Tensor, "batch pos"] | float], directions: Directions, seed: int
) -> dict[Site, Edit]:
    """The control's edits: the same distances along seeded random directions, one a site."""
    return {
        site: Move(random_direction_at(site, len(directions[site]), seed), distance)
        for site, distance in distances.items()
    }


@torch.no_grad()
def typical_distances(
    model: "HookedModel",
    prompts: Sequence[str],
    edits: Mapping[Site, Edit],
    directions: Directions,
    batch_size: int = 64,
) -> dict[Site, float]:
    """Root mean square over the prompts' tokens of how far the edits, together, move them at each site (L2 units)."""
    kept, moves = recorded(edits, directions)
    squares, n = dict.fromkeys(edits, 0.0), 0
    for _, batch in length_buckets(model, token_rows(model, prompts), batch_size):
        model.run(batch, edits=kept, stop_after=_last_block(model, edits))
        n += int(batch.content_mask.sum())
        for site in edits:
            squares[site] += float(moves[site].square().sum())
    return {site: (square / n) ** 0.5 for site, square in squares.items()}


def _last_block(model: "HookedModel", edits: Mapping[Site, Edit]) -> int:
    layer = max(edits).layer
    return 0 if layer is None else min(layer, model.n_layers - 1)
