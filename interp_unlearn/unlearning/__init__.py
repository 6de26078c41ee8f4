"""Changing the weights: the one training loop, its objectives, the frozen reference, the inner adversary, recipes."""

from interp_unlearn.unlearning.config import AdversaryConfig, UnlearnConfig
from interp_unlearn.unlearning.corpora import UnlearnData, scheduled_rows
from interp_unlearn.unlearning.distillation import Distillation
from interp_unlearn.unlearning.fine_tuning import FineTuning
from interp_unlearn.unlearning.loop import unlearn
from interp_unlearn.unlearning.misdirection import Misdirection
from interp_unlearn.unlearning.objective import Objective
from interp_unlearn.unlearning.projection import ProjectionPenalty
from interp_unlearn.unlearning.recipes import Recipe, load_recipe, recipe_names
from interp_unlearn.unlearning.reference import Reference
from interp_unlearn.unlearning.registry import build_objective, objective_names, register_objective
from interp_unlearn.unlearning.result import UnlearnResult

__all__ = [
    "AdversaryConfig",
    "Distillation",
    "FineTuning",
    "Misdirection",
    "Objective",
    "ProjectionPenalty",
    "Recipe",
    "Reference",
    "UnlearnConfig",
    "UnlearnData",
    "UnlearnResult",
    "build_objective",
    "load_recipe",
    "objective_names",
    "recipe_names",
    "register_objective",
    "scheduled_rows",
    "unlearn",
]
