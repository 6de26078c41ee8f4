"""What an attack is judged by: one number an item of what was to be forgotten, of a model under any edits.

A measure is any callable from a model to `MeasuredItems`. One that asks prompts can also be asked in other words. Items
whose prompt does not fit the model, or whose score is no number, are named and left out: an error counts neither as
forgetting nor as recovery.
"""

from abc import ABC, abstractmethod
from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass, field, fields, replace
from functools import cache
from typing import TYPE_CHECKING, Self

import numpy as np
from jaxtyping import Float

from interp_unlearn.attacks.measured_items import MeasuredItems
from interp_unlearn.errors import ConfigError, DataError, ScoreError
from interp_unlearn.models.encoding import encode_continuations, encode_texts

if TYPE_CHECKING:
    from interp_unlearn.interventions import HookedModel

Measure = Callable[["HookedModel"], MeasuredItems]
"""Scores a model; edits around the call are part of the model. The same items whenever it is called."""

MOST_REFUSALS = 64
"""Passes that may fail before the items that are left are all taken to have no score."""


@dataclass(frozen=True, eq=False)
class PromptedMeasure(ABC):
    """Base of the measures that ask prompts.

    Attributes:
        prompts: one an item.
        score: which of the measure's scores is taken.
        groups: what each item belongs to (its subject), as in the forget texts; None makes every item its own.
        ids: names of the items in tables; None numbers them.
        batch_size: rows in a pass.

    Raises:
        DataError: there are no items, or lists that do not match.
        ConfigError: there is no such score.
    """

    prompts: Sequence[str]
    score: str = field(kw_only=True)
    groups: Sequence[str] | None = field(default=None, kw_only=True)
    ids: Sequence[str] | None = field(default=None, kw_only=True)
    batch_size: int = field(default=64, kw_only=True)

    def __post_init__(self) -> None:
        if isinstance(self.prompts, str) or not isinstance(self.prompts, Sequence):  # pyright: ignore[reportUnnecessaryIsInstance]
            raise DataError("prompts", f"expected a list, got {type(self.prompts).__name__}; wrap it in a list")
        if not self.prompts:
            raise DataError("prompts", "empty; expected at least one")
        if not isinstance(self.batch_size, int) or self.batch_size < 1:  # pyright: ignore[reportUnnecessaryIsInstance]
            raise ConfigError(f"batch_size must be at least 1, got {self.batch_size!r}")
        for entry in fields(self):
            value = getattr(self, entry.name)
            if isinstance(value, Sequence) and not isinstance(value, str):
                object.__setattr__(self, entry.name, tuple(value))
                if len(value) != len(self.prompts):
                    raise DataError(entry.name, f"{len(value)} for {len(self.prompts)} items; expected one each")
        if self.score not in self.scores_offered():
            raise ConfigError(f"no score {self.score!r}; expected {' or '.join(self.scores_offered())}")

    def __call__(self, model: "HookedModel") -> MeasuredItems:
        """The score of every item that the model can be asked."""
        names, left_out = self._names, self._objections(model)
        scores = np.full(len(names), np.nan)
        beside: dict[str, np.ndarray] = {}
        pending = [[row for row in range(len(names)) if row not in left_out]]
        refused = 0
        while pending:
            if not (rows := pending.pop()):
                continue
            try:
                scores[rows], seen = self._select(rows).score_beside(model)
                for name, column in seen.items():
                    beside.setdefault(name, np.full(len(names), np.nan))[rows] = column
            except ScoreError as error:  # of one item at least; the others are found by halving
                refused += 1
                if len(rows) == 1 or refused > MOST_REFUSALS:
                    left_out |= dict.fromkeys(rows, f"not scored: {error}")
                else:
                    pending += [rows[len(rows) // 2 :], rows[: len(rows) // 2]]
        why = {names[row]: reason for row, reason in left_out.items()}
        return MeasuredItems.of(self.score, scores, names, self.groups, why, beside)

    @staticmethod
    @abstractmethod
    def scores_offered() -> tuple[str, ...]:
        """Names of the scores."""

    @abstractmethod
    def score_all(self, model: "HookedModel") -> Float[np.ndarray, " item"]:
        """One number an item, NaN where there is none.

        Raises:
            ScoreError: there is none for one of the items.
        """

    def score_beside(
        self, model: "HookedModel"
    ) -> tuple[Float[np.ndarray, " item"], Mapping[str, Float[np.ndarray, " item"]]]:
        """The scores of `score_all`, and by name what else is to be kept of each item; by default nothing."""
        return self.score_all(model), {}

    @abstractmethod
    def followed_by(self, row: int) -> Sequence[str]:
        """The texts that are scored after a prompt."""

    @abstractmethod
    def solution(self, row: int) -> str:
        """What a prompt is to be followed by, with its leading space."""

    def asked(self, prompts: Sequence[str]) -> Self:
        """The same items after other prompts."""
        return replace(self, prompts=tuple(prompts))

    def only(self, ids: Collection[str]) -> Self:
        """Some of the items, under the ids that they have.

        Raises:
            DataError: none of them is among the items.
        """
        named = replace(self, ids=self._names)
        return named._select([row for row, name in enumerate(self._names) if name in set(ids)])

    @property
    def _names(self) -> tuple[str, ...]:
        return tuple(str(row) for row in range(len(self.prompts))) if self.ids is None else tuple(self.ids)

    def _select(self, rows: Sequence[int]) -> Self:
        values = {entry.name: getattr(self, entry.name) for entry in fields(self)}
        return replace(
            self,
            **{name: tuple(value[row] for row in rows) for name, value in values.items() if isinstance(value, tuple)},
        )

    def _objections(self, model: "HookedModel") -> dict[int, str]:
        """Why items cannot be asked, by their number."""
        limit, found = model.context_length, dict[int, str]()

        @cache
        def lengths_of(answers: tuple[str, ...]) -> list[int]:
            return [len(ids) for ids in encode_continuations(model.tokenizer, answers)]

        for row, ids in enumerate(encode_texts(model.tokenizer, self.prompts)):
            lengths = lengths_of(tuple(self.followed_by(row)))
            needed = 1 + len(ids) + max([*lengths, self.n_generated])
            if min(lengths, default=0) == 0:
                found[row] = "an answer has no tokens"
            elif limit is not None and needed > limit:
                found[row] = f"{needed} tokens, more than the model's {limit}"
        return found

    @property
    def n_generated(self) -> int:
        """Most tokens that are generated after a prompt."""
        return 0
