"""TOFU's measures of what a model still knows: how probable the answer is, how much is said, against wrong ones."""

from collections.abc import Sequence
from typing import TYPE_CHECKING

import numpy as np

from interp_unlearn.data import FactQuestion
from interp_unlearn.errors import DataError
from interp_unlearn.evaluation.free_answers import answer_freely, words
from interp_unlearn.evaluation.multiple_choice import TEMPLATE
from interp_unlearn.evaluation.perplexity import continuation_nll

if TYPE_CHECKING:
    import pandas as pd

    from interp_unlearn.interventions import HookedModel


def score_facts(
    model: "HookedModel",
    facts: Sequence[FactQuestion],
    template: str = TEMPLATE,
    *,
    max_new_tokens: int = 64,
    batch_size: int = 32,
    progress: bool = False,
) -> "pd.DataFrame":
    """Ask questions whose answers are sentences.

    Source: TOFU, Maini et al. 2024, arXiv 2401.06121, section 2.2: probability `p(a | q)^(1 / |a|)`, ROUGE-L recall of
    the most probable answer, truth ratio: the mean of `p(wrong | q)^(1 / |wrong|)` over wrong answers, divided by
    `p(paraphrase | q)^(1 / |paraphrase|)`.

    Caveat: a truth ratio near 1 says that right and wrong are equally likely, which broken models reach too.

    Args:
        model: the model, under any surrounding edits.
        facts: questions and answers.
        template: the prompt; may use {question}. Answers follow it after a space.
        max_new_tokens: most tokens of a free answer.
        batch_size: rows in a pass.
        progress: whether to show progress bars.

    Returns:
        One row a fact, in input order: row, probability, rouge_l, truth_ratio (missing without wrong answers).

    Raises:
        DataError: there are no facts, or an answer has no words.
    """
    import pandas as pd

    if not facts:
        raise DataError("facts", "empty; expected at least one")
    wordless = [row for row, fact in enumerate(facts) if not words(fact.answer)]
    if wordless:
        raise DataError("facts", f"row {wordless[0]}: the answer has no words, so none can be recalled; drop it")
    prompts = [template.format(question=fact.question) for fact in facts]
    asked = [(row, fact.answer, "answer") for row, fact in enumerate(facts)]
    for row, fact in enumerate(facts):
        if fact.wrong:
            asked.append((row, fact.paraphrase or fact.answer, "paraphrase"))
            asked += [(row, wrong, "wrong") for wrong in fact.wrong]
    nll = continuation_nll(
        model,
        [prompts[row] for row, _, _ in asked],
        [f" {text}" for _, text, _ in asked],
        batch_size=batch_size,
        progress=progress,
    )
    scored = pd.DataFrame(asked, columns=["row", "text", "kind"])
    scored["probability"] = np.exp(-nll["nll"].to_numpy() / nll["tokens"].to_numpy())
    by_kind = scored.pivot_table(index="row", columns="kind", values="probability", aggfunc="mean")
    said = answer_freely(
        model,
        prompts,
        [fact.answer for fact in facts],
        max_new_tokens=max_new_tokens,
        batch_size=batch_size,
        progress=progress,
    )
    table = pd.DataFrame(
        {"row": range(len(facts)), "probability": by_kind["answer"].to_numpy(), "rouge_l": said["rouge_l"].to_numpy()}
    )
    compared = by_kind.reindex(columns=["wrong", "paraphrase"]).to_numpy(dtype=float)
    table["truth_ratio"] = compared[:, 0] / compared[:, 1]
    return table
