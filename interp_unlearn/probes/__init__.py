"""Linear probes on pooled activations, with the controls that say what their AUROC is worth."""

from interp_unlearn.probes.fitting import fit_probes
from interp_unlearn.probes.leace import LeaceEraser, fit_leace
from interp_unlearn.probes.probe_set import Estimator, ProbeSet
from interp_unlearn.probes.token_scores import score_tokens

__all__ = ["Estimator", "LeaceEraser", "ProbeSet", "fit_leace", "fit_probes", "score_tokens"]
