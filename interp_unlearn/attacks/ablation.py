"""Projecting out what unlearning added: misdirection to one direction is undone by taking that direction away."""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, ClassVar, Literal

import torch
from jaxtyping import Float
from torch import Tensor

from interp_unlearn.attacks.attack import Attack, Attempt, Record, Target
from interp_unlearn.attacks.streams import Streams, check_alike, displacement, most_displaced
from interp_unlearn.directions.nulls import random_unit_vectors
from interp_unlearn.errors import ConfigError
from interp_unlearn.interventions import Edit, EditContext, ProjectOut
from interp_unlearn.objectives import difference_subspace
from interp_unlearn.sites import Site

if TYPE_CHECKING:
    from interp_unlearn.activations import ActivationStore

Where = Literal["own", "one", "last"]
"""At every layer its own directions; one layer's directions at every layer; or one layer's behind the last block."""
Basis = Float[Tensor, "rank d_model"]


@dataclass(frozen=True, eq=False)
class MoveAsFar(Edit):
    """Move each token as far as projecting a basis out would, in other directions: the control of an ablation.

    Attributes:
        basis: orthonormal rows; each token's coordinates in it are how far it moves.
        directions: orthonormal rows, as many, along which it moves.
    """

    basis: Basis
    directions: Basis

    def transform(self, activation: Tensor, context: EditContext) -> Tensor:
        basis, directions = (rows.to(activation.device, activation.dtype) for rows in (self.basis, self.directions))
        return activation - (activation @ basis.T) @ directions


@dataclass(frozen=True)
class AblateDirection(Attack):
    """Project out the normalised `mean(h) - mean(h0)` of the forget texts, after every block.

    Source: Arditi and Chughtai 2024, "Unlearning via RMU is mostly shallow". The control moves every token as far,
    along random directions, see `MoveAsFar`.
    Caveat: at every layer at once, direct and indirect effects are not told apart. Try "one" and "last" for that: what
    "last" recovers is direct, the direction in what is unembedded (whichever block wrote it there); what "one" recovers
    beyond that goes through blocks that read it. The two need not add up, and a measure that reads activations of
    blocks is not changed by "last".

    Attributes:
        where: "own", the layer's own direction at each layer that has moved; "one", one layer's at every layer; "last",
            one layer's after the last block alone.
        layer: of "one" and "last"; None takes the layer whose mean has moved furthest, relative to its norm.
        n_random: random directions a layer for the control; 0 for none.
        include_bos: also at the BOS token, where activations are of another size.
    """

    where: tuple[Where, ...] = ("own", "one")
    layer: int | None = None
    n_random: int = 5
    include_bos: bool = False
    reads_streams: ClassVar[bool] = True

    def __post_init__(self) -> None:
        super().__post_init__()
        check_ablation(self.where, self.n_random)

    @property
    def name(self) -> str:
        return "ablate_direction"

    def attempts(self, target: Target, record: Record) -> Iterator[Attempt]:
        original, unlearned = target.streams
        moved = displacement(original, unlearned)
        bases = {layer: (vector / vector.norm())[None] for layer, vector in moved.items()}
        layer = most_displaced(original, moved) if self.layer is None else self.layer
        for where in self.where:
            yield ablate(target, bases, where, layer, self.n_random, self.include_bos, {})


