"""Scores item by item: what attacks are judged on, and what is left out of the judgement with its reason."""

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

import numpy as np
from jaxtyping import Float
from numpy.typing import ArrayLike

from interp_unlearn.artifacts import check_columns
from interp_unlearn.errors import ConfigError

if TYPE_CHECKING:
    import pandas as pd

_COLUMNS = ("id", "group", "score", "reason")


@dataclass(frozen=True, eq=False)
class MeasuredItems:
    """Scores of one model. An item without a score is named in `left_out` and counts for nobody.

    Attributes:
        score: what is measured, for example "correct"; higher is more of what was to be forgotten.
        ids: of the scored items.
        scores: one an item, finite.
        groups: what each scored item belongs to (its subject); items of one group are resampled together.
        left_out: why an item has no score, by id.
        beside: what else was seen of each scored item, by name ("broken"); nothing is judged by it.

    Raises:
        ConfigError: lengths differ, an id stands twice, or a score is not finite.
    """

    score: str
    ids: tuple[str, ...]
    scores: Float[np.ndarray, " item"]
    groups: tuple[str, ...]
    left_out: Mapping[str, str] = field(default_factory=dict[str, str])
    beside: Mapping[str, Float[np.ndarray, " item"]] = field(default_factory=dict[str, np.ndarray])

    def __post_init__(self) -> None:
        sizes = {"scores": len(self.scores), "groups": len(self.groups)}
        sizes |= {name: len(column) for name, column in self.beside.items()}
        if set(sizes.values()) - {len(self.ids)}:
            told = ", ".join(f"{size} {name}" for name, size in sizes.items())
            raise ConfigError(f"{self.score}: {len(self.ids)} ids and {told}; expected as many of each")
        if taken := self.beside.keys() & set(_COLUMNS):
            raise ConfigError(f"{self.score}: {sorted(taken)[0]} cannot stand beside the scores; choose another name")
        if len({*self.ids, *self.left_out}) < len(self.ids) + len(self.left_out):
            raise ConfigError(f"{self.score}: an id stands twice; give each item one of its own")
        if not np.isfinite(self.scores).all():
            raise ConfigError(f"{self.score}: a score is not finite; use MeasuredItems.of, which leaves such items out")

    @classmethod
    def of(
        cls,
        score: str,
        scores: ArrayLike,
        ids: Sequence[str] | None = None,
        groups: Sequence[str] | None = None,
        left_out: Mapping[str, str] | None = None,
        beside: Mapping[str, ArrayLike] | None = None,
    ) -> "MeasuredItems":
        """Scores of all items, those without a finite one left out.

        Args:
            score: what is measured.
            scores: one an item; NaN or infinite where there is none.
            ids: one an item; None numbers them.
            groups: one an item; None makes every item its own, named after it ("item 0").
            left_out: why an item has no score, by id, where more is known than that.
            beside: what else was seen, one value an item, by name.

        Raises:
            ConfigError: lengths differ, an id stands twice, or what is beside has a name that the table takes.
        """
        values = np.asarray(scores, dtype=float)
        names = [str(row) for row in range(len(values))] if ids is None else [str(name) for name in ids]
        kinds = [f"item {name}" for name in names] if groups is None else [str(group) for group in groups]
        others = {name: np.asarray(column, dtype=float) for name, column in (beside or {}).items()}
        if wrong := [name for name, column in others.items() if column.shape != values.shape]:
            raise ConfigError(
                f"{score}: {len(others[wrong[0]])} values of {wrong[0]} for {len(values)} scores; give as many"
            )
        if not len(values) == len(names) == len(kinds):
            raise ConfigError(f"{score}: {len(values)} scores, {len(names)} ids and {len(kinds)} groups; give as many")
        known = dict(left_out or {})
        scored = np.isfinite(values) & np.array([name not in known for name in names], dtype=bool)
        return cls(
            score,
            tuple(names[row] for row in np.flatnonzero(scored)),
            values[scored],
            tuple(kinds[row] for row in np.flatnonzero(scored)),
            {names[row]: known.get(names[row], f"score is {values[row]}") for row in np.flatnonzero(~scored)},
            {name: column[scored] for name, column in others.items()},
        )

    @classmethod
    def average(cls, several: Sequence["MeasuredItems"]) -> "MeasuredItems":
        """The mean score of each item over several measurements; what one of them lacks is left out."""
        first = several[0]
        missing = {name: why for items in several for name, why in items.left_out.items()}
        ids = [name for name in first.ids if name not in missing]
        columns = [items.at(ids) for items in several]
        group_of = dict(zip(first.ids, first.groups, strict=True))
        common = [name for name in first.beside if all(name in items.beside for items in several)]
        beside = {name: np.mean([items._beside_at(name, ids) for items in several], axis=0) for name in common}
        groups = tuple(group_of[name] for name in ids)
        return cls(first.score, tuple(ids), np.mean(columns, axis=0), groups, missing, beside)

    def __len__(self) -> int:
        """Number of scored items."""
        return len(self.ids)

    @property
    def asked(self) -> set[str]:
        """Ids of all items, scored or not."""
        return {*self.ids, *self.left_out}

    @property
    def grouped(self) -> bool:
        """Whether some group holds several items; otherwise every item is its own."""
        return len(set(self.groups)) < len(self.ids)

    def at(self, ids: Sequence[str]) -> Float[np.ndarray, " id"]:
        """The scores of some items, in their order."""
        return self.scores[self._rows_of(ids)]

    def _beside_at(self, name: str, ids: Sequence[str]) -> Float[np.ndarray, " id"]:
        return self.beside[name][self._rows_of(ids)]

    def _rows_of(self, ids: Sequence[str]) -> list[int]:
        place = {name: row for row, name in enumerate(self.ids)}
        return [place[name] for name in ids]

    def only(self, ids: Collection[str]) -> "MeasuredItems":
        """Some of the items."""
        wanted = set(ids)
        rows = [row for row, name in enumerate(self.ids) if name in wanted]
        return MeasuredItems(
            self.score,
            tuple(self.ids[row] for row in rows),
            self.scores[rows],
            tuple(self.groups[row] for row in rows),
            {name: why for name, why in self.left_out.items() if name in wanted},
            {name: column[rows] for name, column in self.beside.items()},
        )

    def to_frame(self) -> "pd.DataFrame":
        """One row an item: id, group and score (missing where left out), reason; and what is beside, by name."""
        import pandas as pd

        scored = [
            (name, group, score, None) for name, group, score in zip(self.ids, self.groups, self.scores, strict=True)
        ]
        others = [(name, None, np.nan, why) for name, why in self.left_out.items()]
        frame = pd.DataFrame([*scored, *others], columns=list(_COLUMNS))
        frame = frame.astype({"id": "string", "group": "string", "score": float, "reason": "string"})
        empty = [np.nan] * len(others)
        return frame.assign(**{name: [*column, *empty] for name, column in self.beside.items()})

    @classmethod
    def from_frame(cls, score: str, frame: "pd.DataFrame") -> "MeasuredItems":
        """What `to_frame` wrote.

        Raises:
            ArtifactError: it is another table.
        """
        again = "run the attacks again"
        beside = [str(name) for name in frame.columns if name not in _COLUMNS]
        check_columns(f"items of {score}", frame, numbers=["score", *beside], texts=["id"], again=again)
        scored, others = frame.loc[frame["score"].notna()], frame.loc[frame["score"].isna()]
        check_columns(f"items of {score}", scored, texts=["group"], again=again)
        check_columns(f"items of {score}", others, texts=["reason"], again=again)
        return cls(
            score,
            tuple(scored["id"].tolist()),
            np.asarray(scored["score"], dtype=float),
            tuple(scored["group"].tolist()),
            dict(zip(others["id"].tolist(), others["reason"].tolist(), strict=True)),
            {name: np.asarray(scored[name], dtype=float) for name in beside},
        )
