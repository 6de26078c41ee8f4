"""Multiple choice, scored by the text of the answers."""

from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING

import numpy as np

from interp_unlearn.data import Question
from interp_unlearn.evaluation.answers import score_pools
from interp_unlearn.evaluation.cloze import check_answers, normalized

if TYPE_CHECKING:
    import pandas as pd

    from interp_unlearn.interventions import HookedModel

LETTERS = "ABCDEFGHIJKLMNOPQRSTUVWXYZ"
TEMPLATE = "Question: {question}\nAnswer:"


def score_questions(
    model: "HookedModel",
    questions: Sequence[Question],
    template: str | Callable[[Question], str] = TEMPLATE,
    *,
    letters: bool = False,
    batch_size: int = 128,
    progress: bool = False,
) -> "pd.DataFrame":
    """Which choice a model gives the most probability, as a text (or, with `letters`, as its letter).

    Caveat: letters measure whether a model has learned the format; and many WMDP questions can be answered from the
    choices alone, so the floor of a model that never knew is above chance.

    Args:
        model: the model, under any surrounding edits.
        questions: the questions.
        template: the prompt; may use {question}, {subject} and {choices} (lines "A. text"). Or a function of the
            question. Answers follow it after a space.
        letters: score " A", " B", ... instead of the texts; the template should then show the choices.
        batch_size: forward rows at a time.

    Returns:
        One row a question, in input order: row, subject, answer, predicted, correct, answer_probability (summed
        log-probabilities normalised over the choices), predicted_per_token and correct_per_token (by log-probability
        per token, which does not favour short answers).

    Raises:
        DataError: there are no questions, or an answer lies outside its choices.
    """
    import pandas as pd

    fill = template if callable(template) else lambda question: fill_template(template, question)
    pools = [
        [f" {LETTERS[i]}" for i in range(len(question.choices))] if letters else [f" {c}" for c in question.choices]
        for question in questions
    ]
    check_answers(pools, [question.answer for question in questions])
    prompts = [fill(question) for question in questions]
    scores = score_pools(model, prompts, pools, batch_size, "multiple choice" if progress else None)
    rows: list[dict[str, object]] = []
    for row, (score, pool, question) in enumerate(zip(scores, pools, questions, strict=True)):
        predicted = int(np.argmax(score.log_probabilities))
        per_token = int(np.argmax(score.log_probabilities / score.lengths))
        rows.append(
            {
                "row": row,
                "subject": question.subject,
                "answer": question.answer,
                "predicted": predicted,
                "correct": pool[predicted] == pool[question.answer],  # which may stand among them twice
                "answer_probability": float(normalized(score.log_probabilities)[question.answer]),
                "predicted_per_token": per_token,
                "correct_per_token": pool[per_token] == pool[question.answer],
            }
        )
    return pd.DataFrame(rows)


def fill_template(template: str, question: Question) -> str:
    """The prompt of a question."""
    choices = "\n".join(f"{letter}. {choice}" for letter, choice in zip(LETTERS, question.choices, strict=False))
    return template.format(question=question.question, subject=question.subject, choices=choices)
