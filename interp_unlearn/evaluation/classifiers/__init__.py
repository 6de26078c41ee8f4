"""Sequence classifiers as scorers of toxicity: any in Hugging Face layout, and small ones trained here."""

from interp_unlearn.evaluation.classifiers.config import ClassifierConfig
from interp_unlearn.evaluation.classifiers.families import FAMILIES
from interp_unlearn.evaluation.classifiers.heads import Head, find_head
from interp_unlearn.evaluation.classifiers.quality import calibration_error, classifier_quality
from interp_unlearn.evaluation.classifiers.result import TrainedClassifier
from interp_unlearn.evaluation.classifiers.scorer import ClassifierScorer
from interp_unlearn.evaluation.classifiers.training import train_classifier

__all__ = [
    "FAMILIES",
    "ClassifierConfig",
    "ClassifierScorer",
    "Head",
    "TrainedClassifier",
    "calibration_error",
    "classifier_quality",
    "find_head",
    "train_classifier",
]
