"""The pipeline behind `reproduce`: probes, every cell in single-thread processes side by side, tables, figures."""

from __future__ import annotations

import time
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING

from interp_unlearn.artifacts import (
    claimed,
    record_run,
    replaced,
    write_json,
    write_parquet,
)
from interp_unlearn.figures import plot_dissociation, plot_drift, plot_probe_auroc, plot_relearning, save_figure
from interp_unlearn.figures.relearning import AFTER_RELEARNING
from interp_unlearn.organism.sets import GOALS
from interp_unlearn.organism.shipped import twin_hashes
from interp_unlearn.study.plan import Cell, StudyConfig, cells_of
from interp_unlearn.study.report import markdown_table
from interp_unlearn.study.run import run_cell
from interp_unlearn.study.stage import fit_goal_probes, load_stage
from interp_unlearn.study.summary import dissociation_table, figure_table, gather, summarize
from interp_unlearn.study.workers import quieten, run_side_by_side

if TYPE_CHECKING:
    import pandas as pd


def reproduce(
    out: Path,
    quick: bool = False,
    workers: int = 2,
    config: StudyConfig | None = None,
    organism: Path | None = None,
) -> None:
    """Runs the study into `out`, continuing where an interrupted run stopped.

    Args:
        out: Folder of the study: dissociation.parquet, summary.json, run.json, figures.
        quick: One seed, the factorial and the oracle, a quarter of the steps.
        workers: Processes, one thread each.
        config: Settings, by default the study's own.
        organism: Folder of the twins, by default the shipped ones.

    Raises:
        ArtifactError: `out` holds another run.
    """
    quieten()
    config = config or StudyConfig()
    config = config.quick() if quick else config
    with claimed(out, {"task": "reproduce", "config": asdict(config), "organism": twin_hashes(organism)}):
        started = time.monotonic()
        fit_probes_of(config, out, organism)
        cells = cells_of(config)
        run_cells(cells, config, out, workers, organism)
        write_tables(out, cells)
        draw_figures(out)
        record_run(out, {"seconds_of_last_session": round(time.monotonic() - started)})


def fit_probes_of(config: StudyConfig, out: Path, organism: Path | None = None) -> None:
    """Fits the probes of both goals that the objectives read, unless that was done already."""
    for goal in GOALS:
        if not (out / "probes" / goal / "probes.json").exists():
            fit_goal_probes(load_stage(goal, organism, config.forget_share)).save(out / "probes" / goal)


def run_cells(cells: list[Cell], config: StudyConfig, out: Path, workers: int, organism: Path | None = None) -> None:
    """Runs every cell that is not done, `workers` at a time; the first failure stops the rest."""
    run_side_by_side(run_cell, [(cell, config, out, organism) for cell in cells], workers, "runs")


def write_tables(out: Path, cells: list[Cell]) -> None:
    """Joins the cells' tables into the study's."""
    generations = gather(out, cells, "generations")
    table = dissociation_table(gather(out, cells, "measures"))
    summary = summarize(table, generations)
    write_parquet(out / "dissociation.parquet", table)
    write_parquet(out / "drift.parquet", gather(out, cells, "drift"))
    write_json(out / "summary.json", summary)
    with replaced(out / "dissociation.md") as temporary:
        temporary.write_text(markdown_table(table, summary) + "\n", encoding="utf-8")


def draw_figures(out: Path) -> None:
    """Draws every figure of a finished study from its tables, as PDF and PNG."""
    from interp_unlearn.artifacts import read_json, read_parquet
    from interp_unlearn.probes import ProbeSet

    table = figure_table(read_parquet(out / "dissociation.parquet"), read_json(out / "summary.json"))
    drift = read_parquet(out / "drift.parquet")
    save_figure(plot_dissociation(table), out / "figures" / "dissociation")
    if table["measure"].str.startswith(AFTER_RELEARNING).any():
        save_figure(plot_relearning(table), out / "figures" / "relearning")
    save_figure(plot_drift(drift.loc[drift["objective"] != "none"]), out / "figures" / "drift")
    for goal in GOALS:
        probes: pd.DataFrame = ProbeSet.load(out / "probes" / goal).to_frame()
        save_figure(plot_probe_auroc(probes), out / "figures" / f"probe_auroc_{goal}")
