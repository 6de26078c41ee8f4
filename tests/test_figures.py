"""Figures draw what their tables say, legibly, and the same bytes each time."""

from collections.abc import Callable
from itertools import combinations
from pathlib import Path

import matplotlib
import numpy as np
import pandas as pd
import pytest
from matplotlib.figure import Figure
from matplotlib.text import Text

from interp_unlearn.errors import ArtifactError, ConfigError
from interp_unlearn.figures import (
    plot_dissociation,
    plot_drift,
    plot_excess,
    plot_probe_auroc,
    plot_relearning,
    save_figure,
)
from interp_unlearn.figures.style import in_order
from interp_unlearn.figures.tables import layer_ticks

GOALS = ("knowledge", "toxicity")
OBJECTIVES = (
    "none",
    "twin",
    "oracle",
    "random_single",
    "random_multi",
    "probe_single",
    "probe_multi",
    "rmu",
    "cosine_rmu",
    "cosine_rmu_meta",
    "distilled",
    "civil_finetuning",
)


def dissociation_table(seeds: int = 3) -> pd.DataFrame:
    """Every objective on both goals, but civil fine-tuning on toxicity alone, as the study writes it."""
    generator = np.random.default_rng(0)
    rows: list[tuple[object, ...]] = []
    for objective in OBJECTIVES:
        for goal in GOALS if objective != "civil_finetuning" else GOALS[1:]:
            shares = generator.dirichlet([1, 1, 1], size=seeds)
            for seed, (clean, target, broken) in enumerate(shares):
                values = {"clean": clean, "target": target, "broken": broken, "efficacy": 1.3 * clean - 0.3}
                values |= {f"target_after_relearning_{k}": target + (1 - target) * k / 80 for k in (10, 20, 60)}
                if objective == "none":  # nothing to relearn
                    values = {k: v for k, v in values.items() if "relearning" not in k}
                rows += [(objective, goal, measure, seed, value) for measure, value in values.items()]
    return pd.DataFrame(rows, columns=["objective", "goal", "measure", "seed", "value"]).sample(frac=1, random_state=0)


def probe_table(layers: int = 8) -> pd.DataFrame:
    auroc = np.linspace(0.7, 0.97, layers + 1)
    noise = np.random.default_rng(0).normal(0.5, 0.03, (2, layers + 1))
    return pd.DataFrame(
        {
            "site": ["embed", *(f"{layer}.resid_post" for layer in range(layers))],
            "layer": [None, *range(layers)],
            "auroc": auroc,
            "auroc_low": auroc - 0.03,
            "auroc_high": auroc + 0.02,
            "auroc_shuffled": noise[0],
            "auroc_random_direction": noise[1],
            "auroc_bag_of_words": 0.74,
            "auroc_mean_difference": auroc - 0.05,
            "n": 1000,
            "n_groups": 500,
        }
    )


def drift_table(layers: int = 8) -> pd.DataFrame:
    generator = np.random.default_rng(0)
    rows = [
        (
            objective,
            goal,
            "embed" if layer < 0 else f"{layer}.resid_post",
            None if layer < 0 else layer,
            corpus,
            value,
            s,
        )
        for objective in OBJECTIVES[2:]
        for goal in GOALS
        for corpus, scale in (("forget", 2.0), ("retain", 0.05))
        for s in range(3)
        for layer in range(-1, layers)
        for value in [0.0 if layer < 2 else scale * float(generator.uniform(0.1, 1))]
    ]
    return pd.DataFrame(rows, columns=["objective", "goal", "site", "layer", "corpus", "relative_displacement", "seed"])


FIGURES: dict[str, tuple[Callable[..., Figure], pd.DataFrame]] = {
    "dissociation": (plot_dissociation, dissociation_table()),
    "probes": (plot_probe_auroc, probe_table()),
    "probes_deep": (plot_probe_auroc, probe_table(48)),
    "drift": (plot_drift, drift_table()),
    "drift_deep": (plot_drift, drift_table(32)),
    "relearning": (plot_relearning, dissociation_table()),
}


