"""Attempts to bring back what was unlearned: one attack, or a reviewer's suite of them."""

from interp_unlearn.attacks.ablation import AblateDirection, AblateSubspace
from interp_unlearn.attacks.attack import Attack, Attempt, Record, Setup, Target
from interp_unlearn.attacks.measured_items import MeasuredItems
from interp_unlearn.attacks.measures import Cloze, Completions, Facts, MultipleChoice
from interp_unlearn.attacks.neurons import NeuronScaling
from interp_unlearn.attacks.prompted_measure import Measure, PromptedMeasure
from interp_unlearn.attacks.pruning import Prune
from interp_unlearn.attacks.recovery import share_of_gap
from interp_unlearn.attacks.relearn import RelearnConfig, relearn
from interp_unlearn.attacks.relearning import Relearn
from interp_unlearn.attacks.result import AttackResult
from interp_unlearn.attacks.rounding import Quantise
from interp_unlearn.attacks.steering import SteerBack
from interp_unlearn.attacks.suite import default_attacks, run_attacks
from interp_unlearn.attacks.wording import FewShot, Reformat

__all__ = [
    "AblateDirection",
    "AblateSubspace",
    "Attack",
    "AttackResult",
    "Attempt",
    "Cloze",
    "Completions",
    "Facts",
    "FewShot",
    "Measure",
    "MeasuredItems",
    "MultipleChoice",
    "NeuronScaling",
    "PromptedMeasure",
    "Prune",
    "Quantise",
    "Record",
    "Reformat",
    "Relearn",
    "RelearnConfig",
    "Setup",
    "SteerBack",
    "Target",
    "default_attacks",
    "relearn",
    "run_attacks",
    "share_of_gap",
]
