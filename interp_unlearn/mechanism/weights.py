"""A model's tensors: read from a model or a checkpoint, compared bit by bit, swapped in place and put back."""

from collections.abc import Generator, Mapping
from contextlib import contextmanager, suppress
from pathlib import Path

import torch
from torch import Tensor

from interp_unlearn.errors import BackendError, ConfigError
from interp_unlearn.interventions import HookedModel
from interp_unlearn.models import check_trainable, load_model
from interp_unlearn.unlearning import Reference

Weights = HookedModel | Mapping[str, Tensor] | str | Path
"""Tensors by the names of `named_parameters`: of a model, of a mapping, or of a checkpoint that is loaded for them."""


def tensors_of(weights: Weights) -> dict[str, Tensor]:
    """The tensors by name, detached; those of a model are views of its weights, not copies.

    Raises:
        CheckpointError: there is no such checkpoint, or it cannot be read.
        ConfigError: a tensor is quantised.
    """
    if isinstance(weights, str | Path):
        named = dict(load_model(weights)[0].named_parameters())
    elif isinstance(weights, HookedModel):
        named = dict(weights.hf.named_parameters())
    else:
        named = dict(weights)
    check_trainable(named)
    return {name: tensor.detach() for name, tensor in named.items()}


def changed_tensors(original: Weights, changed: Weights) -> dict[str, tuple[Tensor, Tensor]]:
    """The tensors that differ in any bit, by name: their value in the original, and in the changed model.

    Raises:
        ConfigError: names, shapes or dtypes differ, or nothing does.
    """
    before, after = tensors_of(original), tensors_of(changed)
    apart = sorted(before.keys() ^ after.keys())
    if apart:
        raise ConfigError(f"{len(apart)} tensors are in one model only, first {apart[0]}; give two of one architecture")
    found: dict[str, tuple[Tensor, Tensor]] = {}
    for name, tensor in before.items():
        other = after[name].to(tensor.device)
        if (other.shape, other.dtype) != (tensor.shape, tensor.dtype):
            raise ConfigError(
                f"{name} is {tensor.dtype} {tuple(tensor.shape)} in the original and {other.dtype} "
                f"{tuple(other.shape)} in the changed model; load both alike"
            )
        if not torch.equal(_bits(tensor), _bits(other)):
            found[name] = (tensor, other)
    if not found:
        raise ConfigError("both models have the same weights, bit for bit; nothing was changed between them")
    return found


@contextmanager
def swapped(model: HookedModel, values: Mapping[str, Tensor]) -> Generator[None]:
    """Inside the block some tensors have other values; afterwards, also after an error, they are as before, to the bit.

    Changed in place, so every view of a parameter (a tied head, another backend's mirror) sees it. Blocks nest.

    Args:
        model: whose tensors are swapped.
        values: by name; cast to the tensor's dtype and device.

    Raises:
        ConfigError: there is no such tensor, it has another shape, or it is not in memory.
        BackendError: the model's backend cannot follow a change of the weights.
    """
    parameters = dict(model.hf.named_parameters())
    for name, value in values.items():
        if name not in parameters:
            raise ConfigError(f"the model has no tensor {name}; give values of a model of its architecture")
        if parameters[name].shape != value.shape:
            raise ConfigError(f"{name}: got shape {tuple(value.shape)}, the model has {tuple(parameters[name].shape)}")
        if parameters[name].is_meta:
            raise ConfigError(f"{name} was moved off its device by device_map; load the model without it")
    chosen = {name: parameters[name] for name in values}
    check_trainable(chosen)
    before = Reference(chosen)
    try:
        with torch.no_grad():
            for name, value in values.items():
                chosen[name].copy_(value)
        if values:
            model.mark_changed()
        yield
    finally:
        before.restore()
        with suppress(BackendError):  # a backend that cannot follow has said so already
            model.mark_changed()


def _bits(tensor: Tensor) -> Tensor:
    return tensor.contiguous().reshape(-1).view(torch.uint8)
