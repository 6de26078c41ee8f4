"""The figures of directions draw what their tables say, legibly, and the same bytes each time."""

from collections.abc import Callable
from functools import partial
from itertools import combinations
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from matplotlib.figure import Figure
from test_figures import texts_of, words_of

from interp_unlearn.errors import ArtifactError
from interp_unlearn.figures import (
    plot_causal_effects,
    plot_direction_cosines,
    plot_promoted_tokens,
    plot_subspace_rank,
    plot_transfer,
    plot_transfer_by_layer,
    plot_value_vectors,
    save_figure,
)


def sites_of(layers: int) -> list[tuple[str, int | None]]:
    return [("embed", None), *((f"{layer}.resid_post", layer) for layer in range(layers))]


def cosine_table(layers: int = 6) -> pd.DataFrame:
    rng = np.random.default_rng(0)
    rows = []
    for a, (site_a, layer_a) in enumerate(sites_of(layers)):
        for b, (site_b, layer_b) in enumerate(sites_of(layers)):
            cosine = float(np.exp(-abs(a - b) / 2) * (1 if a == b else rng.choice([-1, 1])))
            rows.append((site_a, site_b, layer_a, layer_b, cosine, cosine / 2 + (a == b) / 2, abs(cosine), 300))
    columns = ["site_a", "site_b", "layer_a", "layer_b", "cosine", "whitened_cosine", "score_correlation", "n"]
    return pd.DataFrame(rows, columns=columns).assign(null_std=0.09, null_low=-0.17, null_high=0.17, d=128)


def rank_table(layers: int = 6, shuffled: bool = True) -> pd.DataFrame:
    rows = []
    for site, layer in sites_of(layers):
        squares = np.array([2.0, 0.7, 0.3])
        for component, square in enumerate(squares, start=1):
            rows.append((site, layer, component, np.sqrt(square), square / 3, squares[:component].sum() / 3))
    columns = ["site", "layer", "component", "singular_value", "share", "cumulative_share"]
    band = {"shuffled_rank": 1.3, "shuffled_low": 1.1, "shuffled_high": 1.5}
    band = band if shuffled else dict.fromkeys(band, float("nan"))
    nulls = {"effective_rank": 2.2, "random_rank": 2.9, "random_low": 2.8, "random_high": 2.99, **band}
    return pd.DataFrame(rows, columns=columns).assign(**nulls, n_categories=3, n=400)


def token_table(layers: int = 6) -> pd.DataFrame:
    names = ["the", " $x_1$ dog", " \n", "\u4e2d", " incomprehensibilities", "ing", " b", " c", "d", "e"]
    rows = [
        (site, layer, side, rank, 100 * rank, names[rank - 1], sign * (12.0 - rank), 2.0)
        for site, layer in sites_of(layers)
        for side, sign in (("promoted", 1), ("suppressed", -1))
        for rank in range(1, 11)
    ]
    columns = ["site", "layer", "side", "rank", "token_id", "token", "value", "z"]
    return pd.DataFrame(rows, columns=columns).assign(null_high=6.5)


def value_table(layers: int = 6) -> pd.DataFrame:
    rows = [
        (f"{layer}.resid_post", layer, layer, side, rank, 7 * rank, sign * (0.4 - 0.02 * rank), 1.0)
        for layer in range(layers)
        for side, sign in (("along", 1), ("against", -1))
        for rank in range(1, 9)
    ]
    columns = ["site", "layer", "mlp_layer", "side", "rank", "neuron", "cosine", "norm"]
    return pd.DataFrame(rows, columns=columns).assign(null_high=0.31, n_vectors=384, d=128)


def effect_table(layers: int = 6, largest: float = 0.9) -> pd.DataFrame:
    """Shares and perplexities, of which the untouched model has its own."""
    interventions = [("add", -1.0, "gap"), ("add", 1.0, "gap"), ("clamp", 1.0, "overshoot")]
    interventions += [("clamp", 2.0, "overshoot"), ("project_out", float("nan"), "")]
    rows: list[tuple[object, ...]] = []
    for measure, scale in (("share_target", 1.0), ("perplexity", largest / 0.9)):
        rows.append(("none", float("nan"), "", "", None, measure, "plain", None, 0.9 * scale))
        for intervention in interventions:
            for index, (site, layer) in enumerate([*sites_of(layers)[1:], ("all", None)]):
                value = scale * (0.1 + 0.8 * index / layers)
                rows.append((*intervention, site, layer, measure, "direction", None, value))
                rows += [(*intervention, site, layer, measure, "random", s, 0.02 * (s + 1)) for s in range(2)]
                rows.append((*intervention, site, layer, measure, "difference", None, value - 0.03))
    columns = ["intervention", "strength", "unit", "site", "layer", "measure", "control", "seed", "mean"]
    frame = pd.DataFrame(rows, columns=columns).astype({"layer": "Int64", "seed": "Int64"})
    return frame.assign(low=frame["mean"] * 0.9, high=frame["mean"] * 1.1, n=200)


