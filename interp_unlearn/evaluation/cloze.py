"""Cloze: which answer of a pool a prompt is completed with."""

from collections.abc import Sequence
from typing import TYPE_CHECKING

import numpy as np

from interp_unlearn.errors import DataError
from interp_unlearn.evaluation.answers import score_pools

if TYPE_CHECKING:
    import pandas as pd

    from interp_unlearn.interventions import HookedModel


def score_answers(
    model: "HookedModel",
    prompts: Sequence[str],
    pools: Sequence[Sequence[str]],
    answers: Sequence[int],
    batch_size: int = 128,
    progress: bool = False,
) -> "pd.DataFrame":
    """Score the right answer against its pool, by summed log-probability of the answer's tokens.

    Caveat: argmax alone flatters an unlearned model, which may keep the right answer just below another; read
    `correct` together with `answer_probability`. Chance is 1 / size of the pool for both.

    Args:
        model: the model, under any surrounding edits.
        prompts: texts up to the answer.
        pools: the possible answers of each prompt, with their leading space.
        answers: index of the right one in its pool.
        batch_size: forward rows at a time.

    Returns:
        One row a prompt, in input order: row, answer, predicted (indices into the pool), correct, answer_probability
        (normalised over the pool, in which an answer that stands twice counts twice).

    Raises:
        DataError: the lists do not match, a pool is empty, or an answer lies outside its pool.
    """
    import pandas as pd

    check_answers(pools, answers)
    scores = score_pools(model, prompts, pools, batch_size, "cloze" if progress else None)
    rows: list[dict[str, object]] = []
    for row, (score, pool, answer) in enumerate(zip(scores, pools, answers, strict=True)):
        probabilities = normalized(score.log_probabilities)
        predicted = int(np.argmax(probabilities))
        rows.append(
            {
                "row": row,
                "answer": int(answer),
                "predicted": predicted,
                "correct": pool[predicted] == pool[answer],  # which may stand in its pool twice
                "answer_probability": float(probabilities[answer]),
            }
        )
    return pd.DataFrame(rows)


def check_answers(pools: Sequence[Sequence[str]], answers: Sequence[int]) -> None:
    """Refuse answers that do not index their pools.

    Raises:
        DataError: there are more or fewer answers than pools, or one lies outside its pool.
    """
    if len(pools) != len(answers):
        raise DataError("answers", f"{len(answers)} answers for {len(pools)} pools; expected as many")
    for row, (pool, answer) in enumerate(zip(pools, answers, strict=True)):
        if not 0 <= answer < len(pool):
            raise DataError("answers", f"row {row}: answer {answer} outside its pool of {len(pool)}")


def normalized(log_probabilities: np.ndarray) -> np.ndarray:
    """Probabilities that sum to 1 over the pool."""
    weights = np.exp(log_probabilities - log_probabilities.max())
    return weights / weights.sum()
