"""How much of what was unlearned each attack brings back, method by method."""

from typing import TYPE_CHECKING, Any

import numpy as np

from interp_unlearn.figures.style import (
    GREY,
    goal_title,
    goals_in_order,
    in_order,
    legend_handles,
    looks_of,
    panels,
    styled,
    unit_of,
)
from interp_unlearn.figures.tables import require_columns, spelled_range

if TYPE_CHECKING:
    from collections.abc import Sequence

    import pandas as pd
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

_CONTROL: dict[str, Any] = {"linestyle": "", "marker": "|", "markersize": 6}
_COLUMNS = ["goal", "method", "attack", "recovered", "recovered_low", "recovered_high", "n_groups"]
ATTACK_NAMES = {
    "relearn": "relearning, others of it",
    "relearn_lora": "others of it, by adapters",
    "relearn_neutral": "relearning, neutral text",
    "relearn_unrelated": "relearning, unrelated text",
    "relearn_lora_unrelated": "unrelated text, by adapters",
    "ablate_direction": "one direction ablated",
    "ablate_subspace": "a subspace ablated",
    "steer_back": "steered back",
    "scale_neurons": "neurons scaled",
    "quantise": "weights rounded",
    "prune": "weights pruned",
    "reformat": "asked in another form",
    "few_shot": "solved examples",
}
"""What the suite's attacks are called in figures and tables, in their order there."""


def plot_attacks(df: "pd.DataFrame", ax: "Axes | Sequence[Axes] | None" = None) -> "Figure":
    """Share of the gap to the original that each attack closes, with 95% intervals; a row an attack, a panel a goal.

    Caveat: each at its worst setting, which is high by chance too. Methods without a gap have no mark.

    Args:
        df: columns goal, method, attack, recovered, recovered_low, recovered_high, n_groups (what was resampled). A
            twin, which was never unlearned, shows what is learned anew; with a column control_recovered, a stroke shows
            what random directions or neurons bring back instead.
        ax: one Axes a goal, or None for a new figure, which also gets the legend.

    Returns:
        The figure drawn on.

    Raises:
        ArtifactError: a column is missing, or there is no row.
    """
    require_columns(df, _COLUMNS, "plot_attacks")
    goals, names = goals_in_order(df["goal"]), in_order(df["method"])
    found = set(df["attack"])
    with_control = "control_recovered" in df.columns
    attacks = [*(name for name in ATTACK_NAMES if name in found), *sorted(found - set(ATTACK_NAMES))]
    looks = looks_of(names)
    with styled():
        figure, axes = panels(1, len(goals), 1.1 + 0.42 * len(attacks), ax)
        for axis, goal in zip(axes, goals, strict=True):
            part = df.loc[df["goal"] == goal]
            methods = [name for name in names if name in set(part["method"])]
            for place, name in enumerate(methods):
                rows = part.loc[part["method"] == name].set_index("attack").reindex(attacks)
                y = np.arange(len(attacks)) + 0.7 * ((place + 0.5) / len(methods) - 0.5)
                axis.hlines(y, rows["recovered_low"], rows["recovered_high"], color=looks[name].color)
                axis.plot(rows["recovered"], y, linestyle="", color=looks[name].color, marker=looks[name].marker)
                if with_control:
                    axis.plot(rows["control_recovered"], y, color=looks[name].color, **_CONTROL)
            for line in range(len(attacks) - 1):
                axis.axhline(line + 0.5, color=GREY, alpha=0.3, linewidth=0.5)
            for line in (0, 1):
                axis.axvline(line, color=GREY, linewidth=0.6)
            axis.set_yticks(range(len(attacks)), labels=[ATTACK_NAMES.get(name, name) for name in attacks])
            axis.set_ylim(len(attacks) - 0.5, -0.5)
            n = spelled_range(part["n_groups"].astype(int).tolist())
            axis.set_title(f"{goal_title(goal)} (n = {n} {unit_of(goal)})")
            axis.set_xlabel("share of the gap brought back")
        if ax is None:
            note = "bars: 95% interval" + ("; strokes: at random instead" if with_control else "")
            figure.legend(handles=legend_handles(names), loc="outside lower center", ncols=3, title=note)
    return figure
