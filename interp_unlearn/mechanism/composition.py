"""Composition: whether two changes of the weights act independently of each other."""

import math
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from interp_unlearn.errors import ConfigError
from interp_unlearn.interventions import HookedModel
from interp_unlearn.mechanism.delta import WeightDelta, applied
from interp_unlearn.mechanism.outcome import (
    Groups,
    ItemValues,
    Outcome,
    PairedMeans,
    Resampling,
    check_units,
    groups_of,
    measure,
)
from interp_unlearn.settings import check_fields
from interp_unlearn.statistics import Interval
from interp_unlearn.statistics.gap import SMALLEST_GAP

if TYPE_CHECKING:
    import pandas as pd

_Terms = tuple[tuple[float, str], ...]


@dataclass(frozen=True)
class CompositionConfig:
    """What counts as no difference, and how it is tested.

    Attributes:
        margin: largest mean difference that would not matter, in units of the outcome; one for all outcomes, or by
            outcome. Choose it before looking: a margin chosen afterwards proves nothing.
        names: of the two deltas, for tables.
        alpha: error of either one-sided test; the interval that has to lie within the margin covers `1 - 2 alpha`.
        resampling: the bootstrap over items or groups.
    """

    margin: float | Mapping[str, float]
    names: tuple[str, str] = ("first", "second")
    alpha: float = 0.05
    resampling: Resampling = field(default_factory=Resampling)

    def __post_init__(self) -> None:
        check_fields(self)
        margins = list(self.margin.values()) if isinstance(self.margin, Mapping) else [self.margin]
        if not margins or not all(0 < margin < math.inf for margin in margins):
            raise ConfigError(f"margin: expected a number above 0, or one for each outcome, got {self.margin}")
        if not 0 < self.alpha < 0.5:
            raise ConfigError(f"alpha must lie between 0 and 0.5, got {self.alpha}")
        if len(set(self.names) | _RESERVED) < len(_RESERVED) + 2:
            raise ConfigError(f"names must differ and be none of {', '.join(sorted(_RESERVED))}, got {self.names}")

    def margin_of(self, outcome: str) -> float:
        """The margin of an outcome.

        Raises:
            ConfigError: margins were given by outcome, and none for this one.
        """
        if not isinstance(self.margin, Mapping):
            return self.margin
        if outcome not in self.margin:
            raise ConfigError(f"margin: none for outcome {outcome}; there is one for {', '.join(self.margin)}")
        return self.margin[outcome]


_RESERVED = frozenset(("original", "sum", "interaction"))


@dataclass(frozen=True, eq=False)
class Composition:
    """Contrasts between conditions.

    Attributes:
        config: margin and test.
        values: what was measured, by condition.
        contrasts: by name, the conditions whose weighted sum it is.
        item_groups: keys of the items.
    """

    config: CompositionConfig
    values: Mapping[str, ItemValues]
    contrasts: Mapping[str, _Terms]
    item_groups: Groups | None

    def to_frame(self) -> "pd.DataFrame":
        """One row an outcome and contrast.

        Columns: outcome, contrast, mean, low, high; equivalence_low, equivalence_high (the interval of the two
        one-sided tests, of coverage 1 - 2 alpha), margin, equivalent (that interval lies within the margin around 0);
        n. Where hardly an item differs, a bootstrap has next to no width however few there are. So the interval of an
        outcome whose values lie between 0 and 1, and of any of which not one differs, reaches at least as far as what
        may have gone unseen if none did: `1 - alpha^(1 / n)` either way (Clopper and Pearson 1934), as of n units
        (groups, where there are any) that would differ by 1. Where a few do differ it may be a little more than that.
        Caveat: what is not equivalent need not be different: a wide interval shows neither.
        """
        import pandas as pd

        return pd.DataFrame(list(self._rows()))

    def _rows(self) -> "Iterator[dict[str, object]]":
        for outcome in next(iter(self.values.values())):
            means = PairedMeans(
                {condition: values[outcome] for condition, values in self.values.items()},
                groups_of(self.item_groups, outcome),
                self.config.resampling,
            )
            margin = self.config.margin_of(outcome)
            share = all(((values[outcome] >= 0) & (values[outcome] <= 1)).all() for values in self.values.values())
            for contrast, terms in self.contrasts.items():
                found = means.contrast(*terms)
                tested = means.contrast(*terms, level=1 - 2 * self.config.alpha)
                if share or max(abs(tested.low), abs(tested.high)) < SMALLEST_GAP:
                    unseen = 1 - self.config.alpha ** (1 / means.n)
                    tested = Interval(found.mean, min(tested.low, -unseen), max(tested.high, unseen), found.n)
                yield {
                    "outcome": outcome,
                    "contrast": contrast,
                    "mean": found.mean,
                    "low": found.low,
                    "high": found.high,
                    "equivalence_low": tested.low,
                    "equivalence_high": tested.high,
                    "margin": margin,
                    "equivalent": -margin < tested.low and tested.high < margin,
                    "n": found.n,
                }


