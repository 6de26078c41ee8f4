"""What the training loop asks of an objective."""

from abc import ABC, abstractmethod
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from jaxtyping import Bool, Float
from torch import Tensor

from interp_unlearn.errors import ConfigError
from interp_unlearn.models import TokenBatch
from interp_unlearn.unlearning.config import UnlearnConfig
from interp_unlearn.unlearning.corpora import Corpora, CorpusName, TokenCorpus, scheduled_rows

if TYPE_CHECKING:
    from interp_unlearn.interventions import HookedModel

Logs = dict[str, float]


class Objective(ABC):
    """One way to unlearn: a loss on the rows to forget. What must not change is the loop's business (`Retention`).

    A step goes: `batch`, then `targets` without gradients, then `loss`.

    Attributes:
        name: as in the registry and in result tables.
        layers: blocks at whose output retained activations are compared; empty for objectives that name none.
        source: the corpus the rows come from.
        retains: whether the retain terms are added.
        relative: whether the activation term is the relative MSE, or RMU's plain one.
        meta: whether the objective is trained against an inner adversary by default.
        needs_original: whether `targets` must be called on the original weights.
    """

    def __init__(
        self,
        name: str,
        *,
        source: CorpusName = "forget",
        layers: tuple[int, ...] = (),
        retains: bool = True,
        relative: bool = True,
        meta: bool = False,
        needs_original: bool = False,
    ) -> None:
        self.name = name
        self.source: CorpusName = source
        self.layers = layers
        self.retains = retains
        self.relative = relative
        self.meta = meta
        self.needs_original = needs_original

    def corpus(self, corpora: Corpora) -> TokenCorpus:
        """The rows the objective's loss is over.

        Raises:
            ConfigError: the data lacks them.
        """
        return corpora.require(self.source, self.name)

    def prepare(self, model: "HookedModel", corpora: Corpora, config: UnlearnConfig) -> None:
        """Called once, on the original weights, before training.

        Raises:
            ConfigError: the objective does not fit the model or the data.
        """
        outside = [layer for layer in self.layers if not 0 <= layer < model.n_layers]
        if outside:
            raise ConfigError(
                f"objective {self.name}: layers {outside} out of range; the model has layers 0 to {model.n_layers - 1}"
            )

    def batch(self, model: "HookedModel", corpora: Corpora, config: UnlearnConfig, step: int) -> TokenBatch:
        """The rows of a step; by default those the schedule gives."""
        corpus = self.corpus(corpora)
        rows = scheduled_rows(len(corpus), config.batch_size, step, config.seed, self.source)
        return corpus.batch(rows, model.device)

    def targets(self, model: "HookedModel", batch: TokenBatch) -> Any:
        """What the loss is measured against; called without gradients, on the original weights if `needs_original`."""
        return None

    @abstractmethod
    def loss(
        self, model: "HookedModel", batch: TokenBatch, mask: Bool[Tensor, "batch pos"], targets: Any
    ) -> tuple[Float[Tensor, ""], Logs]:
        """The loss over the masked tokens, with its graph, and numbers worth keeping in the history."""


def as_layers(layers: int | Sequence[int]) -> tuple[int, ...]:
    """Layers in ascending order, each once.

    Raises:
        ConfigError: there are none.
    """
    chosen = (layers,) if isinstance(layers, int) else tuple(sorted(set(layers)))
    if not chosen:
        raise ConfigError("layers is empty; give at least one layer, counted from 0")
    return chosen
