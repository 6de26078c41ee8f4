"""Activations pooled to one vector per text and site, in memory or streamed to disk."""

from interp_unlearn.activations.collection import collect
from interp_unlearn.activations.pooling import Pool, pool_tokens
from interp_unlearn.activations.store import ActivationStore, check_model_hash

__all__ = ["ActivationStore", "Pool", "check_model_hash", "collect", "pool_tokens"]
