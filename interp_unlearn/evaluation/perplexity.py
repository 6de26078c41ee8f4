"""How probable a model finds given text."""

import math
from collections.abc import Sequence
from typing import TYPE_CHECKING

from torch import Tensor

from interp_unlearn.errors import ScoreError
from interp_unlearn.evaluation.token_sums import TokenSums, sum_tokens
from interp_unlearn.models import TokenBatch
from interp_unlearn.models.encoding import encode_rows, special_id
from interp_unlearn.objectives import token_nll as nll_of_tokens

if TYPE_CHECKING:
    import pandas as pd

    from interp_unlearn.interventions import HookedModel


def token_nll(
    model: "HookedModel",
    texts: Sequence[str] | TokenBatch,
    completions: Sequence[str] | None = None,
    *,
    batch_size: int = 64,
    max_length: int | None = None,
    progress: bool = False,
) -> "pd.DataFrame":
    """Negative log-likelihood of each text, over its completion where there is one.

    The BOS is never counted; without a BOS a text's first token has no predecessor and is not counted either.

    Args:
        model: the model, under any surrounding edits.
        texts: texts, prompts of the completions, or a batch (its completion mask decides).
        completions: what follows each prompt.
        batch_size: rows at a time.
        max_length: tokens kept of a text.
        progress: whether to show a progress bar.

    Returns:
        One row a text, in input order: row, nll (summed, nats), tokens.
    """
    import pandas as pd

    found = _sums(model, texts, completions, batch_size, max_length, progress)
    return pd.DataFrame({"row": range(len(found.sums)), "nll": found.sums, "tokens": found.tokens})


def perplexity(
    model: "HookedModel",
    texts: Sequence[str] | TokenBatch,
    completions: Sequence[str] | None = None,
    *,
    batch_size: int = 64,
    max_length: int | None = None,
    progress: bool = False,
) -> float:
    """`exp` of the mean negative log-likelihood per token; arguments as for `token_nll`.

    Raises:
        DataError: there is no token to count.
        ScoreError: the likelihood is no number, or so small that its inverse is none.
    """
    mean = _sums(model, texts, completions, batch_size, max_length, progress).mean
    try:
        return math.exp(mean)
    except OverflowError as error:
        raise ScoreError(f"the perplexity is exp({mean:.4g}), which no number holds; report token_nll") from error


def continuation_nll(
    model: "HookedModel",
    prompts: Sequence[str],
    continuations: Sequence[str],
    *,
    batch_size: int = 64,
    progress: bool = False,
) -> "pd.DataFrame":
    """Negative log-likelihood of what another model wrote after a prompt, as one running text.

    Unlike the completions of `token_nll`, prompt and continuation are tokenised together, for the continuation brings
    its own leading space or none, and the border may fall inside a token of this model. Counted are all tokens from
    the first one that the prompt alone does not have.

    Returns:
        One row a continuation, in input order: row, nll (summed, nats), tokens (0 for an empty one).
    """
    texts = [prompt + continuation for prompt, continuation in zip(prompts, continuations, strict=True)]
    distinct = list(dict.fromkeys(prompts))
    starts = dict(zip(distinct, encode_rows(model.tokenizer, distinct).rows, strict=True))
    rows = encode_rows(model.tokenizer, texts).rows
    shared = [_common_length(row, starts[prompt]) for row, prompt in zip(rows, prompts, strict=True)]
    batch = TokenBatch.from_rows(rows, bos_token_id=special_id(model.tokenizer, "bos"), completion_starts=shared)
    return token_nll(model, batch, batch_size=batch_size, progress=progress)


def _common_length(first: Sequence[int], second: Sequence[int]) -> int:
    pairs = enumerate(zip(first, second, strict=False))
    return next((i for i, (a, b) in pairs if a != b), min(len(first), len(second)))


def _sums(
    model: "HookedModel",
    texts: Sequence[str] | TokenBatch,
    completions: Sequence[str] | None,
    batch_size: int,
    max_length: int | None,
    progress: bool,
) -> TokenSums:
    def score(batch: TokenBatch, mask: Tensor) -> Tensor:
        logits = model.run(batch, logits=True).logits
        assert logits is not None
        return nll_of_tokens(logits, batch.input_ids, mask)

    label = "perplexity" if progress else None
    return sum_tokens(model, texts, completions, score, batch_size=batch_size, max_length=max_length, progress=label)
