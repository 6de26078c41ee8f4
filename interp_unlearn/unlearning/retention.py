"""What must not change: activations and predictions on retain text, held to the frozen original's."""

from dataclasses import dataclass
from typing import TYPE_CHECKING

import torch
from jaxtyping import Bool, Float
from torch import Tensor

from interp_unlearn.models import TokenBatch
from interp_unlearn.objectives import kl, mse, relative_mse
from interp_unlearn.sites import Site
from interp_unlearn.unlearning.objective import Logs

if TYPE_CHECKING:
    from interp_unlearn.interventions import HookedModel, Trace


@dataclass(frozen=True)
class Retention:
    """`hidden_weight * mean over layers of the activation term + kl_weight * KL(original || model)`.

    The same for every objective, so that a difference between two cannot come from it. Source of the relative MSE plus
    KL: our reading of Atil et al. 2026, arXiv 2605.26454; with `relative=False` and no KL it is RMU's own term (Li et
    al. 2024, arXiv 2403.03218).

    Attributes:
        layers: blocks at whose output activations are compared.
        hidden_weight: of the activation term.
        kl_weight: of the KL term, nats per token; 0 ends the pass after the deepest layer.
        relative: relative MSE, or the plain one.
    """

    layers: tuple[int, ...]
    hidden_weight: float
    kl_weight: float
    relative: bool = True

    @property
    def active(self) -> bool:
        """Whether there is anything to hold."""
        return self.kl_weight > 0 or (self.hidden_weight > 0 and bool(self.layers))

    def run(self, model: "HookedModel", batch: TokenBatch) -> "Trace":
        """The pass whose activations and logits are compared, as deep as the terms need."""
        reads = [Site(layer, "resid_post") for layer in self.layers] if self.hidden_weight > 0 else []
        return model.run(batch, reads=reads, logits=self.kl_weight > 0)

    def loss(
        self, before: "Trace", after: "Trace", batch: TokenBatch, mask: Bool[Tensor, "batch pos"]
    ) -> tuple[Float[Tensor, ""], Logs]:
        """The weighted retain loss, and its unweighted terms."""
        terms: list[Tensor] = []
        logs: Logs = {}
        if self.hidden_weight > 0 and self.layers:
            compare = relative_mse if self.relative else mse
            sites = [Site(layer, "resid_post") for layer in self.layers]
            hidden = torch.stack([compare(after[site], before[site], mask) for site in sites]).mean()
            terms.append(self.hidden_weight * hidden)
            logs["retain_hidden"] = hidden.item()
        if self.kl_weight > 0:
            assert before.logits is not None and after.logits is not None
            divergence = kl(before.logits, after.logits, batch.content_mask)
            terms.append(self.kl_weight * divergence)
            logs["retain_kl"] = divergence.item()
        return sum(terms[1:], terms[0]), logs
