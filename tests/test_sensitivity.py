"""The factorial under other settings: which settings a variation has, and what is told of planted results."""

import importlib
from collections.abc import Callable, Sequence
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

import pytest
from study_tables import judged, planted

import interp_unlearn.study.stage as stage_module
from interp_unlearn.artifacts import read_parquet, write_parquet
from interp_unlearn.errors import ArtifactError, ConfigError
from interp_unlearn.figures import plot_sensitivity
from interp_unlearn.organism.sets import GOALS, Example, Goal, GoalSets
from interp_unlearn.study import Cell, StudyConfig
from interp_unlearn.study.plan import BASELINES, FACTORIAL
from interp_unlearn.study.sensitivity import VARIATIONS, SensitivityConfig, sensitivity_text, vary_settings

module = importlib.import_module("interp_unlearn.study.sensitivity")
HOLDS = planted(toxicity=(0.9, 0.3), knowledge=(0.2, 0.7))
FAILS = planted(toxicity=(0.9, 0.3), knowledge=(0.5, 0.5))


STUDY = StudyConfig(seeds=(0, 1), steps=40, native=False)


def test_variations_are_relative_to_the_study() -> None:
    studies = SensitivityConfig(STUDY).studies()
    changed = {name: {k: v for k, v in asdict(s).items() if v != asdict(STUDY)[k]} for name, s in studies.items()}
    assert changed["half of the steps"] == {"steps": 20} and changed["four times the steps"] == {"steps": 160}
    assert changed["as in the study"] == {} and changed["half of the forget set"] == {"forget_share": 0.5}
    assert all(len(change) == 1 for name, change in changed.items() if name != "as in the study")


@pytest.fixture
def finished(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A run in whose cells the crossover holds, but not where attention alone is trained."""

    def cell(cell: Cell, config: StudyConfig, out: Path) -> None:
        shares = (FAILS if config.trained_roles == ("attn",) else HOLDS)[cell.objective, cell.goal]
        folder = out / "cells" / cell.name
        lines = [("clean", shares[0]), ("target", shares[1]), ("broken", 1 - sum(shares)), ("retain_kl", 0.25)]
        measures = [asdict(cell) | {"measure": measure, "value": value} for measure, value in lines]
        write_parquet(folder / "measures.parquet", module.pd.DataFrame(measures))
        write_parquet(folder / "generations.parquet", judged(*shares).drop(columns="row"))
        done.append((out.relative_to(tmp_path).as_posix(), cell, config))

    def in_turn(task: Callable[..., Any], calls: Sequence[tuple[Any, ...]], workers: int, label: str) -> None:
        for arguments in calls:
            task(*arguments)

    done: list[tuple[str, Cell, StudyConfig]] = []
    monkeypatch.setattr(module, "run_cell", cell)
    monkeypatch.setattr(module, "run_side_by_side", in_turn)
    monkeypatch.setattr(module, "fit_probes_of", lambda config, out: None)
    vary_settings(tmp_path / "run", SensitivityConfig(STUDY))
    of_baselines = [(folder, cell) for folder, cell, _ in done if cell.objective in BASELINES]
    assert {folder for folder, _ in of_baselines} == {"run/baselines"} and len(of_baselines) == 2 * 2 * 2
    for name, change in VARIATIONS.items():
        ours = [(cell, config) for folder, cell, config in done if folder == f"run/variations/{name.replace(' ', '_')}"]
        assert {(cell.objective, cell.goal, cell.seed) for cell, _ in ours} == {
            (objective, goal, seed) for objective in FACTORIAL for goal in GOALS for seed in (0, 1)
        }
        assert all(config == change(STUDY) for _, config in ours)
    return tmp_path / "run"


def test_each_variation_is_told_by_its_own_cells(finished: Path) -> None:
    table = read_parquet(finished / "sensitivity.parquet").set_index(["variation", "layers", "contrast"])
    # Efficacy: the gap between original and twin is 0.8 on either goal.
    for name in VARIATIONS:
        toxicity = table.loc[(name, "multi", "toxicity: probe minus random")]
        assert toxicity["mean"] == pytest.approx((0.9 - 0.3) / 0.8) and toxicity["low"] > 0
        knowledge = table.loc[(name, "multi", "knowledge: random minus probe")]
        expected = 0.0 if name == "attention alone trained" else (0.7 - 0.2) / 0.8
        assert knowledge["mean"] == pytest.approx(expected)
    text = sensitivity_text(finished)
    for name in VARIATIONS:
        verdicts = [line.split("|")[-2].strip() for line in text.splitlines() if line.startswith(f"| {name} | m")]
        assert verdicts == ["no" if name == "attention alone trained" else "yes"] * 2  # several layers, and the mean
    cells = read_parquet(finished / "cells.parquet")
    broken = cells.loc[(cells["measure"] == "broken") & (cells["objective"] == "probe_multi")]
    assert broken["count"].eq(2).all() and len(broken) == 2 * len(VARIATIONS)
    assert (finished / "figures" / "sensitivity.pdf").exists()


def test_the_figure_has_a_row_a_variation_and_draws_what_the_table_says(finished: Path) -> None:
    table = read_parquet(finished / "sensitivity.parquet")
    axes = plot_sensitivity(table).axes
    assert [axis.get_title(loc="left").replace("\n", " ") for axis in axes] == list(dict.fromkeys(table["contrast"]))[
        :2
    ]
    assert [label.get_text() for label in axes[0].get_yticklabels()] == list(VARIATIONS)
    several = table.loc[(table["layers"] == "multi") & (table["contrast"] == "knowledge: random minus probe")]
    assert axes[1].lines[1].get_xdata() == pytest.approx(several["mean"].to_numpy())


def test_another_run_and_unknown_variations_are_refused(finished: Path) -> None:
    with pytest.raises(ArtifactError, match="another run"):
        vary_settings(finished)
    with pytest.raises(ConfigError, match=r"variations are as in the study, .*, got a full moon"):
        SensitivityConfig(variations=("a full moon",))
    with pytest.raises(ConfigError, match="got none"):
        SensitivityConfig(variations=())
    for share in (0.0, 1.5, float("nan")):
        with pytest.raises(ConfigError, match="forget_share"):
            StudyConfig(forget_share=share)


def test_a_share_of_the_forget_set_is_whole_groups_and_leaves_the_rest_alone() -> None:
    forget = [Example("", f"fact {i} of {group}", f"s{group}") for group in range(40) for i in range(3)]
    replies = [Example("hello", "good day", f"s{group}") for group in range(40)]
    sets = GoalSets(forget, forget[:4], [], [], forget[:2], [], forget[2:5], [], [], replies)
    part = sets.with_forget_share(0.25, 0)
    groups = {example.group for example in part.forget}
    assert len(groups) == 10 and len(part.forget) == 30 and {example.group for example in part.replies} == groups
    assert part == sets.with_forget_share(0.25, 0) != sets.with_forget_share(0.25, 1)
    assert replace(part, forget=forget, replies=replies) == sets
    assert sets.with_forget_share(1.0, 0) == sets and len(sets.with_forget_share(0.001, 0).replies) == 1


@pytest.mark.parametrize("goal", GOALS)
def test_the_stage_hands_on_a_share(goal: Goal) -> None:
    whole, half = stage_module.load_stage(goal), stage_module.load_stage(goal, None, 0.5)
    assert half.sets == whole.sets.with_forget_share(0.5, whole.world.seed)
    assert len(half.data("rmu").forget) == pytest.approx(len(whole.data("rmu").forget) / 2, rel=0.1)
