"""How far each objective moved the residual stream, on the text to forget and on the text to keep."""

from collections.abc import Sequence
from typing import TYPE_CHECKING

from interp_unlearn.figures.style import (
    GREY,
    goal_title,
    goals_in_order,
    in_order,
    legend_handles,
    looks_of,
    panels,
    styled,
)
from interp_unlearn.figures.tables import (
    caption,
    layer_positions,
    layer_ticks,
    one_component,
    over_seeds,
    require_columns,
)

if TYPE_CHECKING:
    import pandas as pd
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

_LINEAR_BELOW = 0.01


def plot_drift(df: "pd.DataFrame", ax: "Axes | Sequence[Axes] | None" = None) -> "Figure":
    """Relative displacement of the stream by layer: a row of panels a goal, a column a corpus, a line an objective.

    The axis is linear below 0.01 and logarithmic above: layers before the first trained one have moved by exactly 0,
    and misdirection moves forget text a hundred times further than others move retain text.

    Args:
        df: columns objective, goal, site, layer (null for the embedding), corpus (forget, retain, or others),
            relative_displacement (L2 norm of the change over the L2 norm before), seed; optional n_tokens. One
            component of the stream.
        ax: one Axes a panel, goal by goal, or None for a new figure, which also gets the legend.

    Returns:
        The figure drawn on.

    Raises:
        ArtifactError: a column is missing, or the table mixes components.
    """
    columns = ["objective", "goal", "site", "layer", "corpus", "relative_displacement", "seed"]
    require_columns(df, columns, "plot_drift")
    component = one_component(df, "plot_drift")
    table = df.assign(layer=layer_positions(df))
    estimates = over_seeds(table, ["goal", "corpus", "objective", "layer"], "relative_displacement")
    goals, corpora, objectives = goals_in_order(df["goal"]), sorted(set(df["corpus"])), in_order(df["objective"])
    looks = looks_of(objectives)

    with styled():
        height = 0.9 + 1.55 * len(goals) + 0.18 * -(-len(objectives) // 3)
        figure, axes = panels(len(goals), len(corpora), height, ax)
        cells = [(goal, corpus) for goal in goals for corpus in corpora]
        for axis, cell in zip(axes, cells, strict=True):
            for name in objectives:
                points = {key[3]: estimate for key, estimate in estimates.items() if key[:3] == (*cell, name)}
                look, x = looks[name], list(points)
                low, high = [e.low for e in points.values()], [e.high for e in points.values()]
                axis.fill_between(x, low, high, color=look.color, alpha=0.2, linewidth=0)
                mean = [e.mean for e in points.values()]
                axis.plot(x, mean, color=look.color, marker=look.marker, linestyle=look.line)
            axis.set_title(f"{goal_title(cell[0])}, {cell[1]} text", loc="left")
            axis.set_xticks(*layer_ticks(layer_positions(df), at_most=9))
            _scale(axis, max(e.high for e in estimates.values()))
        for axis in axes[-len(corpora) :]:
            axis.set_xlabel(f"layer ({component})")
        if ax is None:
            figure.supylabel("relative displacement $||h - h_0|| \\, / \\, ||h_0||$", fontsize=9)
            note = f"{caption(table, estimates, 'band')};\nscale linear below {_LINEAR_BELOW}"
            figure.legend(handles=legend_handles(objectives), loc="outside lower center", ncols=3, title=note)
    return figure


def _scale(axis: "Axes", largest: float) -> None:
    axis.set_yscale("symlog", linthresh=_LINEAR_BELOW, linscale=0.5)
    axis.set_yticks([0, 0.01, 0.1, 1, 10, 100], ["0", "0.01", "0.1", "1", "10", "100"])
    axis.minorticks_off()
    axis.set_ylim(-0.002, max(0.1, 1.6 * largest))
    axis.grid(axis="y", color=GREY, alpha=0.25, linewidth=0.5)
