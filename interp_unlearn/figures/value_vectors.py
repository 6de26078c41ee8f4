"""The MLP value vectors that point most along a direction, layer by layer."""

from typing import TYPE_CHECKING, Any

from interp_unlearn.errors import ArtifactError
from interp_unlearn.figures.style import BLUE, GREY, VERMILLION, panels, styled
from interp_unlearn.figures.tables import layer_ticks, require_columns

if TYPE_CHECKING:
    import pandas as pd
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure


def plot_value_vectors(df: "pd.DataFrame", ax: "Axes | None" = None) -> "Figure":
    """Cosines of the listed value vectors by layer of their MLP, beside the band that chance reaches.

    The band ends at the 95% quantile of the largest cosine of as many random vectors, on either side.

    Args:
        df: the table of `directions.aligned_value_vectors`, with one direction an MLP: site, mlp_layer, side, neuron,
            cosine, null_high, n_vectors, d.
        ax: where to draw, or None for a new figure, which also gets the legend.

    Returns:
        The figure drawn on.

    Raises:
        ArtifactError: a column is missing, or an MLP is compared with several directions.
    """
    columns = ["site", "mlp_layer", "side", "neuron", "cosine", "null_high", "n_vectors", "d"]
    require_columns(df, columns, "plot_value_vectors")
    pairs = df[["mlp_layer", "site"]].drop_duplicates()
    if len(pairs) > len(set(pairs["mlp_layer"].tolist())):
        raise ArtifactError("plot_value_vectors draws one direction an MLP; filter the table by site")
    layers = sorted(set(df["mlp_layer"].astype(int).tolist()))
    null = df.drop_duplicates("mlp_layer").set_index("mlp_layer")["null_high"].loc[layers].to_numpy(dtype=float)

    with styled():
        figure, (axis,) = panels(1, 1, 2.7, ax)
        edges = [layers[0] - 0.5, *layers, layers[-1] + 0.5]
        wide = [null[0], *null, null[-1]]
        axis.fill_between(
            edges, [-v for v in wide], wide, color=GREY, alpha=0.2, linewidth=0, label="chance (see title)"
        )
        looks: dict[str, dict[str, Any]] = {
            "along": {"color": BLUE, "marker": "o"},
            "against": {"color": VERMILLION, "marker": "^", "markerfacecolor": "white"},
        }
        for side, look in looks.items():
            part = df[df["side"] == side]
            label = f"most {side} the direction"
            axis.plot(part["mlp_layer"], part["cosine"], linestyle="", label=label, **look)
        axis.axhline(0, color=GREY, linewidth=0.6)
        axis.set_xticks(*layer_ticks(layers, at_most=16))
        axis.set_xlabel("layer of the MLP")
        axis.set_ylabel("cosine")
        n, d = max(df["n_vectors"].tolist()), max(df["d"].tolist())
        axis.set_title(f"band: 95% of the largest of {n} random vectors, d = {d}", loc="left", fontsize=8)
        if ax is None:
            figure.legend(loc="outside lower center", ncols=3)
    return figure
