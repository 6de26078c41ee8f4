"""What tells the unlearning of two goals apart in the weights, in one figure."""

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from interp_unlearn.figures.style import (
    BLUE,
    GREY,
    VERMILLION,
    goal_title,
    goals_in_order,
    new_figure,
    panels,
    styled,
)
from interp_unlearn.figures.tables import require_columns, spelled_range

if TYPE_CHECKING:
    import pandas as pd
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

_LINES: tuple[tuple[str, str, Any], ...] = ((BLUE, "o", "-"), (VERMILLION, "s", "--"))
_PARTS = ("attention", "mlp")
_BROKEN = "broken"
_FULL: dict[str, Any] = {"linestyle": ""}
_OPEN: dict[str, Any] = {"markerfacecolor": "white", "linestyle": ""}  # below a full one
_HOLLOW: dict[str, Any] = {"markerfacecolor": "none", "linestyle": "", "markersize": 8}  # around a full one


def plot_dissection(tables: "Mapping[str, pd.DataFrame]", ax: "Sequence[Axes] | None" = None) -> "Figure":
    """Four panels: the effect by how far up the changed tensors go, by part, by rank, and what should be nothing.

    The first three are shares of the whole effect on each goal's target when changed tensors are put into the original,
    with 95% intervals, and hollow, where "broken" is an outcome, what share of the same model's answers is broken: an
    effect that comes with it may be damage. The last has each change's effect on the other goal's target, what both
    together do beyond their sum, and what changes when a change is carried onto another model, hollow the same of what
    is broken, with the interval of the equivalence test and the margin as a grey band; without those tables there are
    three panels.

    Args:
        tables: of a `mechanism.Dissection`: transplant, ranks, and where there are, composition and carried.
        ax: one Axes a panel, or None for a new figure, which also gets the legend.

    Returns:
        The figure drawn on.

    Raises:
        ArtifactError: a table or a column is missing, or there is no row.
    """
    from matplotlib.lines import Line2D

    shares = ["goal", "outcome", "share", "share_low", "share_high"]
    moved, cut = (tables.get(name, _nothing()) for name in ("transplant", "ranks"))
    require_columns(moved, [*shares, "direction", "kind", "group", "part"], "plot_dissection")
    require_columns(cut, [*shares, "rank"], "plot_dissection")
    goals = goals_in_order(moved["goal"])
    inserted = moved.loc[moved["direction"] == "inserted"]
    with styled():
        lines = _lines_of_nothing(tables, goals)
        figure, (deep, parts, ranks, *last) = _axes(ax, bool(lines))
        for place, goal in enumerate(goals):
            color, marker, line = _LINES[place % len(_LINES)]
            rows = _target(inserted, goal)
            reached = rows.loc[rows["kind"] == "up_to"]
            _draw(deep, range(len(reached)), reached, place, color, marker, line)
            deep.set_xticks(range(len(reached)), labels=[_depth(str(name)) for name in reached["group"]])
            _draw(parts, range(len(_PARTS)), _of_parts(rows), place, color, marker, "")
            of_ranks = _target(cut, goal)
            _draw(ranks, of_ranks["rank"].tolist(), of_ranks, 0, color, marker, line)
            damage, cut_damage = (_broken(table, goal) for table in (inserted, cut))
            if len(damage):
                reached = damage.loc[damage["kind"] == "up_to", "mean"]
                deep.plot(range(len(reached)), reached, color=color, marker=marker, **_HOLLOW)
                at = np.arange(len(_PARTS)) + 0.12 * (place - 0.5)
                parts.plot(at, _of_parts(damage)["mean"], color=color, marker=marker, **_HOLLOW)
                ranks.plot(cut_damage["rank"], cut_damage["mean"], color=color, marker=marker, **_HOLLOW)
        deep.set_xlabel("changed up to block")
        parts.set_xticks(range(len(_PARTS)), labels=["attention", "MLPs"])
        parts.set_xlim(-0.5, len(_PARTS) - 0.5)
        ranks.set_xscale("log", base=2)
        ranks.set_xlabel("directions kept")
        deep.set_ylabel("share of the effect")
        for axis in (deep, parts, ranks):
            axis.axhline(0, color=GREY, linewidth=0.6)
            axis.axhline(1, color=GREY, linewidth=0.6)
        if last:
            _draw_nothing(last[0], lines, _margin(tables))
        if ax is None:
            handles = [
                Line2D([], [], color=color, marker=marker, linestyle=line, label=goal_title(goal))
                for goal, (color, marker, line) in zip(goals, _LINES, strict=False)
            ]
            n = f", n = {spelled_range(moved['n'].astype(int).tolist())}" if "n" in moved.columns else ""
            hollow = "; hollow: share broken" if _BROKEN in set(moved["outcome"]) else ""
            note = f"bars above: 95% interval{n}{hollow}"
            figure.legend(handles=handles, loc="outside lower center", ncols=2, title=note)
    return figure


