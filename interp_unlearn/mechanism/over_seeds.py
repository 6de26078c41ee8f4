"""Measurements of several runs on the same items as one: every item's value is the mean over runs."""

from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any, TypeVar

import numpy as np

from interp_unlearn.errors import ConfigError
from interp_unlearn.mechanism.composition import Composition
from interp_unlearn.mechanism.rank_profile import RankProfile
from interp_unlearn.mechanism.transplant import Transplant

Measured = TypeVar("Measured", Transplant, RankProfile, Composition)


def averaged(runs: Sequence[Measured]) -> Measured:
    """One measurement of several runs, whose intervals are over items with the runs averaged within them.

    Caveat: the interval says nothing of how runs differ; look at each of them too.

    Args:
        runs: of the same conditions and items, in any order of seeds.

    Raises:
        ConfigError: there are none, or they differ in conditions, outcomes or numbers of items.
    """
    if not runs:
        raise ConfigError("no runs to average; expected at least one")
    first, *others = runs
    tables: list[Mapping[Any, Any]] = [run.values for run in runs]
    if any(_shape(table) != _shape(tables[0]) for table in tables):
        raise ConfigError("the runs were measured under different conditions, outcomes or items; expected the same")
    values: Any = {
        condition: {name: np.mean([table[condition][name] for table in tables], axis=0) for name in outcomes}
        for condition, outcomes in tables[0].items()
    }
    if not isinstance(first, RankProfile):
        return replace(first, values=values)
    profiles = [first, *(run for run in others if isinstance(run, RankProfile))]
    energy = {rank: float(np.mean([profile.energy[rank] for profile in profiles])) for rank in first.energy}
    return replace(first, values=values, energy=energy)


def _shape(table: Mapping[Any, Any]) -> dict[Any, dict[str, int]]:
    return {condition: {name: len(items) for name, items in values.items()} for condition, values in table.items()}