def transfer_table(layers: int = 6) -> pd.DataFrame:
    names = ["paradetox", "prompts", "comments"]
    rows = [
        (train, test, site, layer, estimator, value, value - 0.02, value + 0.02, "out_of_fold" if own else "other_data")
        for train in names
        for test in names
        for site, layer in sites_of(layers)
        for estimator in ("logistic", "mean_difference")
        for own in [train == test]
        for value in [(0.95 if own else 0.7) - 0.02 * abs((layer or 0) - 3)]
    ]
    columns = ["train", "test", "site", "layer", "estimator", "auroc", "low", "high", "scored"]
    frame = pd.DataFrame(rows, columns=columns)
    missing = (frame["estimator"] == "mean_difference") & (frame["scored"] == "out_of_fold")
    return frame.assign(low=frame["low"].mask(missing), high=frame["high"].mask(missing))


target = partial(plot_causal_effects, measure="share_target")
FIGURES: dict[str, tuple[Callable[..., Figure], pd.DataFrame]] = {
    "cosines": (plot_direction_cosines, cosine_table()),
    "cosines_deep": (plot_direction_cosines, cosine_table(32)),
    "cosines_alone": (
        plot_direction_cosines,
        cosine_table().drop(columns=["whitened_cosine", "score_correlation", "n"]),
    ),
    "rank": (plot_subspace_rank, rank_table()),
    "rank_deep": (plot_subspace_rank, rank_table(32, shuffled=False)),
    "tokens": (plot_promoted_tokens, token_table()),
    "token_ids": (plot_promoted_tokens, token_table().drop(columns="token")),
    "values": (plot_value_vectors, value_table()),
    "values_deep": (plot_value_vectors, value_table(48)),
    "effects": (target, effect_table()),
    "effects_deep": (target, effect_table(32)),
    "effects_of_decades": (partial(plot_causal_effects, measure="perplexity"), effect_table(largest=3000)),
    "transfer": (plot_transfer, transfer_table()),
    "transfer_by_layer": (plot_transfer_by_layer, transfer_table()),
    "transfer_by_layer_deep": (plot_transfer_by_layer, transfer_table(32)),
}


@pytest.fixture(params=list(FIGURES))
def figure_and_table(request: pytest.FixtureRequest) -> tuple[Callable[..., Figure], pd.DataFrame]:
    return FIGURES[request.param]


def test_paper_width_font_sizes_and_no_overlapping_text(figure_and_table):
    plot, table = figure_and_table
    before = table.copy()
    figure = plot(table)
    pd.testing.assert_frame_equal(table, before)
    assert figure.get_figwidth() == 5.5
    figure.canvas.draw()
    renderer = figure.canvas.get_renderer()
    boxes = {text: text.get_window_extent(renderer) for text in texts_of(figure)}
    for text, box in boxes.items():
        assert 8 <= text.get_fontsize() <= 10, text
        page = figure.bbox
        assert box.x0 >= page.x0 and box.x1 <= page.x1 and box.y0 >= page.y0 and box.y1 <= page.y1, text
    for (one, a), (other, b) in combinations(boxes.items(), 2):
        width, height = min(a.x1, b.x1) - max(a.x0, b.x0), min(a.y1, b.y1) - max(a.y0, b.y0)
        assert width < 0.5 or height < 0.5, (one, other)


@pytest.mark.parametrize("name", ["cosines_alone", "values"])  # the rest would take a minute
def test_saved_twice_is_the_same_file(name: str, tmp_path: Path):
    plot, table = FIGURES[name]
    first, second = (save_figure(plot(table), tmp_path / name) for name in ("first", "second"))
    assert first[0].read_bytes() == second[0].read_bytes()
    assert first[1].read_bytes() == second[1].read_bytes()


def test_missing_columns_and_empty_tables_are_named(figure_and_table):
    plot, table = figure_and_table
    with pytest.raises(ArtifactError, match="needs the columns"):
        plot(table.drop(columns=table.columns[0]))
    with pytest.raises(ArtifactError, match=r"without rows|holds no measure"):
        plot(table.iloc[:0])


