"""Drift on the organism: the unlearned models of one seed beside their original, layer by layer."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

import pandas as pd

from interp_unlearn.artifacts import read_parquet, write_parquet
from interp_unlearn.drift import Answers, run_drift
from interp_unlearn.figures import (
    plot_cka,
    plot_displacement_spectrum,
    plot_drift,
    plot_lens,
    plot_unlearning_depth,
    save_figure,
)
from interp_unlearn.organism.sets import GOALS
from interp_unlearn.statistics import spelled_interval
from interp_unlearn.study.evidence.dissected import patch_texts
from interp_unlearn.study.evidence.models import model_folder
from interp_unlearn.study.plan import TWINS
from interp_unlearn.study.stage import load_stage

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from interp_unlearn.study.evidence.plan import EvidenceConfig, Subject

MEASURES = ("unlearning_depth", "weight_delta", "determinism", "displacement", "spectrum", "logit_lens", "cka")
FINISHED = "drift.json"  # written last
N_FORGET, N_RETAIN, N_ANSWERS, N_NULL = 160, 80, 96, 50
JOINED = {
    "drift_depth": ("unlearning_depth", "unlearning_depth"),
    "drift_depth_score": ("unlearning_depth", "score"),
    "drift_spectrum": ("spectrum", "spectrum"),
    "drift_components": ("spectrum", "components"),
    "drift_lens": ("logit_lens", "lens"),
    "drift_cka": ("cka", "cka"),
}
"""Tables of all models, by the measure and the table of a run that they are joined from."""
DRIFT_TABLES = ("drift", "drift_summary", *JOINED)
DRAWN = (("knowledge", "rmu"), ("knowledge", "counterfactual"), ("toxicity", "probe_multi"))
"""Goals and methods with figures of their own: a random target, and the clean methods of either goal."""


def drift_subject(subject: Subject, config: EvidenceConfig, out: Path) -> None:
    """Measures one model's drift, unless that was done already."""
    folder = _folder(out, subject)
    if (folder / FINISHED).exists():
        return
    stage, seed = load_stage(subject.goal), config.seeds[0]
    n = min(N_ANSWERS, config.n_patched)
    asked = stage.sets.test[:n]
    told = patch_texts(stage, asked, stage.model("knows_all"))
    run_drift(
        str(model_folder(out, subject, seed)),
        str(stage.organism / "knows_all"),
        {
            "forget": [example.text for example in stage.sets.test[: min(N_FORGET, config.n_asked)]],
            "retain": [example.text for example in stage.sets.retain_test[:N_RETAIN]],
        },
        measures=MEASURES,
        out=folder,
        answers=Answers(told.prompts, told.answers, [example.group for example in asked]),
        twin=str(stage.organism / TWINS[subject.goal]),
        n_null=N_NULL,
        progress=False,
    )


def write_drift_tables(out: Path, config: EvidenceConfig) -> None:
    """Joins the models' tables, each with the columns goal and method; displacements as `plot_drift` takes them."""
    parts: dict[str, list[pd.DataFrame]] = {name: [] for name in DRIFT_TABLES}
    for subject in config.subjects:
        folder = _folder(out, subject)
        known = {"goal": subject.goal, "method": subject.method}
        moved = read_parquet(folder / "measures" / "displacement" / "displacement.parquet")
        parts["drift"].append(moved.assign(objective=subject.method, goal=subject.goal, seed=config.seeds[0]))
        parts["drift_summary"].append(read_parquet(folder / "summary.parquet").assign(**known))
        for name, (measure, table) in JOINED.items():
            parts[name].append(read_parquet(folder / "measures" / measure / f"{table}.parquet").assign(**known))
    for name, tables in parts.items():
        write_parquet(out / f"{name}.parquet", pd.concat(tables, ignore_index=True))


