"""The figures of drift draw what their tables say, legibly, and refuse tables that are not theirs."""

from collections.abc import Callable
from itertools import combinations
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
from matplotlib.figure import Figure
from matplotlib.text import Text

from interp_unlearn.errors import ArtifactError, ConfigError
from interp_unlearn.figures import (
    plot_cka,
    plot_displacement_spectrum,
    plot_lens,
    plot_principal_angles,
    plot_retrained_probes,
    plot_unlearning_depth,
    plot_weight_delta,
    save_figure,
)

RNG = np.random.default_rng(0)
CORPORA = ("forget", "retain")


def places(layers: int) -> list[dict[str, Any]]:
    return [{"site": "embed", "layer": None}, *({"site": f"{i}.resid_post", "layer": i} for i in range(layers))]


def table(rows: list[dict[str, Any]]) -> pd.DataFrame:
    return pd.DataFrame(rows).astype({"layer": "Int64"}).sample(frac=1, random_state=0)


def spectrum(layers: int = 6) -> tuple[pd.DataFrame, pd.DataFrame]:
    rows: list[dict[str, Any]] = []
    parts: list[dict[str, Any]] = []
    for corpus in CORPORA:
        for place in places(layers):
            moved = place["layer"] is None or place["layer"] > 0
            shares = np.sort(RNG.dirichlet(np.ones(8)))[::-1] * 0.9 if moved else [np.nan] * 8
            ranks = {"effective_rank": 7.0, "participation_ratio": 5.0} if moved else {}
            null = {"null_share_high": 0.02, "null_effective_rank_low": 110.0, "n_tokens": 500}
            rows.append(place | {"corpus": corpus} | ranks | null)
            parts += [place | {"corpus": corpus, "component": i + 1, "share": s} for i, s in enumerate(shares)]
    return table(rows), table(parts)


def cka(layers: int = 6) -> pd.DataFrame:
    band = {"null_low": -0.02, "null_high": 0.03, "n_tokens": 2048}
    values = [{"cka": 0.9 - 0.01 * i, "cka_standardised": 0.8} for i in range(layers + 1)]
    return table([p | v | band | {"corpus": c} for c in CORPORA for p, v in zip(places(layers), values, strict=True)])


def angles(layers: int = 6) -> pd.DataFrame:
    rows: list[dict[str, Any]] = []
    pairs = [("probe", "displacement", 1), ("probe", "weight delta", 1), ("displacement", "weight delta", 4)]
    for first, second, k in pairs:
        for place in places(layers):
            for angle in range(1, k + 1):
                band = {"null_low": 70.0 + angle, "null_high": 80.0 + angle, "d": 128, "k_first": k, "k_second": 4}
                rows.append(place | {"first": first, "second": second, "angle": angle, "degrees": 10.0 * angle} | band)
    return table(rows)


def lens(layers: int = 6) -> pd.DataFrame:
    rows: list[dict[str, Any]] = []
    for name in ("logit", "tuned"):
        for model, slope in (("original", 0.5), ("unlearned", 0.1), ("twin", 0.05)):
            for index, place in enumerate(places(layers)):
                value = -20.0 if place["layer"] is None else -3 + slope * index
                ends = {"log_probability": value, "low": value - 0.1, "high": value + 0.1, "n": 200}
                rows.append(place | {"lens": name, "model": model} | ends)
    return table(rows)


def delta(layers: int = 6) -> pd.DataFrame:
    rows: list[dict[str, Any]] = [
        {"tensor": f"{i}.{role}", "layer": i, "role": role, "relative_change": 0.01 * i + 0.001 * j}
        | {"effective_rank": 2.0 + j, "full_rank": 32}
        for i in range(layers)
        for j, role in enumerate(("attn.q", "attn.k", "attn.v", "attn.o", "mlp.gate", "mlp.up", "mlp.down"))
    ]
    rows.append({"tensor": "norm", "layer": 0, "role": None, "relative_change": 9.0})
    return table(rows)


def depth(layers: int = 6) -> tuple[pd.DataFrame, pd.DataFrame]:
    rows = [
        place
        | {"drop_never_knew": 1.0 + place["layer"], "drop_unlearned": 0.5, "encoding": 0.8}
        | {"erasure": 0.4 if place["layer"] else np.nan}
        for place in places(layers)[1:]
    ]
    score = pd.DataFrame([{"score": 0.42, "low": 0.35, "high": 0.5, "n": 180, "reason": None}])
    return table(rows), score


