"""A probe's scores over the tokens of texts: each token in a box of its score's colour, or under a column of layers."""

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from interp_unlearn.errors import ArtifactError, ConfigError
from interp_unlearn.figures.style import BLACK, BLUE, GREY, TEXT_WIDTH, VERMILLION, styled
from interp_unlearn.figures.tables import layer_positions, layer_ticks, one_component, require_columns
from interp_unlearn.figures.token_layout import FONT_SIZE, Box, clipped, drawable, lay_out

if TYPE_CHECKING:
    import pandas as pd
    from matplotlib.axes import Axes
    from matplotlib.collections import PatchCollection
    from matplotlib.figure import Figure

# All lengths are in points, counted from the upper left corner of the page.
_PAGE = 72 * TEXT_WIDTH
_MARGIN = 6.0
_ROW = 12.5
"""Height of a line of text, and of a cell with a token in it."""
_BASELINE = 9.0
"""Of a line of text, below its top."""
_HEADING = 14.0
"""Of a text: its title and what is below."""
_LEADING = 3.5
"""Between the lines of a text."""
_BETWEEN_TEXTS = 6.0
_COLUMN = 64.0
"""Height of a column of layers."""
_AXIS = 34.0
"""Left of the columns, for the numbers of the layers."""
_KEY = 30.0
"""Height of the colour bar with its numbers."""


@dataclass(frozen=True)
class _Text:
    """A text to draw: its heading, its boxes, and their scores by layer, the first layer first."""

    title: str
    boxes: list[Box]
    scores: list[list[float]]

    @property
    def n_lines(self) -> int:
        return self.boxes[-1].line + 1


def draw_token_heatmap(df: "pd.DataFrame", limit: float | None = None) -> "Figure":
    """Texts below each other, coloured by the score of each token; a gap between boxes is a space in the text.

    Of one site each token stands in its own box. Of several it stands under a column of cells, the first layer lowest.
    Line breaks and characters without a glyph are written as escapes (``\\n``), spaces that no gap shows as ``␣``. The
    figure is as wide as a page and as high as the texts need.

    Caveat: one scale holds for the whole figure, and the stream grows with depth, so that distances in late layers are
    larger. What a score of a single token means, `probes.score_tokens` says.

    Args:
        df: the table of `probes.score_tokens`, of one component of the stream (and the embedding): row, place, token,
            site, layer (null for the embedding), score (L2 distance, signed); optional title, the heading of a text.
            Texts come in the order of the table.
        limit: score of the strongest colour, in the unit of the scores; None for the largest there is.

    Returns:
        The figure.

    Raises:
        ArtifactError: a column is missing, the table is empty or mixes components, or a token has no score at a site.
        ConfigError: the limit is not above 0.
    """
    require_columns(df, ["row", "place", "token", "site", "layer", "score"], "draw_token_heatmap")
    component = one_component(df, "draw_token_heatmap")
    _require_scores(df)
    if limit is not None and not limit > 0:
        raise ConfigError(f"limit: expected a score above 0, got {limit}")
    largest = float(df["score"].abs().to_numpy().max())
    strongest = limit or largest or 1.0
    layers = sorted({*layer_positions(df)})
    place = component if len(layers) > 1 else str(df["site"].iloc[0])

    with styled():
        left = _MARGIN + (_AXIS if len(layers) > 1 else 0)
        texts = _texts(df, _PAGE - _MARGIN - left)
        cell = _ROW if len(layers) == 1 else min(_ROW, _COLUMN / len(layers))
        line_height = len(layers) * cell + (_ROW if len(layers) > 1 else 0) + _LEADING
        heights = [_HEADING + text.n_lines * line_height + _BETWEEN_TEXTS for text in texts]
        figure, axis = _page(_MARGIN + sum(heights) + _KEY)
        cells: list[tuple[float, float, float, float]] = []
        scores: list[float] = []
        y = _MARGIN
        for text, height in zip(texts, heights, strict=True):
            _write(axis, _MARGIN, y, text.title, color=GREY)
            tops = [y + _HEADING + line * line_height for line in range(text.n_lines)]
            for box, column in zip(text.boxes, text.scores, strict=True):
                x, top = left + box.x, tops[box.line]
                for level, score in enumerate(reversed(column)):
                    cells.append((x, top + level * cell, box.width, cell))
                    scores.append(score)
                color = _ink(column[0], strongest) if len(layers) == 1 else BLACK
                under = top if len(layers) == 1 else top + len(layers) * cell
                _write(axis, x + box.width / 2, under, box.text, color=color, ha="center")
            if len(layers) > 1:
                _number_layers(axis, tops, layers, cell)
            y += height
        drawn = _draw_cells(axis, cells, scores, strongest)
        _draw_key(figure, drawn, f"signed distance from the probe's border at {place}", strongest, largest)
    return figure