@dataclass(frozen=True)
class AblateSubspace(Attack):
    """Project out the subspace in which the forget texts have moved, after every block: more than one direction.

    The top right singular vectors of the rows `h - h0`, uncentred, one row a text (its mean over tokens) or one a group
    of texts. Our extension of the attack on one direction.
    Caveat: of a large subspace more than the displacement is lost, so a rank may recover less than a smaller one.

    Attributes:
        ranks: dimensions of the subspace; 0 leaves the model as it is, more than there are is refused for that rank.
        rows: "texts" or "groups" (where the texts have groups).
        where: as of `AblateDirection`.
        layer: as of `AblateDirection`.
        n_random: random subspaces of the same rank, for the control.
        include_bos: also at the BOS token.
    """

    ranks: tuple[int, ...] = (2, 4)
    rows: Literal["texts", "groups"] = "texts"
    where: tuple[Where, ...] = ("own",)
    layer: int | None = None
    n_random: int = 5
    include_bos: bool = False
    reads_streams: ClassVar[bool] = True

    def __post_init__(self) -> None:
        super().__post_init__()
        check_ablation(self.where, self.n_random)
        if not self.ranks or min(self.ranks) < 0:
            raise ConfigError(f"ranks: expected 0 or more, got {self.ranks}")

    @property
    def name(self) -> str:
        return "ablate_subspace"

    def attempts(self, target: Target, record: Record) -> Iterator[Attempt]:
        original, unlearned = target.streams
        moved = displacement(original, unlearned)
        layer = most_displaced(original, moved) if self.layer is None else self.layer
        for rank in self.ranks:
            told = {"rank": rank, "rows": self.rows}
            try:
                bases = {at: _subspace(original, unlearned, at, rank, self.rows) for at in moved} if rank else {}
            except ConfigError as error:
                yield Attempt(told, None, reason=str(error))
                continue
            for where in self.where:
                yield ablate(target, bases, where, layer, self.n_random, self.include_bos, told)


def ablate(
    target: Target,
    bases: Mapping[int, Basis],
    where: Where,
    layer: int,
    n_random: int,
    include_bos: bool,
    told: Mapping[str, object],
) -> Attempt:
    """Measure with each layer's basis projected out, or with one layer's at every layer, beside random ones.

    Args:
        target: attacked.
        bases: directions of the layers that have any; without any nothing is done.
        where: see `Where`.
        layer: whose basis is taken elsewhere too.
        n_random: random bases of the control.
        include_bos: also at the BOS token.
        told: the rest of the setting.
    """
    places = {
        "own": "each layer's own",
        "one": f"layer {layer}'s at every layer",
        "last": f"layer {layer}'s after the last block",
    }
    told = {"directions": places[where], **told, "n_random": n_random}
    if where != "own" and bases:
        if layer not in bases:
            moved = ", ".join(map(str, bases))
            return Attempt(told, None, reason=f"layer {layer} has not moved; those that have are {moved}")
        last = target.model.n_layers - 1
        bases = dict.fromkeys([last] if where == "last" else range(last + 1), bases[layer])

    edits = {Site(at, "resid_post"): ProjectOut(basis, include_bos=include_bos) for at, basis in bases.items()}

    def random_edits(seed: int) -> dict[Site, MoveAsFar]:
        found: dict[Site, MoveAsFar] = {}
        for site, edit in edits.items():
            place = site.layer or 0 if where == "own" else layer
            rank, width = edit.basis.shape
            drawn = random_unit_vectors(rank, width, seed * 1_000_003 + place)
            found[site] = MoveAsFar(edit.basis, ProjectOut(drawn).basis, include_bos=include_bos)
        return found

    items, control = target.beside_random(edits, random_edits, n_random)
    return Attempt(told, items, control=control)


def check_ablation(where: tuple[Where, ...], n_random: int) -> None:
    """Refuse settings out of range.

    Raises:
        ConfigError: they are.
    """
    if not where or n_random < 0:
        raise ConfigError(f"expected a where, and n_random of 0 or more, got {where}, {n_random}")


def _subspace(original: Streams, unlearned: Streams, layer: int, rank: int, rows: Literal["texts", "groups"]) -> Basis:
    check_alike(original, unlearned)
    after, before = (_rows_of(streams.forget, layer, rows) for streams in (unlearned, original))
    try:
        return difference_subspace(after, before, rank, centre="none")[0]
    except ConfigError as error:
        raise ConfigError(f"layer {layer}: {error}") from error


def _rows_of(store: "ActivationStore", layer: int, rows: Literal["texts", "groups"]) -> Float[Tensor, "row d_model"]:
    vectors = store[Site(layer, "resid_post")].double()
    if rows == "texts":
        return vectors
    if store.groups is None:
        raise ConfigError("the forget texts have no groups; give UnlearnData(groups=...), or rows='texts'")
    members: dict[str, list[int]] = {}
    for row, group in enumerate(store.groups):
        members.setdefault(group, []).append(row)
    return torch.stack([vectors[chosen].mean(0) for chosen in members.values()])