def retrained(layers: int = 6) -> pd.DataFrame:
    rows: list[dict[str, Any]] = []
    kinds = [("original", "original"), ("changed", "original"), ("changed", "retrained"), ("never_knew", "retrained")]
    for number, (model, probe) in enumerate(kinds):
        for place in places(layers):
            value = 0.95 - 0.05 * number
            known = {} if (model, probe) == ("changed", "original") else {"low": value - 0.02, "high": value + 0.02}
            control = {"auroc_shuffled": 0.5} if known else {}
            values = {"auroc": value, "n": 400, "chosen": place["layer"] == 3}
            rows.append(place | {"model": model, "probe": probe} | values | known | control)
    return table(rows)


Tables = tuple[pd.DataFrame, ...]
FIGURES: dict[str, tuple[Callable[..., Figure], Tables]] = {
    "spectrum": (plot_displacement_spectrum, spectrum()),
    "cka": (plot_cka, (cka(),)),
    "angles": (plot_principal_angles, (angles(),)),
    "lens": (plot_lens, (lens(),)),
    "weight_delta": (plot_weight_delta, (delta(),)),
    "depth": (plot_unlearning_depth, depth()),
    "retrained": (plot_retrained_probes, (retrained(),)),
}
DEEP: dict[str, tuple[Callable[..., Figure], Tables]] = {
    "spectrum": (plot_displacement_spectrum, spectrum(32)),
    "angles": (plot_principal_angles, (angles(32),)),
    "lens": (plot_lens, (lens(32),)),
    "weight_delta": (plot_weight_delta, (delta(32),)),
    "depth": (plot_unlearning_depth, depth(32)),
}


def texts_of(figure: Figure) -> list[Text]:
    outside = {  # matplotlib keeps labels for ticks beyond the limits, and does not draw them
        label
        for axes in figure.axes
        for axis, place in ((axes.xaxis, 0), (axes.yaxis, 1))
        for label in axis.get_ticklabels()
        if not min(axis.get_view_interval()) <= label.get_position()[place] <= max(axis.get_view_interval())
    }
    texts = [text for text in figure.findobj(Text) if text.get_visible() and text.get_text().strip()]
    return [text for text in texts if text not in outside]


def words_of(figure: Any) -> str:
    return " | ".join(text.get_text() for text in texts_of(figure))


def lines_of(axis: Any) -> dict[str, tuple[list[float], list[float]]]:
    return {line.get_label(): (list(line.get_xdata()), list(line.get_ydata())) for line in axis.lines}


@pytest.mark.parametrize("case", [*FIGURES.values(), *DEEP.values()], ids=[*FIGURES, *(f"{n}_deep" for n in DEEP)])
def test_paper_width_font_sizes_and_no_overlapping_text(case: tuple[Callable[..., Figure], Tables]) -> None:
    plot, tables = case
    before = [frame.copy() for frame in tables]
    figure = plot(*tables)
    assert figure.get_figwidth() == 5.5
    figure.canvas.draw()
    renderer = figure.canvas.get_renderer()  # pyright: ignore[reportAttributeAccessIssue]
    boxes = {text: text.get_window_extent(renderer) for text in texts_of(figure)}
    page = figure.bbox
    for text, box in boxes.items():
        assert 8 <= float(text.get_fontsize()) <= 10 or "$" in text.get_text() or "^" in text.get_text(), text
        assert box.x0 >= page.x0 and box.x1 <= page.x1 and box.y0 >= page.y0 and box.y1 <= page.y1, text
    for (one, a), (other, b) in combinations(boxes.items(), 2):
        width, height = min(a.x1, b.x1) - max(a.x0, b.x0), min(a.y1, b.y1) - max(a.y0, b.y0)
        assert width < 0.5 or height < 0.5, (one, other)
    for frame, copy in zip(tables, before, strict=True):
        pd.testing.assert_frame_equal(frame, copy)


@pytest.mark.parametrize("case", FIGURES.values(), ids=FIGURES)
def test_wrong_tables_are_refused(case: tuple[Callable[..., Figure], Tables], tmp_path: Path) -> None:
    plot, tables = case
    for index, frame in enumerate(tables):

        def wrong(other: pd.DataFrame, index: int = index) -> list[pd.DataFrame]:
            return [*tables[:index], other, *tables[index + 1 :]]

        with pytest.raises(ArtifactError, match=f"{plot.__name__} needs the columns"):
            plot(*wrong(frame.drop(columns=frame.columns[-1])))
        with pytest.raises(ArtifactError, match="without rows"):
            plot(*wrong(frame.iloc[:0]))
    if "site" in tables[0] and plot is not plot_unlearning_depth:
        mixed = tables[0].assign(site=[f"{i % 3}.{'mlp_out' if i % 2 else 'z'}" for i in range(len(tables[0]))])
        with pytest.raises(ArtifactError, match="draws one component"):
            plot(mixed, *tables[1:])
    axes = Figure().subplots(1, 5)
    with pytest.raises(ConfigError, match="got 5 axes"):
        plot(*tables, ax=axes)


