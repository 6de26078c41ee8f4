"""A penalty on how far forget text lies beyond neutral text along each layer's probe direction."""

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any, Literal

import torch
from jaxtyping import Bool, Float
from torch import Tensor

from interp_unlearn.errors import ConfigError
from interp_unlearn.models import TokenBatch
from interp_unlearn.objectives import ProjectionScale, projection_hinge
from interp_unlearn.sites import Site
from interp_unlearn.unlearning.config import UnlearnConfig
from interp_unlearn.unlearning.corpora import Corpora
from interp_unlearn.unlearning.misdirection import unit_direction
from interp_unlearn.unlearning.objective import Logs, Objective, as_layers
from interp_unlearn.unlearning.projections import layer_directions, measure_scales

if TYPE_CHECKING:
    from interp_unlearn.interventions import HookedModel
    from interp_unlearn.probes import ProbeSet


class ProjectionPenalty(Objective):
    """`sum_l a_l mean_t relu((h_lt . w_l - q_l) / s_l)^2` on forget text.

    q_l is a quantile (the median) of the projections of neutral tokens and s_l the forget tokens' median minus the
    neutral median, all on the original. Our reading of the multi-layer probe-direction objective of Atil et al. 2026,
    arXiv 2605.26454 (abstract only). For several directions a layer, see `SubspacePenalty`.

    Args:
        layers: blocks whose output is penalised (and retained); `choose_layers` picks them by probe quality.
        directions: probes, whose direction points at what is to be forgotten, or a vector for each layer.
        estimator: which direction of a `ProbeSet`: "logistic" or "mean_difference".
        layer_weights: a_l for each layer; None gives each 1 / number of layers, `effect_weights` measures them.
        quantile: of the neutral tokens' projections, from which on forget tokens are penalised.
        name: for tables.
    """

    def __init__(
        self,
        layers: int | Sequence[int],
        directions: "ProbeSet | Mapping[int, Tensor]",
        *,
        estimator: Literal["logistic", "mean_difference"] = "logistic",
        layer_weights: Mapping[int, float] | None = None,
        quantile: float = 0.5,
        name: str = "projection",
    ) -> None:
        super().__init__(name, layers=as_layers(layers))
        self.directions = layer_directions(directions, self.layers, estimator)
        self.layer_weights = checked_weights(layer_weights, self.layers)
        self.quantile = quantile
        self._scales: dict[int, ProjectionScale] = {}
        self._sites = [Site(layer, "resid_post") for layer in self.layers]
        self._directions: dict[int, Tensor] = {}

    def prepare(self, model: "HookedModel", corpora: Corpora, config: UnlearnConfig) -> None:
        """Measure q and s of every layer on the original.

        Raises:
            ConfigError: at some layer the forget texts do not project beyond the neutral ones.
        """
        super().prepare(model, corpora, config)
        self._directions = {layer: unit_direction(self.directions, layer, model.d_model) for layer in self.layers}
        self._scales = measure_scales(model, corpora, self._directions, config, self.quantile, self.name)

    @property
    def scales(self) -> dict[int, ProjectionScale]:
        """q and s of each layer, once they are measured."""
        return self._scales

    def loss(
        self, model: "HookedModel", batch: TokenBatch, mask: Bool[Tensor, "batch pos"], targets: Any
    ) -> tuple[Float[Tensor, ""], Logs]:
        """The weighted sum over layers."""
        trace = model.run(batch, reads=self._sites)
        terms = [
            self.layer_weights[layer]
            * projection_hinge(trace[site], mask, self._directions[layer], self._scales[layer])
            for layer, site in zip(self.layers, self._sites, strict=True)
        ]
        return torch.stack(terms).sum(), {}


def checked_weights(layer_weights: Mapping[int, float] | None, layers: Sequence[int]) -> dict[int, float]:
    """A weight for each layer; equal ones that sum to 1 where none are given.

    Raises:
        ConfigError: they are for other layers.
    """
    if layer_weights is None:
        return {layer: 1 / len(layers) for layer in layers}
    if set(layer_weights) != set(layers):
        raise ConfigError(f"layer_weights are for layers {sorted(layer_weights)}, the objective has {list(layers)}")
    return dict(layer_weights)
