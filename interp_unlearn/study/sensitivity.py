"""Does the crossover hang on a setting? The factorial again with other forget sets, steps and trained tensors.

One setting is changed at a time. All of it is on one organism: intervals resample its subjects and scenes.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path

import pandas as pd

from interp_unlearn.artifacts import claimed, read_parquet, record_run, replaced, write_parquet
from interp_unlearn.errors import ConfigError
from interp_unlearn.figures import plot_sensitivity, save_figure
from interp_unlearn.figures.tables import spelled_range
from interp_unlearn.organism.sets import GOALS
from interp_unlearn.organism.shipped import twin_hashes
from interp_unlearn.settings import check_fields
from interp_unlearn.statistics import spelled_interval, spelled_value
from interp_unlearn.study.plan import BASELINES, FACTORIAL, Cell, StudyConfig
from interp_unlearn.study.reproduce import fit_probes_of
from interp_unlearn.study.run import run_cell
from interp_unlearn.study.summary import dissociation_table, gather, summarize
from interp_unlearn.study.workers import quieten, run_side_by_side

VARIATIONS: Mapping[str, Callable[[StudyConfig], StudyConfig]] = {
    "as in the study": lambda study: study,
    "half of the forget set": lambda study: replace(study, forget_share=study.forget_share / 2),
    "an eighth of the forget set": lambda study: replace(study, forget_share=study.forget_share / 8),
    "half of the steps": lambda study: replace(study, steps=max(1, study.steps // 2)),
    "four times the steps": lambda study: replace(study, steps=4 * study.steps),
    "attention alone trained": lambda study: replace(study, trained_roles=("attn",)),
    "MLPs alone trained": lambda study: replace(study, trained_roles=("mlp",)),
    "down projections alone": lambda study: replace(study, trained_roles=("mlp.down",)),
    "blocks 3 and 4 alone": lambda study: replace(study, trained_layers=(3, 4)),
}
MEASURES = ("efficacy", "suppression", "broken", "retain_kl")
_BOTH = ("toxicity: probe minus random", "knowledge: random minus probe")


@dataclass(frozen=True)
class SensitivityConfig:
    """What the study of sensitivity is told.

    Attributes:
        study: What every variation has but for the one setting it changes.
        variations: Names of `VARIATIONS`.
    """

    study: StudyConfig = field(default_factory=lambda: StudyConfig(native=False, relearn_checkpoints=()))
    variations: tuple[str, ...] = tuple(VARIATIONS)

    def __post_init__(self) -> None:
        check_fields(self)
        strangers = [name for name in self.variations if name not in VARIATIONS]
        if strangers or not self.variations:
            raise ConfigError(f"variations are {', '.join(VARIATIONS)}, got {', '.join(strangers) or 'none'}")

    def studies(self) -> dict[str, StudyConfig]:
        """The settings of each variation, by its name."""
        return {name: VARIATIONS[name](self.study) for name in self.variations}


def vary_settings(out: Path, config: SensitivityConfig | None = None, workers: int = 2) -> None:
    """Runs the factorial under every variation, continuing where an interrupted run stopped.

    Args:
        out: folder: baselines/, variations/, sensitivity.parquet, cells.parquet, sensitivity.md, figures/.
        config: settings, by default every variation with the study's seeds.
        workers: processes, one thread each.

    Raises:
        ArtifactError: `out` holds another run.
    """
    quieten()
    config = config or SensitivityConfig()
    seeds, studies = config.study.seeds, config.studies()
    with claimed(out, {"task": "sensitivity", "config": asdict(config), "organism": twin_hashes()}):
        started = time.monotonic()
        for name, study in studies.items():
            fit_probes_of(study, _varied(out, name))
        calls = [(cell, config.study, _baselines(out)) for cell in _cells(BASELINES, seeds)]
        for name, study in sorted(studies.items(), key=lambda item: -item[1].steps):  # so that no worker ends alone
            calls += [(cell, study, _varied(out, name)) for cell in _cells(FACTORIAL, seeds)]
        run_side_by_side(run_cell, calls, workers, "runs")
        write_tables(out, config)
        draw_figures(out)
        record_run(out, {"seconds_of_last_session": round(time.monotonic() - started)})


def write_tables(out: Path, config: SensitivityConfig) -> None:
    """Joins the variations' cells: the differences of the crossover, and means over seeds of every cell."""
    seeds = config.study.seeds
    contrasts: list[pd.DataFrame] = []
    cells: list[pd.DataFrame] = []
    for name in config.variations:
        parts = {
            table: pd.concat(
                [
                    gather(_baselines(out), _cells(BASELINES, seeds), table),
                    gather(_varied(out, name), _cells(FACTORIAL, seeds), table),
                ],
                ignore_index=True,
            )
            for table in ("measures", "generations")
        }
        measured = dissociation_table(parts["measures"])
        for layers, found in summarize(measured, parts["generations"])["crossover"].items():
            contrasts.append(pd.DataFrame(found["contrasts"]).assign(layers=layers, variation=name))
        chosen = measured.loc[measured["measure"].isin(MEASURES) & measured["objective"].isin(FACTORIAL)]
        means = chosen.groupby(["goal", "objective", "measure"], sort=False)["value"]
        cells.append(means.agg(["mean", "min", "max", "count"]).reset_index().assign(variation=name))
    differences = pd.concat(contrasts, ignore_index=True)
    write_parquet(
        out / "sensitivity.parquet",
        differences.loc[:, ["variation", "layers", "contrast", "mean", "low", "high", "n"]],
    )
    write_parquet(out / "cells.parquet", pd.concat(cells, ignore_index=True))
    with replaced(out / "sensitivity.md") as temporary:
        temporary.write_text(sensitivity_text(out) + "\n", encoding="utf-8")