def compose(
    original: HookedModel,
    first: WeightDelta,
    second: WeightDelta,
    outcome: Outcome,
    config: CompositionConfig,
    *,
    groups: Groups | None = None,
) -> Composition:
    """Add two deltas to the original, each alone and both, and test whether their effects add up.

    The contrasts are the effect of each, that of the sum, and the interaction,
    `effect(sum) - effect(first) - effect(second)`, each with an interval and tested for equivalence with 0 (two
    one-sided tests, Schuirmann 1987): of the interaction, equivalence is additivity; of one delta's effect on the other
    goal's outcome, it is that the one does not touch the other.

    Caveat: outcomes with bounds can hide and feign. Where both deltas alone reach the floor of a share the sum cannot
    go below, and the interaction is not 0 although the mechanisms may be distinct; where neither does anything the
    effects add up trivially. Additivity of effects does not show that disjoint units do the work, and it is of these
    two runs, not of the goals. Adding the sum of two deltas also moves the weights further than either run did.

    Args:
        original: the model both deltas were taken from; its weights are put back bit for bit.
        first: one change, such as that of unlearning knowledge.
        second: the other.
        outcome: what is measured: best the outcomes of both goals, "broken" among them.
        config: margin, names and test.
        groups: keys of the items that are resampled whole.

    Raises:
        ConfigError: a delta does not fit the model, the outcome changes its items, or an outcome has no margin.
        BackendError: the backend cannot follow a change of the weights.
    """
    one, other = config.names
    values: dict[str, ItemValues] = {"original": measure(original, outcome)}
    _check(values["original"], config, groups)
    for name, delta in ((one, first), (other, second), ("sum", first + second)):
        with applied(original, delta):
            values[name] = measure(original, outcome, values["original"])
    contrasts: dict[str, _Terms] = {name: ((1.0, name), (-1.0, "original")) for name in (one, other, "sum")}
    contrasts["interaction"] = ((1.0, "sum"), (-1.0, one), (-1.0, other), (1.0, "original"))
    return Composition(config, values, contrasts, groups)


def carry_over(
    original: HookedModel,
    twin: HookedModel,
    delta: WeightDelta,
    outcome: Outcome,
    config: CompositionConfig,
    *,
    groups: Groups | None = None,
) -> Composition:
    """Add a delta to the twin that never learned the *other* goal's target: does it act there as on the original?

    If unlearning one goal leans on what the other goal's target left in the weights, its delta does less, or something
    else, on a model that never learned that target. The contrasts are the effect on the original, that on the twin,
    and the difference of the two, each tested for equivalence with 0.

    Caveat: equal effects speak for distinct goals only where the twin came from the same initial weights; a delta means
    nothing in the basis of a network trained apart, and then a failure to carry over says nothing about the goals.

    Args:
        original: the model the delta was taken from; its weights are put back bit for bit.
        twin: the other goal's; its weights are put back too.
        delta: of one goal.
        outcome: of that goal.
        config: margin and test.
        groups: keys of the items that are resampled whole.

    Raises:
        ConfigError: the delta does not fit a model, the outcome changes its items, or an outcome has no margin.
        BackendError: a backend cannot follow a change of the weights.
    """
    values: dict[str, ItemValues] = {"original": measure(original, outcome)}
    _check(values["original"], config, groups)
    values["twin"] = measure(twin, outcome, values["original"])
    for name, model in (("original", original), ("twin", twin)):
        with applied(model, delta):
            values[f"{name} + delta"] = measure(model, outcome, values["original"])
    contrasts: dict[str, _Terms] = {
        f"on {name}": ((1.0, f"{name} + delta"), (-1.0, name)) for name in ("original", "twin")
    }
    contrasts["difference"] = (*contrasts["on twin"], *((-weight, name) for weight, name in contrasts["on original"]))
    return Composition(config, values, contrasts, groups)


def _check(values: ItemValues, config: CompositionConfig, groups: Groups | None) -> None:
    """Refuse what could not be told, before anything long is begun."""
    check_units(values, groups)
    for outcome in values:
        config.margin_of(outcome)
