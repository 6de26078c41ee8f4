"""MUDMAN's adversary: one that keeps relearning beside the model, instead of starting anew at every step."""

from collections.abc import Callable, Mapping, Sequence
from typing import TYPE_CHECKING

import torch
from torch import Tensor, nn

from interp_unlearn.models import TokenBatch
from interp_unlearn.unlearning.adversary import borrowed, gradient, relearning_loss
from interp_unlearn.unlearning.config import ForkConfig, UnlearnConfig

if TYPE_CHECKING:
    from interp_unlearn.interventions import HookedModel


class Fork:
    """The attacker's own weights, of every parameter.

    Source: Sondej et al. 2025, arXiv 2506.12484: set back to the main weights every so many updates, one step of
    cross-entropy on the forget batch an update, and the forget gradient taken where it stands. Kept in float32, also
    where the model is held in half precision, whose spacing would swallow small steps.

    Args:
        config: how often it is set back, and its learning rate.
    """

    def __init__(self, config: ForkConfig) -> None:
        self.config = config
        self._weights: dict[str, Tensor] = {}

    def gradient(
        self,
        model: "HookedModel",
        trained: Mapping[str, nn.Parameter],
        batch: TokenBatch,
        losses: Sequence[Callable[[], Tensor]],
        step: int,
        config: UnlearnConfig,
    ) -> list[Tensor]:
        """Relearn for one step, then take the forget gradient there; the model's weights come back bit for bit.

        Args:
            model: whose weights are lent.
            trained: tensors the gradient is with respect to.
            batch: forget rows that are relearned.
            losses: the forget loss of each batch at the current weights, with its share; they are added up.
            step: of the run.
            config: of the run.
        """
        named = dict(model.hf.named_parameters())
        if step % self.config.refork == 0 or not self._weights:
            self._weights = {name: _master(parameter) for name, parameter in named.items()}
        else:  # what was stored was read back onto the CPU
            self._weights = {name: self._weights[name].to(parameter.device) for name, parameter in named.items()}
        with borrowed(list(named.values())):
            with torch.no_grad():
                for name, parameter in named.items():
                    parameter.copy_(self._weights[name])
            relearning_loss(model, batch, config).backward()
            with torch.no_grad():
                for name, parameter in named.items():
                    master = self._weights[name]
                    if parameter.grad is not None:
                        master.sub_(parameter.grad.to(master.dtype), alpha=self.config.learning_rate)
                    parameter.copy_(master)
            first, *others = losses
            found = gradient(first(), list(trained.values()))
            for loss in others:
                for total, part in zip(found, gradient(loss(), list(trained.values())), strict=True):
                    total.add_(part)
            return found

    def state(self) -> dict[str, Tensor]:
        """The attacker's weights, for a checkpoint."""
        return dict(self._weights)

    def load_state(self, state: Mapping[str, Tensor]) -> None:
        """Go on from a checkpoint's state."""
        self._weights = {name: tensor.clone() for name, tensor in state.items()}


def _master(parameter: nn.Parameter) -> Tensor:
    return parameter.detach().to(torch.promote_types(parameter.dtype, torch.float32), copy=True)
