"""Behaviour in numbers: cloze, multiple choice, perplexity, divergence from the original, toxicity of generations."""

from interp_unlearn.evaluation.classifiers import (
    ClassifierConfig,
    ClassifierScorer,
    classifier_quality,
    train_classifier,
)
from interp_unlearn.evaluation.cloze import score_answers
from interp_unlearn.evaluation.divergence import retain_kl, text_kl
from interp_unlearn.evaluation.diversity import distinct, repetition
from interp_unlearn.evaluation.exam import FORMS, ExamResult, fitting_questions, take_exam
from interp_unlearn.evaluation.facts import score_facts
from interp_unlearn.evaluation.free_answers import answer_freely
from interp_unlearn.evaluation.generations import generate_texts, sample_documents, sample_rows
from interp_unlearn.evaluation.harness import score_with_harness
from interp_unlearn.evaluation.multiple_choice import score_questions
from interp_unlearn.evaluation.perplexity import continuation_nll, perplexity, token_nll
from interp_unlearn.evaluation.scorers import TextScores, ToxicityScorer, score_texts, scorer_agreement
from interp_unlearn.evaluation.toxicity import evaluate_toxicity
from interp_unlearn.evaluation.toxicity_comparison import ToxicityClaim, ToxicityComparison, compare_toxicity
from interp_unlearn.evaluation.toxicity_result import ToxicityConfig, ToxicityResult

__all__ = [
    "FORMS",
    "ClassifierConfig",
    "ClassifierScorer",
    "ExamResult",
    "TextScores",
    "ToxicityClaim",
    "ToxicityComparison",
    "ToxicityConfig",
    "ToxicityResult",
    "ToxicityScorer",
    "answer_freely",
    "classifier_quality",
    "compare_toxicity",
    "continuation_nll",
    "distinct",
    "evaluate_toxicity",
    "fitting_questions",
    "generate_texts",
    "perplexity",
    "repetition",
    "retain_kl",
    "sample_documents",
    "sample_rows",
    "score_answers",
    "score_facts",
    "score_questions",
    "score_texts",
    "score_with_harness",
    "scorer_agreement",
    "take_exam",
    "text_kl",
    "token_nll",
    "train_classifier",
]
