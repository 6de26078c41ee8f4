"""What must not change: activations and predictions on retain text, held to the frozen original's."""

from dataclasses import dataclass
from typing import TYPE_CHECKING

import torch
from jaxtyping import Bool, Float
from torch import Tensor

from interp_unlearn.models import TokenBatch
from interp_unlearn.objectives import cross_entropy, distance, kl, mse, relative_mse
from interp_unlearn.sites import Site
from interp_unlearn.unlearning.objective import HiddenTerm, Logs

if TYPE_CHECKING:
    from interp_unlearn.interventions import HookedModel, Trace


_COMPARISONS = {"relative_mse": relative_mse, "mse": mse, "distance": distance}


@dataclass(frozen=True)
class Retention:
    """`hidden_weight * mean over layers of the activation term + kl_weight * KL(original || model) + nll_weight * NLL`.

    The same for every objective, so that a difference between two cannot come from it. Source of the relative MSE plus
    KL: our reading of Atil et al. 2026, arXiv 2605.26454; with the plain MSE and no KL it is RMU's own term (Li et al.
    2024, arXiv 2403.03218), with the distance that of rerouting (Zou et al. 2024, arXiv 2406.04313), with NLL alone
    that of GradDiff.

    Attributes:
        layers: blocks at whose output activations are compared.
        hidden_weight: of the activation term.
        kl_weight: of the KL term, nats per token; 0 ends the pass after the deepest layer.
        hidden: how activations are compared.
        nll_weight: of next-token cross-entropy on the retain texts, nats per token.
    """

    layers: tuple[int, ...]
    hidden_weight: float
    kl_weight: float
    hidden: HiddenTerm = "relative_mse"
    nll_weight: float = 0.0

    @property
    def active(self) -> bool:
        """Whether there is anything to hold."""
        return self.needs_logits or (self.hidden_weight > 0 and bool(self.layers))

    @property
    def needs_logits(self) -> bool:
        """Whether the pass has to go all the way."""
        return self.kl_weight > 0 or self.nll_weight > 0

    @property
    def needs_original(self) -> bool:
        """Whether there is anything to compare with the original."""
        return self.kl_weight > 0 or (self.hidden_weight > 0 and bool(self.layers))

    def run(self, model: "HookedModel", batch: TokenBatch) -> "Trace":
        """The pass whose activations and logits are compared, as deep as the terms need."""
        reads = [Site(layer, "resid_post") for layer in self.layers] if self.hidden_weight > 0 else []
        return model.run(batch, reads=reads, logits=self.needs_logits)

    def loss(
        self,
        before: "Trace | None",
        after: "Trace",
        batch: TokenBatch,
        mask: Bool[Tensor, "batch pos"],
        shares: tuple[float, float] = (1.0, 1.0),
    ) -> tuple[Float[Tensor, ""], Logs]:
        """The weighted retain loss, and its unweighted terms.

        Args:
            before: the original's pass.
            after: the model's.
            batch: what both ran on.
            mask: tokens over which activations are compared.
            shares: of the update's tokens and predictions that are in this batch, where it has several.
        """
        of_tokens, of_predictions = shares
        terms: list[Tensor] = []
        logs: Logs = {}
        if self.hidden_weight > 0 and self.layers:
            compare = _COMPARISONS[self.hidden]
            assert before is not None
            sites = [Site(layer, "resid_post") for layer in self.layers]
            hidden = torch.stack([compare(after[site], before[site], mask) for site in sites]).mean() * of_tokens
            terms.append(self.hidden_weight * hidden)
            logs["retain_hidden"] = hidden.item()
        if self.kl_weight > 0:
            assert before is not None and before.logits is not None and after.logits is not None
            divergence = kl(before.logits, after.logits, batch.content_mask) * of_predictions
            terms.append(self.kl_weight * divergence)
            logs["retain_kl"] = divergence.item()
        if self.nll_weight > 0:
            assert after.logits is not None
            nll = cross_entropy(after.logits, batch.input_ids, batch.content_mask) * of_predictions
            terms.append(self.nll_weight * nll)
            logs["retain_nll"] = nll.item()
        return sum(terms[1:], terms[0]), logs
