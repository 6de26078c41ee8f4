"""How alike the directions of different layers are."""

from collections.abc import Sequence
from typing import TYPE_CHECKING

from interp_unlearn.figures.style import panels, styled
from interp_unlearn.figures.tables import one_component, require_columns

if TYPE_CHECKING:
    import pandas as pd
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure
    from matplotlib.image import AxesImage

_TITLES = {"cosine": "cosine", "whitened_cosine": "whitened cosine", "score_correlation": "correlation of scores"}
_MOST_TICKS = 12


def plot_direction_cosines(df: "pd.DataFrame", ax: "Axes | Sequence[Axes] | None" = None) -> "Figure":
    """Layers against layers: a panel for the raw cosine and, where a store was given, the whitened one and the scores'.

    A dot marks what lies inside the band of random directions. The colours run in lightness, so that the figure reads
    in grey. Caveat: the dots mean little for raw cosines of anisotropic activations; see `compare_directions`.

    Args:
        df: the table of `directions.compare_directions`, of one component of the stream (and the embedding): site_a,
            site_b, layer_a, layer_b, cosine, null_low, null_high, d; optional whitened_cosine, score_correlation, n.
        ax: one Axes a panel, or None for a new figure.

    Returns:
        The figure drawn on.

    Raises:
        ArtifactError: a column is missing, or the table mixes components.
    """
    columns = ["site_a", "site_b", "layer_a", "layer_b", "cosine", "null_low", "null_high", "d"]
    require_columns(df, columns, "plot_direction_cosines")
    component = one_component(df.assign(site=df["site_a"]), "plot_direction_cosines")
    measures = [name for name in _TITLES if name in df.columns]
    sites = list(dict.fromkeys(df["site_a"].tolist()))
    low, high = float(df["null_low"].iloc[0]), float(df["null_high"].iloc[0])
    names = ["emb" if site == "embed" else str(site).partition(".")[0] for site in sites]
    ticks = range(0, len(sites), -(-len(sites) * len(measures) // _MOST_TICKS))

    with styled():
        figure, axes = panels(1, len(measures), 3.4 if len(measures) == 1 else 0.95 + 4.1 / len(measures), ax)
        images: list[AxesImage] = []
        for axis, measure in zip(axes, measures, strict=True):
            table = df.pivot(index="site_a", columns="site_b", values=measure).loc[sites, sites].to_numpy(dtype=float)
            images.append(axis.imshow(table, vmin=-1, vmax=1, cmap="cividis", interpolation="nearest"))
            if measure != "score_correlation":  # whose null is another
                inside = [(j, i) for i, row in enumerate(table) for j, v in enumerate(row) if low <= v <= high]
                axis.plot(*zip(*inside, strict=True) if inside else ([], []), "w.", markersize=3, markeredgewidth=0)
            axis.set_title(_TITLES[measure], loc="left")
            axis.set_xticks(ticks, [names[tick] for tick in ticks])
            axis.set_yticks(ticks, [names[tick] for tick in ticks])
            axis.set_xlabel(f"layer ({component})" if len(measures) == 1 else "layer")
            axis.tick_params(length=2)
        axes[0].set_ylabel("layer" if len(measures) == 1 else f"layer ({component})")
        if ax is None:
            bar = figure.colorbar(
                images[0], ax=axes, fraction=0.05, shrink=1 if len(axes) == 1 else 0.7, aspect=14, ticks=[-1, 0, 1]
            )
            bar.ax.set_yticklabels(["\N{MINUS SIGN}1", "0", "1"])
            note = f"dots: within the 95% band of random directions, ±{high:.2f} at d = {df['d'].iloc[0]}"
            note += f"; n = {df['n'].iloc[0]} texts" if "n" in df.columns else ""
            figure.supxlabel(note, fontsize=8)
    return figure
