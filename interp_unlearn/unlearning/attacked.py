"""What the adversary of a run, of either kind, does to the forget gradient."""

from collections.abc import Mapping, Sequence
from functools import partial
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, nn

from interp_unlearn.errors import ConfigError
from interp_unlearn.models import TokenBatch
from interp_unlearn.objectives import relative_mse
from interp_unlearn.sites import Site
from interp_unlearn.unlearning.adversary import Attack, attacked_gradient, draw_attack
from interp_unlearn.unlearning.config import AdversaryConfig, ForkConfig, UnlearnConfig
from interp_unlearn.unlearning.corpora import Corpora, forget_mask
from interp_unlearn.unlearning.fork import Fork
from interp_unlearn.unlearning.gradients import Gradients, added, norm_of, shares_of
from interp_unlearn.unlearning.objective import Logs, Objective

if TYPE_CHECKING:
    from interp_unlearn.interventions import HookedModel, Trace


class AttackedGradients:
    """The adversary of one run.

    Args:
        model: being trained.
        objective: whose loss is taken at attacked weights.
        corpora: of the run; the forget texts are what is relearned, whatever the objective's own texts.
        config: of the run.
        adversary: the inner attacker, or MUDMAN's.
        trained: tensors the gradients are with respect to.

    Raises:
        ConfigError: the attacker is to bring back activations and the objective names no layers.
    """

    def __init__(
        self,
        model: "HookedModel",
        objective: Objective,
        corpora: Corpora,
        config: UnlearnConfig,
        adversary: AdversaryConfig | ForkConfig,
        trained: Mapping[str, nn.Parameter],
    ) -> None:
        self._model = model
        self._objective = objective
        self._corpora = corpora
        self._config = config
        self._adversary = adversary
        self._trained = dict(trained)
        self._fork = Fork(adversary) if isinstance(adversary, ForkConfig) else None
        self._attack: Attack | None = None
        self._targets: Any = None
        self._remembered: list[Trace] = []
        self._sites = [Site(layer, "resid_post") for layer in objective.layers]
        self._restores = isinstance(adversary, AdversaryConfig) and adversary.relearns == "activations"
        if self._restores and not self._sites:
            raise ConfigError(f"objective {objective.name} names no layers whose activations could be relearned")

    @property
    def needs_original(self) -> bool:
        """Whether `draw` has to be called on the original weights."""
        return self._objective.needs_original or self._restores

    def draw(self, step: int, batches: Sequence[TokenBatch]) -> None:
        """Draw a step's attack, and what its losses are measured against; without gradients.

        Args:
            step: of the run.
            batches: of the step, on which MUDMAN's gradient is taken.
        """
        model, objective, corpora = self._model, self._objective, self._corpora
        if not isinstance(self._adversary, AdversaryConfig):
            self._targets = [objective.targets(model, batch) for batch in batches]
            return

        def outer(rows: list[int]) -> TokenBatch:
            # A loss on other texts than those the attacker relearns has nothing to keep apart.
            return objective.rows(model, corpora, rows) if objective.source == "forget" else batches[0]

        self._attack = draw_attack(corpora.forget, self._adversary, self._config.seed, step, model.device, outer)
        self._targets = objective.targets(model, self._attack.outer)
        if self._restores:
            self._remembered = [model.run(rows, reads=self._sites) for rows in self._attack.inner]

    def add_to(
        self, gradients: Gradients, step: int, batches: Sequence[TokenBatch], weight: float
    ) -> tuple[Gradients, Logs]:
        """The forget gradient with the inner attacker's added, or MUDMAN's in its place; call after `draw`.

        Args:
            gradients: at the weights themselves.
            step: of the run.
            batches: of the step.
            weight: of the forget loss at this step.
        """
        if self._fork is not None:
            return self._forked(self._fork, step, batches, weight), {}
        attack = self._attack
        assert attack is not None and isinstance(self._adversary, AdversaryConfig)
        extra = attacked_gradient(
            self._model,
            self._trained,
            attack,
            lambda: self._loss(attack.outer, self._targets),
            norm_of(gradients.values()),
            self._adversary,
            self._config,
            self._restoring_loss if self._restores else None,
        )
        return added(gradients, dict(zip(self._trained, extra, strict=True))), {
            "attack_learning_rate": attack.learning_rate
        }

    def state(self) -> dict[str, Tensor]:
        """What a checkpoint has to remember: MUDMAN's weights."""
        return {} if self._fork is None else self._fork.state()

    def load_state(self, state: Mapping[str, Tensor]) -> None:
        """Go on from a checkpoint's state."""
        if self._fork is not None:
            self._fork.load_state(state)

    def _loss(self, batch: TokenBatch, targets: Any) -> Tensor:
        return self._objective.loss(self._model, batch, forget_mask(batch, self._config), targets)[0]

    def _forked(self, fork: Fork, step: int, batches: Sequence[TokenBatch], weight: float) -> Gradients:
        config, forget = self._config, self._corpora.forget
        rows = forget.scheduled(config.batch_size * config.accumulation, step, config.seed, "fork")
        relearned = forget.batch(rows, self._model.device)
        counts = [self._objective.weight(batch, forget_mask(batch, config)) for batch in batches]
        losses = [
            partial(self._weighted, batch, targets, weight * share)
            for batch, targets, share in zip(batches, self._targets, shares_of(counts), strict=True)
        ]
        found = fork.gradient(self._model, self._trained, relearned, losses, step, config)
        return dict(zip(self._trained, found, strict=True))

    def _weighted(self, batch: TokenBatch, targets: Any, weight: float) -> Tensor:
        return weight * self._loss(batch, targets)

    def _restoring_loss(self, k: int) -> Tensor:
        batch, before = self._attack.inner[k], self._remembered[k]  # pyright: ignore[reportOptionalMemberAccess]
        trace = self._model.run(batch, reads=self._sites)
        mask = forget_mask(batch, self._config)
        return torch.stack([relative_mse(trace[site], before[site], mask) for site in self._sites]).mean()
