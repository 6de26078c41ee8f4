"""ProFS (DeTox): the matrices that write into the stream lose the directions in which toxic and civil texts differ."""

from dataclasses import dataclass, field
from typing import TYPE_CHECKING

import torch
from jaxtyping import Float
from torch import Tensor, nn

from interp_unlearn.errors import ConfigError
from interp_unlearn.interventions import ProjectOut
from interp_unlearn.models import parameters_by_role
from interp_unlearn.objectives import Centre, without_subspace
from interp_unlearn.settings import check_fields
from interp_unlearn.sites import Site
from interp_unlearn.unlearning.config import UnlearnConfig
from interp_unlearn.unlearning.corpora import UnlearnData
from interp_unlearn.unlearning.pair_subspaces import pair_subspaces
from interp_unlearn.unlearning.reference import Reference
from interp_unlearn.unlearning.weight_edit import WeightEdit

if TYPE_CHECKING:
    import pandas as pd

    from interp_unlearn.interventions import HookedModel

WRITERS = {"mlp.down": "mlp_out", "attn.o": "attn_out"}
"""Roles whose matrices write into the stream, and the site of what they write."""


@dataclass(frozen=True, eq=False)
class ProFS(WeightEdit):
    """`W <- (I - P) W` with P the projector on the top k right singular vectors of a layer's differences of pairs.

    Source: Uppaal et al. 2025, arXiv 2405.13967, and the authors' code, which edits the MLP's output matrices: role
    "mlp.down", the default of `UnlearnConfig`. Which layers is for its `layers` to say; the paper leaves the lower ones
    alone. Biases stay. On architectures that normalise what a block adds (Gemma2, OLMo2) the directions are taken
    through the norm's gain, so that what reaches the stream has no component along them: ours, no source treats these.

    Caveat: linear. What depends on combinations of directions that are not in the span survives.

    Attributes:
        rank: k, directions a layer.
        n_pairs: pairs drawn.
        centre: what is taken out of the differences first, see `difference_subspace`.
    """

    rank: int = 2
    n_pairs: int = 500
    centre: Centre = "mean"
    name: str = field(default="profs", kw_only=True)

    def __post_init__(self) -> None:
        check_fields(self)
        if min(self.rank, self.n_pairs) < 1:
            raise ConfigError(f"{self.name}: rank and n_pairs must be at least 1, got {self.rank} and {self.n_pairs}")

    def change(
        self, model: "HookedModel", data: UnlearnData, config: UnlearnConfig, reference: Reference, progress: bool
    ) -> "tuple[pd.DataFrame, pd.DataFrame]":
        """Find the subspaces on the original and edit every matrix.

        Returns:
            One row a matrix: layer, tensor, rank, n_pairs, share (of the differences' variance that the directions
            hold); and an empty curve.

        Raises:
            ConfigError: a role does not write into the stream, or pairs are missing or differ in too few directions.
        """
        import pandas as pd

        wrong = sorted(set(config.roles or ("all",)) - set(WRITERS))
        if config.roles is None or wrong:
            raise ConfigError(
                f"{self.name} edits matrices that write into the stream, roles {' and '.join(WRITERS)}, got "
                f"{', '.join(wrong)}"
            )
        layers = range(model.n_layers) if config.layers is None else config.layers
        spaces = pair_subspaces(
            model, data, layers, self.rank, config, n_pairs=self.n_pairs, centre=self.centre, progress=progress
        )
        rows: list[dict[str, object]] = []
        for layer in layers:
            for role in config.roles:
                basis = _before_norm(model, Site(layer, WRITERS[role]), spaces[layer].basis)
                for name, weight in parameters_by_role(model.hf, [role], [layer]).items():
                    weight.copy_(without_subspace(weight, basis, _output_dim(model.hf, name)))
                    share = float(spaces[layer].shares.sum())
                    n_pairs = spaces[layer].n_pairs
                    rows.append({"layer": layer, "tensor": name, "rank": self.rank, "n_pairs": n_pairs, "share": share})
        return pd.DataFrame(rows), pd.DataFrame()


def _before_norm(
    model: "HookedModel", written: Site, basis: Float[Tensor, "rank d_model"]
) -> Float[Tensor, "rank d_model"]:
    """The directions that a matrix must not write so that what is added to the stream has none of `basis`."""
    if not model.architecture.post_norms:
        return basis
    # An RMS norm scales each dimension by its gain, which is what it makes of a vector of ones.
    norm = model.architecture.module_at(written)
    weight = norm.get_parameter("weight")
    gain = norm(torch.ones(1, 1, model.d_model, device=weight.device, dtype=weight.dtype)).flatten()
    return ProjectOut(basis * gain.to(basis)).basis


def _output_dim(hf: nn.Module, name: str) -> int:
    """Which dimension of a weight is the output's: a Linear layer holds [out, in], GPT-2's Conv1D [in, out]."""
    module = hf.get_submodule(name.rpartition(".")[0])
    if not module.get_parameter("weight").is_floating_point():
        raise ConfigError(f"{name} is quantised, and such a matrix cannot be projected; load the model unquantised")
    if isinstance(module, nn.Linear):
        return 0
    if type(module).__name__ == "Conv1D":
        return 1
    raise ConfigError(f"{name} belongs to a {type(module).__name__}; only Linear and Conv1D matrices can be edited")
