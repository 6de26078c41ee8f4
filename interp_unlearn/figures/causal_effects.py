"""What interventions along a direction cause, layer by layer, beside random directions of the same size."""

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from interp_unlearn.errors import ArtifactError
from interp_unlearn.figures.style import BLACK, BLUE, GREY, ORANGE, panels, styled
from interp_unlearn.figures.tables import EMBED, layer_ticks, one_component, require_columns

if TYPE_CHECKING:
    import pandas as pd
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

_LABELS = {
    "kl": "KL to the plain model (nats)",
    "total_variation": "total variation",
    "token_set_log_probability": "change in log-probability (nats)",
    "completion_kl": "KL a token of completions (nats)",
    "distance": "distance moved (L2)",
    "perplexity": "perplexity under the plain model",
    "score": "mean score of generations",
}
_KINDS = {"add": "add", "clamp": "clamp", "project_out": "project out"}
_COLUMNS = 3


def plot_causal_effects(df: "pd.DataFrame", measure: str, ax: "Axes | Sequence[Axes] | None" = None) -> "Figure":
    """One measure by layer, a panel an intervention: the direction's with its interval, the control as a band.

    The band reaches from the lowest to the highest end of the random directions' 95% intervals. At the right end of a
    panel stand all sites together; the dotted line is the untouched model, where the measure has one.

    Args:
        df: the table of `directions.causal_effects`, of one component of the stream (and the embedding): intervention,
            strength, unit, site, layer, control, measure, mean, low, high, n.
        measure: which of the table's measures.
        ax: one Axes an intervention, or None for a new figure, which also gets the legend.

    Returns:
        The figure drawn on.

    Raises:
        ArtifactError: a column is missing, the table does not hold the measure, or it mixes components.
    """
    columns = ["intervention", "strength", "unit", "site", "layer", "control", "measure", "mean", "low", "high", "n"]
    require_columns(df, columns, "plot_causal_effects")
    table = df.loc[df["measure"] == measure]
    if table.empty:
        known = ", ".join(dict.fromkeys(df["measure"].tolist()))
        raise ArtifactError(f"plot_causal_effects: the table holds no measure {measure!r}; it holds {known}")
    plain = table.loc[table["control"] == "plain", "mean"].tolist()
    table = table.loc[table["control"] != "plain"]
    component = one_component(table, "plot_causal_effects")
    table = table.assign(x=_positions(table), panel=_panels_of(table))
    names = list(dict.fromkeys(table["panel"].tolist()))
    places = sorted(set(table["x"].tolist()))
    last = max((x for x, site in zip(table["x"], table["site"], strict=True) if site != "all"), default=None)

    with styled():
        rows, width = -(-len(names) // _COLUMNS), min(_COLUMNS, len(names))
        spare = rows * width - len(names) if ax is None else 0
        if ax is None:
            figure, axes = panels(rows, width, 0.75 + 1.55 * rows, None)
        else:
            figure, axes = panels(1, len(names), 0, ax)
        for axis in axes[len(names) : len(names) + spare]:
            axis.set_visible(False)
        for axis, name in zip(axes, names, strict=False):
            part = table.loc[table["panel"] == name]
            _draw_band(axis, part.loc[part["control"] == "random"], last)
            _draw_line(axis, part.loc[part["control"] == "direction"], last)
            if plain:
                axis.axhline(float(plain[0]), color=BLACK, linewidth=0.8, linestyle=":")
            axis.set_title(name, loc="left")
            axis.set_xticks(*_ticks(places, last))
            if last is not None and places[-1] > last:
                axis.axvline((places[-1] + last) / 2, color=GREY, linewidth=0.6, linestyle=(0, (2, 2)))
            axis.grid(axis="y", color=GREY, alpha=0.25, linewidth=0.5)
        if measure.startswith("share_") or measure == "total_variation":
            axes[0].set_ylim(-0.03, 1.03)
        elif _spans_decades(table):
            axes[0].set_yscale("log")
        for axis in axes[max(0, len(names) - width) : len(names)]:  # also above an empty place
            axis.tick_params(labelbottom=True)
        for axis in axes[width * (rows - 1) : len(names)]:
            axis.set_xlabel(f"layer ({component})")
        if ax is None:
            label = _LABELS.get(measure, measure.replace("share_", "share of generations: ").replace("_", " "))
            figure.supylabel(label, fontsize=9)
            seeds = len(set(table.loc[table["control"] == "random", "seed"].tolist())) if "seed" in table else 0
            note = f"n = {max(table['n'].tolist())} prompts or groups; bars and bands: 95% bootstrap"
            figure.legend(handles=_legend(seeds, bool(plain)), loc="outside lower center", ncols=3, title=note)
    return figure


def _draw_band(axis: "Axes", part: "pd.DataFrame", last: int | None) -> None:
    ends = part.groupby("x").agg(low=("low", "min"), high=("high", "max"))
    style: dict[str, Any] = {"facecolor": ORANGE, "alpha": 0.45, "linewidth": 0}
    single = ends if last is None else ends.loc[ends.index <= last]
    if len(single) > 1:
        axis.fill_between(single.index, single["low"], single["high"], **style)
    for x, low, high in zip(ends.index, ends["low"], ends["high"], strict=True):
        if len(single) <= 1 or (last is not None and x > last):
            half = 0.3 + len(single) / 40
            axis.fill_between([x - half, x + half], [low, low], [high, high], **style)


def _draw_line(axis: "Axes", part: "pd.DataFrame", last: int | None) -> None:
    part = part.sort_values("x")
    single = part if last is None else part.loc[part["x"] <= last]
    axis.plot(single["x"], single["mean"], color=BLUE, marker="o", markersize=3 if len(single) < 16 else 1.5)
    together = part.loc[part.index.difference(single.index)]
    axis.plot(together["x"], together["mean"], color=BLUE, marker="D", linestyle="", markersize=4)
    axis.vlines(part["x"], part["low"], part["high"], color=BLUE, linewidth=1)


def _spans_decades(table: "pd.DataFrame") -> bool:
    drawn = table.loc[table["control"] != "difference", ["low", "high"]].to_numpy(dtype=float)
    return bool(drawn.min() > 0 and drawn.max() > 30 * drawn.min())


def _positions(table: "pd.DataFrame") -> list[int]:
    """Layers, the embedding at -1, and all sites together two places after the last."""
    sites, layers = table["site"].tolist(), table["layer"].tolist()
    single = [EMBED if s == "embed" else int(n) for s, n in zip(sites, layers, strict=True) if s != "all"]
    after = max(single, default=-2) + 2 + len(set(single)) // 12
    found = iter(single)
    return [after if site == "all" else next(found) for site in sites]


def _panels_of(table: "pd.DataFrame") -> list[str]:
    names: list[str] = []
    for kind, strength, unit in zip(table["intervention"], table["strength"], table["unit"], strict=True):
        size = ""
        if kind == "add":
            size = f" {strength:+g} {unit}".replace("-", "\N{MINUS SIGN}")
        elif kind == "clamp":
            size = f", overshoot {strength:g}"
        names.append(_KINDS[kind] + size)
    return names


def _ticks(places: list[int], last: int | None) -> tuple[list[int], list[str]]:
    if last is None:
        return places, ["all"]
    ticks, labels = layer_ticks([x for x in places if x <= last], at_most=5)
    together = [x for x in places if x > last]
    if together and ticks[-1] > last - 1 and last > 12:  # room for the word
        ticks, labels = ticks[:-1], labels[:-1]
    return ticks + together, labels + ["all"] * len(together)


def _legend(seeds: int, plain: bool) -> list[Any]:
    from matplotlib.lines import Line2D
    from matplotlib.patches import Patch

    random = f"{seeds} random directions, moved as far" if seeds else "random directions, moved as far"
    handles: list[Any] = [Line2D([], [], color=BLUE, marker="o", label="direction")]
    handles.append(Patch(facecolor=ORANGE, alpha=0.45, label=random))
    if plain:
        handles.append(Line2D([], [], color=BLACK, linewidth=0.8, linestyle=":", label="untouched model"))
    return handles
