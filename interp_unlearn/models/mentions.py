"""Which tokens of a text name what it is about."""

import re
from collections.abc import Sequence
from typing import TYPE_CHECKING

import torch
from jaxtyping import Bool
from torch import Tensor

from interp_unlearn.errors import ConfigError, DataError

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase


def mentioned_tokens(
    tokenizer: "PreTrainedTokenizerBase", texts: Sequence[str], subjects: Sequence[str]
) -> list[Bool[Tensor, " token"]]:
    """For each text, which of its tokens (BOS not counted) hold a letter of its subject; every mention counts.

    A mention is a whole word, or several; inside of words ("cat" in "cats") one counts only where a text has no other.

    Args:
        tokenizer: a fast one, for it has to say which characters a token covers.
        texts: each tokenised by itself.
        subjects: who or what each text is about, in its very letters.

    Raises:
        DataError: a subject does not occur in its text, or the lists differ in length.
        ConfigError: the tokenizer is not a fast one.
    """
    if len(subjects) != len(texts):
        raise DataError("subjects", f"{len(subjects)} subjects for {len(texts)} texts; expected one a text")
    if not tokenizer.is_fast:
        raise ConfigError("finding a subject's tokens needs a fast tokenizer; load one, or give the positions instead")
    encoded = tokenizer(list(texts), add_special_tokens=False, return_offsets_mapping=True)
    spans: Sequence[Sequence[tuple[int, int]]] = encoded["offset_mapping"]  # pyright: ignore[reportAssignmentType]
    found: list[Tensor] = []
    for row, (text, subject, offsets) in enumerate(zip(texts, subjects, spans, strict=True)):
        letters = re.escape(subject)
        ways = (rf"(?<!\w){letters}(?!\w)", letters) if subject else ()  # not all scripts part words
        mentions = next(filter(None, ([match.span() for match in re.finditer(way, text)] for way in ways)), [])
        if not mentions:
            raise DataError("subjects", f"row {row}: its subject {subject!r} does not occur in it, in these letters")
        inside = [any(first < end and last > start for start, end in mentions) for first, last in offsets]
        found.append(torch.tensor(inside, dtype=torch.bool))
    return found
