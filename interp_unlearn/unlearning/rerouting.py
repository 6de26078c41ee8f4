"""Representation rerouting: activations on forget texts are led away from where the original has them."""

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import torch
from jaxtyping import Bool, Float
from torch import Tensor

from interp_unlearn.models import TokenBatch
from interp_unlearn.objectives import rerouting_forget
from interp_unlearn.sites import Site
from interp_unlearn.unlearning.objective import Logs, Objective, as_layers

if TYPE_CHECKING:
    from interp_unlearn.interventions import HookedModel


class Rerouting(Objective):
    """`c_s relu(cos(h, h0))` on forget texts, `c_r ||h - h0||_2` on retain texts; the weights trade places over time.

    `c_s = 1 - t / 2T` falls from 1 to a half while `c_r`, a factor of the config's `retain_weight`, rises from 0 to a
    half. Source: circuit breakers, Zou et al. 2024, arXiv 2406.04313, equation 1 and algorithm 1, published with LoRA
    of rank 16 and without a KL term.

    Caveat: orthogonal to what it was is not empty; what is said from there is often broken.

    Args:
        layers: blocks at whose output activations are led away, and retained.
        name: for tables.
    """

    def __init__(self, layers: int | Sequence[int], *, name: str = "rerouting") -> None:
        super().__init__(name, layers=as_layers(layers), hidden="distance", needs_original=True)
        self._sites = [Site(layer, "resid_post") for layer in self.layers]

    def schedule(self, progress: float) -> tuple[float, float]:
        """Algorithm 1's coefficients, with alpha left to the config's weights."""
        return 1 - progress / 2, progress / 2

    def targets(self, model: "HookedModel", batch: TokenBatch) -> Any:
        """The original's activations."""
        return model.run(batch, reads=self._sites)

    def loss(
        self, model: "HookedModel", batch: TokenBatch, mask: Bool[Tensor, "batch pos"], targets: Any
    ) -> tuple[Float[Tensor, ""], Logs]:
        """The mean over layers."""
        trace = model.run(batch, reads=self._sites)
        return torch.stack([rerouting_forget(trace[site], targets[site], mask) for site in self._sites]).mean(), {}
