"""What is measured under each intervention, item by item, so that every contrast is paired."""

from collections.abc import Callable, Hashable, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Generic, TypeVar

import numpy as np
from jaxtyping import Float

from interp_unlearn.errors import ConfigError
from interp_unlearn.settings import check_fields
from interp_unlearn.statistics import Interval, bootstrap_means
from interp_unlearn.statistics.gap import SMALLEST_GAP
from interp_unlearn.statistics.intervals import checked_columns, percentile_interval, unit_count

if TYPE_CHECKING:
    from interp_unlearn.interventions import HookedModel

Outcome = Callable[["HookedModel"], Mapping[str, Sequence[float]]]
"""From a model to the values of named outcomes, one an item (prompt), always in the same order.

For example "target" and "broken" as 0 or 1 for each prompt. Outcomes may have different items. One that samples texts
must use the same seed at every call, or the contrasts hold the noise of two samples.
"""

ItemValues = Mapping[str, Float[np.ndarray, " item"]]
"""The values of each outcome under one condition."""

Groups = Sequence[object] | Mapping[str, Sequence[object]]
"""What is resampled whole: one key an item (its subject), for all outcomes or by outcome; items alone where none."""


@dataclass(frozen=True)
class Resampling:
    """The bootstrap over items or groups.

    Attributes:
        n: resamples.
        seed: of the draws.
        level: coverage of the intervals.
    """

    n: int = 2000
    seed: int = 0
    level: float = 0.95

    def __post_init__(self) -> None:
        check_fields(self)
        if self.n < 1 or not 0 < self.level < 1:
            raise ConfigError(f"expected n of at least 1 and a level between 0 and 1, got {self.n}, {self.level}")


def measure(model: "HookedModel", outcome: Outcome, like: ItemValues | None = None) -> ItemValues:
    """Call an outcome and check what it gives.

    Args:
        model: as it is now.
        outcome: what is measured.
        like: values under another condition, whose outcomes and numbers of items have to be the same.

    Raises:
        ConfigError: there is no outcome, a value is not finite, or the items are not those of the other condition.
    """
    given = outcome(model)
    if not given:
        raise ConfigError('the outcome is empty; expected values by name, such as {"target": [0, 1, 1]}')
    found: dict[str, np.ndarray] = {}
    for name, values in given.items():
        try:
            columns = checked_columns(np.asarray(values, dtype=float))
        except ConfigError as error:
            raise ConfigError(f"outcome {name}: {error}") from error
        if columns.shape[1] != 1:
            raise ConfigError(f"outcome {name}: expected one value an item, got an array {columns.shape}")
        found[name] = columns[:, 0]
    if like is not None:
        sizes, expected = ({name: len(values) for name, values in part.items()} for part in (found, like))
        if sizes != expected:
            raise ConfigError(f"the outcome gave items {sizes} now and {expected} before; it must give the same ones")
    return found


Condition = TypeVar("Condition", bound=Hashable)


class PairedMeans(Generic[Condition]):
    """Means of one outcome under several conditions, whose resamples share their draws of items.

    Args:
        conditions: values of each item by condition.
        groups: one key an item; None for items alone.
        resampling: the bootstrap.

    Raises:
        ConfigError: fewer than two units to resample, or conditions with different numbers of items.
    """

    def __init__(
        self,
        conditions: Mapping[Condition, Float[np.ndarray, " item"]],
        groups: Sequence[object] | None,
        resampling: Resampling,
    ) -> None:
        columns = np.stack(list(conditions.values()), axis=1)
        means = bootstrap_means(columns, groups, resampling.n, resampling.seed)
        # The estimate first, then the resamples: whatever is computed of both is computed alike.
        self._means = dict(zip(conditions, np.concatenate([columns.mean(0)[None], means]).T, strict=True))
        self._level = resampling.level
        self.n = unit_count(len(columns), groups)

    def mean(self, condition: Condition) -> float:
        """Mean over items."""
        return float(self._means[condition][0])

    def contrast(self, *terms: tuple[float, Condition], level: float | None = None) -> Interval:
        """Weighted sum of the means of conditions."""
        return self.interval(self._sum(terms), level)

    def effect(self, after: Condition, before: Condition) -> Interval:
        """Difference between two conditions."""
        return self.contrast((1.0, after), (-1.0, before))

    def share(self, after: Condition, before: Condition, whole: Condition) -> Interval:
        """Share of the difference between two conditions that a third has made, see `shares`."""
        return self.interval(self.shares(after, before, whole))

    def shares(self, after: Condition, before: Condition, whole: Condition) -> Float[np.ndarray, " 1+resample"]:
        """`(after - before) / (whole - before)`, the gap closed, in the sample and in every resample.

        NaN throughout where the interval of `whole - before` holds 0: there is nothing to have a share of. Where it is
        0 in a resample all the same, the share there is not a number, and an interval over resamples has no bounds.
        """
        gap = self._sum(((1.0, whole), (-1.0, before)))
        interval = self.interval(gap)
        if abs(interval.mean) < SMALLEST_GAP or interval.low <= 0 <= interval.high:
            return np.full(len(gap), np.nan)
        with np.errstate(divide="ignore", invalid="ignore"):
            shares = self._sum(((1.0, after), (-1.0, before))) / gap
        return np.where(np.isfinite(shares), shares + 0.0, np.nan)  # 0 rather than -0

    def interval(self, values: Float[np.ndarray, " 1+resample"], level: float | None = None) -> Interval:
        """Interval of a number from its value in the sample, which comes first, and in every resample."""
        if np.isnan(values).any():
            return Interval(float(values[0]), float("nan"), float("nan"), self.n)
        return percentile_interval(float(values[0]), values[1:], self.n, level or self._level)

    def _sum(self, terms: Sequence[tuple[float, Condition]]) -> Float[np.ndarray, " 1+resample"]:
        return np.sum([weight * self._means[condition] for weight, condition in terms], axis=0)


def groups_of(groups: Groups | None, outcome: str) -> Sequence[object] | None:
    """The keys of an outcome's items; None for items alone.

    Raises:
        ConfigError: keys were given by outcome, and none for this one.
    """
    if not isinstance(groups, Mapping):
        return groups
    if outcome not in groups:
        raise ConfigError(f"groups: none for outcome {outcome}; there are some for {', '.join(groups)}")
    return groups[outcome]


def check_units(values: ItemValues, groups: Groups | None) -> None:
    """Refuse what could not be resampled, before anything long is begun.

    Raises:
        ConfigError: an outcome has not one key an item, or fewer than two units.
    """
    for outcome, items in values.items():
        units = unit_count(len(items), groups_of(groups, outcome))
        if units < 2:
            raise ConfigError(f"outcome {outcome}: an interval needs at least two items or groups, got {units}")
