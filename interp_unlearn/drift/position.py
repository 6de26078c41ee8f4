"""Where in a text activations moved: at its subject, at its last token, or elsewhere."""

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any, Literal

import numpy as np

from interp_unlearn.activations import ActivationStore
from interp_unlearn.drift.spectrum import displacement_spectrum
from interp_unlearn.errors import ConfigError, DataError
from interp_unlearn.models.mentions import mentioned_tokens

if TYPE_CHECKING:
    import pandas as pd
    from transformers import PreTrainedTokenizerBase

PositionClass = Literal["subject", "last", "other"]


def position_classes(
    store: ActivationStore,
    tokenizer: "PreTrainedTokenizerBase",
    subjects: Sequence[str],
    texts: Sequence[str] | None = None,
) -> "list[PositionClass]":
    """The class of each token of a token-level store: "subject", "last" (of its text), or "other".

    The last token is "last" even where the subject ends with it. Every mention counts.

    Args:
        store: collected with ``tokens="all"`` and without completions.
        tokenizer: the model's own, a fast one.
        subjects: who or what each text is about, in its very letters.
        texts: of the store; None for those that it keeps.

    Raises:
        ConfigError: there is not one subject a text, the store holds one vector a text or keeps no texts, or the
            tokenizer is not a fast one.
        DataError: a subject is not in its text, or the store's tokens are not those of the texts.
    """
    if len(subjects) != len(store):
        raise ConfigError(f"subjects: expected one a text ({len(store)}), got {len(subjects)}")
    texts = store.texts if texts is None else texts
    if texts is None:
        raise ConfigError(
            "the store keeps no texts to look for subjects in; give texts=..., or collect with keep_texts"
        )
    ids: list[list[int]] = tokenizer(list(texts), add_special_tokens=False)["input_ids"]  # pyright: ignore[reportAssignmentType]
    masks = mentioned_tokens(tokenizer, texts, subjects)
    held = store.token_frame().groupby("row")["token_id"].apply(list).to_dict()
    classes: list[PositionClass] = []
    for row, (tokens, mask) in enumerate(zip(ids, masks, strict=True)):
        there: list[int] = held[row]
        first = len(there) > 0 and there[0] == tokenizer.bos_token_id  # a store collected with include_bos
        content = there[first:]
        if content != tokens[: len(content)]:
            raise DataError(
                "texts", f"the tokens of text {row} are not those of the store; collect without completions"
            )
        named: list[bool] = mask.tolist()[: len(content)]
        if not any(named):
            raise DataError("subjects", f"text {row} was cut before its subject; collect with a larger max_length")
        found: list[PositionClass] = ["subject" if is_it else "other" for is_it in [*[False] * first, *named]]
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