@pytest.fixture(params=list(FIGURES))
def figure_and_table(request: pytest.FixtureRequest) -> tuple[Callable[..., Figure], pd.DataFrame]:
    return FIGURES[request.param]


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


def words_of(figure: Figure) -> str:
    return " | ".join(text.get_text() for text in texts_of(figure))


def test_saved_twice_is_the_same_file_without_dates(figure_and_table, tmp_path: Path):
    plot, table = figure_and_table
    before = table.copy()
    first = save_figure(plot(table), tmp_path / "first.pdf")
    second = save_figure(plot(table), tmp_path / "second")
    assert [path.name for path in second] == ["second.pdf", "second.png"]
    assert first[0].read_bytes() == second[0].read_bytes()
    assert first[1].read_bytes() == second[1].read_bytes()
    content = first[0].read_bytes()
    assert b"CreationDate" not in content
    assert b"/CIDFontType2" in content or b"/TrueType" in content  # text stays text: fonttype 42, not type 3 outlines
    assert b"/Type3" not in content
    pd.testing.assert_frame_equal(table, before)


def test_paper_width_font_sizes_and_no_overlapping_text(figure_and_table):
    plot, table = figure_and_table
    figure = plot(table)
    assert figure.get_figwidth() == 5.5
    figure.canvas.draw()
    renderer = figure.canvas.get_renderer()
    boxes = {text: text.get_window_extent(renderer) for text in texts_of(figure)}
    page = figure.bbox
    for text, box in boxes.items():
        assert 8 <= text.get_fontsize() <= 10, text
        assert box.x0 >= page.x0 and box.x1 <= page.x1 and box.y0 >= page.y0 and box.y1 <= page.y1, text
    for (one, a), (other, b) in combinations(boxes.items(), 2):
        width, height = min(a.x1, b.x1) - max(a.x0, b.x0), min(a.y1, b.y1) - max(a.y0, b.y0)
        assert width < 0.5 or height < 0.5, (one, other)


def test_the_callers_matplotlib_settings_are_left_alone(figure_and_table, tmp_path: Path):
    plot, table = figure_and_table
    before = dict(matplotlib.rcParams)
    save_figure(plot(table), tmp_path / "x.pdf")
    assert dict(matplotlib.rcParams) == before


def test_dissociation_bars_are_the_mean_shares():
    table = dissociation_table()
    figure = plot_dissociation(table)
    means = table.groupby(["objective", "goal", "measure"])["value"].mean()
    for axis, goal in zip(figure.axes, GOALS, strict=True):
        bars = [patch for patch in axis.patches if patch.get_facecolor()[3] > 0]
        for row, objective in enumerate(OBJECTIVES):
            here = [bar for bar in bars if abs(bar.get_y() + bar.get_height() / 2 - row) < 0.1]
            if (objective, goal) == ("civil_finetuning", "knowledge"):
                assert here == []
                continue
            expected = [means[objective, goal, share] for share in ("clean", "target", "broken")]
            assert [bar.get_width() for bar in here] == pytest.approx(expected)
            assert [bar.get_x() for bar in here] == pytest.approx([0, expected[0], expected[0] + expected[1]])
            assert len({bar.get_hatch() for bar in here}) == 3
    assert words_of(figure).count("not run") == 1


def test_dissociation_prints_efficacy_with_range_then_with_its_interval():
    table = pd.DataFrame(
        [("rmu", "knowledge", measure, seed, value, 300)
         for seed in range(2)
         for measure, value in (("clean", 0.25), ("target", 0.5), ("broken", 0.25), ("efficacy", -0.5 + seed / 4))],
        columns=["objective", "goal", "measure", "seed", "value", "n"],
    )  # fmt: skip
    words = words_of(plot_dissociation(table))
    assert "\N{MINUS SIGN}0.38 [\N{MINUS SIGN}0.50, \N{MINUS SIGN}0.25]" in words
    assert "range over seeds" in words and "95%" not in words
    assert "Mean over 2 seeds; n = 300 generations a seed" in words
    words = words_of(plot_dissociation(table.assign(low=table["value"] - 0.1, high=table["value"] + 0.1)))
    assert "\N{MINUS SIGN}0.38 [\N{MINUS SIGN}0.60, \N{MINUS SIGN}0.15]" in words
    assert "95% interval" in words


