"""How much more comes back under relearning than a model that never learned the target picks up."""

from typing import TYPE_CHECKING

from interp_unlearn.figures.style import BLACK, BLUE, GREY, ORANGE, in_order, legend_handles, looks_of, panels, styled
from interp_unlearn.figures.tables import require_columns

if TYPE_CHECKING:
    from collections.abc import Sequence

    import pandas as pd
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure


MOST_LINES = 16
"""Methods that lines can tell apart; more get a row each."""
_STEP_LOOKS = ((ORANGE, "o"), (BLUE, "s"), (BLACK, "D"), (GREY, "^"))


def plot_excess(df: "pd.DataFrame", ax: "Axes | None" = None) -> "Figure":
    """Excess over the twin's own curve by relearning steps, with 95% intervals.

    A line a method; with more than `MOST_LINES` of them, and at most four steps, a row a method and a mark a step, the
    method of which least comes back on top.

    Args:
        df: columns contender, step (0, all steps together, is left out), mean, low, high, n; the twin itself is left
            out too, since its excess is 0. Of several attackers (column attacker) the first one's are drawn. What n
            counts is said by a column unit (subjects); without one, prompts.
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
    counted = f"n = {int(table['n'].iloc[0])} {table['unit'].iloc[0] if 'unit' in table else 'prompts'}"
    note = f"Worst of the attacker's learning rates; bars: 95% interval over {counted}"
    if table["contender"].nunique() > MOST_LINES and table["step"].nunique() <= len(_STEP_LOOKS):
        least_first = table.groupby("contender")["mean"].mean().sort_values(kind="stable")
        return _draw_rows(table, [str(name) for name in least_first.index], note, ax)
    return _draw_lines(table, note, ax)


def _draw_lines(table: "pd.DataFrame", note: str, ax: "Axes | None") -> "Figure":
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
            figure.legend(handles=legend_handles(names), loc="outside lower center", ncols=3, title=note)
    return figure


def _draw_rows(table: "pd.DataFrame", names: "Sequence[str]", note: str, ax: "Axes | None") -> "Figure":
    looks, steps = looks_of(names), sorted(set(table["step"].tolist()))
    with styled():
        figure, (axis,) = panels(1, 1, 0.9 + 0.22 * len(names), ax)
        for place, (step, (color, marker)) in enumerate(zip(steps, _STEP_LOOKS, strict=False)):
            rows = table.loc[table["step"] == step].set_index("contender").reindex(names)
            y = [row + 0.6 * ((place + 0.5) / len(steps) - 0.5) for row in range(len(names))]
            axis.hlines(y, rows["low"], rows["high"], color=color, linewidth=0.9)
            axis.plot(rows["mean"], y, linestyle="", color=color, marker=marker, markersize=3, label=f"{step} steps")
        for line in range(len(names) - 1):
            axis.axhline(line + 0.5, color=GREY, alpha=0.25, linewidth=0.5)
        axis.axvline(0, color=GREY, linewidth=0.6)
        axis.set_yticks(range(len(names)), labels=[looks[name].label for name in names])
        axis.set_ylim(len(names) - 0.5, -0.5)
        axis.set_xlabel("target share above the twin's")
        if ax is None:
            figure.legend(loc="outside lower center", ncols=len(steps), title=note)
    return figure
