"""The headline: what each objective does to free generations, for either goal."""

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING

from interp_unlearn.errors import ArtifactError
from interp_unlearn.figures.style import (
    BLUE,
    GREY,
    VERMILLION,
    YELLOW,
    goal_title,
    goals_in_order,
    in_order,
    looks_of,
    panels,
    styled,
)
from interp_unlearn.figures.tables import (
    Estimate,
    Key,
    caption,
    interval_name,
    over_seeds,
    require_columns,
)

if TYPE_CHECKING:
    import pandas as pd
    from matplotlib.artist import Artist
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

_SHARES = {"clean": (BLUE, ""), "target": (VERMILLION, "/////"), "broken": (YELLOW, "xxxx")}
_BAR = 0.72


def plot_dissociation(df: "pd.DataFrame", ax: "Axes | Sequence[Axes] | None" = None) -> "Figure":
    """Objectives (rows) against goals (columns): stacked shares clean, target and broken, and the efficacy E.

    A cell that was not run stays blank and says so. Caveat: E counts only clean text, so an objective that corrupts
    has a long *broken* bar and a low E, however short its *target* bar is.

    Args:
        df: columns objective, goal, measure, seed, value, one row a seed; measures clean, target and broken (shares of
            the judged generations) and efficacy; other measures are left out. Optional low and high, the 95% interval
            of the value (otherwise the range over seeds is printed), and n, the generations judged.
        ax: one Axes a goal, or None for a new figure, which also gets the legend.

    Returns:
        The figure drawn on.

    Raises:
        ArtifactError: a column is missing, or the three shares of a cell do not sum to 1.
    """
    require_columns(df, ["objective", "goal", "measure", "seed", "value"], "plot_dissociation")
    drawn = df.loc[df["measure"].isin([*_SHARES, "efficacy"])]
    efficacy = drawn.loc[drawn["measure"] == "efficacy"]
    keys = ["objective", "goal", "measure"]
    estimates = over_seeds(drawn, keys, "value") | over_seeds(efficacy, keys, "value")
    cells = _cells_with_shares(estimates)
    objectives, goals = in_order(df["objective"]), goals_in_order(df["goal"])
    looks = looks_of(objectives)
    efficacies = [estimate for (_, _, measure), estimate in estimates.items() if measure == "efficacy"]
    any_efficacy, any_interval = bool(efficacies), any(estimate.high > estimate.low for estimate in efficacies)

    with styled():
        figure, axes = panels(1, len(goals), 1.15 + 0.25 * len(objectives), ax)
        for axis, goal in zip(axes, goals, strict=True):
            for row, objective in enumerate(objectives):
                if (objective, goal) in cells:
                    _draw_shares(axis, row, [estimates[objective, goal, share].mean for share in _SHARES])
                else:
                    axis.text(0.5, row, "not run", ha="center", va="center", fontsize=8, style="italic", color=GREY)
                if (objective, goal, "efficacy") in estimates:
                    axis.text(1.05, row, _spelled(estimates[objective, goal, "efficacy"]), va="center", fontsize=8)
            axis.set_title(goal_title(goal), loc="left")
            axis.set_xlim(0, 2.5 if any_efficacy else 1.02)
            axis.set_ylim(len(objectives) - 0.4, -1.1 if any_efficacy else -0.6)
            if any_efficacy:
                heading = f"$E$ [{interval_name(efficacy)}]" if any_interval else "$E$"
                axis.text(1.05, -0.8, heading, va="center", fontsize=8)
            axis.set_xticks([0, 0.5, 1], ["0", "0.5", "1"])
            axis.set_xlabel("share of generations", loc="left")
            axis.tick_params(left=False)
            axis.spines["left"].set_visible(False)
            axis.spines["bottom"].set_bounds(0, 1)
        axes[0].set_yticks(range(len(objectives)), [looks[name].label for name in objectives])
        if ax is None:
            note = caption(drawn, estimates)
            figure.legend(handles=_legend(), loc="outside lower center", ncols=3, title=note)
    return figure


def _cells_with_shares(estimates: Mapping[Key, Estimate]) -> set[tuple[str, str]]:
    cells = {(objective, goal) for objective, goal, measure in estimates if measure in _SHARES}
    for objective, goal in cells:
        shares = {s: estimates[objective, goal, s].mean for s in _SHARES if (objective, goal, s) in estimates}
        if len(shares) < len(_SHARES) or abs(sum(shares.values()) - 1) > 1e-3:
            found = ", ".join(f"{name} {value:.3f}" for name, value in shares.items())
            raise ArtifactError(f"{objective} on {goal}: {', '.join(_SHARES)} must be there and sum to 1, got {found}")
    return cells


def _draw_shares(axis: "Axes", row: int, shares: Sequence[float]) -> None:
    left = 0.0
    for share, (color, hatch) in zip(shares, _SHARES.values(), strict=True):
        axis.barh(row, share, _BAR, left=left, color=color, hatch=hatch, edgecolor="white", linewidth=0)
        left += share
    axis.barh(row, 1.0, _BAR, color="none", edgecolor=GREY, linewidth=0.5)


def _spelled(estimate: Estimate) -> str:
    bracket = f" [{estimate.low:.2f}, {estimate.high:.2f}]" if estimate.high > estimate.low else ""
    return f"{estimate.mean:.2f}{bracket}".replace("-", "\N{MINUS SIGN}")


def _legend() -> "list[Artist]":
    from matplotlib.patches import Patch

    return [Patch(facecolor=c, hatch=h, edgecolor="white", linewidth=0, label=name) for name, (c, h) in _SHARES.items()]