def test_dissociation_takes_an_interval_that_efficacy_alone_has():
    table = dissociation_table()
    efficacy = table["measure"] == "efficacy"
    table = table.assign(low=table["value"].where(efficacy) - 0.1, high=table["value"].where(efficacy) + 0.1)
    words = words_of(plot_dissociation(table))
    assert "95% interval" in words and "range over seeds" not in words


def test_dissociation_refuses_shares_that_do_not_add_up():
    table = dissociation_table()
    with pytest.raises(ArtifactError, match="must be there and sum to 1"):
        plot_dissociation(table[table["measure"] != "broken"])
    with pytest.raises(ArtifactError, match="oracle on knowledge"):
        wrong = (table["objective"] == "oracle") & (table["goal"] == "knowledge") & (table["measure"] == "clean")
        plot_dissociation(table.assign(value=table["value"].where(~wrong, table["value"] + 0.2)))


def test_objectives_stand_in_one_order_and_strangers_last():
    assert in_order(reversed(OBJECTIVES)) == list(OBJECTIVES)
    assert in_order(["my_method", "rmu", "twin", "a_method"]) == ["twin", "rmu", "a_method", "my_method"]
    strangers = dissociation_table().replace({"objective": {"rmu": "my_method", "oracle": "a_method"}})
    assert "my method" in words_of(plot_dissociation(strangers))


def test_probe_figure_draws_auroc_controls_and_embedding_apart():
    table = probe_table()
    axis = plot_probe_auroc(table.sample(frac=1, random_state=1)).axes[0]
    lines = {line.get_label(): line for line in axis.lines}
    assert list(lines["logistic probe"].get_xdata()) == list(range(8))
    assert list(lines["logistic probe"].get_ydata()) == list(table["auroc"][1:])
    assert list(lines["shuffled labels"].get_ydata()) == list(table["auroc_shuffled"][1:])
    hollow = [line for line in axis.lines if line.get_markerfacecolor() == "white"]
    assert (-1, table["auroc"][0]) in [(line.get_xdata()[0], line.get_ydata()[0]) for line in hollow]
    assert "n = 1000 texts in 500 groups" in words_of(axis.figure)


def test_probe_figure_leaves_out_controls_that_were_not_run():
    table = probe_table().drop(columns="auroc_random_direction").assign(auroc_bag_of_words=np.nan)
    words = words_of(plot_probe_auroc(table))
    assert "random direction" not in words and "bag of words" not in words and "shuffled labels" in words


def test_one_axis_of_layers_holds_one_component():
    table = probe_table()
    with pytest.raises(ArtifactError, match="got attn_out, resid_post"):
        plot_probe_auroc(table.assign(site=["embed", "0.attn_out", *table["site"][2:]]))
    drift = drift_table(3)
    with pytest.raises(ArtifactError, match="plot_drift draws one component"):
        plot_drift(drift.assign(site=[f"{i % 3}.{'mlp_out' if i % 2 else 'attn_out'}" for i in range(len(drift))]))


def test_drift_draws_the_mean_over_seeds_on_shared_axes():
    table = drift_table()
    figure = plot_drift(table)
    assert [axis.get_title(loc="left") for axis in figure.axes] == [
        "Knowledge, forget text",
        "Knowledge, retain text",
        "Toxicity, forget text",
        "Toxicity, retain text",
    ]
    assert len({axis.get_ylim() for axis in figure.axes}) == 1
    part = table[(table["goal"] == "toxicity") & (table["corpus"] == "retain") & (table["objective"] == "rmu")]
    expected = part.groupby(part["layer"].fillna(-1))["relative_displacement"].mean()
    line = figure.axes[3].lines[[name for name in OBJECTIVES if name != "none"].index("rmu") - 1]
    assert list(line.get_xdata()) == list(range(-1, 8))
    assert list(line.get_ydata()) == pytest.approx(list(expected))


