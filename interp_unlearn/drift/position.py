"""Where in a text activations moved: at its subject, at its last token, or elsewhere."""

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any, Literal

import numpy as np

from interp_unlearn.activations import ActivationStore
from interp_unlearn.drift.spectrum import displacement_spectrum
from interp_unlearn.errors import ConfigError, DataError

if TYPE_CHECKING:
    import pandas as pd
    from transformers import PreTrainedTokenizerBase

PositionClass = Literal["subject", "last", "other"]


def position_classes(
    store: ActivationStore, tokenizer: "PreTrainedTokenizerBase", subjects: Sequence[str]
) -> "list[PositionClass]":
    """The class of each token of a token-level store: "subject", "last" (of its text), or "other".

    The last token is "last" even where the subject ends with it. A subject is looked for by its token ids, with and
    without a space in front; every mention counts.

    Raises:
        ConfigError: there is not one subject a text, or the store holds one vector a text.
        DataError: a subject is not in its text.
    """
    if len(subjects) != len(store):
        raise ConfigError(f"subjects: expected one a text ({len(store)}), got {len(subjects)}")
    classes: list[PositionClass] = []
    for row, ids in store.token_frame().groupby("row")["token_id"]:
        tokens = ids.tolist()
        found: list[PositionClass] = ["other"] * len(tokens)
        subject = subjects[int(row)]  # pyright: ignore[reportArgumentType]
        for place in _mentions(tokens, subject, tokenizer):
            found[place] = "subject"
        if "subject" not in found:
            raise DataError("subjects", f"text {row} does not hold the tokens of its subject {subject!r}")
        found[-1] = "last"
        classes += found
    return classes


def spectrum_by_position(
    original: ActivationStore, changed: ActivationStore, classes: Sequence[str], *, corpus: str = "all", **options: Any
) -> "pd.DataFrame":
    """`displacement_spectrum` of each class of tokens.

    Caveat: classes have different numbers of tokens, and a small class a low rank for that alone: compare each with its
    own null.

    Args:
        original: the original's token-level store.
        changed: the changed model's, of the same tokens.
        classes: of each token, such as `position_classes` gives.
        corpus: what the corpus is called in the table.
        options: of `displacement_spectrum`.

    Returns:
        Its table, with the column ``position``.

    Raises:
        ConfigError: there is not one class a token, or as `displacement_spectrum`.
        DataError: the texts or tokens differ.
    """
    import pandas as pd

    names = np.asarray(classes, dtype=object)
    return pd.concat(
        [
            displacement_spectrum(original, changed, corpus=corpus, keep=names == name, **options).table.assign(
                position=name
            )
            for name in dict.fromkeys(classes)
        ],
        ignore_index=True,
    )


def _mentions(tokens: list[int], subject: str, tokenizer: "PreTrainedTokenizerBase") -> set[int]:
    places: set[int] = set()
    for written in (subject, f" {subject}"):
        ids: list[int] = tokenizer(written, add_special_tokens=False)["input_ids"]  # pyright: ignore[reportAssignmentType]
        for start in range(len(tokens) - len(ids) + 1):
            if ids and tokens[start : start + len(ids)] == ids:
                places.update(range(start, start + len(ids)))
    return places
