"""How varied generations are: distinct n-grams and repetition, over words or any other tokens."""

from collections.abc import Hashable, Sequence

Words = Sequence[Hashable]


def split_words(text: str) -> list[str]:
    """Words as they stand between white space: the unit that does not depend on a model's tokenizer."""
    return text.split()


def distinct(texts: Sequence[Words], n: int) -> float:
    """dist-n: distinct n-grams of all texts together, over their number of words (Li et al. 2016, arXiv 1510.03055).

    Over the continuations of one prompt, averaged over prompts, it is the dist-n of Liu et al. 2021 (DExperts).
    Caveat: it falls with the number of texts, since words recur: compare only equal numbers of equally long texts.

    Args:
        texts: words of each text.
        n: 1 for words, 2 for pairs of neighbours, and so on; n-grams do not reach over the end of a text.

    Returns:
        0 to 1; NaN where there are no words.
    """
    words = sum(len(text) for text in texts)
    grams = {gram for text in texts for gram in _grams(text, n)}
    return len(grams) / words if words else float("nan")


def repetition(text: Words, n: int = 4) -> float:
    """seq-rep-n: share of a text's n-grams that it has had before, ``1 - distinct / all`` (Welleck et al. 2020, eq. 10,
    arXiv 1908.04319; there over tokens).

    Returns:
        0 where nothing recurs, towards 1 for a loop; NaN for a text of fewer than n words, which holds no n-gram.
    """
    grams = _grams(text, n)
    return 1 - len(set(grams)) / len(grams) if grams else float("nan")


def _grams(text: Words, n: int) -> list[tuple[Hashable, ...]]:
    return [tuple(text[i : i + n]) for i in range(len(text) - n + 1)]
