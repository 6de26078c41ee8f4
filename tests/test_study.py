"""The study: its plan, runs small enough to repeat, and the pipeline around them."""

import importlib
import shutil
from collections.abc import Iterator
from dataclasses import asdict, replace
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from study_tables import judged, planted

from interp_unlearn.artifacts import claim_folder, read_json, read_parquet, write_parquet
from interp_unlearn.errors import ArtifactError, ConfigError
from interp_unlearn.organism import sets
from interp_unlearn.organism.sets import GOALS
from interp_unlearn.organism.world import World
from interp_unlearn.study import Cell, StudyConfig, cells_of, measures, reproduce, run, stage
from interp_unlearn.study.plan import BASELINES, FACTORIAL, NATIVE

# The package exports the function of the same name, which hides the module.
reproduce_module = importlib.import_module("interp_unlearn.study.reproduce")
MICRO = StudyConfig(seeds=(0,), steps=2, batch_size=4, relearn_checkpoints=(1,), relearn_prompts=8)


# The plan


def test_the_full_plan_has_45_unlearning_runs_and_twelve_baselines():
    cells = cells_of(StudyConfig())
    baselines = [cell for cell in cells if cell.objective in BASELINES]
    assert (len(cells), len(baselines)) == (57, 12)
    assert cells[:12] == baselines
    assert len({cell.name for cell in cells}) == len(cells)
    for goal in GOALS:
        named = {cell.objective for cell in cells if cell.goal == goal}
        assert named == {*BASELINES, "oracle", *FACTORIAL, *NATIVE[goal]}
        for objective in named:
            assert [c.seed for c in cells if (c.objective, c.goal) == (objective, goal)] == [0, 1, 2]


def test_the_quick_plan_is_the_factorial_and_the_oracle_with_one_seed():
    config = StudyConfig(steps=100).quick()
    assert config.steps == 25
    names = {f"{o}-{goal}-0" for goal in GOALS for o in (*BASELINES, "oracle", *FACTORIAL)}
    assert {cell.name for cell in cells_of(config)} == names and len(names) == 14


def test_senseless_settings_are_refused():
    with pytest.raises(ConfigError, match="single_layer 1 must be one of"):
        StudyConfig(single_layer=1)
    with pytest.raises(ConfigError, match="needs a seed"):
        StudyConfig(seeds=())
    with pytest.raises(ConfigError, match="0 steps"):
        StudyConfig(steps=0)


# Runs on the shipped twins, with a dozen agents and a few scenes


@pytest.fixture(scope="module")
def small_sets() -> Iterator[None]:
    def small_world(seed: int) -> World:
        world = World(seed)
        world.knowledge.hazardous = world.knowledge.hazardous[:36]
        world.knowledge.benign = world.knowledge.benign[:24]
        return world

    sizes = {
        sets: {"N_FORGET_SCENES": 32, "N_TEST_SCENES": 24, "N_VALIDATION_SCENES": 8, "N_RETAIN": 32, "N_NEUTRAL": 120},
        measures: {"N_TOXIC_SHARE": 8, "N_RETAINED": 8},
        run: {"N_DRIFT": 6},
        stage: {"N_CLAMPED": 16, "World": small_world},
    }
    with pytest.MonkeyPatch.context() as patch:
        for module, values in sizes.items():
            for name, value in values.items():
                patch.setattr(module, name, value)
        stage.load_stage.cache_clear()
        yield
    stage.load_stage.cache_clear()


