"""Does forgetting last: how much of the target comes back as an attacker trains on other examples of it."""

import re
from collections.abc import Sequence
from typing import TYPE_CHECKING

from interp_unlearn.errors import ArtifactError
from interp_unlearn.figures.style import (
    GREY,
    goal_title,
    goals_in_order,
    in_order,
    legend_handles,
    looks_of,
    panels,
    styled,
)
from interp_unlearn.figures.tables import caption, over_seeds, require_columns

if TYPE_CHECKING:
    import pandas as pd
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

AFTER_RELEARNING = "target_after_relearning_"
"""How measures of an attack begin; the number of its steps follows."""
_MEASURE = re.compile(rf"target|{AFTER_RELEARNING}(\d+)")
_SPREAD = 0.08


def plot_relearning(df: "pd.DataFrame", ax: "Axes | Sequence[Axes] | None" = None) -> "Figure":
    """Target share after 0, 10, 20, 60 relearning steps, one panel a goal, one line an objective, the twin in black.

    Caveat: a model that never learned the target also picks some of it up under the attack, so what counts is the
    excess over the twin's own curve, not the height.

    Args:
        df: columns objective, goal, measure, seed, value with measures target (or target_after_relearning_0, asked on
            the attack's own prompts) and target_after_relearning_<steps>; other measures, and objectives that were not
            attacked, are left out. Optional low and high (95% interval of the value; otherwise the range over seeds
            is drawn) and n, the generations judged.
        ax: one Axes a goal, or None for a new figure, which also gets the legend.

    Returns:
        The figure drawn on.

    Raises:
        ArtifactError: a column is missing, or the table holds no relearning measure.
    """
    require_columns(df, ["objective", "goal", "measure", "seed", "value"], "plot_relearning")
    matches = [_MEASURE.fullmatch(str(measure)) for measure in df["measure"]]
    table = df.loc[[match is not None for match in matches]].assign(steps=[int(m[1] or 0) for m in matches if m])
    if f"{AFTER_RELEARNING}0" in set(table["measure"]):  # asked on the attack's own prompts, as the later points are
        table = table.loc[table["measure"] != "target"]
    estimates = over_seeds(table, ["goal", "objective", "steps"], "value")
    attacked = {(goal, objective) for goal, objective, steps in estimates if steps > 0}
    if not attacked:
        raise ArtifactError("plot_relearning found no measure target_after_relearning_<steps>; run the attack first")
    estimates = {key: estimate for key, estimate in estimates.items() if key[:2] in attacked}
    goals, objectives = goals_in_order(goal for goal, _ in attacked), in_order(name for _, name in attacked)
    steps = sorted({key[2] for key in estimates})
    looks = looks_of(objectives)

    with styled():
        figure, axes = panels(1, len(goals), 2.5 + 0.18 * -(-len(objectives) // 3), ax)
        for axis, goal in zip(axes, goals, strict=True):
            for place, name in enumerate(objectives):
                points = {key[2]: estimate for key, estimate in estimates.items() if key[:2] == (goal, name)}
                shift = _SPREAD * steps[-1] * (place / max(1, len(objectives) - 1) - 0.5)  # so bars stand side by side
                x, look = [step + shift for step in points], looks[name]
                mean = [e.mean for e in points.values()]
                axis.plot(x, mean, color=look.color, marker=look.marker, linestyle=look.line)
                axis.vlines(x, [e.low for e in points.values()], [e.high for e in points.values()], color=look.color)
            axis.set_title(goal_title(goal), loc="left")
            axis.set_xlabel("relearning steps")
            axis.set_xticks(steps)
            axis.set_ylim(-0.03, 1.03)
            axis.grid(axis="y", color=GREY, alpha=0.25, linewidth=0.5)
        axes[0].set_ylabel("target share of generations")
        if ax is None:
            note = caption(table, estimates, "bars, side by side")
            figure.legend(handles=legend_handles(objectives), loc="outside lower center", ncols=3, title=note)
    return figure
