"""Matrices replaced while a model is asked, and put back bit for bit."""

from collections.abc import Callable, Generator
from contextlib import contextmanager
from typing import TYPE_CHECKING

import torch
from jaxtyping import Float
from torch import Tensor

from interp_unlearn.models import parameters_by_role
from interp_unlearn.unlearning import Reference

if TYPE_CHECKING:
    from interp_unlearn.interventions import HookedModel

MatrixChange = Callable[[Float[Tensor, "out in"]], Float[Tensor, "out in"]]
MATRICES = ("attn", "mlp")
"""Roles of the matrices that are quantised or pruned: those of the blocks; embedding, head and norms stay."""


@contextmanager
def changed_matrices(model: "HookedModel", change: MatrixChange, roles: tuple[str, ...] = MATRICES) -> Generator[None]:
    """Replace matrices of the blocks inside the block.

    Args:
        model: its weights are changed in place.
        change: makes a matrix of another; rows are output channels whichever way the model holds it.
        roles: of the matrices.

    Raises:
        ConfigError: a role matches nothing, or a matrix is quantised already.
        BackendError: the backend cannot follow a change of the weights.
    """
    matrices = parameters_by_role(model.hf, roles)
    reference = Reference(matrices)
    try:
        with torch.no_grad():
            for name, parameter in matrices.items():
                # GPT-2's Conv1D holds its matrix the other way round and has no in_features.
                turned = not hasattr(model.hf.get_submodule(name.removesuffix(".weight")), "in_features")
                made = change((parameter.T if turned else parameter).float())
                parameter.copy_(made.T if turned else made)
        model.mark_changed()
        yield
    finally:
        reference.restore()
        model.mark_changed()
