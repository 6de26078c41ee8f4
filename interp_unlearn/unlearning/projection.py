"""A penalty on how far forget text lies beyond neutral text along each layer's probe direction."""

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any, Literal

import torch
from jaxtyping import Bool, Float
from torch import Tensor

from interp_unlearn.errors import ConfigError
from interp_unlearn.models import TokenBatch
from interp_unlearn.objectives import ProjectionScale, projection_hinge, projection_scale
from interp_unlearn.sites import Site
from interp_unlearn.unlearning.config import UnlearnConfig
from interp_unlearn.unlearning.corpora import Corpora, TokenCorpus, forget_mask
from interp_unlearn.unlearning.misdirection import unit_direction
from interp_unlearn.unlearning.objective import Logs, Objective, as_layers

if TYPE_CHECKING:
    from interp_unlearn.interventions import HookedModel
    from interp_unlearn.probes import ProbeSet

SCALE_BATCH = 64


class ProjectionPenalty(Objective):
    """`sum_l a_l mean_t relu((h_lt . w_l - q_l) / s_l)^2` on forget text.

    q_l is the median projection of neutral tokens and s_l the forget tokens' median minus it, both on the original. Our
    reading of the multi-layer probe-direction objective of Atil et al. 2026, arXiv 2605.26454 (abstract only).

    Args:
        layers: blocks whose output is penalised (and retained).
        directions: probes, whose direction points at what is to be forgotten, or a vector for each layer.
        estimator: which direction of a `ProbeSet`: "logistic" or "mean_difference".
        layer_weights: a_l for each layer; None gives each 1 / number of layers.
        name: for tables.
    """

    def __init__(
        self,
        layers: int | Sequence[int],
        directions: "ProbeSet | Mapping[int, Tensor]",
        *,
        estimator: Literal["logistic", "mean_difference"] = "logistic",
        layer_weights: Mapping[int, float] | None = None,
        name: str = "projection",
    ) -> None:
        super().__init__(name, layers=as_layers(layers))
        if isinstance(directions, Mapping):
            self.directions = dict(directions)
        else:
            self.directions = {
                layer: directions.direction(Site(layer, "resid_post"), estimator) for layer in self.layers
            }
        if layer_weights is not None and set(layer_weights) != set(self.layers):
            raise ConfigError(
                f"layer_weights are for layers {sorted(layer_weights)}, the objective has {list(self.layers)}"
            )
        self.layer_weights = layer_weights or {layer: 1 / len(self.layers) for layer in self.layers}
        self.scales: dict[int, ProjectionScale] = {}
        self._sites = [Site(layer, "resid_post") for layer in self.layers]
        self._directions: dict[int, Tensor] = {}

    def prepare(self, model: "HookedModel", corpora: Corpora, config: UnlearnConfig) -> None:
        """Measure q and s of every layer on the original.

        Raises:
            ConfigError: at some layer the forget texts do not project beyond the neutral ones.
        """
        super().prepare(model, corpora, config)
        self._directions = {layer: unit_direction(self.directions, layer, model.d_model) for layer in self.layers}
        forget = self._projections(model, self.corpus(corpora), config)
        neutral = self._projections(model, corpora.require("neutral", self.name), config)
        for layer in self.layers:
            try:
                self.scales[layer] = projection_scale(forget[layer], neutral[layer])
            except ConfigError as error:
                raise ConfigError(f"objective {self.name}, layer {layer}: {error}") from error

    def loss(
        self, model: "HookedModel", batch: TokenBatch, mask: Bool[Tensor, "batch pos"], targets: Any
    ) -> tuple[Float[Tensor, ""], Logs]:
        """The weighted sum over layers."""
        trace = model.run(batch, reads=self._sites)
        terms = [
            self.layer_weights[layer] * projection_hinge(trace[site], mask, self._directions[layer], self.scales[layer])
            for layer, site in zip(self.layers, self._sites, strict=True)
        ]
        return torch.stack(terms).sum(), {}

    @torch.no_grad()
    def _projections(
        self, model: "HookedModel", corpus: TokenCorpus, config: UnlearnConfig
    ) -> dict[int, Float[Tensor, " tokens"]]:
        found: dict[int, list[Tensor]] = {layer: [] for layer in self.layers}
        by_length = sorted(range(len(corpus)), key=lambda row: len(corpus.rows[row]))
        for first in range(0, len(by_length), SCALE_BATCH):
            batch = corpus.batch(by_length[first : first + SCALE_BATCH], model.device)
            trace, mask = model.run(batch, reads=self._sites), forget_mask(batch, config)
            for layer, site in zip(self.layers, self._sites, strict=True):
                found[layer].append(trace[site][mask].float() @ self._directions[layer].to(model.device))
        return {layer: torch.cat(parts) for layer, parts in found.items()}
