"""Direct preference optimisation on pairs: the civil completion of a prompt over the toxic one."""

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from jaxtyping import Bool, Float
from torch import Tensor

from interp_unlearn.errors import ConfigError
from interp_unlearn.models import TokenBatch
from interp_unlearn.objectives import dpo, preference_margin, sequence_log_probability
from interp_unlearn.unlearning.config import UnlearnConfig
from interp_unlearn.unlearning.corpora import Corpora
from interp_unlearn.unlearning.objective import Logs, Objective

if TYPE_CHECKING:
    from interp_unlearn.interventions import HookedModel


class DPO(Objective):
    """`-log sigmoid(beta ((log p(c) - log p0(c)) - (log p(f) - log p0(f))))` with f a forget row, c its counterpart.

    Log-probabilities are sums over the completion, or over the whole text where a row has none; what both share
    cancels, so `forget_on` changes nothing. p0 is the frozen original. Source: Rafailov et al. 2023, arXiv 2305.18290;
    for toxicity Lee et al. 2024, arXiv 2401.01967, with beta 0.1 and without other retain terms: set `retain_weight`
    and `kl_weight` to 0 for that, as their recipe here does.

    Caveat: only the difference is rewarded. The history has both sides apart: `chosen` and `rejected` are the mean
    log-ratios to the original in nats a row, `accuracy` is the share of pairs in the right order.

    Args:
        beta: inverse temperature.
        layers: blocks at whose output retained activations are compared; none leaves the KL term alone.
        name: for tables.
    """

    stacks = 2

    def __init__(self, beta: float = 0.1, *, layers: Sequence[int] = (), name: str = "dpo") -> None:
        super().__init__(name, layers=tuple(layers), needs_original=True, needs_logits=True)
        if not 0 < beta < float("inf"):
            raise ConfigError(f"objective {name}: beta must be more than 0 and finite, got {beta}")
        self.beta = beta

    def prepare(self, model: "HookedModel", corpora: Corpora, config: UnlearnConfig) -> None:
        """Check that there are pairs.

        Raises:
            ConfigError: the data has no counterparts.
        """
        super().prepare(model, corpora, config)
        corpora.require("counterparts", self.name)

    def rows(self, model: "HookedModel", corpora: Corpora, rows: Sequence[int]) -> TokenBatch:
        """The forget rows, then their counterparts in the same order."""
        return corpora.pairs(rows, self.name, model.device)

    def weight(self, batch: TokenBatch, mask: Bool[Tensor, "batch pos"]) -> float:
        """The pairs, over which the loss is a mean."""
        return len(batch.input_ids) / 2

    def targets(self, model: "HookedModel", batch: TokenBatch) -> Any:
        """The original's log-probability of each row."""
        return _log_probabilities(model, batch)

    def loss(
        self, model: "HookedModel", batch: TokenBatch, mask: Bool[Tensor, "batch pos"], targets: Any
    ) -> tuple[Float[Tensor, ""], Logs]:
        """The mean over pairs."""
        rejected, chosen = _log_probabilities(model, batch).chunk(2)
        reference_rejected, reference_chosen = targets.to(chosen.device).chunk(2)
        margin = preference_margin(chosen, rejected, reference_chosen, reference_rejected)
        logs = {
            "chosen": (chosen - reference_chosen).mean().item(),
            "rejected": (rejected - reference_rejected).mean().item(),
            "accuracy": (margin > 0).double().mean().item(),
        }
        return dpo(margin, self.beta), logs


def _log_probabilities(model: "HookedModel", batch: TokenBatch) -> Float[Tensor, " batch"]:
    logits = model.run(batch, logits=True).logits
    counted = batch.content_mask if batch.completion_mask is None else batch.completion_mask & batch.content_mask
    assert logits is not None
    return sequence_log_probability(logits, batch.input_ids, counted)
