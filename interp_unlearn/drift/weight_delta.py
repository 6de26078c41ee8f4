"""Which weights differ between two models, by how much, and along which directions."""

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from jaxtyping import Float
from torch import Tensor
from tqdm import tqdm

from interp_unlearn.activations import ActivationStore
from interp_unlearn.artifacts import write_parquet
from interp_unlearn.directions import Directions
from interp_unlearn.directions.nulls import cosine_quantile
from interp_unlearn.drift.paired import token_chunks
from interp_unlearn.drift.spectrum import first_share, leading, leading_left, second_moment
from interp_unlearn.drift.weights import Place, Weights, open_weights
from interp_unlearn.errors import CheckpointError, ConfigError
from interp_unlearn.models.checkpoint_copy import WEIGHTS
from interp_unlearn.probes import ProbeSet
from interp_unlearn.sites import Site
from interp_unlearn.statistics import effective_rank

if TYPE_CHECKING:
    import pandas as pd

    from interp_unlearn.interventions import HookedModel
    from interp_unlearn.unlearning import Reference


@dataclass(frozen=True, eq=False)
class WeightComparison:
    """What changed in the weights.

    Attributes:
        table: one row a changed tensor: embedding, blocks in their order, head; see `weight_delta`.
        alignments: one row a changed matrix that writes into the stream and a direction at its layer; see
            `weight_delta`. Empty without directions.
        outputs: of each changed matrix of a block, the leading directions of what its change writes: orthonormal rows.
        n_tensors: how many tensors were compared.
    """

    table: "pd.DataFrame"
    alignments: "pd.DataFrame"
    outputs: Mapping[str, Float[Tensor, "k out"]]
    n_tensors: int

    @property
    def changed(self) -> tuple[str, ...]:
        """The names of the changed tensors, in the order of the table."""
        return tuple(self.table["tensor"])

    @property
    def first_tensor(self) -> str | None:
        """A tensor of the first place that changed; None if nothing did."""
        return self.changed[0] if len(self.table) else None

    @property
    def first_layer(self) -> int | None:
        """The block of the first changed tensor; None where it lies before or after the blocks, or nothing changed."""
        layer = self.table["layer"].iloc[0] if len(self.table) else None
        return None if layer is None or self.table["layer"].isna().iloc[0] else int(layer)

    def to_subspaces(self, k: int) -> dict[Site, Float[Tensor, "d_model columns"]]:
        """What changed matrices write into the stream of each layer, for `principal_angles`: columns at resid_post.

        The first k directions of each matrix that writes there unchanged (attn.o, mlp.down), side by side.

        Raises:
            ConfigError: k is not positive.
        """
        if k < 1:
            raise ConfigError(f"k must be at least 1, got {k}")
        writers = self.table.loc[self.table["writes"]]
        found: dict[Site, list[Tensor]] = {}
        for name, layer in zip(writers["tensor"], writers["layer"], strict=True):
            if name in self.outputs:
                found.setdefault(Site(int(layer), "resid_post"), []).append(self.outputs[name][:k].T)
        return {site: torch.cat(columns, dim=1) for site, columns in found.items()}

    def comes_before(self, site: Site) -> bool:
        """Whether the pass reaches a site before anything that changed, so that nothing may have moved there.

        Inside the first changed block only its input counts as before.
        """
        if not len(self.table):
            return True
        where = self.table["place"].iloc[0]
        if where == "embedding":
            return False
        if where == "head":
            return site != Site.logits
        return site < Site(self.first_layer, "z")

    def to_frame(self) -> "pd.DataFrame":
        """A copy of the table."""
        return self.table.copy()

    def save(self, folder: str | Path) -> None:
        """Write weight_delta.parquet and alignments.parquet into a folder."""
        write_parquet(Path(folder) / "weight_delta.parquet", self.table)
        write_parquet(Path(folder) / "alignments.parquet", self.alignments)