def test_cosines_are_drawn_and_those_of_chance_dotted():
    table = cosine_table()
    figure = plot_direction_cosines(table.sample(frac=1, random_state=0).sort_values(["site_a", "site_b"]))
    axis = figure.axes[0]
    drawn = axis.images[0].get_array()
    names = list(dict.fromkeys(sorted(table["site_a"])))
    expected = table.pivot(index="site_a", columns="site_b", values="cosine").loc[names, names].to_numpy()
    np.testing.assert_allclose(drawn, expected)
    dots = axis.lines[0].get_xydata()
    assert len(dots) == int((table["cosine"].abs() <= 0.17).sum()) > 0
    assert all(abs(expected[int(y), int(x)]) <= 0.17 for x, y in dots)
    assert not figure.axes[2].lines  # the scores' null is another
    with pytest.raises(ArtifactError, match="draws one component"):
        plot_direction_cosines(table.replace({"site_a": {"0.resid_post": "0.mlp_out"}}))


def test_squared_singular_values_are_stacked_up_to_the_number_of_categories():
    figure = plot_subspace_rank(rank_table())
    left, right = figure.axes
    assert list(left.lines[0].get_ydata()) == [2.2] * 7
    tops = [bar.get_y() + bar.get_height() for bar in right.patches]
    assert max(tops) == pytest.approx(3) and sum(bar.get_height() for bar in right.patches) == pytest.approx(21)
    assert "shuffled" in words_of(figure) and "shuffled" not in words_of(plot_subspace_rank(rank_table(shuffled=False)))


def test_tokens_are_written_only_where_the_table_holds_them():
    words = words_of(plot_promoted_tokens(token_table()))
    assert ("␣$x_1$␣dog" in words and r"\u4e2d" in words) or "\u4e2d" in words
    assert "5.resid_post, promoted" in words and "2.resid_post" not in words  # the deepest three
    ids = words_of(plot_promoted_tokens(token_table().drop(columns="token")))
    assert "dog" not in ids and "200" in ids


def test_value_vectors_are_points_beside_the_band():
    axis = plot_value_vectors(value_table()).axes[0]
    along, against = axis.lines[:2]
    assert max(along.get_ydata()) == pytest.approx(0.38) and min(against.get_ydata()) == pytest.approx(-0.38)
    assert set(along.get_xdata()) == set(range(6))
    with pytest.raises(ArtifactError, match="one direction an MLP"):
        plot_value_vectors(value_table().assign(mlp_layer=0))


def test_effects_stand_beside_the_control_and_all_sites_apart():
    table = effect_table()
    figure = plot_causal_effects(table, "share_target")
    shown = [axis for axis in figure.axes if axis.get_visible()]
    minus = "\N{MINUS SIGN}"
    titles = [axis.get_title(loc="left") for axis in shown]
    assert titles == [f"add {minus}1 gap", "add +1 gap", "clamp, overshoot 1", "clamp, overshoot 2", "project out"]
    for axis in shown:
        single, together = axis.lines[0], axis.lines[1]
        assert list(single.get_xdata()) == list(range(6)) and list(together.get_xdata()) == [7]
        assert list(together.get_ydata()) == pytest.approx([0.9])
        low, high = (end(path.get_extents()) for path in axis.collections[0].get_paths() for end in (y_low, y_high))
        assert (low, high) == pytest.approx((0.018, 0.044))  # from the lowest to the highest end of both random ones
    assert "2 random directions" in words_of(figure) and "n = 200" in words_of(figure)
    with pytest.raises(ArtifactError, match="holds no measure 'kl'; it holds share_target, perplexity"):
        plot_causal_effects(table, "kl")


def y_low(box) -> float:
    return float(box.y0)


def y_high(box) -> float:
    return float(box.y1)


def test_a_measure_over_decades_gets_a_logarithmic_axis():
    assert plot_causal_effects(effect_table(largest=3000), "perplexity").axes[0].get_yscale() == "log"
    assert plot_causal_effects(effect_table(), "share_target").axes[0].get_yscale() == "linear"


def test_transfer_takes_the_site_that_is_best_within_datasets():
    words = words_of(plot_transfer(transfer_table()))
    assert "AUROC at 3.resid_post" in words and "0.95*\n0.93–0.97" in words and "0.70\n0.68–0.72" in words
    assert "0.95*" in words.split(" | ")  # mean differences have no interval out of fold
    assert "AUROC at embed" in words_of(plot_transfer(transfer_table(), site="embed"))
    with pytest.raises(ArtifactError, match="without rows"):
        plot_transfer(transfer_table(), site="9.resid_post")
    figure = plot_transfer_by_layer(transfer_table())
    assert figure.axes[0].get_title(loc="left") == "tested on paradetox"
    lines = [line for line in figure.axes[0].lines if line.get_label() == "prompts"]
    assert list(lines[0].get_xdata()) == list(range(-1, 6))
