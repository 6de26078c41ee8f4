"""Models and tokens: loading, the architecture resolver, parameters by role, token batches."""

from interp_unlearn.models.architecture import Architecture, resolve_architecture
from interp_unlearn.models.batches import TokenBatch, tokenize
from interp_unlearn.models.chats import Chat, tokenize_chats
from interp_unlearn.models.loading import load_classifier, load_model, weights_hash
from interp_unlearn.models.parameters import parameters_by_role
from interp_unlearn.models.processes import Processes
from interp_unlearn.models.quantisation import check_quantisation, check_trainable, quantisation_of

__all__ = [
    "Architecture",
    "Chat",
    "Processes",
    "TokenBatch",
    "check_quantisation",
    "check_trainable",
    "load_classifier",
    "load_model",
    "parameters_by_role",
    "quantisation_of",
    "resolve_architecture",
    "tokenize",
    "tokenize_chats",
    "weights_hash",
]
