"""Which methods change the weights the same way."""

from typing import TYPE_CHECKING, Any

import numpy as np

from interp_unlearn.figures.style import BLACK, goal_title, goals_in_order, in_order, looks_of, panels, styled
from interp_unlearn.figures.tables import require_columns
from interp_unlearn.statistics import spelled_value

if TYPE_CHECKING:
    from collections.abc import Sequence

    import pandas as pd
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

_COLUMNS = ["goal", "method", "other_goal", "other", "cosine"]


def plot_method_cosines(df: "pd.DataFrame", ax: "Axes | Sequence[Axes] | None" = None) -> "Figure":
    """Cosine between the changes of every two methods, goal by goal; on the diagonal, of two seeds of one method.

    Args:
        df: columns goal, method, other_goal, other, cosine; a row a pair, in either order.
        ax: one Axes, or None for a new figure.

    Returns:
        The figure drawn on.

    Raises:
        ArtifactError: a column is missing, or there is no row.
    """
    require_columns(df, _COLUMNS, "plot_method_cosines")
    cells = {
        ((str(row["goal"]), str(row["method"])), (str(row["other_goal"]), str(row["other"]))): float(row["cosine"])
        for row in df.to_dict("records")
    }
    cells |= {(other, one): value for (one, other), value in cells.items()}
    names = [
        (goal, method)
        for goal in goals_in_order({one for pair in cells for one, _ in pair})
        for method in in_order({method for pair in cells for one, method in pair if one == goal})
    ]
    values = np.array([[cells.get((one, other), np.nan) for other in names] for one in names])
    looks = looks_of(in_order({method for _, method in names}))
    labels = [f"{goal_title(goal)[0]}: {looks[method].label}" for goal, method in names]
    borders = [place for place in range(1, len(names)) if names[place][0] != names[place - 1][0]]
    with styled():
        figure, (axis,) = panels(1, 1, 1.6 + 0.26 * len(names), ax)
        image = axis.imshow(values, vmin=0, vmax=1, cmap="cividis", aspect="auto")
        for row, column in zip(*np.nonzero(~np.isnan(values)), strict=True):
            value = float(values[row, column])
            style: dict[str, Any] = {"ha": "center", "va": "center", "fontsize": 6}
            axis.text(column, row, spelled_value(value), color=BLACK if value > 0.5 else "white", **style)
        for place in borders:
            axis.axhline(place - 0.5, color="white", linewidth=2)
            axis.axvline(place - 0.5, color="white", linewidth=2)
        axis.set_xticks(range(len(names)), labels, rotation=60, ha="right", rotation_mode="anchor")
        axis.set_yticks(range(len(names)), labels)
        axis.tick_params(length=0)
        if ax is None:
            figure.colorbar(image, ax=axis, fraction=0.04, ticks=[0, 0.5, 1])
            told = ", ".join(f"{goal_title(goal)[0]}: {goal}" for goal in dict.fromkeys(goal for goal, _ in names))
            note = f"cosine between the changes of all weights ({told});\ndiagonal: two seeds of one method"
            figure.supxlabel(note, fontsize=8)
    return figure