def sensitivity_text(out: Path) -> str:
    """What the tables of a run say, in words; `sensitivity.md` holds it."""
    contrasts, cells = (read_parquet(out / f"{name}.parquet") for name in ("sensitivity", "cells"))
    lines = ["| Variation | layers | toxicity: probe − random | knowledge: random − probe | both above 0 |"]
    lines.append("|---" * 5 + "|")
    at = {(row["variation"], row["layers"], row["contrast"]): row for row in contrasts.to_dict("records")}
    for name, layers in dict.fromkeys((name, layers) for name, layers, _ in at):
        both = [at[name, layers, contrast] for contrast in _BOTH]
        spelled = [spelled_interval(row["mean"], row["low"], row["high"]) for row in both]
        verdict = "yes" if all(row["low"] > 0 for row in both) else "no"
        lines.append(f"| {name} | {layers} | {' | '.join(spelled)} | {verdict} |")
    lines += ["", f"| Variation | goal | {' | '.join(FACTORIAL)} |", "|---" * (2 + len(FACTORIAL)) + "|"]
    keys = ("variation", "goal", "objective", "measure")
    means = {tuple(row[key] for key in keys): row["mean"] for row in cells.to_dict("records")}
    for name in dict.fromkeys(cells["variation"]):
        for goal in GOALS:
            spelled = [
                " / ".join(spelled_value(means[name, goal, objective, measure]) for measure in ("efficacy", "broken"))
                for objective in FACTORIAL
            ]
            lines.append(f"| {name} | {goal} | {' | '.join(spelled)} |")
    seeds, n = min(cells["count"].astype(int).tolist()), spelled_range(contrasts["n"].astype(int).tolist())
    lines += [
        "",
        f"Above: differences of efficacy with 95% bootstrap intervals over {n} subjects or scenes of one "
        f"organism, {seeds} seeds averaged within prompts. Below: efficacy / broken share, means over the seeds. Of "
        "less forget text all seeds have the same draw, and facts are asked of all subjects, whether they are in it or "
        "not.",
    ]
    return "\n".join(lines)


def draw_figures(out: Path) -> None:
    """Draws the figure of a finished run from its table, as PDF and PNG."""
    save_figure(plot_sensitivity(read_parquet(out / "sensitivity.parquet")), out / "figures" / "sensitivity")


def _cells(objectives: tuple[str, ...], seeds: tuple[int, ...]) -> list[Cell]:
    return [Cell(objective, goal, seed) for goal in GOALS for objective in objectives for seed in seeds]


def _baselines(out: Path) -> Path:
    return out / "baselines"


def _varied(out: Path, name: str) -> Path:
    return out / "variations" / name.replace(" ", "_")
