"""The RealToxicityPrompts protocol (Gehman et al., Findings of EMNLP 2020, arXiv 2009.11462) on local scorers.

25 continuations of 20 tokens for each prompt, nucleus 0.9 at temperature 1; the continuation alone is scored. Where the
paper asks a web service, which is closing and whose scores drift, this takes classifiers by their weights. Every
generation is scored, or nothing is reported.
"""

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from interp_unlearn.data import Prompt
from interp_unlearn.errors import DataError
from interp_unlearn.evaluation.generations import continuation_texts, sample_rows
from interp_unlearn.evaluation.perplexity import continuation_nll
from interp_unlearn.evaluation.scorers import ToxicityScorer, check_scorers, score_texts
from interp_unlearn.evaluation.toxicity_result import SCORE_COLUMN, ToxicityConfig, ToxicityResult
from interp_unlearn.interventions.buckets import token_rows

if TYPE_CHECKING:
    import pandas as pd

    from interp_unlearn.interventions import HookedModel


def evaluate_toxicity(
    model: "HookedModel",
    prompts: Sequence[Prompt],
    scorers: Sequence[ToxicityScorer],
    config: ToxicityConfig | None = None,
    *,
    judge: "HookedModel | None" = None,
    progress: bool = True,
) -> ToxicityResult:
    """Sample continuations of prompts and score every one of them by every scorer.

    Caveat: one scorer's numbers describe that scorer as much as the model; a claim about the model takes a second,
    different one (`compare_toxicity`).

    Args:
        model: the model, under any surrounding edits.
        prompts: what is continued, with their toxicity where known.
        scorers: what scores the continuations.
        config: the protocol's settings.
        judge: another model whose perplexity of the continuations is measured, larger and not trained on them.
        progress: whether to show progress bars.

    Raises:
        DataError: there are no prompts, or one is too long for the model or the judge.
        ConfigError: there is no scorer, or two are the same.
        ScoreError: a generation could not be scored.
    """
    config = config or ToxicityConfig()
    check_scorers(scorers)
    generations = sample_continuations(model, prompts, config, progress=progress)
    texts = [text.strip() for text in generations["text"]]
    described: list[dict[str, Any]] = []
    for scorer in scorers:
        scores = score_texts(scorer, texts, progress)
        generations[SCORE_COLUMN + scorer.name] = scores.probabilities
        label = getattr(scorer, "label", None)
        described.append({"name": scorer.name, "hash": scorer.hash, "label": label, "truncated": scores.truncated})
    if judge is not None:
        sources, written = generations["prompt"].tolist(), generations["text"].tolist()
        _require_context(judge, [a + b for a, b in zip(sources, written, strict=True)], 0, "judge")
        judged = continuation_nll(judge, sources, written, progress=progress)
        generations["judge_nll"], generations["judge_tokens"] = judged["nll"], judged["tokens"]
    judge_hash = None if judge is None else judge.hash()
    return ToxicityResult(config, generations, tuple(described), model.hash(), judge_hash)


def sample_continuations(
    model: "HookedModel",
    prompts: Sequence[Prompt],
    config: ToxicityConfig,
    *,
    progress: bool = True,
) -> "pd.DataFrame":
    """The generations of `ToxicityResult` before they are scored.

    Raises:
        DataError: there are no prompts, or one is too long for the model.
    """
    import pandas as pd

    if not prompts:
        raise DataError("prompts", "empty; expected at least one prompt")
    sources = [prompt.text for prompt in prompts]
    _require_context(model, sources, config.max_new_tokens, "model")
    rows = sample_rows(
        model,
        sources,
        config.max_new_tokens,
        temperature=config.temperature,
        top_p=config.top_p,
        seed=config.seed,
        batch_size=config.batch_size,
        n_continuations=config.continuations,
        progress=progress,
    )
    toxicity = [np.nan if prompt.toxicity is None else prompt.toxicity for prompt in prompts]
    times = config.continuations
    return pd.DataFrame(
        {
            "row": np.repeat(np.arange(len(prompts)), times),
            "prompt": [text for text in sources for _ in range(times)],
            "prompt_toxicity": np.repeat(np.array(toxicity, dtype=float), times),
            "continuation": np.tile(np.arange(times), len(prompts)),
            "text": continuation_texts(model, rows),
            "tokens": [len(new) for _, new in rows],
        }
    )


def _require_context(model: "HookedModel", texts: Sequence[str], more: int, what: str) -> None:
    """Refuse texts that, with some more tokens, have no place in a model's context.

    Raises:
        DataError: one has none.
    """
    limit = getattr(model.hf.config.get_text_config(), "max_position_embeddings", None)
    longest = max(map(len, token_rows(model, texts))) + more
    if limit and longest > limit:
        raise DataError("prompts", f"the longest needs {longest} tokens, the {what} takes {limit}; drop long ones")
