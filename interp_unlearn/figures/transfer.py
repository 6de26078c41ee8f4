"""Do probes of one dataset read another."""

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from interp_unlearn.figures.style import BLACK, BLUE, GREEN, GREY, ORANGE, PURPLE, VERMILLION, panels, styled
from interp_unlearn.figures.tables import layer_positions, layer_ticks, one_component, require_columns

if TYPE_CHECKING:
    import pandas as pd
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure
    from matplotlib.image import AxesImage

_TITLES = {"logistic": "logistic probe", "mean_difference": "mean difference"}
_LINES = ((BLUE, "o", "-"), (VERMILLION, "s", "--"), (GREEN, "^", "-."), (PURPLE, "d", ":"), (ORANGE, "v", "-"))
_COLUMNS = ["train", "test", "site", "layer", "estimator", "auroc", "low", "high", "scored"]


def plot_transfer(df: "pd.DataFrame", ax: "Axes | Sequence[Axes] | None" = None, site: str | None = None) -> "Figure":
    """Train (rows) against test (columns) at one site: AUROC with its 95% interval, a panel an estimator.

    Caveat: without ``site`` the site is the one of the highest mean AUROC within datasets (or over all cells, where no
    store is a probe's own), which says nothing of transfer but flatters the diagonal. A star marks cells scored out of
    fold.

    Args:
        df: the table of `directions.transfer`: train, test, site, layer, estimator, auroc, low, high, scored.
        ax: one Axes an estimator, or None for a new figure.
        site: which site.

    Returns:
        The figure drawn on.

    Raises:
        ArtifactError: a column is missing, or the table holds nothing at the site.
    """
    require_columns(df, _COLUMNS, "plot_transfer")
    chosen = site or _best_site(df)
    table = df.loc[df["site"] == chosen]
    require_columns(table, _COLUMNS, f"plot_transfer at {chosen}")
    estimators = [name for name in _TITLES if name in set(table["estimator"])]
    trains, tests = (list(dict.fromkeys(table[name].tolist())) for name in ("train", "test"))

    with styled():
        figure, axes = panels(1, len(estimators), 1.1 + 0.52 * len(trains), ax)
        images: list[AxesImage] = []
        for axis, estimator in zip(axes, estimators, strict=True):
            part = table.loc[table["estimator"] == estimator]
            values = part.pivot(index="train", columns="test", values="auroc").reindex(index=trains, columns=tests)
            images.append(axis.imshow(values.to_numpy(dtype=float), vmin=0.5, vmax=1, cmap="cividis", aspect="auto"))
            cells = [part[name].tolist() for name in ("train", "test", "auroc", "low", "high", "scored")]
            for train, test, value, low, high, scored in zip(*cells, strict=True):
                text = f"{value:.2f}" + ("*" if scored == "out_of_fold" else "")
                text += f"\n{low:.2f}–{high:.2f}" if low == low else ""
                style: dict[str, Any] = {"ha": "center", "va": "center", "fontsize": 8}
                ink = BLACK if value > 0.75 else "white"
                axis.text(tests.index(test), trains.index(train), text, color=ink, **style)
            axis.set_title(_TITLES[estimator], loc="left")
            axis.set_xticks(range(len(tests)), tests)
            axis.set_yticks(range(len(trains)), trains)
            axis.set_xlabel("tested on")
            axis.tick_params(length=0)
        axes[0].set_ylabel("fitted on")
        if ax is None:
            bar = figure.colorbar(images[0], ax=axes, fraction=0.05, ticks=[0.5, 0.75, 1])
            bar.ax.set_yticklabels(["≤ 0.5", "0.75", "1"])
            star = "; *: out of fold" if "out_of_fold" in table["scored"].tolist() else ""
            figure.supxlabel(f"AUROC at {chosen}; below: 95% bootstrap over groups{star}", fontsize=8)
    return figure


def plot_transfer_by_layer(df: "pd.DataFrame", ax: "Axes | Sequence[Axes] | None" = None) -> "Figure":
    """AUROC of the logistic probes by layer: a panel a test set, a line for each set that probes were fitted on.

    Args:
        df: the table of `directions.transfer`, of one component of the stream (and the embedding).
        ax: one Axes a test set, or None for a new figure, which also gets the legend.

    Returns:
        The figure drawn on.

    Raises:
        ArtifactError: a column is missing, or the table mixes components.
    """
    require_columns(df, _COLUMNS, "plot_transfer_by_layer")
    component = one_component(df, "plot_transfer_by_layer")
    table = df.loc[df["estimator"] == "logistic"]
    table = table.assign(x=layer_positions(table)).sort_values("x")
    trains, tests = (list(dict.fromkeys(df[name].tolist())) for name in ("train", "test"))

    with styled():
        width = min(3, len(tests))
        rows = -(-len(tests) // width)
        figure, axes = panels(rows, width, 0.9 + 1.6 * rows, ax) if ax is None else panels(1, len(tests), 0, ax)
        for axis in axes[len(tests) :]:
            axis.set_visible(False)
        for axis, test in zip(axes, tests, strict=False):
            axis.axhline(0.5, color=GREY, linewidth=0.6)
            for index, train in enumerate(trains):
                part = table[(table["test"] == test) & (table["train"] == train)]
                color, marker, line = _LINES[index % len(_LINES)]
                axis.fill_between(part["x"], part["low"], part["high"], color=color, alpha=0.2, linewidth=0)
                some = max(1, len(part) // 8)
                axis.plot(
                    part["x"], part["auroc"], color=color, marker=marker, markevery=some, linestyle=line, label=train
                )
            axis.set_title(f"tested on {test}", loc="left")
            axis.set_xticks(*layer_ticks(table["x"].tolist(), at_most=8))
            axis.set_xlabel(f"layer ({component})")
        axes[0].set_ylabel("AUROC")
        if ax is None:
            handles, labels = axes[0].get_legend_handles_labels()
            note = "fitted on; bands: 95% bootstrap over groups"
            figure.legend(handles, labels, loc="outside lower center", ncols=4, title=note)
    return figure


def _best_site(df: "pd.DataFrame") -> str:
    table = df.loc[df["estimator"] == "logistic"]
    own = table.loc[table["scored"] == "out_of_fold"]
    values = (table if own.empty else own).groupby("site", sort=False)["auroc"].mean()
    return max(zip(values.tolist(), values.index.astype(str).tolist(), strict=True), key=lambda pair: pair[0])[1]
