"""Which tokens name a subject: whole words first, letters inside of words where a text has nothing else."""

import pytest
from conftest import make_tokenizer

from interp_unlearn.errors import DataError
from interp_unlearn.models.mentions import mentioned_tokens


def named(text: str, subject: str) -> list[bool]:
    return mentioned_tokens(make_tokenizer(), [text], [subject])[0].tolist()


@pytest.mark.parametrize(
    ("text", "subject", "expected"),
    [
        ("the cat sat", "cat", [False, True, False]),
        ("the cat sat on the cat", "the cat", [True, True, False, False, True, True]),
        ("cat sat at hill", "at", [False, False, True, False]),  # not the "at" of cat and sat
        ("the cat sat", "at", [False, True, True]),  # where there is no other
    ],
)
def test_whole_words_count_before_parts_of_words(text: str, subject: str, expected: list[bool]) -> None:
    assert named(text, subject) == expected


@pytest.mark.parametrize("subject", ["", "dog", "Cat"])
def test_a_subject_is_there_in_its_very_letters(subject: str) -> None:
    with pytest.raises(DataError, match="row 0: its subject"):
        named("the cat sat", subject)
    with pytest.raises(DataError, match="2 subjects for 1 texts"):
        mentioned_tokens(make_tokenizer(), ["the cat"], ["cat", "cat"])
