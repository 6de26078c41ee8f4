"""Losses as pure functions of tensors and masks: no model, no state, no randomness but a seed that is given.

Means are over the masked tokens of a batch (real and not the BOS), each token counting once. Distillation is ``kl``
with a teacher in the place of the original.
"""

from interp_unlearn.objectives.directions import random_directions
from interp_unlearn.objectives.language_modeling import cross_entropy, token_nll
from interp_unlearn.objectives.misdirection import cosine_forget, rmu_forget
from interp_unlearn.objectives.projection import ProjectionScale, projection_hinge, projection_scale
from interp_unlearn.objectives.retention import kl, mse, relative_mse, token_kl

__all__ = [
    "ProjectionScale",
    "cosine_forget",
    "cross_entropy",
    "kl",
    "mse",
    "projection_hinge",
    "projection_scale",
    "random_directions",
    "relative_mse",
    "rmu_forget",
    "token_kl",
    "token_nll",
]
