"""Readers and writers of the public layouts: pairs, prompts, multiple choice, plain corpora."""

from interp_unlearn.data.corpora import read_texts, write_texts
from interp_unlearn.data.facts import FactQuestion, read_facts, write_facts
from interp_unlearn.data.hub import HubDataset, hub_dataset
from interp_unlearn.data.multiple_choice import Question, read_questions, write_questions
from interp_unlearn.data.pairs import Pair, read_pairs, write_pairs
from interp_unlearn.data.prompts import TOXIC_FROM, Prompt, read_prompts, write_prompts

__all__ = [
    "TOXIC_FROM",
    "FactQuestion",
    "HubDataset",
    "Pair",
    "Prompt",
    "Question",
    "hub_dataset",
    "read_facts",
    "read_pairs",
    "read_prompts",
    "read_questions",
    "read_texts",
    "write_facts",
    "write_pairs",
    "write_prompts",
    "write_questions",
    "write_texts",
]
