"""Texts tokenised once, kept as one flat array: a million short texts take some megabytes."""

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
from jaxtyping import Int

from interp_unlearn.models import TokenBatch
from interp_unlearn.models.encoding import encode_rows

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase

CHUNK = 1024
"""Texts given to the tokenizer at a time, whose own records of a text are large."""


@dataclass(frozen=True, eq=False)
class TokenizedTexts:
    """The token ids of many texts, BOS included.

    Attributes:
        ids: all ids, text after text.
        offsets: where each text starts, and where the last one ends.
        completion_starts: for each text, the index in it of its first completion token; None without completions.
        bos_token_id: id of the leading BOS, if the tokenizer has one.
        n_cut: texts that were longer than allowed.
    """

    ids: Int[np.ndarray, " token"]
    offsets: Int[np.ndarray, " text+1"]
    completion_starts: Int[np.ndarray, " text"] | None
    bos_token_id: int | None
    n_cut: int = 0

    @classmethod
    def of(
        cls,
        tokenizer: "PreTrainedTokenizerBase",
        texts: Sequence[str],
        completions: Sequence[str] | None,
        max_length: int | None,
    ) -> "TokenizedTexts":
        """Tokenise texts, or texts with completions.

        Raises:
            DataError: a text has no tokens, or `max_length` cuts a whole completion away.
        """
        ids: list[np.ndarray] = []
        lengths: list[int] = []
        starts: list[int] = []
        n_cut = 0
        for first in range(0, len(texts), CHUNK):
            chunk = slice(first, first + CHUNK)
            tails = None if completions is None else completions[chunk]
            found = encode_rows(tokenizer, texts[chunk], completions=tails, max_length=max_length, first=first)
            lengths += map(len, found.rows)
            starts += found.completion_starts or ()
            n_cut += found.n_cut
            ids.append(np.fromiter((token for row in found.rows for token in row), dtype=np.int32))
        return cls(
            np.concatenate(ids),
            np.concatenate([[0], np.cumsum(lengths)]),
            np.array(starts) if completions is not None else None,
            tokenizer.bos_token_id,  # pyright: ignore[reportArgumentType]
            n_cut,
        )

    def hash(self) -> str:
        """SHA-256 of all ids and of where texts begin: of what the tokenizer made of the texts."""
        digest = hashlib.sha256(f"{self.ids.dtype} {self.offsets.dtype} {self.bos_token_id}".encode())
        digest.update(self.ids.tobytes())
        digest.update(self.offsets.tobytes())
        return digest.hexdigest()

    @property
    def lengths(self) -> Int[np.ndarray, " text"]:
        """Tokens of each text, BOS included."""
        return np.diff(self.offsets)

    def __len__(self) -> int:
        return len(self.offsets) - 1

    def row(self, text: int) -> list[int]:
        """The ids of one text."""
        return self.ids[self.offsets[text] : self.offsets[text + 1]].tolist()

    def batch(self, texts: Sequence[int]) -> TokenBatch:
        """Some texts, padded to the longest of them only."""
        starts = None if self.completion_starts is None else self.completion_starts[list(texts)].tolist()
        return TokenBatch.from_rows(
            [self.row(text) for text in texts], bos_token_id=self.bos_token_id, completion_starts=starts
        )
