"""What a direction is and does: where it comes from, how it compares, what it writes for, what it causes."""

from interp_unlearn.directions.causal import causal_effects
from interp_unlearn.directions.continuations import Judge, generation_effects
from interp_unlearn.directions.cosines import compare_directions
from interp_unlearn.directions.direction_set import Directions
from interp_unlearn.directions.effects import EffectsConfig
from interp_unlearn.directions.files import read_directions
from interp_unlearn.directions.logit_lens import promoted_tokens
from interp_unlearn.directions.next_tokens import next_token_effects
from interp_unlearn.directions.rank import category_directions, subspace_rank
from interp_unlearn.directions.strengths import Intervention
from interp_unlearn.directions.transfer import transfer
from interp_unlearn.directions.value_vectors import aligned_value_vectors, value_vectors

__all__ = [
    "Directions",
    "EffectsConfig",
    "Intervention",
    "Judge",
    "aligned_value_vectors",
    "category_directions",
    "causal_effects",
    "compare_directions",
    "generation_effects",
    "next_token_effects",
    "promoted_tokens",
    "read_directions",
    "subspace_rank",
    "transfer",
    "value_vectors",
]
