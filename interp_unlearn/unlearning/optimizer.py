"""The optimiser of a run, over float32 copies where the weights are held in half precision."""

from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor, nn

from interp_unlearn.models.processes import sharded_like, whole
from interp_unlearn.unlearning.config import UnlearnConfig

_OPTIMIZERS = {"adamw": torch.optim.AdamW, "sgd": torch.optim.SGD, "rmsprop": torch.optim.RMSprop}


class Optimizer:
    """One of torch's optimisers. Half-precision tensors are updated through float32 masters.

    At a learning rate of 1e-5 an update of a bfloat16 weight is smaller than the gap to its neighbour and is rounded
    away; the master sums such updates up until they show.

    Args:
        trained: tensors by name, changed in place by `step`.
        config: optimiser, learning rate and weight decay.
    """

    def __init__(self, trained: Mapping[str, nn.Parameter], config: UnlearnConfig) -> None:
        self._trained = dict(trained)
        self._masters = {name: _master(parameter) for name, parameter in trained.items()}
        self._optimizer = _OPTIMIZERS[config.optimizer](
            list(self._masters.values()), lr=config.learning_rate, weight_decay=config.weight_decay
        )

    def step(self, gradients: Mapping[str, Tensor], clip: float | None) -> float:
        """Update the tensors that have a gradient.

        Returns:
            The L2 norm of the whole gradient before clipping.
        """
        for name, master in self._masters.items():
            master.grad = gradients[name].to(master.dtype) if name in gradients else None
        limit = float("inf") if clip is None else clip
        norm = float(whole(torch.nn.utils.clip_grad_norm_(self._masters.values(), limit)))
        self._optimizer.step()
        with torch.no_grad():
            for name, master in self._masters.items():
                master.grad = None
                if master is not self._trained[name]:
                    self._trained[name].copy_(master)
        return norm

    def state(self) -> dict[str, Tensor]:
        """Masters and moments by name, for a checkpoint; beside the trained tensors themselves."""
        found: dict[str, Tensor] = {}
        for name, master in self._masters.items():
            if master is not self._trained[name]:
                found[f"master.{name}"] = master.detach()
            for key, value in self._optimizer.state[master].items():
                found[f"moment.{key}.{name}"] = torch.as_tensor(value)
        return found

    def load_state(self, state: Mapping[str, Tensor]) -> None:
        """Go on from a checkpoint's state; the trained tensors have their values of then already."""
        for name, master in self._masters.items():
            if master is not self._trained[name]:
                with torch.no_grad():
                    master.copy_(sharded_like(state[f"master.{name}"], master))
            moments: dict[str, Any] = {}
            for key, value in state.items():
                kind, _, rest = key.partition(".")
                moment, _, owner = rest.partition(".")
                if kind == "moment" and owner == name:
                    # The counter of steps stays on the CPU, as torch keeps it.
                    copied = value.clone() if value.ndim == 0 else value.to(master.device, copy=True)
                    moments[moment] = copied if value.ndim == 0 else sharded_like(copied, master)
            if moments:
                self._optimizer.state[master] = moments


def _master(parameter: nn.Parameter) -> nn.Parameter:
    if parameter.element_size() >= 4:
        return parameter
    return nn.Parameter(parameter.detach().float().clone())
