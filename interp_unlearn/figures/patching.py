"""Where the states of a twin make its original fail, and the original's make the twin answer."""

from typing import TYPE_CHECKING, Any

from interp_unlearn.figures.style import (
    BLACK,
    BLUE,
    GREY,
    ORANGE,
    VERMILLION,
    goal_title,
    goals_in_order,
    panels,
    styled,
    unit_of,
)
from interp_unlearn.figures.tables import require_columns

if TYPE_CHECKING:
    from collections.abc import Sequence

    import pandas as pd
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

_COLUMNS = ["goal", "into", "layer", "position", "effect", "effect_low", "effect_high", "floor", "n"]
_LINES: dict[str, tuple[str, str, Any]] = {
    "subject": (BLUE, "o", "-"),
    "last": (VERMILLION, "s", "--"),
    "other": (ORANGE, "^", ":"),
    "all": (BLACK, "d", "-."),
}
_PALE: dict[str, Any] = {"alpha": 0.5, "linewidth": 0.6, "markersize": 3, "markerfacecolor": "none"}
_TITLES = {"original": "twin into original", "twin": "original into twin"}


def plot_patching(df: "pd.DataFrame", ax: "Axes | Sequence[Axes] | None" = None) -> "Figure":
    """Effect of patched states on the answer's log-probability, with intervals, beside a re-seeded original's.

    Pale lines with hollow marks are the floor: states of a model that knows what the original does, in another basis.
    Caveat: networks trained apart share no basis. An effect means something where it goes the donor's way, and further
    than the floor: a foreign state disturbs whatever it holds, and lifts what the recipient finds unlikely.

    Args:
        df: columns goal, into (original or twin), layer, position, effect with _low and _high, floor (nats), n.
        ax: one Axes for each goal and direction, goals in rows; None for a new figure, which also gets the legend.

    Returns:
        The figure drawn on.

    Raises:
        ArtifactError: a column is missing, or there is no row.
    """
    require_columns(df, _COLUMNS, "plot_patching")
    from matplotlib.lines import Line2D

    goals, ways = goals_in_order(df["goal"]), [way for way in _TITLES if way in set(df["into"])]
    positions = [name for name in _LINES if name in set(df["position"])]
    with styled():
        figure, axes = panels(len(goals), len(ways), 0.9 + 1.8 * len(goals), ax, share=False)
        for axis, (goal, way) in zip(axes, [(goal, way) for goal in goals for way in ways], strict=True):
            part = df.loc[(df["goal"] == goal) & (df["into"] == way)]
            for place, position in enumerate(positions):
                color, marker, line = _LINES[position]
                rows = part.loc[part["position"] == position].sort_values("layer")
                x = rows["layer"] + 0.08 * (place - (len(positions) - 1) / 2)
                axis.plot(x, rows["floor"], color=color, marker=marker, linestyle=line, **_PALE)
                axis.plot(x, rows["effect"], color=color, marker=marker, linestyle=line)
                axis.vlines(x, rows["effect_low"], rows["effect_high"], color=color)
            axis.axhline(0, color=GREY, linewidth=0.6)
            axis.set_title(f"{goal_title(goal)}: {_TITLES[way]}")
            axis.set_xlabel(f"after block (n = {int(part['n'].iloc[0])} {unit_of(goal)})")
            axis.set_xticks(sorted(set(part["layer"])))
        for row in range(0, len(axes), len(ways)):  # one goal's panels have one scale
            lows, highs = zip(*(axis.get_ylim() for axis in axes[row : row + len(ways)]), strict=True)
            for axis in axes[row : row + len(ways)]:
                axis.set_ylim(min(lows), max(highs))
        for axis in axes[:: len(ways)]:
            axis.set_ylabel("effect (nats)")
        if ax is None:
            handles = [
                Line2D([], [], color=color, marker=marker, linestyle=line, label=f"{name} tokens")
                for name, (color, marker, line) in _LINES.items()
                if name in positions
            ]
            figure.legend(
                handles=handles, loc="outside lower center", ncols=4, title="bars: 95% interval; hollow: floor"
            )
    return figure
