"""How much more comes back under relearning than a model that never learned the target picks up."""

from typing import TYPE_CHECKING

from interp_unlearn.figures.style import GREY, in_order, legend_handles, looks_of, panels, styled
from interp_unlearn.figures.tables import require_columns

if TYPE_CHECKING:
    import pandas as pd
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure


def plot_excess(df: "pd.DataFrame", ax: "Axes | None" = None) -> "Figure":
    """Excess over the twin's own curve by relearning steps, one line a method, with 95% intervals.

    Args:
        df: columns contender, step (0, all steps together, is left out), mean, low, high, n; the twin itself is left
            out too, since its excess is 0. Of several attackers (column attacker) the first one's lines are drawn. What
            n counts is said by a column unit (subjects); without one, prompts.
        ax: where to draw; None for a new figure, which also gets the legend.

    Returns:
        The figure drawn on.

    Raises:
        ArtifactError: a column is missing, or there is no row.
    """
    require_columns(df, ["contender", "step", "mean", "low", "high", "n"], "plot_excess")
    table = df.loc[(df["step"] > 0) & (df["contender"] != "twin")]
    if "attacker" in table:
        table = table.loc[table["attacker"] == table["attacker"].iloc[0]]
    names = in_order(table["contender"])
    looks, steps = looks_of(names), sorted(set(table["step"].tolist()))
    with styled():
        figure, (axis,) = panels(1, 1, 3.0 + 0.18 * -(-len(names) // 3), ax)
        for place, name in enumerate(names):
            part = table.loc[table["contender"] == name].sort_values("step")
            # Side by side on a logarithmic axis of steps.
            x = [step * 1.35 ** (place / max(1, len(names) - 1) - 0.5) for step in part["step"]]
            look = looks[name]
            axis.plot(x, part["mean"], color=look.color, marker=look.marker, linestyle=look.line)
            axis.vlines(x, part["low"], part["high"], color=look.color)
        axis.axhline(0, color=GREY, linewidth=0.6)
        axis.set_xscale("log")
        axis.set_xticks(steps, labels=[str(step) for step in steps])
        axis.minorticks_off()
        axis.set_xlabel("relearning steps")
        axis.set_ylabel("target share above the twin's")
        axis.grid(axis="y", color=GREY, alpha=0.25, linewidth=0.5)
        if ax is None:
            counted = f"n = {int(table['n'].iloc[0])} {table['unit'].iloc[0] if 'unit' in table else 'prompts'}"
            note = f"Worst of the attacker's learning rates; bars: 95% interval over {counted}"
            figure.legend(handles=legend_handles(names), loc="outside lower center", ncols=3, title=note)
    return figure
