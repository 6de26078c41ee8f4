"""Where and how a change of the weights acts: causal measures on an original, its unlearned models and its twins."""

from interp_unlearn.mechanism.alignment import align_deltas
from interp_unlearn.mechanism.composition import Composition, CompositionConfig, carry_over, compose
from interp_unlearn.mechanism.conclusions import draw_conclusions
from interp_unlearn.mechanism.delta import WeightDelta, applied
from interp_unlearn.mechanism.depth_profile import half_depths
from interp_unlearn.mechanism.dissection import Dissection, DissectionConfig, GoalRuns, dissect
from interp_unlearn.mechanism.donor_states import DonorStates, PatchConfig, answer_log_probability, collect_states
from interp_unlearn.mechanism.outcome import Outcome, Resampling
from interp_unlearn.mechanism.over_seeds import averaged
from interp_unlearn.mechanism.patch_texts import PatchTexts
from interp_unlearn.mechanism.patching import Patching, patch, patch_both_ways
from interp_unlearn.mechanism.places import TensorGroup, TensorPlace, tensor_groups, tensor_places
from interp_unlearn.mechanism.rank_profile import RankConfig, RankProfile, rank_profile
from interp_unlearn.mechanism.transplant import Transplant, TransplantConfig, transplant
from interp_unlearn.mechanism.weights import swapped

__all__ = [
    "Composition",
    "CompositionConfig",
    "Dissection",
    "DissectionConfig",
    "DonorStates",
    "GoalRuns",
    "Outcome",
    "PatchConfig",
    "PatchTexts",
    "Patching",
    "RankConfig",
    "RankProfile",
    "Resampling",
    "TensorGroup",
    "TensorPlace",
    "Transplant",
    "TransplantConfig",
    "WeightDelta",
    "align_deltas",
    "answer_log_probability",
    "applied",
    "averaged",
    "carry_over",
    "collect_states",
    "compose",
    "dissect",
    "draw_conclusions",
    "half_depths",
    "patch",
    "patch_both_ways",
    "rank_profile",
    "swapped",
    "tensor_groups",
    "tensor_places",
    "transplant",
]
