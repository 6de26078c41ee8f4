"""One run of the study: unlearn, measure, attack; its tables in one folder, and a mark when they are all there."""

from __future__ import annotations

import time
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING

import pandas as pd

from interp_unlearn.artifacts import claimed, record_run, write_json, write_parquet
from interp_unlearn.attacks import RelearnConfig, relearn
from interp_unlearn.drift import measure_drift
from interp_unlearn.errors import ConfigError
from interp_unlearn.figures.relearning import AFTER_RELEARNING
from interp_unlearn.interventions import Clamp
from interp_unlearn.organism.quality import judged_generations, mean_of
from interp_unlearn.probes import ProbeSet
from interp_unlearn.sites import Site, residual_stream
from interp_unlearn.study.measures import measure_model, target_share
from interp_unlearn.study.plan import BASELINES, TWINS, Cell, StudyConfig
from interp_unlearn.study.stage import Stage, load_stage, neutral_projections
from interp_unlearn.unlearning import UnlearnConfig, build_objective, unlearn

if TYPE_CHECKING:
    from interp_unlearn.interventions import HookedModel
    from interp_unlearn.unlearning import Objective

N_DRIFT = 200
# Trained on the three matrices of RMU; with the adversary, on all that the factorial trains.
PUBLISHED = ("rmu", "cosine_rmu")
DONE = "done.json"  # written last: a folder without it is a run that was interrupted


def run_cell(cell: Cell, config: StudyConfig, out: Path, organism: Path | None = None) -> Path:
    """Runs one cell and writes its tables, unless it is done already.

    Args:
        cell: Objective, goal and seed.
        config: What all cells share.
        out: The study's folder; probes must lie in `out/probes/<goal>`.
        organism: Folder of the twins, by default the shipped ones.

    Returns:
        The cell's folder: measures.parquet, generations.parquet, drift.parquet, run.json (seconds, versions), and
        done.json.
    """
    folder = out / "cells" / cell.name
    if (folder / DONE).exists():
        return folder
    with claimed(folder, {"task": "cell"} | asdict(cell)):
        started = time.monotonic()
        stage = load_stage(cell.goal, organism, config.forget_share)
        judges = {name: stage.model(name) for name in ("knows_all", "never_knew", "never_toxic")}
        model = stage.model(TWINS[cell.goal] if cell.objective == "twin" else "knows_all")
        if cell.objective not in BASELINES:
            unlearn_cell(model, cell, stage, config, out)
        measures, generations = measure_model(model, stage, judges, cell.seed)
        drift = _drift(model, judges["knows_all"], cell, stage)
        measures |= _relearning(model, cell, stage, config)
        rows = [
            {"objective": cell.objective, "goal": cell.goal, "measure": m, "seed": cell.seed, "value": v}
            for m, v in measures.items()
        ]
        write_parquet(folder / "measures.parquet", pd.DataFrame(rows))
        write_parquet(folder / "generations.parquet", generations)
        write_parquet(folder / "drift.parquet", drift)
        record_run(folder, {"seconds": round(time.monotonic() - started, 1)})
        write_json(folder / DONE, asdict(cell))
    return folder


def unlearn_cell(model: HookedModel, cell: Cell, stage: Stage, config: StudyConfig, out: Path) -> None:
    """Unlearns `model` in place as a cell says."""
    objective = cell_objective(cell, stage, config, ProbeSet.load(out / "probes" / cell.goal))
    published = cell.objective in PUBLISHED
    plan = UnlearnConfig(
        steps=config.steps,
        batch_size=config.batch_size,
        learning_rate=config.learning_rate,
        roles=("mlp.down",) if published else config.trained_roles,
        layers=_published_layers(config) if published else config.trained_layers,
        retain_weight=config.rmu_retain_weight if cell.objective == "rmu" else config.retain_weight,
        kl_weight=0.0 if cell.objective == "rmu" else config.kl_weight,
        seed=cell.seed,
        forget_on=stage.forget_on,
    )
    unlearn(model, objective, stage.data(cell.objective), plan, progress=False)


