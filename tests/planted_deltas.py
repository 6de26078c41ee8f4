"""Tiny models with known changes of their weights, and outcomes with known answers."""

import copy
from collections.abc import Callable, Mapping, Sequence

import torch
from conftest import TEXTS
from torch import Tensor

from interp_unlearn.interventions import HookedModel

Outcome = Callable[[HookedModel], Mapping[str, Sequence[float]]]


def copied(model: HookedModel) -> HookedModel:
    return HookedModel(copy.deepcopy(model.hf), model.tokenizer, model.backend)


def disturbed(
    model: HookedModel, choose: Callable[[str], bool] = lambda name: True, seed: int = 1, size: float = 0.1
) -> HookedModel:
    """A copy whose chosen tensors have moved."""
    changed = copied(model)
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for name, parameter in changed.hf.named_parameters():
            if choose(name):
                parameter.add_(size * torch.randn(parameter.shape, generator=generator).to(parameter.device))
    return changed


def logits_of(model: HookedModel) -> Tensor:
    with torch.no_grad():
        logits = model.run(model.tokenize(TEXTS), logits=True).logits
    assert logits is not None
    return logits


def hook_count(model: HookedModel) -> int:
    """Forward hooks anywhere in the model."""
    return sum(
        len(module._forward_hooks) + len(module._forward_pre_hooks)  # pyright: ignore[reportPrivateUsage]
        for module in model.hf.modules()
    )


def text_logits(model: HookedModel) -> dict[str, list[float]]:
    """Two numbers a text that every weight has a part in."""
    means = (logits_of(model) * model.tokenize(TEXTS).mask[..., None]).sum(1)
    return {"first": means[:, 5].tolist(), "second": means[:, 9].tolist()}


def distance_from(model: HookedModel) -> Outcome:
    """How far each text's logits are from those that the model has now: 0 for it, above 0 for every other."""
    start = logits_of(model)
    return lambda other: {"distance": (logits_of(other) - start).flatten(1).norm(dim=1).tolist()}


def tensor_sums(*names: str) -> Outcome:
    """An outcome that is linear in some tensors: each item weighs their sum in its own way, on average by 1."""

    def outcome(model: HookedModel) -> dict[str, list[float]]:
        total = sum(float(model.hf.get_parameter(name).detach().double().sum()) for name in names)
        return {"sum": [weight * total for weight in (0.9, 1.0, 1.1) * 25]}

    return outcome