def test_the_same_file_twice(tmp_path: Path) -> None:
    for name, (plot, tables) in list(FIGURES.items())[:2]:
        first, second = (save_figure(plot(*tables), tmp_path / f"{name}{turn}")[0].read_bytes() for turn in range(2))
        assert first == second and b"/Type3" not in first


def test_the_spectrum_stacks_the_shares_and_counts_directions() -> None:
    df, components = spectrum()
    left, right = plot_displacement_spectrum(df, components).axes[:2]
    own: Any = components[components["corpus"] == "forget"].set_index(["site", "component"])["share"].sort_index()
    bars: list[Any] = list(left.patches)
    at_three = {bar.get_y(): bar for bar in bars if abs(bar.get_x() + bar.get_width() / 2 - 3) < 0.01}
    heights = [at_three[y].get_height() for y in sorted(at_three)]
    shares = [float(own["3.resid_post", i]) for i in range(1, 9)]
    assert [h for h in heights if h > 0] == pytest.approx([shares[0], sum(shares[1:4]), sum(shares[4:])])
    assert len({bar.get_hatch() for bar in at_three.values()}) == len(heights) == 3
    x, y = lines_of(right)["participation ratio"]
    assert x == list(range(-1, 6)) and np.isnan(y[1]) and y[2] == 5.0, "nothing moved at layer 0"
    assert "forget text, n = 500 tokens" in words_of(left.figure)


def test_cka_and_angles_stand_beside_their_nulls() -> None:
    figure = plot_cka(cka())
    x, y = lines_of(figure.axes[0])["debiased CKA"]
    assert x == list(range(-1, 6)) and y == pytest.approx([0.9 - 0.01 * i for i in range(7)])
    assert "n = 2048 tokens" in words_of(figure) and "null: permuted tokens, 95%" in words_of(figure)
    band: Any = figure.axes[0].collections[0].get_paths()[0].vertices
    assert (band[:, 1].min(), band[:, 1].max()) == pytest.approx((-0.02, 0.03))
    several, one, _ = plot_principal_angles(angles()).axes
    assert set(lines_of(one)) == {"smallest angle"} and len(one.collections) == 1
    found = lines_of(several)
    assert found["smallest angle"][1] == [10.0] * 7 and found["largest angle"][1] == [40.0] * 7
    assert several.get_title(loc="left") == "displacement\nand weight delta\nranks 4, 4 in 128"


def test_lenses_have_a_panel_each_and_models_a_line() -> None:
    figure = plot_lens(lens())
    assert [axis.get_title(loc="left") for axis in figure.axes] == ["logit lens", "tuned lens of the original"]
    found = lines_of(figure.axes[0])
    assert found["original"][1] == pytest.approx([-20, *(-3 + 0.5 * i for i in range(1, 7))])
    assert "Mean over n = 200 prompts; band: 95% bootstrap" in words_of(figure)
    assert "twin" not in words_of(plot_lens(lens().query("model != 'twin'")))


def test_weights_by_role_leave_out_what_is_no_matrix() -> None:
    figure = plot_weight_delta(delta())
    found = lines_of(figure.axes[0])
    assert found["mlp.down"] == (list(range(6)), pytest.approx([0.01 * i + 0.006 for i in range(6)]))
    assert figure.axes[0].get_ylim()[1] < 1, "the norm is not drawn"
    assert "n = 42 matrices of blocks, of 43 changed tensors" in words_of(figure)
    with pytest.raises(ArtifactError, match="of 1 changed tensors none"):
        plot_weight_delta(delta().query("tensor == 'norm'"))


def test_depth_prints_its_score_or_why_there_is_none() -> None:
    layers, score = depth()
    figure = plot_unlearning_depth(layers, score)
    assert "Unlearning depth 0.42 [0.35, 0.50], 95% bootstrap; n = 180 texts" in words_of(figure)
    assert lines_of(figure.axes[0])["stream of the unlearned model"][1] == [0.5] * 6
    bars: list[Any] = list(figure.axes[1].patches)
    assert [bar.get_height() for bar in bars] == [0.8] * 6
    assert "No depth" in words_of(plot_unlearning_depth(layers, score.assign(score=np.nan)))


def test_probes_before_and_after_with_the_floor_and_the_layer() -> None:
    axis = plot_retrained_probes(retrained()).axes[0]
    found = lines_of(axis)
    assert found["original model"][1] == pytest.approx([0.95] * 7)
    assert found["unlearned, trained again"][1] == pytest.approx([0.85] * 7)
    assert found["twin (never learned), trained again"][1] == pytest.approx([0.8] * 7)
    lines: list[Any] = list(axis.lines)
    assert [3, 3] in [list(line.get_xdata()) for line in lines], "the layer chosen on the original"
    assert "n = 400 texts" in words_of(axis.figure)
