"""The tokens that a direction writes for, read through the logit lens."""

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from interp_unlearn.figures.style import BLACK, BLUE, GREY, VERMILLION, panels, styled
from interp_unlearn.figures.tables import layer_positions, require_columns
from interp_unlearn.figures.token_layout import FONT_SIZE, clipped, drawable

if TYPE_CHECKING:
    import pandas as pd
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

_SIDES = {"promoted": (BLUE, ""), "suppressed": (VERMILLION, "////")}
_MOST_SITES = 3
_MOST_TOKENS = 10
_NAME = 74.0
"""Points that a token's name may take."""


def plot_promoted_tokens(df: "pd.DataFrame", ax: "Axes | Sequence[Axes] | None" = None) -> "Figure":
    """Bars of the ten tokens raised most (left) and lowered most (right), a row of panels a site.

    Of a table with many sites the three deepest are drawn: of earlier ones the lens says little. The dashed line is the
    95% quantile of the largest value that random directions give. Tokens are written only if the table holds them;
    otherwise their ids are.

    Args:
        df: the table of `directions.promoted_tokens`: site, layer, side, rank, token_id, value, null_high; optional
            token.
        ax: two Axes a site, or None for a new figure.

    Returns:
        The figure drawn on.

    Raises:
        ArtifactError: a column is missing.
    """
    columns = ["site", "layer", "side", "rank", "token_id", "value", "null_high"]
    require_columns(df, columns, "plot_promoted_tokens")
    table = df.assign(x=layer_positions(df)).sort_values(["x", "rank"], kind="stable")
    sites = list(dict.fromkeys(table["site"].tolist()))[-_MOST_SITES:]
    table = table.loc[table["site"].isin(sites) & (table["rank"] <= _MOST_TOKENS)]
    n = max(table["rank"].tolist())
    farthest = float(table[["value", "null_high"]].abs().to_numpy().max())

    with styled():
        figure, axes = panels(len(sites), 2, 0.5 + len(sites) * (0.35 + 0.155 * n), ax)
        cells = [(site, side) for site in sites for side in _SIDES]
        for axis, (site, side) in zip(axes, cells, strict=True):
            part = table.loc[(table["site"] == site) & (table["side"] == side)]
            color, hatch = _SIDES[side]
            length, rank = part["value"].abs(), part["rank"]
            axis.barh(rank, length, 0.75, color=color, hatch=hatch, edgecolor="white", linewidth=0)
            axis.axvline(float(part["null_high"].iloc[0]), color=BLACK, linewidth=0.8, linestyle=(0, (3, 2)))
            names = [drawable(str(token).replace(" ", "␣")) for token in part["token"]] if "token" in part else None
            for at, token, value in zip(rank, names or part["token_id"], part["value"], strict=True):
                text = clipped(str(token), _NAME) + f"  {value:.1f}".replace("-", "\N{MINUS SIGN}")
                style: dict[str, Any] = {"ha": "right", "va": "center_baseline", "fontsize": FONT_SIZE}
                axis.text(-0.04 * farthest, at, text, parse_math=False, color=BLACK, **style)
            axis.set_title(f"{site}, {side}", loc="left")
            axis.set_xlim(-0.9 * farthest, 1.05 * farthest)
            axis.set_ylim(n + 0.6, 0.4)
            axis.set_yticks([])
            axis.set_xticks([])
            axis.spines[["left", "bottom"]].set_visible(False)
            axis.axvline(0, color=GREY, linewidth=0.6)
        if ax is None:
            figure.supxlabel("logits (bars: size); dashed: 95% of the largest over random directions", fontsize=8)
    return figure