def cell_objective(cell: Cell, stage: Stage, config: StudyConfig, probes: ProbeSet) -> Objective:
    """The objective of a cell, with the layers, directions and teachers that it needs."""
    one, several, seed = config.single_layer, config.multi_layers, cell.seed
    match cell.objective:
        case "random_single":
            return build_objective("random_single", layers=one, seed=seed)
        case "random_multi":
            return build_objective("random_multi", layers=several, seed=seed)
        case "probe_single":
            return build_objective("probe_single", layers=one, directions=probes)
        case "probe_multi":
            return build_objective("probe_multi", layers=several, directions=probes)
        case "rmu":
            return build_objective("rmu", layers=one, coefficient=config.rmu_coefficient, adaptive=True, seed=seed)
        case "cosine_rmu" | "cosine_rmu_meta":
            return build_objective(cell.objective, layers=one, seed=seed)
        case "distilled":
            return build_objective(
                "distilled",
                edits=teacher_edits(stage, probes, config),
                clean_share=lambda teacher: clean_share(teacher, stage, seed),
                layers=several,
            )
        case "civil_finetuning":
            return build_objective("civil_finetuning", layers=several)
        case "oracle":
            return build_objective(
                "oracle", teacher=stage.twin, clean_share=lambda teacher: clean_share(teacher, stage, seed)
            )
        case _:
            raise ConfigError(f"the study has no objective {cell.objective!r}; its cells are those of cells_of")


def clean_share(teacher: HookedModel, stage: Stage, seed: int) -> float:
    """Share of clean generations on validation prompts: what a teacher is admitted by."""
    verdicts = judged_generations(teacher, stage.world, stage.sets.validation, stage.goal, seed)["verdict"]
    return mean_of(verdicts == "clean")


def teacher_edits(stage: Stage, probes: ProbeSet, config: StudyConfig) -> dict[Site, Clamp]:
    """Clamps at the neutral tokens' median projection on the probes of the several layers, with overshoot."""
    neutral = neutral_projections(stage, probes, config.multi_layers)
    return {
        site: Clamp(probes.direction(site), threshold, overshoot=config.teacher_overshoot)
        for site, threshold in neutral.items()
    }


def _published_layers(config: StudyConfig) -> tuple[int, ...]:
    """RMU trains the target layer and the two below it."""
    return tuple(range(max(0, config.single_layer - 2), config.single_layer + 1))


def _drift(model: HookedModel, original: HookedModel, cell: Cell, stage: Stage) -> pd.DataFrame:
    sites = residual_stream(model.n_layers)
    texts = {
        "forget": [example.text for example in stage.sets.test[:N_DRIFT]],
        "retain": [example.text for example in stage.sets.retain_test[:N_DRIFT]],
    }
    frame = measure_drift(model, original, texts, sites)
    return frame.assign(objective=cell.objective, goal=cell.goal, seed=cell.seed)


def _relearning(model: HookedModel, cell: Cell, stage: Stage, config: StudyConfig) -> dict[str, float]:
    """Target share on unseen subjects or scenes after the attacker's steps on others; the model is put back."""
    if not config.relearn_checkpoints:
        return {}
    asked = stage.sets.relearn_test[: config.relearn_prompts]
    result = relearn(
        model,
        *stage.lessons(stage.sets.relearn),
        RelearnConfig(learning_rate=config.relearn_rate, seed=cell.seed),
        checkpoints=(0, *config.relearn_checkpoints),
        callback=lambda step, attacked: {"target": target_share(attacked, stage, asked, cell.seed)},
        progress=False,
    )
    return {f"{AFTER_RELEARNING}{int(row['step'])}": float(row["target"]) for row in result.curve.to_dict("records")}
