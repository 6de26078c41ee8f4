"""Gradients of the trained tensors by name, and their arithmetic; a tensor that a loss does not reach has no entry."""

from collections.abc import Iterable, Mapping, Sequence

import torch
from torch import Tensor

from interp_unlearn.models.processes import whole

Gradients = dict[str, Tensor]


def inner_product(a: Gradients, b: Gradients) -> float:
    """Sum over all tensors of their elementwise products, in float32 or better."""
    return sum(float(whole((a[name].float() * b[name].float()).sum())) for name in a.keys() & b.keys())


def norm_of(tensors: Iterable[Tensor]) -> float:
    """The L2 norm of all tensors taken together."""
    norms = [whole(tensor.detach().float().norm()) for tensor in tensors]
    return float(torch.stack(norms).norm()) if norms else 0.0


def cosine_of(a: Gradients, b: Gradients) -> float:
    """Cosine of the angle between two gradients; 0 where one of them is zero."""
    norms = norm_of(a.values()) * norm_of(b.values())
    return inner_product(a, b) / norms if norms > 0 else 0.0


def added(a: Gradients, b: Gradients) -> Gradients:
    """Their sum, in tensors of its own only where both have one."""
    total = dict(a)
    for name, gradient in b.items():
        total[name] = total[name] + gradient if name in total else gradient
    return total


def with_zeros(gradients: Gradients, like: Mapping[str, Tensor]) -> Gradients:
    """The same with an entry for every tensor."""
    return {name: gradients[name] if name in gradients else torch.zeros_like(tensor) for name, tensor in like.items()}


def shares_of(weights: Sequence[float]) -> list[float]:
    """What each batch of an update counts for; all alike where none has any weight."""
    total = sum(weights)
    return [weight / total for weight in weights] if total > 0 else [1 / len(weights)] * len(weights)
