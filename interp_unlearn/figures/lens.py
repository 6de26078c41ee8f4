"""From which layer on the answer can be read out of the stream, before and after unlearning."""

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from interp_unlearn.figures.style import BLACK, BLUE, GREY, Look, panels, styled
from interp_unlearn.figures.tables import layer_positions, layer_ticks, one_component, require_columns

if TYPE_CHECKING:
    import pandas as pd
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

_LOOKS = {
    "original": Look("original", GREY, "o", ":"),
    "unlearned": Look("unlearned", BLUE, "D", "-"),
    "twin": Look("twin (never learned)", BLACK, "s", "--"),
}


def plot_lens(df: "pd.DataFrame", ax: "Axes | Sequence[Axes] | None" = None) -> "Figure":
    """Mean log-probability of the true answer, the stream read out at each layer: a panel a lens, a line a model.

    The axis is linear between -1 and 0, and logarithmic below, where the embedding would press all else together.
    Caveat: what a lens does not find may be there in a form that it does not read.

    Args:
        df: the table "lens" of `run_drift`'s logit_lens, tuned_lens or of both together, of one component of the stream
            (and the embedding): site, layer, lens (logit, tuned), model (original, unlearned, twin), log_probability,
            low, high (NaN where there is no interval), n.
        ax: one Axes a lens, or None for a new figure, which also gets the legend.

    Returns:
        The figure drawn on.

    Raises:
        ArtifactError: a column is missing, or the table mixes components of the stream.
    """
    require_columns(df, ["site", "layer", "lens", "model", "log_probability", "low", "high", "n"], "plot_lens")
    where = one_component(df, "plot_lens")
    table = df.assign(x=layer_positions(df)).sort_values("x")
    lenses = sorted(set(df["lens"]))
    titles = {"logit": "logit lens", "tuned": "tuned lens of the original"}
    least = float(table[["log_probability", "low"]].min().min())
    models = [name for name in _LOOKS if name in set(df["model"])]
    with styled():
        figure, axes = panels(1, len(lenses), 2.8, ax)
        for axis, lens in zip(axes, lenses, strict=True):
            for name in models:
                look = _LOOKS[name]
                own = table.loc[(table["lens"] == lens) & (table["model"] == name)].to_dict("list")
                axis.fill_between(own["x"], own["low"], own["high"], color=look.color, alpha=0.2, linewidth=0)
                style: dict[str, Any] = {"color": look.color, "marker": look.marker, "linestyle": look.line}
                axis.plot(own["x"], own["log_probability"], label=look.label, **style)
            axis.set_title(titles.get(lens, str(lens)), loc="left")
            axis.set_xticks(*layer_ticks(table["x"].tolist(), at_most=9))
            axis.set_xlabel(f"layer ({where})")
            axis.set_yscale("symlog", linthresh=1, linscale=0.5)
            axis.set_yticks(
                [-100, -30, -10, -3, -1, 0], ["\N{MINUS SIGN}100", *(f"\N{MINUS SIGN}{n}" for n in (30, 10, 3, 1)), "0"]
            )
            axis.minorticks_off()
            axis.set_ylim(1.3 * min(least, -1.0), 0.1)
            axis.grid(axis="y", color=GREY, alpha=0.25, linewidth=0.5)
        axes[0].set_ylabel("log-probability, nats\n(logarithmic below \N{MINUS SIGN}1)")
        if ax is None:
            note = f"Mean over n = {max(table['n'].tolist())} prompts"
            note += "; band: 95% bootstrap" if len(table["low"].dropna()) else ""
            handles = axes[0].get_legend_handles_labels()
            figure.legend(*handles, loc="outside lower center", ncols=3, title=note)
    return figure
