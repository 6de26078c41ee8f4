"""Confidence intervals of a mean: percentile bootstrap over groups, and Student's t over replicates."""

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from jaxtyping import Float
from numpy.typing import ArrayLike

from interp_unlearn.errors import ConfigError

_CELLS_AT_ONCE = 4_000_000  # resamples x groups held in memory at a time, 8 bytes each


@dataclass(frozen=True)
class Interval:
    """A point estimate with its interval; ``n`` is the number of independent units: groups where given, else rows."""

    mean: float
    low: float
    high: float
    n: int


def bootstrap_mean(
    values: ArrayLike, groups: Sequence[object] | None = None, n: int = 2000, seed: int = 0, level: float = 0.95
) -> Interval:
    """Percentile bootstrap interval of the mean over rows (Efron and Tibshirani 1993, ch. 13), resampling groups whole.

    Caveat: with few units (under about 20) percentile intervals are too narrow.

    Args:
        values: ``[row]``.
        groups: one key per row; rows of one group (a subject's prompts) are resampled together. None: every row alone.
        n: resamples.
        seed: of the resampling.
        level: coverage aimed at.

    Raises:
        ConfigError: fewer than two units, a value that is not finite, or lengths that differ.
    """
    column = checked_column(values)
    means = bootstrap_means(column, groups, n, seed)[:, 0]
    return percentile_interval(float(column.mean()), means, unit_count(len(column), groups), level)


def t_interval(values: ArrayLike, level: float = 0.95) -> Interval:
    """Student's t interval of the mean over independent replicates (organisms, or runs that share nothing).

    Caveat: unlearning seeds on one organism are no independent replicates of the organism.

    Args:
        values: ``[replicate]``.
        level: coverage aimed at.

    Raises:
        ConfigError: fewer than two values, or one that is not finite.
    """
    from scipy.stats import t

    _check_level(level)
    column = checked_column(values)
    if len(column) < 2:
        raise ConfigError("a t interval needs at least two replicates; report the single value without one")
    mean = float(column.mean())
    margin = float(t.ppf((1 + level) / 2, df=len(column) - 1)) * float(column.std(ddof=1)) / math.sqrt(len(column))
    return Interval(mean, mean - margin, mean + margin, len(column))


def bootstrap_means(
    columns: ArrayLike, groups: Sequence[object] | None = None, n: int = 2000, seed: int = 0
) -> Float[np.ndarray, "resample column"]:
    """Means of every column in each of ``n`` resamples; columns share the draws, so that contrasts stay paired.

    Groups are drawn with replacement, as many as there are; the mean is over the rows drawn, so larger groups weigh
    more.

    Args:
        columns: ``[row]`` or ``[row, column]``.
        groups: one key per row, or None for every row alone.
        n: resamples.
        seed: of the resampling.

    Raises:
        ConfigError: fewer than two units, a value that is not finite, or lengths that differ.
    """
    table = checked_columns(columns)
    units = unit_count(len(table), groups)
    if units < 2:
        raise ConfigError(f"a bootstrap needs at least two groups or rows, got {units}")
    if n < 1:
        raise ConfigError(f"n: expected at least one resample, got {n}")
    if seed < 0:
        raise ConfigError(f"seed: expected 0 or more, got {seed}")
    keys = np.arange(units) if groups is None else _codes(groups)
    # Sums and sizes by group once; a resample is then one weighted sum over groups.
    sums = np.zeros((units, table.shape[1]))
    np.add.at(sums, keys, table)
    sizes = np.bincount(keys, minlength=units).astype(float)
    rng = np.random.default_rng(seed)
    share = np.full(units, 1 / units)
    chunk = max(1, _CELLS_AT_ONCE // units)
    means: list[np.ndarray] = []
    for start in range(0, n, chunk):
        counts = rng.multinomial(units, share, size=min(chunk, n - start)).astype(float)
        means.append((counts @ sums) / (counts @ sizes)[:, None])
    return np.concatenate(means)


def percentile_interval(estimate: float, resampled: np.ndarray, n: int, level: float = 0.95) -> Interval:
    """Interval of an estimate from its resampled values ``[resample]``."""
    _check_level(level)
    low, high = np.quantile(resampled, [(1 - level) / 2, (1 + level) / 2])
    return Interval(estimate, float(low), float(high), n)


def checked_columns(values: ArrayLike) -> Float[np.ndarray, "row column"]:
    """Values as float64 columns.

    Raises:
        ConfigError: there are none, there are more than two axes, or one is not finite.
    """
    table = np.asarray(values, dtype=float)
    if table.ndim not in (1, 2) or table.size == 0:
        raise ConfigError(f"expected a non-empty [row] or [row, column] array, got shape {table.shape}")
    if not np.isfinite(table).all():
        raise ConfigError(
            f"{int((~np.isfinite(table)).sum())} of {table.size} values are not finite; find out why first"
        )
    return table[:, None] if table.ndim == 1 else table


def checked_column(values: ArrayLike) -> Float[np.ndarray, " row"]:
    """Values as one float64 column.

    Raises:
        ConfigError: there are none, they have another shape, or one is not finite.
    """
    table = checked_columns(values)
    if table.shape[1] > 1 or np.ndim(values) != 1:
        raise ConfigError(f"expected one value a row, got shape {np.shape(values)}; pass a single column")
    return table[:, 0]


def unit_count(rows: int, groups: Sequence[object] | None) -> int:
    """Number of units that are resampled.

    Raises:
        ConfigError: there is not one group key per row.
    """
    if groups is None:
        return rows
    check_groups(groups, rows)
    return len(set(groups))


def check_groups(groups: Sequence[object], rows: int) -> None:
    """Refuse groups that are not one key a row: rows without one would be one large group, or each its own.

    Raises:
        ConfigError: there are more or fewer, or one is missing (None, NaN, NA).
    """
    import pandas as pd

    if len(groups) != rows:
        raise ConfigError(f"groups: expected one per row ({rows}), got {len(groups)}")
    keys = pd.Series(list(groups), dtype=object)  # a tuple is a key too
    if keys.isna().any():
        raise ConfigError(
            f"groups: row {int(keys.isna().argmax())} has none; give every row a key, or no groups at all"
        )


def _codes(groups: Sequence[object]) -> np.ndarray:
    """Group keys as integers in order of first appearance, so that results do not depend on how keys sort."""
    order: dict[object, int] = {}
    return np.array([order.setdefault(group, len(order)) for group in groups])


def _check_level(level: float) -> None:
    if not 0 < level < 1:
        raise ConfigError(f"level: expected a share between 0 and 1 such as 0.95, got {level}")


def spelled_value(value: float, decimals: int = 2) -> str:
    """A number in so many decimals, and no minus sign before a zero."""
    return f"{round(value, decimals) + 0.0:.{decimals}f}"


def spelled_interval(value: float, low: float, high: float, decimals: int = 2) -> str:
    """A number with its interval."""
    middle, *ends = (spelled_value(one, decimals) for one in (value, low, high))
    return f"{middle} [{', '.join(ends)}]"
