"""What is shown to others: cards that say what was measured and what was not, and pushing, when it is asked for."""

from interp_unlearn.hub.card import model_card, write_model_card
from interp_unlearn.hub.measurements import Measurement, read_attack, read_evaluation
from interp_unlearn.hub.probe_card import probe_card, write_probe_card
from interp_unlearn.hub.push import PushPlan, plan_push, push_to_hub
from interp_unlearn.hub.verdicts import judge_attacks

__all__ = [
    "Measurement",
    "PushPlan",
    "judge_attacks",
    "model_card",
    "plan_push",
    "probe_card",
    "push_to_hub",
    "read_attack",
    "read_evaluation",
    "write_model_card",
    "write_probe_card",
]
