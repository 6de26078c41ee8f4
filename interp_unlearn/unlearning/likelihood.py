"""Objectives that lower the likelihood of the forget texts: gradient ascent, GradDiff, NPO, SimNPO."""

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from jaxtyping import Bool, Float
from torch import Tensor

from interp_unlearn.errors import ConfigError
from interp_unlearn.models import TokenBatch
from interp_unlearn.objectives import cross_entropy, npo, sequence_log_probability, simnpo
from interp_unlearn.unlearning.objective import Logs, Objective

if TYPE_CHECKING:
    from interp_unlearn.interventions import HookedModel


class GradientAscent(Objective):
    """Minus the cross-entropy of the forget texts; with the retain terms it is GradDiff.

    Sources: Jang et al. 2023, arXiv 2210.01504 (ascent); Liu et al. 2022, arXiv 2203.12817, as in TOFU (Maini et al.
    2024, arXiv 2401.06121), whose retain term is cross-entropy: `nll_weight` 1 and the other weights 0.

    Caveat: the loss has no lower bound, so its end is decided by the number of steps.

    Args:
        layers: blocks at whose output retained activations are compared; none leaves the terms on predictions.
        retains: whether the retain terms are added.
        name: for tables.
    """

    def __init__(self, *, layers: Sequence[int] = (), retains: bool = False, name: str = "gradient_ascent") -> None:
        super().__init__(name, layers=tuple(layers), retains=retains, needs_logits=True)

    def loss(
        self, model: "HookedModel", batch: TokenBatch, mask: Bool[Tensor, "batch pos"], targets: Any
    ) -> tuple[Float[Tensor, ""], Logs]:
        """The mean over the masked tokens, in nats per token."""
        logits = model.run(batch, logits=True).logits
        assert logits is not None
        return -cross_entropy(logits, batch.input_ids, mask), {}


class NegativePreference(Objective):
    """NPO against the frozen original (Zhang et al. 2024), or SimNPO without one (Fan et al. 2024); see the losses.

    Published with cross-entropy on retain text: `nll_weight` 1 and the other weights 0.

    Args:
        beta: inverse temperature.
        simple: SimNPO, on the mean over a row's tokens and without a reference.
        margin: of SimNPO, nats per token.
        layers: blocks at whose output retained activations are compared; none leaves the terms on predictions.
        name: for tables.
    """

    def __init__(
        self,
        beta: float = 0.1,
        *,
        simple: bool = False,
        margin: float = 0.0,
        layers: Sequence[int] = (),
        name: str = "npo",
    ) -> None:
        super().__init__(name, layers=tuple(layers), needs_original=not simple, needs_logits=True)
        if not 0 < beta < float("inf"):
            raise ConfigError(f"objective {name}: beta must be more than 0 and finite, got {beta}")
        self.beta = beta
        self.simple = simple
        self.margin = margin

    def weight(self, batch: TokenBatch, mask: Bool[Tensor, "batch pos"]) -> float:
        """The rows, over which the loss is a mean."""
        return float(len(batch))

    def targets(self, model: "HookedModel", batch: TokenBatch) -> Any:
        """The original's logits; of SimNPO nothing."""
        return None if self.simple else model.run(batch, logits=True).logits

    def loss(
        self, model: "HookedModel", batch: TokenBatch, mask: Bool[Tensor, "batch pos"], targets: Any
    ) -> tuple[Float[Tensor, ""], Logs]:
        """The mean over rows; logs `log_probability`, mean over rows of the masked tokens' sum, in nats."""
        logits = model.run(batch, logits=True).logits
        assert logits is not None
        summed = sequence_log_probability(logits, batch.input_ids, mask)
        logs = {"log_probability": summed.mean().item()}
        if self.simple:
            return simnpo(-summed / mask[:, 1:].sum(1).clamp_min(1), self.beta, self.margin), logs
        reference = sequence_log_probability(targets.to(logits.device), batch.input_ids, mask)
        return npo(summed, reference, self.beta), logs
