"""The study behind `evidence`: unlearned models, attacks on each, their changes taken apart, their drift."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import asdict
from pathlib import Path
from typing import Any

import pandas as pd

from interp_unlearn.artifacts import (
    IDENTITY_FILE,
    claimed,
    read_json,
    read_parquet,
    record_run,
    replaced,
    write_parquet,
)
from interp_unlearn.figures import plot_attacks, plot_dissection, plot_method_cosines, plot_patching, save_figure
from interp_unlearn.mechanism.conclusions import draw_conclusions, patching_sentences
from interp_unlearn.organism.sets import GOALS
from interp_unlearn.organism.shipped import twin_hashes
from interp_unlearn.study.evidence.aligned import METHODS, align_methods, alignment_text
from interp_unlearn.study.evidence.attacked import attack_subject, attack_table, attack_twin
from interp_unlearn.study.evidence.dissected import (
    build_stranger,
    dissect_pair,
    mechanism_table,
    pair_name,
    patch_twins,
    patching_file,
)
from interp_unlearn.study.evidence.drifted import draw_drift_figures, drift_subject, lines_of_drift, write_drift_tables
from interp_unlearn.study.evidence.models import make_model, probe_folder
from interp_unlearn.study.evidence.plan import EvidenceConfig
from interp_unlearn.study.evidence.predictions import check_predictions
from interp_unlearn.study.evidence.report import evidence_markdown
from interp_unlearn.study.stage import fit_goal_probes, load_stage
from interp_unlearn.study.workers import quieten, run_side_by_side

MECHANISM = ("transplant", "depth", "ranks", "sufficient_rank", "composition", "carried", "alignment", "missing")


def gather_evidence(out: Path, quick: bool = False, workers: int = 2, config: EvidenceConfig | None = None) -> None:
    """Runs the study into `out`, continuing where an interrupted run stopped.

    Args:
        out: folder: models/, stranger/, attacks/, mechanism/, drift/, attacks.parquet, predictions.parquet, the tables
            of the mechanism and of drift, evidence.md, figures/.
        quick: one seed, one method a goal, few prompts and steps.
        workers: processes, one thread each.
        config: settings, by default the study's own.

    Raises:
        ArtifactError: `out` holds another run.
    """
    quieten()
    config = config or EvidenceConfig()
    config = config.quick() if quick else config
    with claimed(out, {"task": "evidence", "config": asdict(config), "organism": twin_hashes()}):
        started = time.monotonic()
        for goal in GOALS:
            if not (probe_folder(out, goal) / "probes.json").exists():
                fit_goal_probes(load_stage(goal)).save(probe_folder(out, goal))
        models = [(make_model, subject, seed, config, out) for subject in config.subjects for seed in config.seeds]
        run_side_by_side(_call, [(build_stranger, config, out), *reversed(models)], workers, "models")
        measures = [
            *((dissect_pair, pair, config, out) for pair in config.pairs),
            (align_methods, config, out),
            *((drift_subject, subject, config, out) for subject in config.subjects),
            *((patch_twins, goal, config, out) for goal in GOALS),
            *((attack_subject, subject, seed, config, out) for subject in config.subjects for seed in config.seeds),
            *((attack_twin, goal, config, out) for goal in GOALS),
        ]
        run_side_by_side(_call, measures, workers, "measures")
        write_tables(out, config)
        draw_figures(out)
        record_run(out, {"seconds_of_last_session": round(time.monotonic() - started)})


def write_tables(out: Path, config: EvidenceConfig) -> None:
    """Joins what the steps left into the study's tables and says what they show."""
    attacks = attack_table(out, config)
    predictions = check_predictions(attacks)
    write_parquet(out / "attacks.parquet", attacks)
    write_parquet(out / "predictions.parquet", predictions)
    for name in MECHANISM:
        write_parquet(out / f"{name}.parquet", mechanism_table(config, out, name))
    patching = [read_parquet(patching_file(out, goal)) for goal in GOALS]
    write_parquet(out / "patching.parquet", pd.concat(patching, ignore_index=True))
    write_drift_tables(out, config)
    with replaced(out / "evidence.md") as temporary:
        temporary.write_text(evidence_text(out) + "\n", encoding="utf-8")


def evidence_text(out: Path) -> str:
    """What the tables of a run say, in words; `evidence.md` holds it."""
    config = read_json(out / IDENTITY_FILE)["identity"]["config"]
    pairs = [(str(first), str(second)) for first, second in config["pairs"]]
    tables = tables_of_pairs(out)
    return evidence_markdown(
        read_parquet(out / "attacks.parquet"),
        read_parquet(out / "predictions.parquet"),
        {pair: draw_conclusions(tables[pair_name(pair)], GOALS, config["margin"]) for pair in pairs},
        alignment_text(read_parquet(out / METHODS)),
        " ".join(patching_sentences(read_parquet(out / "patching.parquet"))),
        lines_of_drift(read_parquet(out / "drift_summary.parquet")),
        len(config["seeds"]),
        config["n_asked"],
    )


def tables_of_pairs(out: Path) -> dict[str, dict[str, pd.DataFrame]]:
    """A run's tables of the mechanism by pair of methods; patching, which is of no method, is not missing in any."""
    joined = {name: read_parquet(out / f"{name}.parquet") for name in MECHANISM}
    missing = joined["missing"]
    joined["missing"] = missing.loc[~missing["measure"].str.startswith("patching, ")]
    return {
        str(pair): {name: table.loc[table["pair"] == pair] for name, table in joined.items()}
        for pair in dict.fromkeys(joined["transplant"]["pair"])
    }


def draw_figures(out: Path) -> None:
    """Draws every figure of a finished study from its tables, as PDF and PNG."""
    save_figure(plot_attacks(read_parquet(out / "attacks.parquet")), out / "figures" / "attacks")
    save_figure(plot_method_cosines(read_parquet(out / METHODS)), out / "figures" / "methods")
    save_figure(plot_patching(read_parquet(out / "patching.parquet")), out / "figures" / "patching")
    draw_drift_figures(out)
    for number, (pair, tables) in enumerate(tables_of_pairs(out).items()):
        save_figure(plot_dissection(tables), out / "figures" / _figure_name(number, pair))


def _figure_name(number: int, pair: str) -> str:
    """A file name from a pair of a table, which may hold anything; its number where it is no pair of names."""
    name = pair.replace(" / ", "_")
    return f"dissection_{name if name.replace('_', '').isalnum() else number}"


def _call(function: Callable[..., Any], *arguments: Any) -> None:
    """One step, in a process of its own."""
    function(*arguments)
