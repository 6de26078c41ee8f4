"""Whether a probe trained again still reads the class, layer by layer, before and after unlearning."""

from typing import TYPE_CHECKING, Any

from interp_unlearn.figures.style import BLACK, BLUE, GREY, ORANGE, VERMILLION, Look, panels, styled
from interp_unlearn.figures.tables import layer_positions, layer_ticks, one_component, require_columns

if TYPE_CHECKING:
    import pandas as pd
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

_LINES: dict[tuple[str, str], Look] = {
    ("original", "original"): Look("original model", GREY, "o", ":"),
    ("changed", "original"): Look("unlearned, the original's probe", ORANGE, "v", "--"),
    ("changed", "retrained"): Look("unlearned, trained again", BLUE, "D", "-"),
    ("never_knew", "retrained"): Look("twin (never learned), trained again", BLACK, "s", "-."),
}


def plot_retrained_probes(df: "pd.DataFrame", ax: "Axes | None" = None) -> "Figure":
    """AUROC by layer of the original's probes, of the same on the unlearned model, and of probes trained on it again.

    The dotted upright line is the layer chosen on the original.
    Caveat: that a probe reads the class does not show that the model uses it; read it above the twin's.

    Args:
        df: the table of `drift.retrained_probes`, of one component of the stream (and the embedding): site, layer,
            model, probe, chosen, auroc, low, high (NaN where there is no interval), auroc_shuffled, n.
        ax: where to draw, or None for a new figure, which also gets the legend.

    Returns:
        The figure drawn on.

    Raises:
        ArtifactError: a column is missing, or the table mixes components of the stream.
    """
    name = "plot_retrained_probes"
    columns = ["site", "layer", "model", "probe", "chosen", "auroc", "low", "high", "auroc_shuffled", "n"]
    require_columns(df, columns, name)
    where = one_component(df, name)
    table = df.assign(x=layer_positions(df)).sort_values("x")
    with styled():
        figure, (axis,) = panels(1, 1, 3.1, ax)
        axis.axhline(0.5, color=GREY, linewidth=0.6)
        for (model, probe), look in _LINES.items():
            own = table.loc[(table["model"] == model) & (table["probe"] == probe)].to_dict("list")
            if own["x"]:
                axis.fill_between(own["x"], own["low"], own["high"], color=look.color, alpha=0.2, linewidth=0)
                style: dict[str, Any] = {"color": look.color, "marker": look.marker, "linestyle": look.line}
                axis.plot(own["x"], own["auroc"], label=look.label, **style)
        again = table.loc[(table["model"] == "changed") & (table["probe"] == "retrained")]
        if len(again["auroc_shuffled"].dropna()):
            style = {"color": VERMILLION, "marker": "x", "linestyle": ":"}
            axis.plot(again["x"], again["auroc_shuffled"], label="shuffled labels", **style)
        for x in sorted(set(table.loc[table["chosen"].astype(bool), "x"])):
            axis.axvline(x, color=GREY, linewidth=0.8, linestyle=(0, (1, 2)))
        shown = table[["auroc", "low", "auroc_shuffled"]].min().min()
        axis.set_ylim(min(0.45, shown - 0.03), 1.02)
        axis.set_xticks(*layer_ticks(table["x"].tolist(), at_most=16))
        axis.set_xlabel(f"layer ({where})")
        axis.set_ylabel("AUROC")
        n = sorted({int(v) for v in table["n"].dropna()})
        band = "; bands: 95% bootstrap over groups" if len(table["low"].dropna()) else ""
        count = str(n[0]) if len(n) == 1 else f"{n[0]} to {n[-1]}"
        axis.set_title(f"n = {count} texts{band}; grey line: chance", loc="left", fontsize=8)
        if ax is None:
            figure.legend(loc="outside lower center", ncols=2)
    return figure
