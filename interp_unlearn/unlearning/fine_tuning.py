"""Plain next-token training: on civil replies it is the baseline to beat, on forget texts the relearning attack."""

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from jaxtyping import Bool, Float
from torch import Tensor

from interp_unlearn.models import TokenBatch
from interp_unlearn.objectives import cross_entropy
from interp_unlearn.unlearning.corpora import CorpusName
from interp_unlearn.unlearning.objective import Logs, Objective

if TYPE_CHECKING:
    from interp_unlearn.interventions import HookedModel


class FineTuning(Objective):
    """Cross-entropy in nats per token on one corpus (on its completions alone where the config says so).

    Args:
        on: the corpus that is learned.
        layers: blocks at whose output retained activations are compared; none leaves the KL term alone.
        retains: whether the retain terms are added.
        name: for tables.
    """

    def __init__(
        self,
        on: CorpusName = "neutral",
        *,
        layers: Sequence[int] = (),
        retains: bool = True,
        name: str = "fine_tuning",
    ) -> None:
        super().__init__(name, source=on, layers=tuple(layers), retains=retains, needs_logits=True)

    def loss(
        self, model: "HookedModel", batch: TokenBatch, mask: Bool[Tensor, "batch pos"], targets: Any
    ) -> tuple[Float[Tensor, ""], Logs]:
        """The mean over the masked tokens."""
        logits = model.run(batch, logits=True).logits
        assert logits is not None
        return cross_entropy(logits, batch.input_ids, mask), {}
