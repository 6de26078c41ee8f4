"""What a model says when it is asked, judged against what it should have said."""

import re
from collections import Counter
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
        otherwise), rouge_l (recall of the answer's words, in order; 0 to 1, NaN for an answer without words).

    Raises:
        DataError: the lists do not match, or an answer is blank.
    """
    import pandas as pd

    others = [()] * len(prompts) if others is None else others
    if not len(prompts) == len(answers) == len(others):
        raise DataError("answers", f"{len(answers)} answers and {len(others)} others for {len(prompts)} prompts")
    blank = [row for row, answer in enumerate(answers) if not answer.strip()]
    if blank:
        raise DataError("answers", f"row {blank[0]}: the answer is blank")
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

    Signs count only where answers have the same words ("5" and "-5") or none ("=="). Where the right answer and a wrong
    one still cannot be told apart, neither was named.
    Caveat: an answer said in other words is not found; where answers are sentences, read the recall instead.
    """
    said = pieces(text)
    word_places = [place for place, piece in enumerate(said) if words(piece)]
    times_worded = Counter(tuple(words(candidate)) for candidate in {answer, *others})

    def place_of(candidate: str) -> tuple[int, int] | None:
        """Where it begins; of two that begin at the same place the longer one was said."""
        worded = words(candidate)
        if worded and times_worded[tuple(worded)] == 1:
            found = _place([said[place] for place in word_places], worded)
            return None if found is None else (word_places[found], -len(worded))
        found = _place(said, pieces(candidate))
        return None if found is None else (found, -len(pieces(candidate)))

    right, named = place_of(answer), [place_of(other) for other in others if other != answer]
    wrong = min((place for place in named if place is not None), default=None)
    if right == wrong:
        return "none"
    return "right" if wrong is None or (right is not None and right < wrong) else "wrong"


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


def pieces(text: str) -> list[str]:
    """Words as `words` has them, and between them every sign."""
    return re.findall(r"\w+|[^\w\s]", text.lower())


def _place(said: list[str], wanted: list[str]) -> int | None:
    if not wanted:
        return None
    return next((i for i in range(len(said) - len(wanted) + 1) if said[i : i + len(wanted)] == wanted), None)