def _require_scores(df: "pd.DataFrame") -> None:
    keys = ["row", "place", "site"]
    n_expected = len(df[["row", "place"]].drop_duplicates()) * df["site"].nunique()
    if df["score"].isna().to_numpy().any() or df.duplicated(keys).to_numpy().any() or len(df) != n_expected:
        raise ArtifactError(
            f"draw_token_heatmap needs one score for each token and site, {n_expected} in all; got {len(df)} lines "
            f"with {int(df['score'].notna().to_numpy().sum())} scores; take the table as score_tokens makes it"
        )


def _texts(df: "pd.DataFrame", width: float) -> list[_Text]:
    texts: list[_Text] = []
    for row, part in df.assign(layer=layer_positions(df)).groupby("row", sort=False):
        scores = part.pivot(index="place", columns="layer", values="score")
        tokens = part.drop_duplicates("place").sort_values("place")["token"].tolist()
        title = str(part["title"].iloc[0]) if "title" in part else f"text {row}"
        title = clipped(drawable(title), _PAGE - 3 * _MARGIN)
        texts.append(_Text(title, lay_out(tokens, width), scores.to_numpy(dtype=float).tolist()))
    return texts


def _ink(score: float, limit: float) -> str:
    """Black, which is read more easily everywhere but on the darkest blue."""
    return "white" if score < -0.9 * limit else BLACK


def _draw_cells(
    axis: "Axes", cells: list[tuple[float, float, float, float]], scores: list[float], limit: float
) -> "PatchCollection":
    from matplotlib.collections import PatchCollection
    from matplotlib.colors import LinearSegmentedColormap, Normalize
    from matplotlib.patches import Rectangle

    colors = LinearSegmentedColormap.from_list("score", [BLUE, "white", VERMILLION])
    patches = [Rectangle((x, y), width, height) for x, y, width, height in cells]
    # With edges a token of score 0 is a box too.
    drawn = PatchCollection(patches, cmap=colors, norm=Normalize(-limit, limit), edgecolor="#BBBBBB", linewidth=0.4)
    drawn.set_array(scores)
    axis.add_collection(drawn, autolim=False)
    return drawn


def _page(height: float) -> "tuple[Figure, Axes]":
    """A figure of text width and axes over all of it, in points from its upper left corner."""
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    figure = Figure(figsize=(TEXT_WIDTH, height / 72))
    FigureCanvasAgg(figure)
    axis = figure.add_axes((0, 0, 1, 1))
    axis.set(xlim=(0, _PAGE), ylim=(height, 0))
    axis.set_axis_off()
    return figure, axis


def _write(axis: "Axes", x: float, top: float, text: str, **options: Any) -> None:
    """A text as it is: a dollar sign in it starts no formula."""
    axis.text(x, top + _BASELINE, text, fontsize=FONT_SIZE, parse_math=False, usetex=False, **options)


def _number_layers(axis: "Axes", tops: list[float], layers: list[int], cell: float) -> None:
    """The numbers of the layers left of each line's columns."""
    height = len(layers) * cell
    numbers = dict(zip(*layer_ticks(layers, at_most=int(height / 10)), strict=True))
    for top in tops:
        for level, layer in enumerate(reversed(layers)):
            if layer in numbers:
                y = top + (level + 0.5) * cell
                axis.text(_MARGIN + _AXIS - 3, y, numbers[layer], fontsize=FONT_SIZE, ha="right", va="center_baseline")
        middle = top + height / 2
        axis.text(_MARGIN + 5, middle, "layer", fontsize=FONT_SIZE, rotation=90, ha="center", va="center")


def _draw_key(figure: "Figure", drawn: "PatchCollection", label: str, limit: float, largest: float) -> None:
    """The colour bar in the lower left corner, and beside it what it shows."""
    height, left, width = figure.get_figheight() * 72, 5 * _MARGIN, 112.0
    bar = figure.add_axes((left / _PAGE, 17 / height, width / _PAGE, 7 / height))
    key = figure.colorbar(drawn, cax=bar, orientation="horizontal", extend="both" if largest > limit else "neither")
    # Three numbers always fit; matplotlib's own may come with a power of ten apart from them.
    key.set_ticks([-limit, 0, limit], labels=[f"{v:.3g}".replace("-", "\N{MINUS SIGN}") for v in (-limit, 0, limit)])
    key.ax.tick_params(width=0.6, length=2, pad=2)
    page, top = figure.axes[0], height - _KEY
    _write(page, left + width + 24, top + 2, label)
    _write(page, left + width + 24, top + 13, "(L2, in the residual stream); above 0: side of class 1")
