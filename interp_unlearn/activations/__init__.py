"""Activations of many texts, one vector per text (or token) and site, in memory or streamed to disk."""

from interp_unlearn.activations.collection import collect, plan_collection
from interp_unlearn.activations.plan import CollectionPlan
from interp_unlearn.activations.pooling import Pool, pool_tokens
from interp_unlearn.activations.store import ActivationStore, check_model_hash

__all__ = [
    "ActivationStore",
    "CollectionPlan",
    "Pool",
    "check_model_hash",
    "collect",
    "plan_collection",
    "pool_tokens",
]
