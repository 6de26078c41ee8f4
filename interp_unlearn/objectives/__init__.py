"""Losses and weight edits as pure functions of tensors: no model, no state, no randomness but a seed that is given.

Means are over the masked tokens of a batch (real and not the BOS), each token counting once; of losses on pairs, over
pairs. Distillation is ``kl`` with a teacher in the place of the original.
"""

from interp_unlearn.objectives.directions import random_directions, token_directions
from interp_unlearn.objectives.language_modeling import cross_entropy, token_nll
from interp_unlearn.objectives.likelihood import npo, simnpo
from interp_unlearn.objectives.misdirection import (
    contrastive_forget,
    cosine_forget,
    rmu_forget,
    token_cosine_forget,
)
from interp_unlearn.objectives.preference import dpo, preference_margin, sequence_log_probability
from interp_unlearn.objectives.projection import (
    ProjectionScale,
    projection_hinge,
    projection_scale,
    subspace_distance,
    subspace_hinge,
)
from interp_unlearn.objectives.rerouting import counterfactual_forget, distance, rerouting_forget
from interp_unlearn.objectives.retention import kl, mse, relative_mse, token_kl
from interp_unlearn.objectives.subspaces import Centre, difference_subspace, without_subspace

__all__ = [
    "Centre",
    "ProjectionScale",
    "contrastive_forget",
    "cosine_forget",
    "counterfactual_forget",
    "cross_entropy",
    "difference_subspace",
    "distance",
    "dpo",
    "kl",
    "mse",
    "npo",
    "preference_margin",
    "projection_hinge",
    "projection_scale",
    "random_directions",
    "relative_mse",
    "rerouting_forget",
    "rmu_forget",
    "sequence_log_probability",
    "simnpo",
    "subspace_distance",
    "subspace_hinge",
    "token_cosine_forget",
    "token_directions",
    "token_kl",
    "token_nll",
    "without_subspace",
]
