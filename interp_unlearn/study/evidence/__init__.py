"""The evidence: attacks on every unlearned model, and what tells the two goals apart in the weights."""

from interp_unlearn.study.evidence.evidence import gather_evidence, tables_of_pairs
from interp_unlearn.study.evidence.plan import EvidenceConfig
from interp_unlearn.study.evidence.predictions import PREDICTIONS, Prediction, check_predictions

__all__ = [
    "PREDICTIONS",
    "EvidenceConfig",
    "Prediction",
    "check_predictions",
    "gather_evidence",
    "tables_of_pairs",
]
