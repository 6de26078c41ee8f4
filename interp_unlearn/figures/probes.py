"""How well a probe reads the concept at each layer, beside the controls that make the number mean something."""

from typing import TYPE_CHECKING, Any

from interp_unlearn.figures.style import (
    BLACK,
    BLUE,
    GREEN,
    GREY,
    ORANGE,
    PURPLE,
    VERMILLION,
    Look,
    panels,
    styled,
)
from interp_unlearn.figures.tables import EMBED, layer_positions, layer_ticks, one_component, require_columns

if TYPE_CHECKING:
    import pandas as pd
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

_LINES: dict[str, Look] = {
    "auroc": Look("logistic probe", BLUE, "o", "-"),
    "auroc_mean_difference": Look("mean difference", GREEN, "s", "--"),
    "auroc_bag_of_words": Look("bag of words", ORANGE, "^", "-."),
    "auroc_random_direction": Look("random direction", PURPLE, "d", ":"),
    "auroc_shuffled": Look("shuffled labels", BLACK, "x", ":"),
    "auroc_leace": Look("after LEACE", VERMILLION, "v", "--"),
}


def plot_probe_auroc(df: "pd.DataFrame", ax: "Axes | None" = None) -> "Figure":
    """Out-of-fold AUROC by layer with its bootstrap band, the controls, and the embedding marked apart.

    Caveat: that a concept can be read at a layer does not show that the model uses it there.

    Args:
        df: the table of a ProbeSet, of one component of the stream (and the embedding). Columns site, layer (null for
            the embedding), auroc, auroc_low, auroc_high (null without a bootstrap), n, n_groups, and those controls
            that were run: auroc_mean_difference, auroc_bag_of_words, auroc_random_direction, auroc_shuffled,
            auroc_leace (of a probe trained again after the erasure).
        ax: where to draw, or None for a new figure, which also gets the legend.

    Returns:
        The figure drawn on.

    Raises:
        ArtifactError: a column is missing, or the table mixes components.
    """
    require_columns(df, ["site", "layer", "auroc", "auroc_low", "auroc_high", "n", "n_groups"], "plot_probe_auroc")
    component = one_component(df, "plot_probe_auroc")
    table = df.assign(x=layer_positions(df))
    table = table.sort_values("x").to_dict("list")
    lines = {name: look for name, look in _LINES.items() if name in table and any(v == v for v in table[name])}  # NaN
    first = 1 if table["x"][0] == EMBED else 0  # where the blocks begin

    with styled():
        figure, (axis,) = panels(1, 1, 2.6 + 0.15 * -(-len(lines) // 3), ax)
        axis.axhline(0.5, color=GREY, linewidth=0.6)
        low, high = table["auroc_low"], table["auroc_high"]
        axis.fill_between(table["x"][first:], low[first:], high[first:], color=BLUE, alpha=0.2, linewidth=0)
        for name, look in lines.items():
            x, y = table["x"], table[name]
            style: dict[str, Any] = {"color": look.color, "marker": look.marker}
            axis.plot(x[first:], y[first:], linestyle=look.line, label=look.label, **style)
            axis.plot(x[:first], y[:first], linestyle="", markerfacecolor="white", **style)
        if first:
            axis.vlines(EMBED, low[0], high[0], color=BLUE, linewidth=0.8)
            axis.axvline(EMBED + 0.5, color=GREY, linewidth=0.6, linestyle=(0, (2, 2)))
        axis.set_xticks(*layer_ticks(table["x"], at_most=16))
        axis.set_xlabel(f"layer ({component})" + ("; emb: embedding" if first else ""))
        smallest = min(v for name in ("auroc_low", *lines) for v in table[name] if v == v)
        axis.set_ylim(min(0.45, smallest - 0.03), 1.02)
        axis.set_ylabel("AUROC, out of fold")
        n, groups = table["n"][0], table["n_groups"][0]
        band = "band: 95% bootstrap over groups; " if any(v == v for v in low) else ""
        axis.set_title(f"n = {n} texts in {groups} groups; {band}grey line: chance", loc="left", fontsize=8)
        if ax is None:
            figure.legend(loc="outside lower center", ncols=3)
    return figure
