"""What changes weights directly, without a loss of its own: the protocol beside `Objective`."""

import time
from abc import ABC, abstractmethod
from contextlib import suppress
from dataclasses import dataclass, field, fields
from typing import TYPE_CHECKING

import torch

from interp_unlearn.errors import BackendError
from interp_unlearn.models.modes import eval_mode
from interp_unlearn.unlearning.checks import check_moved
from interp_unlearn.unlearning.config import UnlearnConfig
from interp_unlearn.unlearning.corpora import UnlearnData
from interp_unlearn.unlearning.reference import Reference, trained_tensors
from interp_unlearn.unlearning.result import UnlearnResult

if TYPE_CHECKING:
    import pandas as pd

    from interp_unlearn.interventions import HookedModel


@dataclass(frozen=True, eq=False)
class WeightEdit(ABC):
    """One way to change weights in place; a subclass says what `change` does and inherits restoring and recording.

    Attributes:
        name: as in the registry and in result tables.
    """

    name: str = field(default="weight_edit", kw_only=True)

    @abstractmethod
    def change(
        self, model: "HookedModel", data: UnlearnData, config: UnlearnConfig, reference: Reference, progress: bool
    ) -> "tuple[pd.DataFrame, pd.DataFrame]":
        """Change `reference.tensors`, which still have their original values; called without gradients.

        Returns:
            The `history` and the `curve` of the result.
        """

    def apply(
        self,
        model: "HookedModel",
        data: UnlearnData,
        config: UnlearnConfig | None = None,
        *,
        restore: bool = False,
        progress: bool = True,
    ) -> UnlearnResult:
        """Edit a model in place, in eval mode. If anything raises, the original weights are put back.

        Args:
            model: changed in place.
            data: the texts.
            config: which tensors (roles, layers) and which tokens of the texts; what an edit that does not train has no
                use for, such as the learning rate, is left aside.
            restore: put the original weights back at the end.
            progress: whether to show progress bars.

        Returns:
            The record, of the same form as that of `unlearn`; it and the model are saved in the same way.

        Raises:
            ConfigError: the edit does not fit the model or the data; a tensor has not moved, or not to finite values.
            BackendError: the backend cannot follow a change of the weights.
        """
        config = config or UnlearnConfig()
        started = time.perf_counter()
        reference = Reference(trained_tensors(model, config))
        try:
            with eval_mode(model.hf), torch.no_grad():
                history, curve = self.change(model, data, config, reference, progress)
            changed = reference.changed()
            check_moved(changed, self.name, config)
            if restore:
                reference.restore()
            model.mark_changed()
        except BaseException:
            reference.restore()
            with suppress(BackendError):  # a backend that cannot follow has said so already
                model.mark_changed()
            raise
        seconds = time.perf_counter() - started
        return UnlearnResult(self.name, config, history, changed, curve, seconds, self.settings())

    def settings(self) -> dict[str, object]:
        """What the edit was told, but for functions: part of the record."""
        values = {entry.name: getattr(self, entry.name) for entry in fields(self) if entry.name != "name"}
        return {name: value for name, value in values.items() if value is not None and not callable(value)}
