"""What the training loop asks of an objective."""

from abc import ABC, abstractmethod
from collections.abc import Iterable, Sequence
from typing import TYPE_CHECKING, Any, Literal

from jaxtyping import Bool, Float
from torch import Tensor

from interp_unlearn.errors import ConfigError
from interp_unlearn.models import TokenBatch
from interp_unlearn.unlearning.config import AdversaryConfig, ForkConfig, UnlearnConfig
from interp_unlearn.unlearning.corpora import Corpora, CorpusName, TokenCorpus

if TYPE_CHECKING:
    from interp_unlearn.interventions import HookedModel

Logs = dict[str, float]
HiddenTerm = Literal["relative_mse", "mse", "distance"]
"""How retained activations are compared: relative MSE (ours), RMU's plain one, or rerouting's L2 distance."""


class Objective(ABC):
    """One way to unlearn: a loss on the rows to forget. What must not change is the loop's business (`Retention`).

    A step goes: `batch`, then `targets` without gradients, then `loss`.

    Attributes:
        name: as in the registry and in result tables.
        layers: blocks at whose output retained activations are compared; empty for objectives that name none.
        source: the corpus the rows come from.
        retains: whether the retain terms are added.
        hidden: how retained activations are compared.
        meta: whether the objective is trained against an inner adversary by default.
        needs_original: whether `targets` must be called on the original weights.
        needs_logits: whether the loss is on predictions, so that passes go through the whole model.
        stacks: 2 where a batch is rows and then their counterparts, which must not be parted; 1 otherwise.
    """

    stacks = 1

    def __init__(
        self,
        name: str,
        *,
        source: CorpusName = "forget",
        layers: tuple[int, ...] = (),
        retains: bool = True,
        hidden: HiddenTerm = "relative_mse",
        meta: bool = False,
        needs_original: bool = False,
        needs_logits: bool = False,
    ) -> None:
        self.name = name
        self.source: CorpusName = source
        self.layers: tuple[int, ...] = as_layers(layers) if layers else ()
        self.retains = retains
        self.hidden: HiddenTerm = hidden
        self.meta = meta
        self.needs_original = needs_original
        self.needs_logits = needs_logits

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
        """The rows of a step; by default those the schedule gives, of one topic at a time."""
        return self.rows(
            model, corpora, self.corpus(corpora).scheduled(config.batch_size, step, config.seed, self.source)
        )

    def rows(self, model: "HookedModel", corpora: Corpora, rows: Sequence[int]) -> TokenBatch:
        """The batch that given rows make; losses on pairs add the rows' counterparts."""
        return self.corpus(corpora).batch(rows, model.device)

    def adversary(self, config: UnlearnConfig) -> AdversaryConfig | ForkConfig | None:
        """What the objective is trained against: the config's attacker, or a meta-learned variant's default one."""
        return config.adversary or (AdversaryConfig() if self.meta else None)

    def schedule(self, progress: float) -> tuple[float, float]:
        """Weights of the forget loss and of the retain terms at a share of the training, from 0 to below 1."""
        return 1.0, 1.0

    def weight(self, batch: TokenBatch, mask: Bool[Tensor, "batch pos"]) -> float:
        """What a batch counts for in an update: the tokens, or predictions, that its loss is a mean over."""
        return float(mask[:, 1:].sum() if self.needs_logits else mask.sum())

    def state(self) -> dict[str, Any]:
        """What a checkpoint has to remember of the objective, as JSON; most remember nothing."""
        return {}

    def load_state(self, state: dict[str, Any]) -> None:  # noqa: B027 most have nothing to take up
        """Go on from a checkpoint's state; called after `prepare`."""

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
        ConfigError: there are none, or one is no number from 0.
    """
    given = tuple(layers) if isinstance(layers, Iterable) else (layers,)
    if wrong := [layer for layer in given if not isinstance(layer, int) or layer < 0]:  # pyright: ignore[reportUnnecessaryIsInstance]
        raise ConfigError(f"layers: expected numbers counted from 0, got {wrong[0]!r}")
    chosen = tuple(sorted(set(given)))
    if not chosen:
        raise ConfigError("layers is empty; give at least one layer, counted from 0")
    return chosen