def test_relearning_starts_from_the_unattacked_share_and_draws_the_twin_black():
    table = dissociation_table()
    figure = plot_relearning(table)
    twin = figure.axes[0].lines[0]
    assert twin.get_color() == "#000000"
    part = table[(table["objective"] == "twin") & (table["goal"] == "knowledge")].groupby("measure")["value"].mean()
    names = ["target", *(f"target_after_relearning_{k}" for k in (10, 20, 60))]
    assert list(twin.get_ydata()) == pytest.approx([part[name] for name in names])
    assert list(np.diff(twin.get_xdata())) == pytest.approx([10, 10, 40])
    assert "original model" not in words_of(figure)  # it was not attacked
    assert list(figure.axes[0].get_xticks()) == [0, 10, 20, 60]


def test_one_seed_without_interval_claims_no_band():
    words = words_of(plot_relearning(dissociation_table(seeds=1)))
    assert "One seed" in words and "range" not in words


def test_relearning_needs_an_attack():
    table = dissociation_table()
    with pytest.raises(ArtifactError, match="run the attack first"):
        plot_relearning(table[~table["measure"].str.contains("relearning")])


def test_missing_columns_and_empty_tables_are_named(figure_and_table):
    plot, table = figure_and_table
    with pytest.raises(ArtifactError, match="needs the columns"):
        plot(table.drop(columns=table.columns[0]))
    with pytest.raises(ArtifactError, match="without rows"):
        plot(table.iloc[:0])


def test_drawing_on_given_axes():
    figure = Figure()
    axes = figure.subplots(1, 2)
    assert plot_dissociation(dissociation_table(), axes) is figure
    assert axes[1].patches and not figure.legends
    with pytest.raises(ConfigError, match="got 1 axes for 1 x 2 panels"):
        plot_relearning(dissociation_table(), axes[0])


def test_layer_ticks_of_deep_models_leave_room_for_the_embedding():
    assert layer_ticks(range(3), at_most=8) == ([0, 1, 2], ["0", "1", "2"])
    assert layer_ticks([-1, 0, 1], at_most=8) == ([-1, 0, 1], ["emb", "0", "1"])
    assert layer_ticks(range(-1, 32), at_most=8)[0] == [-1, *range(4, 32, 4)]


def test_excess_draws_one_attacker_and_says_what_it_counts():
    lines = [
        {"contender": name, "attacker": attacker, "step": step, "mean": mean, "low": mean, "high": mean, "n": 28}
        for attacker, mean in (("relearning", 0.5), ("lora", 0.1))
        for name in ("rmu", "npo", "twin")
        for step in (0, 10, 60)
    ]
    figure = plot_excess(pd.DataFrame(lines).assign(unit="subjects"))
    drawn = [list(line.get_ydata()) for line in figure.axes[0].lines][:2]
    assert drawn == [[0.5, 0.5], [0.5, 0.5]]
    assert "over n = 28 subjects" in figure.legends[0].get_title().get_text()
    without = pd.DataFrame(lines).query("attacker == 'lora'").drop(columns="attacker")
    assert "n = 28 prompts" in plot_excess(without).legends[0].get_title().get_text()


def test_excess_of_many_methods_is_drawn_in_rows_the_least_first():
    lines = [
        {"contender": f"method_{index}", "step": step, "mean": index / 20 + step / 1000, "low": 0, "high": 1, "n": 28}
        for index in reversed(range(17))
        for step in (0, 20, 60, 200)
    ]
    axis = plot_excess(pd.DataFrame(lines)).axes[0]
    assert [label.get_text() for label in axis.get_yticklabels()] == [f"method {index}" for index in range(17)]
    drawn = {line.get_label(): list(line.get_xdata()) for line in axis.lines if "steps" in str(line.get_label())}
    assert list(drawn) == ["20 steps", "60 steps", "200 steps"]
    assert drawn["60 steps"] == pytest.approx([index / 20 + 0.06 for index in range(17)])
    few = plot_excess(pd.DataFrame(lines).query("contender != 'method_3'")).axes[0]
    assert few.get_ylabel() == "target share above the twin's", "sixteen lines can be told apart"
    more_steps = [line | {"step": step} for line in lines for step in (line["step"], 400, 800)]
    assert plot_excess(pd.DataFrame(more_steps)).axes[0].get_xscale() == "log", "no mark is left for a fifth step"
