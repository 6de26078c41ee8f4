"""The frozen original without a second model: the trained tensors' first values, swapped in for a forward pass."""

from collections.abc import Generator, Iterable, Mapping
from contextlib import contextmanager
from typing import TYPE_CHECKING

import torch
from torch import Tensor, nn

from interp_unlearn.errors import ConfigError
from interp_unlearn.models import check_trainable, parameters_by_role
from interp_unlearn.models.processes import whole
from interp_unlearn.unlearning.config import UnlearnConfig

if TYPE_CHECKING:
    import pandas as pd

    from interp_unlearn.interventions import HookedModel


def trained_tensors(model: "HookedModel", config: UnlearnConfig) -> dict[str, nn.Parameter]:
    """The tensors that a run may change, by name.

    Raises:
        ConfigError: a role matches nothing, a layer is out of range, layers were named without roles, or a tensor is
            quantised.
    """
    if config.roles is not None:
        return parameters_by_role(model.hf, config.roles, config.layers)
    if config.layers is not None:
        raise ConfigError("roles=None trains every parameter, so layers must be None too; name roles to choose layers")
    every = dict(model.hf.named_parameters())
    check_trainable(every)
    return every


class Reference:
    """The original values of the tensors that training may change. Everything else is shared with the model.

    Values are swapped in place, so every view of a parameter (another backend's mirror, a tied head) sees them. A graph
    that is alive across a swap cannot be differentiated any more: autograd finds the tensors modified and raises. Take
    the reference pass before the student's forward.

    Args:
        trained: the tensors to remember, by name.
    """

    def __init__(self, trained: Mapping[str, nn.Parameter]) -> None:
        self._trained = dict(trained)
        self._original = {name: parameter.detach().clone() for name, parameter in self._trained.items()}
        self._active = False

    @property
    def tensors(self) -> Mapping[str, nn.Parameter]:
        """The tensors themselves, with their current values."""
        return self._trained

    @contextmanager
    def original(self) -> Generator[None]:
        """Inside the block the model is the original, without gradients; afterwards it is as it was, bit for bit."""
        if self._active:
            with torch.no_grad():
                yield
            return
        current = {name: parameter.detach().clone() for name, parameter in self._trained.items()}
        self._active = True
        try:
            self._write(self._original)
            with torch.no_grad():
                yield
        finally:
            self._write(current)
            self._active = False

    def restore(self) -> None:
        """Put the original values back for good."""
        self._write(self._original)

    def changed(self) -> "pd.DataFrame":
        """One row a tensor, see `change_table`."""

        def changes() -> Iterable[tuple[str, Tensor, Tensor]]:
            for name, parameter in self._trained.items():
                before = whole(self._original[name])
                yield name, before, whole(parameter.detach()).double() - before.double()

        return change_table(changes())

    def _write(self, values: Mapping[str, Tensor]) -> None:
        with torch.no_grad():
            for name, parameter in self._trained.items():
                parameter.copy_(values[name])


def change_table(changes: Iterable[tuple[str, Tensor, Tensor]]) -> "pd.DataFrame":
    """What became of tensors.

    Args:
        changes: name, value before, and what was added to it.

    Returns:
        One row a tensor: its name, elements, the share of them that moved, change (||W - W0||, Frobenius) and
        relative_change (that over ||W0||; infinite where W0 was zero, as a bias may be).
    """
    import pandas as pd

    rows: list[dict[str, object]] = []
    for name, before, delta in changes:
        change, size = float(delta.double().norm()), float(before.double().norm())
        rows.append(
            {
                "tensor": name,
                "elements": before.numel(),
                "moved": float((delta != 0).double().mean()),
                "change": change,
                "relative_change": change / size if size else (float("inf") if change else 0.0),
            }
        )
    return pd.DataFrame(rows, columns=["tensor", "elements", "moved", "change", "relative_change"])
