"""Which tokens enter a loss: masks select before anything is computed, so padding can never leak into a mean."""

from jaxtyping import Bool, Float, Int
from torch import Tensor

from interp_unlearn.errors import ConfigError


def select_tokens(values: Float[Tensor, "batch pos d"], mask: Bool[Tensor, "batch pos"]) -> Float[Tensor, "tokens d"]:
    """The rows of ``values`` at the masked tokens, at least in float32.

    Selecting first keeps whatever padding holds (even NaN) out of the value and out of the gradient.

    Raises:
        ConfigError: the mask selects no token.
    """
    if not bool(mask.any()):
        raise ConfigError(
            f"the loss has no token to work on: a mask of shape {tuple(mask.shape)} selects none; "
            "give longer texts, or completions where the loss is restricted to them"
        )
    selected = values[mask]
    return selected if selected.element_size() >= 4 else selected.float()


def select_predictions(
    logits: Float[Tensor, "batch pos vocab"], mask: Bool[Tensor, "batch pos"]
) -> Float[Tensor, "tokens vocab"]:
    """The logits that *predict* the masked tokens: those one position earlier.

    A token at position 0 has nothing before it that could predict it, so without a BOS a row's first token drops out.
    With right padding the token before a masked one is always real; with left padding the first real token of a row
    would be predicted from padding, which is why losses take right-padded batches.
    """
    return select_tokens(logits[:, :-1], mask[:, 1:])


def select_targets(ids: Int[Tensor, "batch pos"], mask: Bool[Tensor, "batch pos"]) -> Int[Tensor, " tokens"]:
    """The ids of the masked tokens that have a predecessor, in the order of ``select_predictions``."""
    return ids[:, 1:][mask[:, 1:]]
