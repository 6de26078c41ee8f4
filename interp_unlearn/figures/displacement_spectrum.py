"""Along how many directions a corpus' tokens have moved at each layer."""

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from interp_unlearn.figures.style import BLACK, BLUE, GREY, VERMILLION, panels, styled
from interp_unlearn.figures.tables import layer_positions, layer_ticks, one_component, require_columns

if TYPE_CHECKING:
    import pandas as pd
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

_NAME = "plot_displacement_spectrum"
_BANDS = ((1, "#0072B2", ""), (4, "#56B4E9", "////"), (8, "#E69F00", "...."), (None, "#CCCCCC", "xxxx"))
"""Directions shown as one bar: up to which, in which colour and hatch."""
_RANKS = {
    "effective_rank": ("effective rank", BLUE, "o", "-"),
    "participation_ratio": ("participation ratio", VERMILLION, "s", "--"),
}


def plot_displacement_spectrum(
    df: "pd.DataFrame", components: "pd.DataFrame", ax: "Axes | Sequence[Axes] | None" = None
) -> "Figure":
    """A row a corpus: left the leading directions' shares of the squared displacement, stacked; right how many count.

    A share near 1 in one direction: all tokens have moved alike. The null gives every token a direction of its own.
    Caveat: neither says what the directions stand for.

    Args:
        df: the table of `drift.displacement_spectrum`, of one component of the stream (and the embedding): site, layer,
            corpus, effective_rank, participation_ratio, null_share_high, null_effective_rank_low (NaN where not drawn),
            n_tokens.
        components: its components: site, layer, corpus, component, share.
        ax: two Axes a corpus, row by row, or None for a new figure, which also gets the legend.

    Returns:
        The figure drawn on.

    Raises:
        ArtifactError: a column is missing, or the table mixes components of the stream.
    """
    require_columns(
        df, ["site", "layer", "corpus", *_RANKS, "null_share_high", "null_effective_rank_low", "n_tokens"], _NAME
    )
    require_columns(components, ["site", "layer", "corpus", "component", "share"], _NAME)
    where = one_component(df, _NAME)
    table, parts = (frame.assign(x=layer_positions(frame)).sort_values("x") for frame in (df, components))
    corpora = sorted(set(df["corpus"]))
    ticks = layer_ticks(table["x"].tolist(), at_most=9)
    most = max([1.0, *(v for name in (*_RANKS, "null_effective_rank_low") for v in table[name].dropna().tolist())])

    from matplotlib.patheffects import withStroke

    with styled():
        figure, axes = panels(len(corpora), 2, 0.9 + 1.7 * len(corpora), ax, share=False)
        outline = [withStroke(linewidth=3, foreground="white")]  # on the bars, too
        for row, corpus in enumerate(corpora):
            left, right = axes[2 * row : 2 * row + 2]
            own = table.loc[table["corpus"] == corpus].to_dict("list")
            _stack(left, parts.loc[parts["corpus"] == corpus], own["x"], labelled=row == 0)
            null: dict[str, Any] = {"color": BLACK, "linestyle": ":", "marker": "_", "path_effects": outline}
            left.plot(own["x"], own["null_share_high"], label="null: a direction for each token, 95%", **null)
            right.plot(own["x"], own["null_effective_rank_low"], **null)
            for name, (label, color, marker, line) in _RANKS.items():
                right.plot(own["x"], own[name], color=color, marker=marker, linestyle=line, label=label)
            left.set_ylim(0, 1)
            right.set_yscale("log")
            right.set_ylim(0.8, 1.5 * most)
            right.grid(axis="y", color=GREY, alpha=0.25, linewidth=0.5)
            left.set_title(f"{corpus} text, n = {own['n_tokens'][0]} tokens", loc="left")
            right.set_title(f"number of directions, {corpus} text", loc="left")
            left.set_ylabel("share of the squared\ndisplacement")
            for axis in (left, right):
                axis.set_xticks(*ticks)
        for axis in axes[-2:]:
            axis.set_xlabel(f"layer ({where})")
        if ax is None:
            handles = [*axes[0].get_legend_handles_labels()[0], *axes[1].get_legend_handles_labels()[0]]
            figure.legend(handles=handles, loc="outside lower center", ncols=3)
    return figure


def _stack(axis: "Axes", parts: "pd.DataFrame", x: Sequence[int], labelled: bool) -> None:
    """The directions' shares at each layer, the first lowest, some of them together."""
    height, after, known = [0.0] * len(x), 0, max(parts["component"].tolist())
    for last, color, hatch in _BANDS:
        first, after = after + 1, min(last or known, known)
        if first > known:
            return
        own = parts.loc[parts["component"].between(first, after)].groupby("x")["share"].sum()
        bars = [float(own.get(at, 0.0)) for at in x]  # pyright: ignore[reportArgumentType]
        name = f"direction {first}" if first == after else f"directions {first} to {after}"
        style: dict[str, Any] = {"color": color, "hatch": hatch, "edgecolor": "white", "linewidth": 0}
        axis.bar(x, bars, 0.8, bottom=height, label=name if labelled else None, **style)
        height = [a + b for a, b in zip(height, bars, strict=True)]
