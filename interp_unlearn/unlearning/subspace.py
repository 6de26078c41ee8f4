"""A penalty on several directions a layer: what no single direction parts off may still lie apart in their span."""

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any, Literal

import torch
from jaxtyping import Bool, Float
from torch import Tensor

from interp_unlearn.errors import ConfigError
from interp_unlearn.interventions import ProjectOut
from interp_unlearn.models import TokenBatch
from interp_unlearn.objectives import ProjectionScale, projection_hinge, subspace_distance, subspace_hinge
from interp_unlearn.sites import Site
from interp_unlearn.unlearning.config import UnlearnConfig
from interp_unlearn.unlearning.corpora import Corpora
from interp_unlearn.unlearning.objective import Logs, Objective, as_layers
from interp_unlearn.unlearning.projection import checked_weights
from interp_unlearn.unlearning.projections import checked_scale, layer_directions, token_projections

if TYPE_CHECKING:
    from interp_unlearn.interventions import HookedModel


class SubspacePenalty(Objective):
    """`sum_l a_l` times a penalty on forget tokens within the span of a layer's k directions.

    `penalty="hinge"` sums `ProjectionPenalty`'s over the directions: `sum_j mean_t relu((h . w_j - q_j) / s_j)^2`, each
    pointing at what is to be forgotten. `penalty="norm"` is `mean_t relu((||B h - c|| - q) / s)^2`, B an orthonormal
    basis of the span, c the neutral tokens' mean in it, q a quantile of their distances from c and s the gap of the
    classes' median distances: signs do not matter. Ours, an extension of our reading of Atil et al. 2026, arXiv
    2605.26454: the distance also sees what is not linear in any one direction.

    Args:
        layers: blocks whose output is penalised (and retained).
        directions: for each layer k vectors [k, d_model], such as those of `pair_subspaces`, or one.
        penalty: "hinge" or "norm".
        layer_weights: a_l for each layer; None gives each 1 / number of layers.
        quantile: of the neutral tokens, from which on forget tokens are penalised.
        name: for tables.
    """

    def __init__(
        self,
        layers: int | Sequence[int],
        directions: Mapping[int, Tensor],
        *,
        penalty: Literal["hinge", "norm"] = "norm",
        layer_weights: Mapping[int, float] | None = None,
        quantile: float = 0.5,
        name: str = "subspace",
    ) -> None:
        super().__init__(name, layers=as_layers(layers))
        if penalty not in ("hinge", "norm"):
            raise ConfigError(f'objective {name}: penalty must be "hinge" or "norm", got {penalty!r}')
        self.directions = layer_directions(directions, self.layers)
        self.penalty = penalty
        self.layer_weights = checked_weights(layer_weights, self.layers)
        self.quantile = quantile
        self._scales: dict[int, tuple[ProjectionScale, ...]] = {}
        self._sites = [Site(layer, "resid_post") for layer in self.layers]
        self._rows: dict[int, Float[Tensor, "k d_model"]] = {}
        self._centres: dict[int, Float[Tensor, " k"]] = {}

    def prepare(self, model: "HookedModel", corpora: Corpora, config: UnlearnConfig) -> None:
        """Measure thresholds, gaps and centres on the original.

        Raises:
            ConfigError: at some layer the forget texts do not lie beyond the neutral ones, or the vectors do not fit.
        """
        super().prepare(model, corpora, config)
        self._rows = {layer: self._unit_rows(layer, model.d_model) for layer in self.layers}
        forget = token_projections(model, self.corpus(corpora), self._rows, config)
        neutral = token_projections(model, corpora.require("neutral", self.name), self._rows, config)
        for layer in self.layers:
            where = f"objective {self.name}, layer {layer}"
            if self.penalty == "norm":
                self._centres[layer] = neutral[layer].mean(0)
                self._scales[layer] = (self._distance_scale(forget[layer], neutral[layer], where),)
            else:
                columns = zip(forget[layer].T, neutral[layer].T, strict=True)
                self._scales[layer] = tuple(
                    checked_scale(ours, theirs, self.quantile, f"{where}, direction {index}")
                    for index, (ours, theirs) in enumerate(columns)
                )

    @property
    def scales(self) -> dict[int, tuple[ProjectionScale, ...]]:
        """Threshold and gap of each direction of a layer, once they are measured."""
        return self._scales

    def loss(
        self, model: "HookedModel", batch: TokenBatch, mask: Bool[Tensor, "batch pos"], targets: Any
    ) -> tuple[Float[Tensor, ""], Logs]:
        """The weighted sum over layers."""
        trace = model.run(batch, reads=self._sites)
        terms: list[Tensor] = []
        for layer, site in zip(self.layers, self._sites, strict=True):
            h, rows, scales = trace[site], self._rows[layer], self._scales[layer]
            if self.penalty == "norm":
                penalty = subspace_hinge(h, mask, rows, self._centres[layer], scales[0])
            else:
                each = [projection_hinge(h, mask, row, scale) for row, scale in zip(rows, scales, strict=True)]
                penalty = torch.stack(each).sum()
            terms.append(self.layer_weights[layer] * penalty)
        return torch.stack(terms).sum(), {}

    def _distance_scale(
        self, forget: Float[Tensor, "tokens k"], neutral: Float[Tensor, "others k"], where: str
    ) -> ProjectionScale:
        """The scale of the distances from the neutral centre, of tokens given in the basis."""
        identity, centre = torch.eye(neutral.shape[1], device=neutral.device), neutral.mean(0)
        far, near = (subspace_distance(part, identity, centre) for part in (forget, neutral))
        medians = [float(part.quantile(0.5)) for part in (far, near)]
        if not medians[0] > medians[1]:
            raise ConfigError(
                f"{where}: the forget tokens lie no further from the neutral centre than neutral tokens do (medians "
                f"{medians[0]:.4g} and {medians[1]:.4g}); choose other directions or layers, or the penalty hinge"
            )
        return checked_scale(far, near, self.quantile, where)

    def _unit_rows(self, layer: int, d_model: int) -> Float[Tensor, "k d_model"]:
        """Each direction at unit length; for the norm, an orthonormal basis of their span."""
        rows = torch.atleast_2d(self.directions[layer].detach().float())
        norms = rows.norm(dim=-1, keepdim=True)
        if rows.ndim != 2 or rows.shape[1] != d_model or not bool((norms > 0).all()):
            raise ConfigError(
                f"the directions of layer {layer} must be non-zero vectors of {d_model} numbers, got shape "
                f"{tuple(rows.shape)} with norms {[round(norm, 3) for norm in norms.flatten().tolist()]}"
            )
        return ProjectOut(rows).basis if self.penalty == "norm" else rows / norms
