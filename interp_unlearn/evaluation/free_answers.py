"""What a model says when it is asked, judged against what it should have said."""

import re
from collections.abc import Sequence
from typing import TYPE_CHECKING, Literal

from interp_unlearn.errors import DataError
from interp_unlearn.evaluation.generations import generate_texts

if TYPE_CHECKING:
    import pandas as pd

    from interp_unlearn.interventions import HookedModel

FreeVerdict = Literal["right", "wrong", "none"]


def answer_freely(
    model: "HookedModel",
    prompts: Sequence[str],
    answers: Sequence[str],
    others: Sequence[Sequence[str]] | None = None,
    *,
    max_new_tokens: int = 32,
    batch_size: int = 64,
    progress: bool = False,
) -> "pd.DataFrame":
    """Ask, let the model write its most probable continuation, and judge the text.

    A forced choice hides a model that says nothing of sense any more, for it still has to pick one; here it need not.

    Args:
        model: the model, under any surrounding edits.
        prompts: up to where the answer begins.
        answers: the right answer of each, in words.
        others: wrong answers of each, where they are known.
        max_new_tokens: most tokens of an answer.
        batch_size: prompts in a pass.
        progress: whether to show a progress bar.

    Returns:
        One row a prompt, in input order: row, text, verdict ("right", "wrong" where it names another answer, "none"
        otherwise), rouge_l (recall of the answer's words, in order; 0 to 1).

    Raises:
        DataError: the lists do not match, or an answer is blank.
    """
    import pandas as pd

    others = [()] * len(prompts) if others is None else others
    if not len(prompts) == len(answers) == len(others):
        raise DataError("answers", f"{len(answers)} answers and {len(others)} others for {len(prompts)} prompts")
    blank = [row for row, answer in enumerate(answers) if not words(answer)]
    if blank:
        raise DataError("answers", f"row {blank[0]}: the answer has no words")
    written = generate_texts(
        model, prompts, max_new_tokens, do_sample=False, top_p=1.0, batch_size=batch_size, progress=progress
    )
    texts = [text.lstrip("\n").partition("\n")[0] for text in written]  # what follows is the next question
    rows = [
        {
            "row": row,
            "text": text,
            "verdict": judge_answer(text, answer, wrong),
            "rouge_l": rouge_l_recall(text, answer),
        }
        for row, (text, answer, wrong) in enumerate(zip(texts, answers, others, strict=True))
    ]
    return pd.DataFrame(rows)


def judge_answer(text: str, answer: str, others: Sequence[str] = ()) -> FreeVerdict:
    """Which answer a text names first, word by word; an answer that is part of another counts where it stands alone.

    Caveat: an answer said in other words is not found; where answers are sentences, read the recall instead.
    """
    said = words(text)
    places = [(_place(said, words(candidate)), candidate) for candidate in (answer, *others)]
    # Of two that begin at the same word the longer one was said.
    found = sorted((place, -len(words(candidate)), candidate) for place, candidate in places if place is not None)
    if not found:
        return "none"
    return "right" if found[0][2] == answer else "wrong"


def rouge_l_recall(text: str, answer: str) -> float:
    """Longest common subsequence of words, as a share of the answer's: ROUGE-L recall (Lin 2004), unstemmed.

    NaN for an answer without words, of which nothing can be recalled.
    """
    said, wanted = words(text), words(answer)
    lengths = [0] * (len(said) + 1)
    for word in wanted:
        diagonal = 0
        for index, other in enumerate(said, start=1):
            above = lengths[index]
            lengths[index] = diagonal + 1 if word == other else max(above, lengths[index - 1])
            diagonal = above
    return lengths[-1] / len(wanted) if wanted else float("nan")


def words(text: str) -> list[str]:
    """Lower-case words and numbers of a text."""
    return re.findall(r"\w+", text.lower())


def _place(said: list[str], wanted: list[str]) -> int | None:
    return next((i for i in range(len(said) - len(wanted) + 1) if said[i : i + len(wanted)] == wanted), None)
