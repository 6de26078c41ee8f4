"""Behaviour in numbers: cloze and multiple choice, perplexity, divergence from the original, free generation."""

from interp_unlearn.evaluation.cloze import score_answers
from interp_unlearn.evaluation.divergence import retain_kl, text_kl
from interp_unlearn.evaluation.generations import generate_texts, sample_rows
from interp_unlearn.evaluation.multiple_choice import score_questions
from interp_unlearn.evaluation.perplexity import perplexity, token_nll

__all__ = [
    "generate_texts",
    "perplexity",
    "retain_kl",
    "sample_rows",
    "score_answers",
    "score_questions",
    "text_kl",
    "token_nll",
]