@pytest.fixture(scope="module")
def study(small_sets: None, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A study's folder with its probes, and no run yet."""
    out = tmp_path_factory.mktemp("study")
    for goal in GOALS:
        stage.fit_goal_probes(stage.load_stage(goal)).save(out / "probes" / goal)
    return out


def tables_of(folder: Path) -> dict[str, pd.DataFrame]:
    return {name: read_parquet(folder / f"{name}.parquet") for name in ("measures", "generations", "drift")}


def values_of(folder: Path) -> dict[str, float]:
    frame = read_parquet(folder / "measures.parquet")
    return dict(zip(frame["measure"], frame["value"], strict=True))


def test_the_original_knows_and_does_not_drift(study: Path):
    folder = run.run_cell(Cell("none", "knowledge", 0), MICRO, study)
    values = values_of(folder)
    assert values["target"] >= 0.95 and values["hazardous_cloze"] >= 0.95 and values["benign_cloze"] >= 0.95
    assert values["toxic_share"] >= 0.5
    assert values["retain_kl"] == pytest.approx(0, abs=1e-6)
    assert values["clean"] + values["target"] + values["broken"] == pytest.approx(1)
    assert {"target_after_relearning_0", "target_after_relearning_1"} <= set(values)
    drift = read_parquet(folder / "drift.parquet")
    assert np.allclose(drift["relative_displacement"], 0, atol=1e-6)
    assert set(drift["corpus"]) == {"forget", "retain"} and len(drift) == 2 * 7


@pytest.mark.parametrize("cell", [Cell("random_single", "knowledge", 1), Cell("probe_multi", "toxicity", 0)])
def test_a_run_writes_its_folder_is_skipped_when_done_and_repeats_exactly(
    cell: Cell, study: Path, monkeypatch: pytest.MonkeyPatch
):
    folder = run.run_cell(cell, MICRO, study)
    assert folder == study / "cells" / cell.name
    assert read_json(folder / run.DONE) == asdict(cell)
    first, bytes_of_first = tables_of(folder), bytes_of(folder)
    assert set(bytes_of_first) == {"measures.parquet", "generations.parquet", "drift.parquet", run.DONE}
    assert first["drift"]["relative_displacement"].max() > 0, "two steps of unlearning must show"
    assert len(first["generations"]) == len(stage.load_stage(cell.goal).sets.test)
    for name in ("measures", "drift"):
        assert {(r["objective"], r["goal"], r["seed"]) for r in first[name].to_dict("records")} == {
            (cell.objective, cell.goal, cell.seed)
        }

    with monkeypatch.context() as patch:
        patch.setattr(run, "load_stage", lambda *arguments: pytest.fail("a finished run was started again"))
        assert run.run_cell(cell, MICRO, study) == folder
    # Without its last file a folder is an interrupted run, whatever else lies there.
    (folder / run.DONE).unlink()
    write_parquet(folder / "measures.parquet", pd.DataFrame({"value": [0.0]}))
    run.run_cell(cell, MICRO, study)
    for name, table in tables_of(folder).items():
        pd.testing.assert_frame_equal(table, first[name])
    assert bytes_of(folder) == bytes_of_first
    record = read_json(folder / "run.json")
    assert record["seconds"] > 0 and record["identity"] == {"task": "cell"} | asdict(cell)


def bytes_of(folder: Path) -> dict[str, bytes]:
    """Every file but run.json, where the times are."""
    return {file.name: file.read_bytes() for file in folder.iterdir() if file.name != "run.json"}


def test_an_interrupted_run_is_not_taken_for_done(study: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    shutil.copytree(study / "probes", tmp_path / "probes")

    def interrupted(*arguments: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(run, "measure_model", interrupted)
    with pytest.raises(KeyboardInterrupt):
        run.run_cell(Cell("twin", "toxicity", 0), MICRO, tmp_path)
    assert not (tmp_path / "cells" / "twin-toxicity-0" / run.DONE).exists()


@pytest.mark.parametrize("goal", GOALS)
def test_every_planned_objective_can_be_made(goal: sets.Goal, study: Path):
    from interp_unlearn.probes import ProbeSet

    of_goal, probes = stage.load_stage(goal), ProbeSet.load(study / "probes" / goal)
    for cell in cells_of(StudyConfig(seeds=(0,))):
        if cell.goal == goal and cell.objective not in BASELINES:
            assert run.cell_objective(cell, of_goal, MICRO, probes).name == cell.objective
    with pytest.raises(ConfigError, match="no objective 'none'"):
        run.cell_objective(Cell("none", goal, 0), of_goal, MICRO, probes)


@pytest.mark.parametrize("goal", GOALS)
def test_all_objectives_see_the_same_forget_and_retain_rows(goal: sets.Goal, small_sets: None):
    of_goal = stage.load_stage(goal)
    usual = of_goal.data("random_single")
    tuned = of_goal.data("civil_finetuning" if goal == "toxicity" else "rmu")
    assert (tuned.forget, tuned.retain) == (usual.forget, usual.retain)
    if goal == "toxicity":
        verdicts = {of_goal.world.judge(*row) for row in zip(usual.forget, usual.forget_completions or [], strict=True)}
        civil = {of_goal.world.judge(*row) for row in zip(tuned.neutral, tuned.neutral_completions or [], strict=True)}
        assert (verdicts, civil) == ({"target"}, {"clean"})
        assert tuned.neutral == usual.forget, "civil fine-tuning answers the very scenes that are to be forgotten"
    else:
        assert usual.forget_completions is None and of_goal.forget_on == "content"


# The pipeline around the runs


def test_reproduce_refuses_a_folder_of_another_run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(reproduce_module, "fit_goal_probes", lambda stage: pytest.fail("work was begun"))
    other = asdict(replace(StudyConfig(), steps=7))
    claim_folder(tmp_path / "other", {"task": "reproduce", "config": other, "organism": {}})
    with pytest.raises(ArtifactError, match=r"another run.*config.*--out"):
        reproduce(tmp_path / "other")
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine" / "thesis.txt").write_text("do not touch")
    with pytest.raises(ArtifactError, match="not empty"):
        reproduce(tmp_path / "mine", quick=True)
    assert [path.name for path in (tmp_path / "mine").iterdir()] == ["thesis.txt"]


def test_reproduce_joins_its_runs_into_tables_and_figures(study: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    shares = planted((0.7, 0.3), (0.4, 0.8)) | {("oracle", goal): (0.8, 0.1) for goal in GOALS}

    def hand_made(cells: list[Cell], config: StudyConfig, out: Path, workers: int, organism: Path | None) -> None:
        shutil.copytree(study / "probes", out / "probes", dirs_exist_ok=True)
        drift = {"site": "0.resid_post", "layer": 0, "corpus": "forget", "relative_displacement": 0.1, "cosine": 0.9}
        for cell in cells:
            clean, target = shares[cell.objective, cell.goal]
            values = {"clean": clean, "target": target, "broken": 1 - clean - target, "retain_kl": 0.01}
            if steps := config.relearn_checkpoints:
                values |= {f"target_after_relearning_{step}": target for step in (0, *steps)}
            folder = out / "cells" / cell.name
            named = asdict(cell)
            rows = [named | {"measure": measure, "value": value} for measure, value in values.items()]
            write_parquet(folder / "measures.parquet", pd.DataFrame(rows))
            write_parquet(folder / "generations.parquet", judged(clean, target).drop(columns="row"))
            write_parquet(folder / "drift.parquet", pd.DataFrame([drift | named | {"norm_ratio": 1.0, "n_tokens": 10}]))

    monkeypatch.setattr(reproduce_module, "run_cells", hand_made)
    monkeypatch.setattr(reproduce_module, "fit_goal_probes", lambda of_goal: _Saved(study, of_goal.goal))
    out = tmp_path / "out"
    reproduce(out, quick=True)
    summary = read_json(out / "summary.json")
    assert summary["crossover"]["mean"]["crossover"] is True
    table = read_parquet(out / "dissociation.parquet")
    closed = table[(table["measure"] == "efficacy") & (table["objective"] == "oracle")]
    assert closed["value"].tolist() == pytest.approx([(0.8 - 0.1) / 0.8] * 2)
    assert "0.75 [" in (out / "dissociation.md").read_text()  # the efficacy of toxicity's probes and of random targets
    figures = {path.name for path in (out / "figures").iterdir()}
    named = ("dissociation", "relearning", "drift", *(f"probe_auroc_{goal}" for goal in GOALS))
    assert figures == {f"{name}.{kind}" for name in named for kind in ("pdf", "png")}
    record = read_json(out / "run.json")
    assert record["identity"]["config"]["steps"] == 25 and len(record["identity"]["organism"]) == 3
    before = (out / "summary.json").read_text()
    reproduce(out, quick=True)  # the same run goes on where it stopped
    assert (out / "summary.json").read_text() == before
    with pytest.raises(ArtifactError, match="another run"):
        reproduce(out, quick=False)
    assert "0.80 | 0.10 | 0.10 |" in (out / "dissociation.md").read_text()
    assert "relearning" in (out / "dissociation.md").read_text()
    plain = tmp_path / "plain"
    reproduce(plain, quick=True, config=StudyConfig(relearn_checkpoints=()))
    drawn = {path.name for path in (plain / "figures").iterdir()}
    assert figures - drawn == {"relearning.pdf", "relearning.png"}
    assert "relearning" not in (plain / "dissociation.md").read_text()


class _Saved:
    """Stands in for probes that were just fitted."""

    def __init__(self, study: Path, goal: str) -> None:
        self.folder = study / "probes" / goal

    def save(self, path: Path) -> None:
        shutil.copytree(self.folder, path)
