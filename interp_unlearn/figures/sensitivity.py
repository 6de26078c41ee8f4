"""How both differences of the crossover stand under other settings."""

from typing import TYPE_CHECKING

from interp_unlearn.figures.replication import LAYER_LOOKS
from interp_unlearn.figures.style import GREY, panels, styled
from interp_unlearn.figures.tables import require_columns, spelled_range

if TYPE_CHECKING:
    from collections.abc import Sequence

    import pandas as pd
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

_COLUMNS = ["variation", "layers", "contrast", "mean", "low", "high", "n"]


def plot_sensitivity(df: "pd.DataFrame", ax: "Axes | Sequence[Axes] | None" = None) -> "Figure":
    """Differences of efficacy (columns) under each variation (rows), with 95% intervals.

    Caveat: the variations are of one organism and share its prompts, so that they are not independent of each other.

    Args:
        df: columns variation, layers (single, multi, mean), contrast, mean, low, high, n; contrasts called interaction
            are left out.
        ax: one Axes a contrast; None for a new figure, which also gets the legend.

    Returns:
        The figure drawn on.

    Raises:
        ArtifactError: a column is missing, or there is no row.
    """
    require_columns(df, _COLUMNS, "plot_sensitivity")
    from matplotlib.lines import Line2D

    table = df.loc[df["contrast"] != "interaction"]
    contrasts, rows = list(dict.fromkeys(table["contrast"])), list(dict.fromkeys(table["variation"]))
    layers = [name for name in LAYER_LOOKS if name in set(table["layers"])]
    with styled():
        figure, axes = panels(1, len(contrasts), 1.25 + 0.34 * len(rows), ax)
        for axis, contrast in zip(axes, contrasts, strict=True):
            part = table.loc[table["contrast"] == contrast]
            for place, name in enumerate(layers):
                _, color, marker = LAYER_LOOKS[name]
                of_layers = part.loc[part["layers"] == name]
                y = [
                    rows.index(variation) + 0.24 * (place - (len(layers) - 1) / 2)
                    for variation in of_layers["variation"]
                ]
                axis.plot(of_layers["mean"], y, color=color, marker=marker, linestyle="none")
                axis.hlines(y, of_layers["low"], of_layers["high"], color=color)
            axis.axvline(0, color=GREY, linewidth=0.6)
            axis.set_title(str(contrast).replace(": ", ":\n"), loc="left")
            axis.set_xlabel("difference of efficacy")
            axis.set_yticks(range(len(rows)), labels=rows)
            axis.set_ylim(len(rows) - 0.5, -0.5)
            axis.grid(axis="x", color=GREY, alpha=0.25, linewidth=0.5)
        if ax is None:
            handles = [
                Line2D([], [], color=color, marker=marker, label=label)
                for label, color, marker in (LAYER_LOOKS[name] for name in layers)
            ]
            n = spelled_range(table["n"].astype(int).tolist())
            note = f"Bars: 95% interval over n = {n} subjects or scenes"
            figure.legend(handles=handles, loc="outside lower center", ncols=3, title=note)
    return figure
