"""How alike two models' activations lie at each layer, beside what no relation gives."""

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from interp_unlearn.figures.style import BLUE, GREY, ORANGE, panels, styled
from interp_unlearn.figures.tables import layer_positions, layer_ticks, one_component, require_columns

if TYPE_CHECKING:
    import pandas as pd
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure


def plot_cka(df: "pd.DataFrame", ax: "Axes | Sequence[Axes] | None" = None) -> "Figure":
    """Debiased CKA with the original by layer, a panel a corpus, with the band of permuted tokens.

    Caveat: CKA near 1 does not say that what could be read from the activations still can.

    Args:
        df: the table of `drift.representation_similarity`, of one component of the stream (and the embedding): site,
            layer, corpus, cka, cka_standardised, null_low, null_high (NaN where not drawn), n_tokens.
        ax: one Axes a corpus, or None for a new figure, which also gets the legend.

    Returns:
        The figure drawn on.

    Raises:
        ArtifactError: a column is missing, or the table mixes components of the stream.
    """
    columns = ["site", "layer", "corpus", "cka", "cka_standardised", "null_low", "null_high", "n_tokens"]
    require_columns(df, columns, "plot_cka")
    where = one_component(df, "plot_cka")
    table = df.assign(x=layer_positions(df)).sort_values("x")
    corpora = sorted(set(df["corpus"]))
    least = min([0.0, *(v for name in ("cka", "cka_standardised", "null_low") for v in table[name].dropna().tolist())])
    with styled():
        figure, axes = panels(1, len(corpora), 2.6, ax)
        for axis, corpus in zip(axes, corpora, strict=True):
            own = table.loc[table["corpus"] == corpus].to_dict("list")
            band: dict[str, Any] = {"facecolor": "none", "edgecolor": GREY, "hatch": "////", "linewidth": 0.6}
            axis.fill_between(own["x"], own["null_low"], own["null_high"], label="null: permuted tokens, 95%", **band)
            axis.plot(own["x"], own["cka"], color=BLUE, marker="o", label="debiased CKA")
            style: dict[str, Any] = {"color": ORANGE, "marker": "s", "linestyle": "--"}
            axis.plot(own["x"], own["cka_standardised"], label="of standardised dimensions", **style)
            axis.set_title(f"{corpus} text, n = {own['n_tokens'][0]} tokens", loc="left", fontsize=8)
            axis.set_ylim(min(-0.1, least - 0.05), 1.05)
            axis.set_xticks(*layer_ticks(own["x"], at_most=9))
            axis.set_xlabel(f"layer ({where})")
            axis.grid(axis="y", color=GREY, alpha=0.25, linewidth=0.5)
        axes[0].set_ylabel("CKA with the original")
        if ax is None:
            figure.legend(*axes[0].get_legend_handles_labels(), loc="outside lower center", ncols=3)
    return figure