@torch.no_grad()
def weight_delta(
    changed: "HookedModel | str | Path",
    original: "HookedModel | Reference | str | Path",
    *,
    store: ActivationStore | None = None,
    directions: Directions | ProbeSet | None = None,
    n_directions: int = 8,
    progress: bool = False,
) -> WeightComparison:
    """Compare two models' weights tensor by tensor.

    Checkpoint folders are read one tensor at a time from their safetensors files, so that neither model is loaded.
    The comparison is exact: a tensor is changed if one of its numbers is.
    Caveat: a checkpoint saved in another precision has changed everywhere. The rank of a delta is largely the
    optimiser's and LoRA's doing. And a small change may matter more than a large one: what a change does, only putting
    it back can tell.

    Args:
        changed: the changed model, or its checkpoint folder.
        original: the original: another model, its folder, or the values that a run kept of the changed one.
        store: a token-level store of the original at mlp_post or z: what enters mlp.down and attn.o. The other
            matrices read the output of a norm, which is no site.
        directions: at sites of the stream; compared with matrices of the same layer.
        n_directions: leading directions kept of each matrix, and components taken of the store.
        progress: whether to show a progress bar.

    Returns:
        The delta. Its table: ``tensor, layer`` (null outside the blocks), ``place`` (embedding, block, head), ``role``
        (of a block's matrix: attn.q, mlp.down, ...), ``writes`` (whether it adds to the stream what it gives),
        ``elements, moved`` (share of them), ``relative_change`` (``||W - W0|| / ||W0||``, Frobenius; infinite where W0
        is 0); of matrices, of W - W0, ``share`` (of the first singular value, in the sum of squares),
        ``effective_rank`` (exp of the entropy of the normalised squares) and ``full_rank`` (the most it could be); with
        a store ``input_energy`` (share of ``||W - W0||^2`` in the leading directions of what enters it, uncentred),
        ``input_energy_null`` (their number by the width: a change without regard to the activations) and
        ``activation_energy`` (the activations' own share in them).
        Its alignments, of attn.o and mlp.down (not on architectures that normalise their output first, where what is
        written is not what arrives): ``tensor, layer, site`` (of the direction), ``cosine`` (absolute, with the first
        direction written), ``null_high`` (95% quantile for random directions), ``energy`` (share of ``||W - W0||^2``
        written along the direction) and ``energy_null`` (1 / d).

    Raises:
        CheckpointError: a folder holds no safetensors files, or the models do not have the same tensors.
        ConfigError: a shape differs, or the store or the directions do not fit.
    """
    import pandas as pd

    if n_directions < 1:
        raise ConfigError(f"n_directions must be at least 1, got {n_directions}")
    new, old = open_weights(changed, original)
    _check_same_names(new, old)
    places = {name: new.place(name) for name in new}
    rows: list[dict[str, Any]] = []
    aligned: list[dict[str, Any]] = []
    outputs: dict[str, Tensor] = {}
    components: dict[Site, tuple[Tensor, float]] = {}
    for name in tqdm(sorted(places, key=lambda name: places[name].order), desc="weights", disable=not progress):
        now, before = new[name], old[name]
        if now.shape != before.shape:
            raise ConfigError(f"{name}: shape {tuple(now.shape)} in the changed model, {tuple(before.shape)} before")
        if not {now.dtype, before.dtype} <= set(WEIGHTS.values()):
            raise ConfigError(f"{name} is quantised to {now.dtype}, {before.dtype}; compare unquantised checkpoints")
        precision = torch.promote_types(now.dtype, before.dtype)
        if torch.equal(now.to(precision), before.to(precision)):
            continue
        place, delta = places[name], now.double() - before.double()
        rows.append(_row(name, place, delta, before))
        if delta.ndim != 2:
            continue
        written = delta.T if place.transposed else delta
        squares, vectors = leading_left(written, n_directions)
        rows[-1] |= {
            "share": first_share(squares),
            "effective_rank": effective_rank(squares),
            "full_rank": min(delta.shape),
        }
        if place.layer is not None:
            outputs[name] = vectors.float()
        if store is not None and place.reads in store.sites:
            if place.reads not in components:
                components[place.reads] = _components(store, place.reads, n_directions)
            rows[-1] |= _input_energy(name, written, *components[place.reads])
        if directions is not None and place.writes and len(vectors):
            aligned += _alignments(name, place, written, vectors[0], directions)
    table = pd.DataFrame(rows, columns=_columns(rows)).astype({"layer": "Int64", "writes": bool})
    return WeightComparison(table, pd.DataFrame(aligned, columns=_ALIGNMENTS), outputs, len(places))


_ALIGNMENTS = ["tensor", "layer", "site", "cosine", "null_high", "energy", "energy_null"]
_ALWAYS = [
    *("tensor", "layer", "place", "role", "writes", "elements", "moved"),
    *("relative_change", "share", "effective_rank", "full_rank"),
]


def _columns(rows: list[dict[str, Any]]) -> list[str]:
    return list(dict.fromkeys([*_ALWAYS, *(name for row in rows for name in row)]))


def _check_same_names(new: Weights, old: Weights) -> None:
    odd = sorted(set(new) ^ set(old))
    if odd:
        raise CheckpointError(
            f"the models do not have the same tensors: {', '.join(odd[:4])}{', ...' if len(odd) > 4 else ''} only in "
            "one; compare checkpoints of one architecture, with adapters merged"
        )


def _row(name: str, place: Place, delta: Tensor, before: Tensor) -> dict[str, Any]:
    return {
        "tensor": name,
        "layer": place.layer,
        "place": place.kind,
        "role": place.role,
        "writes": place.writes and delta.ndim == 2,
        "elements": delta.numel(),
        "moved": float((delta != 0).double().mean()),
        "relative_change": float(delta.norm() / before.double().norm()),
    }


def _components(store: ActivationStore, site: Site, k: int) -> tuple[Float[Tensor, "k width"], float]:
    """The leading directions of the vectors at a site, and the share of their sum of squares there."""
    squares, vectors = leading(second_moment(token_chunks(store, site)), k)
    return vectors, float(squares[: len(vectors)].sum() / squares.sum())


def _input_energy(
    name: str, delta: Float[Tensor, "out in"], components: Float[Tensor, "k in"], share: float
) -> dict[str, float]:
    if components.shape[1] != delta.shape[1]:
        raise ConfigError(
            f"{name} reads {delta.shape[1]} numbers a token, the store's vectors have {components.shape[1]}; give the "
            "original's store"
        )
    return {
        "input_energy": float((delta @ components.T).square().sum() / delta.square().sum()),
        "input_energy_null": len(components) / delta.shape[1],
        "activation_energy": share,
    }


def _alignments(
    name: str, place: Place, delta: Float[Tensor, "out in"], first: Tensor, directions: Directions | ProbeSet
) -> list[dict[str, Any]]:
    found = directions if isinstance(directions, Directions) else Directions.of(directions)
    rows: list[dict[str, Any]] = []
    for site in found.sites:
        if site.layer != place.layer or site.component in ("z", "mlp_post"):
            continue
        d, direction = len(first), found[site]
        if len(direction) != d:
            raise ConfigError(f"{name} writes {d} numbers a token, the direction at {site} has {len(direction)}")
        energy = float((direction.double() @ delta).square().sum() / delta.square().sum())
        cosine = float((first @ direction.double()).abs())
        values = (name, place.layer, str(site), cosine, cosine_quantile(d, 0.975), energy, 1 / d)
        rows.append(dict(zip(_ALIGNMENTS, values, strict=True)))
    return rows
