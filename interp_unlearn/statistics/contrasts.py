"""The crossover of a 2 x 2 design: one kind of target better for one goal, the other kind better for the other goal.

A crossover claims two things at once, so it is tested as an intersection-union (Berger 1982): both differences must
hold, and its p-value is the larger of the two. The interaction alone says less: it is also large when one kind of
target is better for both goals, by different amounts.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import ArrayLike

from interp_unlearn.errors import ConfigError
from interp_unlearn.statistics.gap import gap_closed, paired_columns, resampled_gaps
from interp_unlearn.statistics.intervals import (
    Interval,
    bootstrap_means,
    percentile_interval,
    t_interval,
    unit_count,
)
from interp_unlearn.statistics.permutation import sign_flip

if TYPE_CHECKING:
    import pandas as pd


@dataclass(frozen=True)
class Crossover:
    """Both differences, each positive when the claim holds, and the interaction (their sum).

    ``p_*`` are one-sided and NaN where the design allows none (one organism).
    """

    first: Interval
    second: Interval
    interaction: Interval
    p_first: float
    p_second: float
    p_interaction: float

    @property
    def p_crossover(self) -> float:
        """Intersection-union p-value: the larger of the two differences' (no correction is needed)."""
        return math.nan if math.isnan(self.p_first) or math.isnan(self.p_second) else max(self.p_first, self.p_second)

    def to_frame(self) -> "pd.DataFrame":
        """One row per contrast: ``contrast, mean, low, high, n, p_value``; the crossover's row has the p-value only."""
        import pandas as pd

        rows = [
            ("first", self.first, self.p_first),
            ("second", self.second, self.p_second),
            ("interaction", self.interaction, self.p_interaction),
            ("crossover", Interval(math.nan, math.nan, math.nan, self.interaction.n), self.p_crossover),
        ]
        return pd.DataFrame(
            [
                {"contrast": name, "mean": i.mean, "low": i.low, "high": i.high, "n": i.n, "p_value": p}
                for name, i, p in rows
            ]
        )


@dataclass(frozen=True)
class Goal:
    """Outcomes per prompt ``[row]`` for one goal: under both targets, under the original and under the twin.

    ``favoured`` is the kind of target claimed to be better for this goal, ``other`` the other kind.
    """

    favoured: ArrayLike
    other: ArrayLike
    before: ArrayLike
    target: ArrayLike
    groups: Sequence[object] | None = None


def crossover(
    first_favoured: ArrayLike,
    first_other: ArrayLike,
    second_favoured: ArrayLike,
    second_other: ArrayLike,
    level: float = 0.95,
) -> Crossover:
    """Contrast efficacies over organisms, the replication unit: t intervals and one-sided sign-flip tests.

    Args:
        first_favoured: efficacy on the first goal under the target claimed to be better for it, ``[organism]``,
            unlearning seeds already averaged.
        first_other: the same under the other target.
        second_favoured: efficacy on the second goal under the target claimed to be better for that one.
        second_other: the same under the other target.
        level: coverage of the intervals.

    Raises:
        ConfigError: fewer than two organisms, lengths that differ, or a value that is not finite.
    """
    cells = paired_columns(first_favoured, first_other, second_favoured, second_other)
    if len(cells) < 2:
        raise ConfigError("one organism has no variance between organisms; use bootstrap_crossover, without p-values")
    first, second = cells[:, 0] - cells[:, 1], cells[:, 2] - cells[:, 3]
    both = first + second
    return Crossover(
        t_interval(first, level),
        t_interval(second, level),
        t_interval(both, level),
        p_first=sign_flip(first, "greater").p_value,
        p_second=sign_flip(second, "greater").p_value,
        p_interaction=sign_flip(both, "greater").p_value,
    )


def bootstrap_crossover(first: Goal, second: Goal, n: int = 2000, seed: int = 0, level: float = 0.95) -> Crossover:
    """Contrast the gap closed within one organism: bootstrap over each goal's groups of prompts, and no p-value.

    The two goals have different prompts and are resampled independently; within a goal all models share the draws.
    Caveat: conditional on this organism; it says nothing about another one.

    Raises:
        ConfigError: rows differ in number within a goal, or a goal has no gap.
    """
    streams = np.random.SeedSequence(seed).generate_state(2)
    (first_estimate, first_draws, first_n), (second_estimate, second_draws, second_n) = (
        _efficacy_difference(goal, n, int(stream)) for goal, stream in zip((first, second), streams, strict=True)
    )
    units = min(first_n, second_n)
    return Crossover(
        percentile_interval(first_estimate, first_draws, first_n, level),
        percentile_interval(second_estimate, second_draws, second_n, level),
        percentile_interval(first_estimate + second_estimate, first_draws + second_draws, units, level),
        p_first=math.nan,
        p_second=math.nan,
        p_interaction=math.nan,
    )


def _efficacy_difference(goal: Goal, n: int, seed: int) -> tuple[float, np.ndarray, int]:
    columns = paired_columns(goal.favoured, goal.other, goal.before, goal.target)
    favoured, other, before, target = (float(value) for value in columns.mean(axis=0))
    estimate = gap_closed(favoured, before, target) - gap_closed(other, before, target)
    means = bootstrap_means(columns, goal.groups, n, seed)
    draws = (means[:, 0] - means[:, 1]) / resampled_gaps(means[:, 2], means[:, 3])
    return estimate, draws, unit_count(len(columns), goal.groups)
