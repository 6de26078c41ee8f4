"""How many directions the categories of a concept span at each layer."""

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from interp_unlearn.figures.style import BLUE, GREY, ORANGE, panels, styled
from interp_unlearn.figures.tables import layer_positions, layer_ticks, one_component, require_columns

if TYPE_CHECKING:
    import pandas as pd
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

_HATCHES = ("", "////", "....", "\\\\\\\\", "xxxx", "----", "oooo", "++++")


def plot_subspace_rank(df: "pd.DataFrame", ax: "Axes | Sequence[Axes] | None" = None) -> "Figure":
    """Left the effective rank with its nulls; right the squared singular values, stacked with the largest lowest.

    Squared singular values of unit directions sum to the number of categories.

    Args:
        df: the table of `directions.subspace_rank`, of one component of the stream (and the embedding): site, layer,
            component, singular_value, effective_rank, random_low, random_high, shuffled_low, shuffled_high (NaN where
            not drawn), n_categories.
        ax: two Axes, or None for a new figure, which also gets the legend.

    Returns:
        The figure drawn on.

    Raises:
        ArtifactError: a column is missing, or the table mixes components of the stream.
    """
    bands = {"random": ("random directions", GREY, "\\\\\\\\"), "shuffled": ("shuffled categories", ORANGE, "////")}
    ends = [f"{name}_{end}" for name in bands for end in ("low", "high")]
    columns = ["site", "layer", "component", "singular_value", "effective_rank", *ends, "n_categories"]
    require_columns(df, columns, "plot_subspace_rank")
    where = one_component(df, "plot_subspace_rank")
    table = df.assign(x=layer_positions(df)).sort_values(["x", "component"])
    by_layer = table.drop_duplicates("x").to_dict("list")
    x, k = by_layer["x"], int(max(by_layer["n_categories"]))

    with styled():
        figure, (left, right) = panels(1, 2, 2.6, ax)
        for name, (label, color, hatch) in bands.items():
            low, high = by_layer[f"{name}_low"], by_layer[f"{name}_high"]
            if low[0] == low[0]:  # not NaN
                style: dict[str, Any] = {"facecolor": "none", "edgecolor": color, "hatch": hatch, "linewidth": 0.6}
                left.fill_between(x, low, high, label=f"{label}, 95%", **style)
        left.plot(x, by_layer["effective_rank"], color=BLUE, marker="o", label="effective rank")
        left.set_ylabel(f"of {k} categories")
        left.set_title("effective rank", loc="left")
        height = [0.0] * len(x)
        shades = ["#0072B2", "#56B4E9", "#E69F00", "#F0E442", "#CC79A7", "#009E73", "#D55E00", "#999999"]
        for component, part in table.groupby("component", sort=True):
            values = {at: float(v) ** 2 for at, v in zip(part["x"], part["singular_value"], strict=True)}
            bars = [values.get(at, 0.0) for at in x]
            code = (int(component) - 1) % len(shades)  # pyright: ignore[reportArgumentType]
            right.bar(
                x, bars, 0.8, bottom=height, color=shades[code], hatch=_HATCHES[code], edgecolor="white", linewidth=0
            )
            height = [a + b for a, b in zip(height, bars, strict=True)]
        right.set_title("squared singular values", loc="left")
        for axis in (left, right):
            axis.set_xticks(*layer_ticks(x, at_most=9))
            axis.set_xlabel(f"layer ({where})")
            axis.set_ylim(0, k + 0.15)
        if ax is None:
            figure.legend(loc="outside lower center", ncols=3)
    return figure
