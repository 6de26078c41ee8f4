"""How far a model's predictions have moved from its original's: the price of unlearning on text that should be kept."""

from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING

from torch import Tensor

from interp_unlearn.evaluation.token_sums import TokenSums, sum_tokens
from interp_unlearn.models import TokenBatch
from interp_unlearn.objectives import token_kl

if TYPE_CHECKING:
    import pandas as pd

    from interp_unlearn.interventions import HookedModel

Predictor = Callable[[TokenBatch], Tensor]
"""From a batch to its logits."""


def text_kl(
    reference: "HookedModel | Predictor",
    model: "HookedModel",
    texts: Sequence[str] | TokenBatch,
    completions: Sequence[str] | None = None,
    *,
    batch_size: int = 64,
    max_length: int | None = None,
) -> "pd.DataFrame":
    """`KL(reference || model)` of each text, summed over the predictions of its content (or completion) tokens.

    Args:
        reference: a model with the same tokenizer, or a function from a batch to logits.
        model: the model, under any surrounding edits.
        texts: texts, or prompts of the completions.
        completions: what follows each prompt.
        batch_size: rows at a time.
        max_length: tokens kept of a text.

    Returns:
        One row a text, in input order: row, kl (summed, nats), tokens.
    """
    import pandas as pd

    found = _sums(reference, model, texts, completions, batch_size, max_length)
    return pd.DataFrame({"row": range(len(found.sums)), "kl": found.sums, "tokens": found.tokens})


def retain_kl(
    reference: "HookedModel | Predictor",
    model: "HookedModel",
    texts: Sequence[str] | TokenBatch,
    completions: Sequence[str] | None = None,
    *,
    batch_size: int = 64,
    max_length: int | None = None,
) -> float:
    """Mean `KL(reference || model)` in nats per token, all tokens weighing the same; arguments as for `text_kl`.

    Raises:
        DataError: there is no token to count.
    """
    return _sums(reference, model, texts, completions, batch_size, max_length).mean


def _sums(
    reference: "HookedModel | Predictor",
    model: "HookedModel",
    texts: Sequence[str] | TokenBatch,
    completions: Sequence[str] | None,
    batch_size: int,
    max_length: int | None,
) -> TokenSums:
    def score(batch: TokenBatch, mask: Tensor) -> Tensor:
        p = reference(batch) if callable(reference) else reference.run(batch, logits=True).logits
        q = model.run(batch, logits=True).logits
        assert p is not None and q is not None
        return token_kl(p.to(q.device), q, mask)

    return sum_tokens(model, texts, completions, score, batch_size=batch_size, max_length=max_length)
