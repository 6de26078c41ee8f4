"""The study's table in words: what a reader sees at the end of `reproduce`."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from interp_unlearn.figures.relearning import AFTER_RELEARNING
from interp_unlearn.figures.style import goal_title, in_order, looks_of
from interp_unlearn.figures.tables import over_seeds
from interp_unlearn.organism.sets import GOALS
from interp_unlearn.statistics import spelled_interval, spelled_value

if TYPE_CHECKING:
    import pandas as pd

SHARES = ("clean", "target", "broken")
RELEARNED = (20, 60)
"""Steps of relearning whose target shares are shown where the study attacked."""


def markdown_table(table: pd.DataFrame, summary: dict[str, Any]) -> str:
    """One row an objective and goal, means over seeds, as Markdown.

    Args:
        table: The dissociation table: objective, goal, measure, seed, value.
        summary: What `summarize` returned.
    """
    means = over_seeds(table, ["goal", "objective", "measure"], "value")
    closed = {(row["goal"], row["objective"]): row for row in summary["gap_closed"] if row["measure"] == "efficacy"}
    attacked = [f"{AFTER_RELEARNING}{step}" for step in RELEARNED]
    attacked = attacked if set(attacked) <= set(table["measure"]) else []
    headings = [*SHARES, "E [95%]", "KL on retain text (nats)"]
    if attacked:
        headings.insert(-1, f"target after {' / '.join(map(str, RELEARNED))} relearning steps")
    lines: list[str] = []
    for goal in GOALS:
        lines += [f"| {goal_title(goal)} | {' | '.join(headings)} |", "|---" * (len(headings) + 1) + "|"]
        for objective in in_order(name for of_goal, name in closed if of_goal == goal):
            value = {name: means[goal, objective, name].mean for name in (*SHARES, *attacked, "retain_kl")}
            row = closed[goal, objective]
            cells = [
                *(spelled_value(value[name]) for name in SHARES),
                f"{spelled_value(row['mean'])} [{spelled_value(row['low'])}, {spelled_value(row['high'])}]",
                *([" / ".join(spelled_value(value[name]) for name in attacked)] if attacked else []),
                f"{value['retain_kl']:.4f}",
            ]
            lines.append(f"| {looks_of([objective])[objective].label} | {' | '.join(cells)} |")
        lines.append("")
    return "\n".join(lines + crossover_lines(summary))


def crossover_lines(summary: dict[str, Any]) -> list[str]:
    """Both differences of the crossover for one layer, several layers and their mean, and the verdict."""
    lines = [
        "| Crossover, efficacy | toxicity: probe minus random | knowledge: random minus probe | both above 0 |",
        "|---" * 4 + "|",
    ]
    for name, found in summary["crossover"].items():
        spelled = [
            spelled_interval(contrast["mean"], contrast["low"], contrast["high"])
            for contrast in found["contrasts"]
            if contrast["contrast"] != "interaction"
        ]
        lines.append(f"| {name} | {' | '.join(spelled)} | {'yes' if found['crossover'] else 'no'} |")
    return lines
