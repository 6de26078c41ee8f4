"""How far a model has moved from its original, and what that says of what it still knows.

`run_drift` makes every measure of two models, of which one is in memory at a time; `MEASURES` says what each needs and
what it cannot show. `measure_drift` takes both models. Everything else takes what was read of each: two token-level
activation stores of the same texts (`activations.collect` with ``pool="none"``), checkpoint folders, or probes.
"""

from interp_unlearn.drift.depth import UnlearningDepth, unlearning_depth
from interp_unlearn.drift.determinism import DeterminismCheck, check_determinism
from interp_unlearn.drift.displacement import displacement, measure_drift
from interp_unlearn.drift.lens import answer_lens
from interp_unlearn.drift.massive import massive_activations
from interp_unlearn.drift.measures import MEASURES, Measure
from interp_unlearn.drift.paired import check_paired
from interp_unlearn.drift.position import position_classes, spectrum_by_position
from interp_unlearn.drift.result import DriftResult
from interp_unlearn.drift.retrained import retrained_probes
from interp_unlearn.drift.setup import Answers, DriftSetup, DriftTexts
from interp_unlearn.drift.similarity import debiased_cka, representation_similarity
from interp_unlearn.drift.spectrum import DisplacementSpectrum, displacement_spectrum
from interp_unlearn.drift.subspaces import principal_angles
from interp_unlearn.drift.suite import run_drift
from interp_unlearn.drift.tuned_lens import TunedLens, TunedLensConfig, fit_tuned_lens
from interp_unlearn.drift.weight_delta import WeightComparison, weight_delta

__all__ = [
    "MEASURES",
    "Answers",
    "DeterminismCheck",
    "DisplacementSpectrum",
    "DriftResult",
    "DriftSetup",
    "DriftTexts",
    "Measure",
    "TunedLens",
    "TunedLensConfig",
    "UnlearningDepth",
    "WeightComparison",
    "answer_lens",
    "check_determinism",
    "check_paired",
    "debiased_cka",
    "displacement",
    "displacement_spectrum",
    "fit_tuned_lens",
    "massive_activations",
    "measure_drift",
    "position_classes",
    "principal_angles",
    "representation_similarity",
    "retrained_probes",
    "run_drift",
    "spectrum_by_position",
    "unlearning_depth",
    "weight_delta",
]
