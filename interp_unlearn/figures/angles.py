"""How the subspaces that drift is about lie to one another at each layer."""

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from interp_unlearn.figures.style import BLUE, GREY, ORANGE, panels, styled
from interp_unlearn.figures.tables import layer_positions, layer_ticks, one_component, require_columns

if TYPE_CHECKING:
    import pandas as pd
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

_ENDS: dict[str, dict[str, Any]] = {
    "smallest": {"color": BLUE, "marker": "o", "linestyle": "-"},
    "largest": {"color": ORANGE, "marker": "s", "linestyle": "--"},
}
_BANDS = {"smallest": "////", "largest": "...."}


def plot_principal_angles(df: "pd.DataFrame", ax: "Axes | Sequence[Axes] | None" = None) -> "Figure":
    """Smallest and largest principal angle of each pair of subspaces by layer, with the bands of random subspaces.

    Of two directions there is one angle.
    Caveat: an angle counts only below its band, and even there does not show that one subspace causes the other.

    Args:
        df: the table of `drift.principal_angles`, of one component of the stream (and the embedding): site, layer,
            first, second, angle, degrees, null_low, null_high, d, k_first, k_second.
        ax: one Axes a pair, or None for a new figure, which also gets the legend.

    Returns:
        The figure drawn on.

    Raises:
        ArtifactError: a column is missing, or the table mixes components of the stream.
    """
    columns = ["site", "layer", "first", "second", "angle", "degrees", "null_low", "null_high", "d"]
    require_columns(df, [*columns, "k_first", "k_second"], "plot_principal_angles")
    where = one_component(df, "plot_principal_angles")
    table = df.assign(x=layer_positions(df)).sort_values("x")
    pairs = sorted(set(zip(df["first"], df["second"], strict=True)))
    columns_of = min(len(pairs), 3)
    rows = -(-len(pairs) // columns_of)
    with styled():
        figure, axes = panels(rows, columns_of, 0.9 + 1.9 * rows, ax) if ax is None else panels(1, len(pairs), 0, ax)
        for axis, (first, second) in zip(axes, pairs, strict=False):
            own = table.loc[(table["first"] == first) & (table["second"] == second)]
            several = int(own["angle"].max()) > 1
            for end, chosen in _ends(own).items() if several else {"smallest": own}.items():
                x = chosen["x"].tolist()
                band: dict[str, Any] = {
                    "facecolor": "none",
                    "edgecolor": _ENDS[end]["color"],
                    "hatch": _BANDS[end],
                    "linewidth": 0.6,
                }
                label = f"null of the {end}, 95%"
                axis.fill_between(x, chosen["null_low"], chosen["null_high"], label=label, **band)
                axis.plot(x, chosen["degrees"], label=f"{end} angle", **_ENDS[end])
            ranks = "{}, {}".format(*(_spelled(own[name]) for name in ("k_first", "k_second")))
            axis.set_title(f"{first}\nand {second}\nranks {ranks} in {int(own['d'].max())}", loc="left", fontsize=8)
            axis.set_ylim(0, 92)
            axis.set_yticks([0, 30, 60, 90])
            axis.set_xticks(*layer_ticks(table["x"].tolist(), at_most=6))
            axis.set_xlabel(f"layer ({where})")
            axis.grid(axis="y", color=GREY, alpha=0.25, linewidth=0.5)
        for spare in axes[len(pairs) :]:
            spare.set_axis_off()
        axes[0].set_ylabel("degrees")
        if ax is None:
            fullest = max(axes[: len(pairs)], key=lambda axis: len(axis.lines))
            figure.legend(*fullest.get_legend_handles_labels(), loc="outside lower center", ncols=2)
    return figure


def _ends(table: "pd.DataFrame") -> "dict[str, pd.DataFrame]":
    last = table.groupby("site")["angle"].transform("max")
    return {"smallest": table.loc[table["angle"] == 1], "largest": table.loc[table["angle"] == last]}


def _spelled(numbers: "pd.Series") -> str:
    low, high = int(numbers.min()), int(numbers.max())
    return str(low) if low == high else f"{low} to {high}"
