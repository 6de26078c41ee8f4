"""Whether the crossover holds on one organism after another."""

from typing import TYPE_CHECKING

from interp_unlearn.figures.style import BLUE, GREY, ORANGE, VERMILLION, panels, styled
from interp_unlearn.figures.tables import require_columns

if TYPE_CHECKING:
    from collections.abc import Sequence

    import pandas as pd
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

LAYER_LOOKS = {
    "single": ("one layer", ORANGE, "v"),
    "multi": ("several layers", BLUE, "o"),
    "mean": ("mean of both", VERMILLION, "s"),
}
"""What each choice of layers is called in figures, its colour and its marker."""


def plot_replication(
    differences: "pd.DataFrame", contrasts: "pd.DataFrame", ax: "Axes | Sequence[Axes] | None" = None
) -> "Figure":
    """Differences of efficacy, a panel a contrast: organisms hollow, their mean with its 95% t interval full.

    Args:
        differences: columns organism, layers (single, multi, mean), contrast, value.
        contrasts: columns layers, contrast, mean, low, high, n; rows of other contrasts are left out.
        ax: one Axes a contrast; None for a new figure, which also gets the legend.

    Returns:
        The figure drawn on.

    Raises:
        ArtifactError: a column is missing, or there is no row.
    """
    require_columns(differences, ["organism", "layers", "contrast", "value"], "plot_replication")
    require_columns(contrasts, ["layers", "contrast", "mean", "low", "high", "n"], "plot_replication")
    from matplotlib.lines import Line2D

    names = list(dict.fromkeys(differences["contrast"]))
    layers = [name for name in LAYER_LOOKS if name in set(differences["layers"])]
    with styled():
        figure, axes = panels(1, len(names), 1.3 + 0.4 * len(layers), ax)
        for axis, name in zip(axes, names, strict=True):
            for row, layer in enumerate(layers):
                _, color, marker = LAYER_LOOKS[layer]
                ours = differences.loc[(differences["contrast"] == name) & (differences["layers"] == layer)]
                at = [row - 0.15] * len(ours)
                axis.plot(ours["value"], at, color=color, marker=marker, linestyle="", markerfacecolor="none")
                joined = contrasts.loc[(contrasts["contrast"] == name) & (contrasts["layers"] == layer)]
                axis.plot(joined["mean"], [row + 0.15] * len(joined), color=color, marker=marker, linestyle="")
                axis.hlines([row + 0.15] * len(joined), joined["low"], joined["high"], color=color)
            axis.axvline(0, color=GREY, linewidth=0.6)
            axis.set_title(str(name).replace(": ", ":\n"), loc="left")
            axis.set_xlabel("difference of efficacy")
            axis.set_yticks(range(len(layers)), labels=[LAYER_LOOKS[layer][0] for layer in layers])
            axis.set_ylim(len(layers) - 0.5, -0.5)
            axis.grid(axis="x", color=GREY, alpha=0.25, linewidth=0.5)
        if ax is None:
            handles = [
                Line2D([], [], color=GREY, marker="o", linestyle="", markerfacecolor="none", label="an organism"),
                Line2D([], [], color=GREY, marker="o", label="their mean"),
            ]
            n = differences["organism"].nunique()
            note = f"bar: 95% t interval over n = {n} organisms"
            figure.legend(handles=handles, loc="outside lower center", ncols=2, title=note)
    return figure
