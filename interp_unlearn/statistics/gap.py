"""Share of the gap between a model and its never-knew twin that unlearning closes."""

from collections.abc import Sequence

import numpy as np
from numpy.typing import ArrayLike

from interp_unlearn.errors import ConfigError
from interp_unlearn.statistics.intervals import (
    Interval,
    bootstrap_means,
    checked_columns,
    percentile_interval,
    unit_count,
)

SMALLEST_GAP = 1e-9


def gap_closed(after: float, before: float, target: float) -> float:
    """``(after - before) / (target - before)``: 0 nothing changed, 1 the target was reached; not clipped.

    With ``clean`` shares of free generations this is efficacy E: after unlearning, of the original (``knows_all``), of
    the twin. With ``target`` shares it is suppression E'. Values above 1 overshoot the twin, below 0 move away from it.
    Caveat: suppression counts broken text as success; read it only beside the broken share.

    Raises:
        ConfigError: the target is not apart from the start (under 1e-9), or a value is not finite.
    """
    if not np.isfinite([after, before, target]).all():
        raise ConfigError(f"gap closed needs finite values, got after={after}, before={before}, target={target}")
    gap = target - before
    if abs(gap) < SMALLEST_GAP:
        raise ConfigError(f"before ({before}) and target ({target}) are equal, so there is no gap to close")
    return (after - before) / gap


def bootstrap_gap_closed(
    after: ArrayLike,
    before: ArrayLike,
    target: ArrayLike,
    groups: Sequence[object] | None = None,
    n: int = 2000,
    seed: int = 0,
    level: float = 0.95,
) -> Interval:
    """Gap closed of the row means, with a percentile bootstrap over groups that draws all three models' rows together.

    Args:
        after: outcome per row (prompt) of the unlearned model, ``[row]``.
        before: the same rows under the original.
        target: the same rows under the twin.
        groups: one key per row; None resamples rows.
        n: resamples.
        seed: of the resampling.
        level: coverage aimed at.

    Raises:
        ConfigError: rows differ in number, or there is no gap, in the sample or in a resample.
    """
    columns = paired_columns(after, before, target)
    estimate = gap_closed(*(float(value) for value in columns.mean(axis=0)))
    means = bootstrap_means(columns, groups, n, seed)
    gaps = resampled_gaps(means[:, 1], means[:, 2])
    return percentile_interval(estimate, (means[:, 0] - means[:, 1]) / gaps, unit_count(len(columns), groups), level)


def resampled_gaps(before: np.ndarray, target: np.ndarray) -> np.ndarray:
    """``target - before`` in every resample ``[resample]``.

    Raises:
        ConfigError: one is 0, so that the ratio has no distribution.
    """
    gaps = target - before
    empty = int((np.abs(gaps) < SMALLEST_GAP).sum())
    if empty:
        raise ConfigError(f"the gap vanishes in {empty} of {len(gaps)} resamples; it is too small to divide by")
    return gaps


def paired_columns(*values: ArrayLike) -> np.ndarray:
    """Arrays ``[row]`` as the columns of one table.

    Raises:
        ConfigError: they differ in length.
    """
    columns = [checked_columns(value) for value in values]
    if len({column.shape for column in columns}) > 1 or columns[0].shape[1] != 1:
        shapes = [column.shape for column in columns]
        raise ConfigError(f"expected one value per row under every model, got shapes {shapes}")
    return np.concatenate(columns, axis=1)
