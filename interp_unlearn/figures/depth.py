"""From which layers of an unlearned model the original can still make the answer."""

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from interp_unlearn.figures.style import BLACK, BLUE, GREY, VERMILLION, panels, styled
from interp_unlearn.figures.tables import layer_positions, layer_ticks, require_columns

if TYPE_CHECKING:
    import pandas as pd
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure


def plot_unlearning_depth(
    df: "pd.DataFrame", score: "pd.DataFrame", ax: "Axes | Sequence[Axes] | None" = None
) -> "Figure":
    """Left what the original loses of the answer to other models' streams; right how much of it unlearning has erased.

    Caveat: a stream that is merely broken loses the answer too.

    Args:
        df: the table of layers of `drift.unlearning_depth`: site, layer, drop_never_knew, drop_unlearned, encoding,
            erasure (NaN where no text counts).
        score: one row: score (NaN where there is none), low, high, n, reason.
        ax: two Axes, or None for a new figure, which also gets the legend.

    Returns:
        The figure drawn on.

    Raises:
        ArtifactError: a column is missing.
    """
    columns = ["site", "layer", "drop_never_knew", "drop_unlearned", "encoding", "erasure"]
    require_columns(df, columns, "plot_unlearning_depth")
    require_columns(score, ["score", "low", "high", "n", "reason"], "plot_unlearning_depth")
    table = df.assign(x=layer_positions(df)).sort_values("x").to_dict("list")
    x = table["x"]
    with styled():
        figure, (left, right) = panels(1, 2, 2.9, ax, share=False)
        style: dict[str, Any] = {"color": BLACK, "marker": "s", "linestyle": "--"}
        left.plot(x, table["drop_never_knew"], label="stream of a model that never knew", **style)
        left.plot(x, table["drop_unlearned"], color=BLUE, marker="D", label="stream of the unlearned model")
        left.axhline(0, color=GREY, linewidth=0.6)
        left.set_title("lost log-probability, nats a token", loc="left")
        bars: dict[str, Any] = {"color": "white", "edgecolor": GREY, "hatch": "////", "linewidth": 0.6}
        right.bar(x, table["encoding"], 0.8, label="share of texts that count", **bars)
        right.plot(x, table["erasure"], color=VERMILLION, marker="^", label="erasure ratio, at most 1 a text")
        right.set_ylim(0, 1.05)
        right.set_title("erased, of what is there", loc="left")
        for axis in (left, right):
            axis.set_xticks(*layer_ticks(x, at_most=9))
            axis.set_xlabel("layer patched (resid_post)")
            axis.grid(axis="y", color=GREY, alpha=0.25, linewidth=0.5)
        if ax is None:
            handles = [handle for axis in (left, right) for handle in axis.get_legend_handles_labels()[0]]
            figure.legend(handles=handles, loc="outside lower center", ncols=2, title=_told(score))
    return figure


def _told(score: "pd.DataFrame") -> str:
    row = score.iloc[0]
    if row["score"] != row["score"]:
        return "No depth: the original knows no more of these answers than the twin"
    band = "" if row["low"] != row["low"] else f" [{row['low']:.2f}, {row['high']:.2f}], 95% bootstrap"
    return f"Unlearning depth {row['score']:.2f}{band}; n = {int(row['n'])} texts"
