"""Texts as token ids: tokenised in one place, whole or as what goes on from another text."""

import re
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal

from interp_unlearn.errors import ConfigError, DataError

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase

_SURROGATES = re.compile("[\ud800-\udfff]")


@dataclass(frozen=True)
class EncodedRows:
    """Texts as token ids.

    Attributes:
        rows: the ids of each text.
        completion_starts: for each text, the index of its first completion token; None without completions.
        n_cut: texts that were longer than allowed.
    """

    rows: list[list[int]]
    completion_starts: list[int] | None
    n_cut: int


def encode_rows(
    tokenizer: "PreTrainedTokenizerBase",
    texts: Sequence[str],
    *,
    completions: Sequence[str] | None = None,
    add_bos: bool = True,
    max_length: int | None = None,
    first: int = 0,
) -> EncodedRows:
    """The token ids of each text; arguments as of `tokenize`.

    Args:
        first: number of the first text, for error messages, where the texts are part of a longer list.

    Raises:
        DataError: there are no texts, one is no text or has no tokens, or `max_length` cuts a whole completion away.
        ConfigError: the numbers of texts and completions differ.
    """
    if isinstance(texts, str):
        raise ConfigError("texts must be a list of texts, got one string; wrap it in a list")
    if not texts:
        raise DataError("texts", "empty; expected at least one text")
    if completions is not None and len(completions) != len(texts):
        raise ConfigError(f"{len(texts)} prompts but {len(completions)} completions; expected as many")
    bos = special_id(tokenizer, "bos")
    start = [bos] if add_bos and bos is not None else []
    rows = [[*start, *row] for row in encode_texts(tokenizer, texts, first)]
    starts = None
    if completions is not None:
        starts = [len(row) for row in rows]
        tails = encode_continuations(tokenizer, completions, first)
        for index, row in enumerate(rows):
            if len(row) == len(start) and tails[index]:  # after an empty prompt it is a text of its own
                (tails[index],) = encode_texts(tokenizer, [completions[index]])
            row.extend(tails[index])
    n_cut = 0 if max_length is None else sum(len(row) > max_length for row in rows)
    rows = [row[:max_length] for row in rows]
    for index, row in enumerate(rows):
        if len(row) <= (starts[index] if starts is not None else len(start)):
            what = "completion" if starts is not None else "text"
            raise DataError(
                "texts", f"{what} {first + index} has no tokens (max_length {max_length}); drop or shorten it"
            )
    return EncodedRows(rows, starts, n_cut)


def encode_continuations(tokenizer: "PreTrainedTokenizerBase", texts: Sequence[str], first: int = 0) -> list[list[int]]:
    """The token ids of texts that go on from others, tokenised apart, as they are written: with their space or without.

    A tokenizer of the Llama kind writes a space before whatever it is given, so that " girl" alone becomes two spaces
    and a word, and "girl" the word after a space. There a line break is put before the text and taken off again.

    Args:
        first: number of the first text, for error messages, where the texts are part of a longer list.

    Raises:
        DataError: one is no text.
    """
    rows = encode_texts(tokenizer, texts, first)
    border, letter, both = encode_texts(tokenizer, ["\n", "a", "\n a"])
    if both == [*border, *letter]:  # the space of " a" is what "a" was given anyway
        joined = encode_texts(tokenizer, [f"\n{text}" for text in texts])
        for index, row in enumerate(joined):
            if row[: len(border)] == border:
                rows[index] = row[len(border) :]
    return rows


def special_id(tokenizer: "PreTrainedTokenizerBase", which: Literal["bos", "eos", "pad"]) -> int | None:
    """Id of a special token, None if the tokenizer has none."""
    return getattr(tokenizer, f"{which}_token_id")


def encode_texts(tokenizer: "PreTrainedTokenizerBase", texts: Sequence[str], first: int = 0) -> list[list[int]]:
    """The token ids of texts, without special tokens.

    Args:
        first: number of the first text, for error messages, where the texts are part of a longer list.

    Raises:
        DataError: one is no text.
    """
    for index, text in enumerate(texts, start=first):
        if not isinstance(text, str):  # pyright: ignore[reportUnnecessaryIsInstance]
            raise DataError("texts", f"text {index}: expected text, got {type(text).__name__}")
        if not text.isascii() and _SURROGATES.search(text):  # no tokenizer takes it
            raise DataError("texts", f"text {index}: half of a surrogate pair, which is no character; remove it")
    if not texts:
        return []
    return tokenizer(list(texts), add_special_tokens=False)["input_ids"]  # pyright: ignore[reportReturnType]