def _axes(ax: "Sequence[Axes] | None", with_nothing: bool) -> "tuple[Figure, list[Axes]]":
    """The caller's, or three in a row, above one of full width where there is something for it."""
    if ax is not None or not with_nothing:
        return panels(1, 4 if with_nothing else 3, 2.5, ax, share=False)
    figure = new_figure(5.2)
    grid = figure.add_gridspec(2, 1)
    # Each with margins of its own: the names below are long.
    above, below = (figure.add_subfigure(grid[row]) for row in range(2))
    return figure, [*above.subplots(1, 3).flat, below.subplots()]


def _draw(
    axis: "Axes", x: Sequence[float], rows: "pd.DataFrame", place: int, color: str, marker: str, line: str
) -> None:
    at = np.asarray(x, dtype=float) + 0.12 * (place - 0.5) * (len(line) == 0)
    axis.plot(at, rows["share"], color=color, marker=marker, linestyle=line)
    axis.vlines(at, rows["share_low"], rows["share_high"], color=color)


_Difference = tuple[float, float, float]
_Line = tuple[str, _Difference, _Difference | None, int]
"""What it is, its difference on the target and on what is broken with the ends of the interval, its goal's place."""


def _lines_of_nothing(tables: "Mapping[str, pd.DataFrame]", goals: Sequence[str]) -> list[_Line]:
    """Everything that would be 0 if the two changes had nothing to do with each other."""
    lines: list[_Line] = []
    together, carried = tables.get("composition", _nothing()), tables.get("carried", _nothing())
    for place, goal in enumerate(goals):
        if len(together):
            target = next(str(name) for name in together["outcome"] if str(name).startswith(f"{goal}: "))
            rows = [together.loc[together["outcome"] == name] for name in (target, f"{goal}: {_BROKEN}")]
            for other in goals:
                if other != goal:
                    lines.append((f"{goal}: by the other goal's change", *_both(rows, other), place))
            lines.append((f"{goal}: both, beyond their sum", *_both(rows, "interaction"), place))
        if len(carried):
            rows = [_target(carried, goal), _broken(carried, goal)]
            for onto in dict.fromkeys(rows[0]["onto"]):
                name = "a stranger" if "stranger" in str(onto) else "the other goal's twin"
                found = _both([part.loc[part["onto"] == onto] for part in rows], "difference")
                lines.append((f"{goal}: carried onto {name}", *found, place))
    return lines


def _margin(tables: "Mapping[str, pd.DataFrame]") -> float:
    for name in ("composition", "carried"):
        if len(tables.get(name, _nothing())):
            return float(tables[name]["margin"].iloc[0])
    return 0.0


def _draw_nothing(axis: "Axes", lines: Sequence[_Line], margin: float) -> None:
    axis.axvspan(-margin, margin, color=GREY, alpha=0.25, linewidth=0)
    axis.axvline(0, color=GREY, linewidth=0.6)
    for y, (_, *found, place) in enumerate(lines):
        color, marker, _ = _LINES[place % len(_LINES)]
        for of, looks, at in zip(found, (_FULL, _OPEN), (y - 0.15, y + 0.2), strict=True):
            if of is not None:
                mean, low, high = of
                axis.hlines(at, low, high, color=color)
                axis.plot([mean], [at], color=color, marker=marker, **looks)
    axis.set_yticks(range(len(lines)), labels=[name for name, *_ in lines])
    axis.set_ylim(len(lines) - 0.5, -0.5)
    axis.set_xlabel("difference in share of answers\n(bars: equivalence interval; grey: margin)")


def _both(rows: "Sequence[pd.DataFrame]", contrast: str) -> tuple[_Difference, _Difference | None]:
    """A contrast on the target and, where it was an outcome, on what is broken."""
    target, broken = rows
    return _tested(target, contrast), _tested(broken, contrast) if len(broken) else None


def _tested(rows: "pd.DataFrame", contrast: str) -> _Difference:
    row = rows.loc[rows["contrast"] == contrast].iloc[0]
    return float(row["mean"]), float(row["equivalence_low"]), float(row["equivalence_high"])


def _target(table: "pd.DataFrame", goal: str) -> "pd.DataFrame":
    rows = table.loc[table["goal"] == goal]
    return rows.loc[rows["outcome"] == rows["outcome"].iloc[0]] if len(rows) else rows


def _broken(table: "pd.DataFrame", goal: str) -> "pd.DataFrame":
    return table.loc[(table["goal"] == goal) & (table["outcome"] == _BROKEN)]


def _of_parts(rows: "pd.DataFrame") -> "pd.DataFrame":
    of_parts = rows.loc[(rows["kind"] == "part") & rows["part"].isin(_PARTS)]
    return of_parts.set_index("part").reindex(_PARTS).reset_index()


def _depth(group: str) -> str:
    return group.removeprefix("up to ").replace("embedding", "emb")


def _nothing() -> "pd.DataFrame":
    import pandas as pd

    return pd.DataFrame()