def draw_drift_figures(out: Path) -> None:
    """The displacement of all methods, and of those of `DRAWN` depth, spectrum, lens and CKA."""
    save_figure(plot_drift(read_parquet(out / "drift.parquet")), out / "figures" / "drift")
    tables = {name: read_parquet(out / f"{name}.parquet") for name in JOINED}
    scores = tables["drift_depth_score"]
    there = set(zip(scores["goal"], scores["method"], strict=True))
    for goal, method in (one for one in DRAWN if one in there):
        own = {name: table.loc[(table["goal"] == goal) & (table["method"] == method)] for name, table in tables.items()}
        figures = {
            "unlearning_depth": plot_unlearning_depth(own["drift_depth"], own["drift_depth_score"]),
            "spectrum": plot_displacement_spectrum(own["drift_spectrum"], own["drift_components"]),
            "logit_lens": plot_lens(own["drift_lens"]),
            "cka": plot_cka(own["drift_cka"]),
        }
        for name, figure in figures.items():
            save_figure(figure, out / "figures" / f"{name}_{goal}_{method}")


def drift_lines(summary: pd.DataFrame, goal: str) -> list[str]:
    """One row a quantity, one column a method; the spectrum is that of the layer that the target texts moved most."""
    rows = summary.loc[summary["goal"] == goal]
    methods = list(dict.fromkeys(rows["method"]))
    lines = ["| drift | " + " | ".join(methods) + " |", "|---" * (len(methods) + 1) + "|"]
    cells = [dict(_quantities(rows.loc[rows["method"] == method])) for method in methods]
    return [*lines, *(f"| {name} | {' | '.join(of.get(name, '') for of in cells)} |" for name in cells[0])]


def _quantities(rows: pd.DataFrame) -> Iterator[tuple[str, str]]:
    """What is told of one model, in words."""
    table: Any = rows.set_index(["measure", "quantity"]).sort_index()

    def of(measure: str, quantity: str, corpus: str | None = None) -> Any:
        found = table.loc[[(measure, quantity)]]
        return found if corpus is None else found.loc[found["corpus"] == corpus]

    depth = rows.loc[(rows["measure"] == "unlearning_depth") & (rows["place"] == "all")].iloc[0]
    named = bool(pd.notna(depth["value"]))
    yield (
        "unlearning depth",
        spelled_interval(depth["value"], depth["low"], depth["high"]) if named else f"none: {depth['reason']}",
    )
    yield "tensors changed", f"{of('weight_delta', 'changed tensors')['value'].iloc[0]:.0f}"
    moved = {name: of("displacement", "relative displacement", name) for name in ("forget", "retain")}
    yield "largest displacement, target texts", f"{moved['forget']['value'].max():.2f}"
    yield "the same, kept texts", f"{moved['retain']['value'].max():.2f}"
    place = moved["forget"].loc[moved["forget"]["value"] == moved["forget"]["value"].max(), "place"].iloc[0]
    for quantity in ("share of the main direction", "effective rank"):
        found = of("spectrum", quantity, "forget")
        yield f"{quantity} there", f"{found.loc[found['place'] == place, 'value'].iloc[0]:.2f}"
    for corpus, name in (("forget", "least CKA, target texts"), ("retain", "the same by CKA, kept texts")):
        yield name, f"{of('cka', 'debiased CKA', corpus)['value'].min():.3f}"


def drift_note(summary: pd.DataFrame) -> str:
    """What stands below the tables: what is counted, the control, and what the measures cannot show."""
    below = float(summary.loc[summary["measure"] == "determinism", "value"].max())
    (little,) = set(summary.loc[summary["measure"] == "cka", "small_models"].dropna())
    return (
        "One seed. Displacement: L2 norm of the change over the norm before, mean over tokens. Depth: 95% interval "
        "over subjects or scenes; 1 is the twin, and no text counts for more: states that break the text altogether "
        "look as deep as states that never knew. Below the first changed tensor the largest difference of an "
        f"activation is {below:g}. CKA {little}."
    )


def lines_of_drift(summary: pd.DataFrame) -> Sequence[str]:
    """The section on drift."""
    lines: list[str] = []
    for goal in GOALS:
        if goal in set(summary["goal"]):
            lines += [f"**{goal.capitalize()}**", "", *drift_lines(summary, goal), ""]
    return [*lines, drift_note(summary)]


def _folder(out: Path, subject: Subject) -> Path:
    return out / "drift" / subject.name
