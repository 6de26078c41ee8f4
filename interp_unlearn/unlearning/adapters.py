"""Low-rank adapters as the trained tensors: put on for a run, merged into the weights after it."""

import logging
from collections.abc import Generator, Iterator, Mapping
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

import torch
from torch import nn

from interp_unlearn.errors import BackendError, ConfigError
from interp_unlearn.models import parameters_by_role
from interp_unlearn.unlearning.config import LoraConfig, UnlearnConfig
from interp_unlearn.unlearning.reference import change_table

if TYPE_CHECKING:
    import pandas as pd

    from interp_unlearn.interventions import HookedModel

logger = logging.getLogger(__name__)

_KEPT = 0.8
"""Least share of the adapters' change that has to survive merging, or a warning is given."""


class Adapters:
    """The adapters of one run.

    Attributes:
        factors: the trained tensors by name: two for each adapted matrix.
    """

    def __init__(self, hf: nn.Module, layers: Mapping[str, Any]) -> None:
        self._hf = hf
        self._layers = dict(layers)
        owned = {id(parameter) for layer in self._layers.values() for parameter in layer.parameters()}
        self.factors: dict[str, nn.Parameter] = {
            name: parameter for name, parameter in hf.named_parameters() if id(parameter) in owned and ".lora_" in name
        }

    def changed(self) -> "pd.DataFrame":
        """What merging will do to the matrices, see `change_table`; in half precision less than the adapters do.

        Warns where a fifth of the change or more is rounded away.
        """

        def changes() -> Iterator[tuple[str, torch.Tensor, torch.Tensor]]:
            kept = whole = 0.0
            for name, layer in self._layers.items():
                before = layer.get_base_layer().weight.detach()
                delta = layer.get_delta_weight("default").detach().to(before.dtype)
                rounded = (before + delta).double() - before.double()
                kept += float((rounded * delta.double()).sum())
                whole += float(delta.double().square().sum())
                yield f"{name}.weight", before, rounded
            if whole and kept / whole < _KEPT:
                logger.warning(
                    "of what the adapters do, %.0f%% is left once it is added to the weights in their precision: the "
                    "model that is written differs from the one that was trained; load it in float32",
                    100 * kept / whole,
                )

        with torch.no_grad():
            return change_table(changes())

    def merge(self) -> None:
        """Add the adapters to the matrices they are on; the model's own modules come back by `removed`."""
        for layer in self._layers.values():
            layer.merge()

    def remove(self) -> None:
        """Put the modules back that the adapters wrap."""
        for name, layer in self._layers.items():
            parent, _, leaf = name.rpartition(".")
            setattr(self._hf.get_submodule(parent), leaf, layer.get_base_layer())
        self._layers = {}
        vars(self._hf).pop("peft_config", None)  # peft leaves it, and would take the next adapters for additional ones


@contextmanager
def adapters(model: "HookedModel", config: UnlearnConfig, lora: LoraConfig) -> Generator[Adapters]:
    """Put adapters on the matrices that a run names; on leaving they are off, merged if the block merged them.

    The second factor starts at zero, so that the model is at first unchanged, and `Reference` of the factors is the
    original. Source: Hu et al. 2021, arXiv 2106.09685.

    Raises:
        ConfigError: peft is not installed, or a role matches nothing.
        BackendError: the backend looks at modules that the adapters replace.
    """
    if model.backend != "torch":
        raise BackendError(f"lora needs the backend torch, got {model.backend}; load the model with it for training")
    try:
        import peft
    except ImportError as error:
        raise ConfigError("lora needs peft; install interp-unlearn[lora]") from error
    assert config.roles is not None  # the config refuses it
    matrices = parameters_by_role(model.hf, config.roles, config.layers)
    targets = [name.removesuffix(".weight") for name in matrices]
    flags = [(parameter, parameter.requires_grad) for parameter in model.hf.parameters()]
    settings = peft.LoraConfig(r=lora.rank, lora_alpha=lora.alpha, lora_dropout=0.0, target_modules=targets)  # pyright: ignore[reportArgumentType]
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(lora.seed)
        peft.inject_adapter_in_model(settings, model.hf)
    for parameter, required in flags:
        parameter.requires_grad_(required)
    put_on = Adapters(model.hf, {name: model.hf.get_submodule(name) for name in targets})
    try:
        yield put_on
    finally:
        put_on.remove()
