"""Where in depth half of an effect sits, read off the cumulative groups of a transplant."""

from typing import TYPE_CHECKING

import numpy as np
from jaxtyping import Float, Int

from interp_unlearn.errors import ConfigError
from interp_unlearn.mechanism.transplant import NONE, Transplant

if TYPE_CHECKING:
    import pandas as pd


def half_depths(found: Transplant, share: float = 0.5) -> "pd.DataFrame":
    """The depth from which on at least half of an effect has been moved, block after block from below.

    Counted in blocks, with a straight line inside a block: 3.5 is the middle of block 3, 0 the embedding, the number
    of blocks the head. In two directions: the changed model's tensors inserted from below into the original, and the
    original's restored from below in the changed model.

    Caveat: the two agree where the effects of blocks add up. Apart, they tell that lower and higher blocks work
    together or stand in for each other, and neither is *the* depth. Depth of weights, not of what they read.

    Args:
        found: a transplant with the kind "up_to".
        share: of the effect; 0.5 for half.

    Returns:
        One row a direction and outcome: direction, outcome, depth, low, high, relative_depth (of the number of blocks),
        n; NaN where the interval of the whole effect holds 0.

    Raises:
        ConfigError: the transplant has no cumulative groups, or the share is not between 0 and 1.
    """
    import pandas as pd

    if not 0 < share < 1:
        raise ConfigError(f"share must lie between 0 and 1, got {share}")
    cumulative = {group.depth: group for group in found.groups if group.kind == "up_to"}
    if not cumulative:
        raise ConfigError('the transplant moved no cumulative groups; run it with "up_to" among its kinds')
    steps = [cumulative[depth] for depth in range(found.n_layers)]
    below = cumulative.get(-1)
    rows: list[dict[str, object]] = []
    for direction, start, end in (("inserted", NONE, found.changed), ("restored", found.changed, NONE)):
        at = found.inserted if direction == "inserted" else found.restored
        conditions = [start if below is None else at(below), *map(at, steps), end]
        for outcome, means in found.means.items():
            curve = np.stack([means.shares(condition, start, end) for condition in conditions])
            interval = means.interval(_crossing(curve, share))
            rows.append(
                {
                    "direction": direction,
                    "outcome": outcome,
                    "depth": interval.mean,
                    "low": interval.low,
                    "high": interval.high,
                    "relative_depth": interval.mean / found.n_layers,
                    "n": interval.n,
                }
            )
    return pd.DataFrame(rows)


def reached_from(curve: Float[np.ndarray, "point draw"], level: float) -> Int[np.ndarray, " draw"]:
    """Index of the point from which on a curve stays at or above a level; its last point counts as reached."""
    short = curve[:-1] < level - 1e-9  # what equals the level in exact arithmetic has reached it
    return np.where(short.any(0), len(short) - np.argmax(short[::-1], axis=0), 0)


def _crossing(curve: Float[np.ndarray, "point draw"], level: float) -> Float[np.ndarray, " draw"]:
    """Where between its points a curve crosses a level for good, on a straight line; the last point is at the head."""
    index = reached_from(curve, level)
    draws = np.arange(curve.shape[1])
    after, before = curve[index, draws], curve[np.maximum(index - 1, 0), draws]
    with np.errstate(divide="ignore", invalid="ignore"):
        inside = np.where(after > before, (level - before) / (after - before), 1.0)
    crossing = np.where(index == 0, 0.0, index - 1 + np.clip(inside, 0.0, 1.0))
    return np.where(np.isnan(curve[-1]), np.nan, np.minimum(crossing, len(curve) - 2))
