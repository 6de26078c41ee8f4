"""Changing the weights: the training loop and its objectives, weight edits, inference edits, the frozen reference,
the inner adversary, recipes.
"""

from interp_unlearn.unlearning import knowledge_methods as knowledge_methods
from interp_unlearn.unlearning import methods as methods  # both register theirs
from interp_unlearn.unlearning.checkpoints import Checkpoints
from interp_unlearn.unlearning.config import (
    AdversaryConfig,
    ForkConfig,
    GuardConfig,
    LoraConfig,
    TradeOffConfig,
    UnlearnConfig,
)
from interp_unlearn.unlearning.corpora import UnlearnData, scheduled_rows
from interp_unlearn.unlearning.counterfactual import Counterfactual
from interp_unlearn.unlearning.distillation import Distillation
from interp_unlearn.unlearning.fine_tuning import FineTuning
from interp_unlearn.unlearning.flattening import Flatten
from interp_unlearn.unlearning.inference_edits import (
    candidate_teachers,
    clamp_edits,
    project_out_edits,
    steering_edits,
)
from interp_unlearn.unlearning.latent import LatentRMU
from interp_unlearn.unlearning.layer_choice import choose_layers, effect_weights
from interp_unlearn.unlearning.likelihood import GradientAscent, NegativePreference
from interp_unlearn.unlearning.loop import unlearn
from interp_unlearn.unlearning.misdirection import Misdirection
from interp_unlearn.unlearning.objective import Objective
from interp_unlearn.unlearning.pair_subspaces import PairSubspace, pair_subspaces
from interp_unlearn.unlearning.preference import DPO
from interp_unlearn.unlearning.profs import ProFS
from interp_unlearn.unlearning.projection import ProjectionPenalty
from interp_unlearn.unlearning.projections import projection_scales
from interp_unlearn.unlearning.recipes import Recipe, load_recipe, recipe_names
from interp_unlearn.unlearning.reference import Reference
from interp_unlearn.unlearning.registry import (
    build_method,
    build_objective,
    method_kind,
    method_kinds,
    objective_names,
    register_method,
    register_objective,
)
from interp_unlearn.unlearning.rerouting import Rerouting
from interp_unlearn.unlearning.result import UnlearnResult
from interp_unlearn.unlearning.sharding import shard
from interp_unlearn.unlearning.shrinking import ShrinkPerturb
from interp_unlearn.unlearning.subspace import SubspacePenalty
from interp_unlearn.unlearning.task_vector import TaskVector
from interp_unlearn.unlearning.teachers import compare_teachers
from interp_unlearn.unlearning.update_rules import (
    CollapseComponents,
    MaskBySign,
    ProjectConflicts,
    UpdateRule,
    build_rule,
)
from interp_unlearn.unlearning.weight_edit import WeightEdit

__all__ = [
    "DPO",
    "AdversaryConfig",
    "Checkpoints",
    "CollapseComponents",
    "Counterfactual",
    "Distillation",
    "FineTuning",
    "Flatten",
    "ForkConfig",
    "GradientAscent",
    "GuardConfig",
    "LatentRMU",
    "LoraConfig",
    "MaskBySign",
    "Misdirection",
    "NegativePreference",
    "Objective",
    "PairSubspace",
    "ProFS",
    "ProjectConflicts",
    "ProjectionPenalty",
    "Recipe",
    "Reference",
    "Rerouting",
    "ShrinkPerturb",
    "SubspacePenalty",
    "TaskVector",
    "TradeOffConfig",
    "UnlearnConfig",
    "UnlearnData",
    "UnlearnResult",
    "UpdateRule",
    "WeightEdit",
    "build_method",
    "build_objective",
    "build_rule",
    "candidate_teachers",
    "choose_layers",
    "clamp_edits",
    "compare_teachers",
    "effect_weights",
    "load_recipe",
    "method_kind",
    "method_kinds",
    "objective_names",
    "pair_subspaces",
    "project_out_edits",
    "projection_scales",
    "recipe_names",
    "register_method",
    "register_objective",
    "scheduled_rows",
    "shard",
    "steering_edits",
    "unlearn",
]
