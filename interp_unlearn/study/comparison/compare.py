"""The pipeline of a comparison: search, then every seed of every contender, then the tables."""

from __future__ import annotations

import time
from dataclasses import asdict, dataclass, replace
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING

import pandas as pd

from interp_unlearn.artifacts import (
    claim_folder,
    environment,
    record_run,
    replaced,
    write_json,
    write_parquet,
)
from interp_unlearn.errors import ConfigError
from interp_unlearn.organism.shipped import twin_hashes
from interp_unlearn.study.comparison import toxicity
from interp_unlearn.study.comparison.attack import attack_curves
from interp_unlearn.study.comparison.bench import load_bench
from interp_unlearn.study.comparison.measures import judged_by_kind, measure, under
from interp_unlearn.study.comparison.search import Trial, best_trial, read_trials, try_setting
from interp_unlearn.study.comparison.summary import (
    excess_table,
    ranking_markdown,
    search_markdown,
    summarize,
    summary_markdown,
)
from interp_unlearn.study.stage import fit_goal_probes, load_stage
from interp_unlearn.study.workers import quieten, run_side_by_side

if TYPE_CHECKING:
    from interp_unlearn.study.comparison.contenders import Contender

DONE = "done.json"  # written last: a folder without it is a run that was interrupted
PROBES = "probes"


@dataclass(frozen=True)
class ComparisonConfig:
    """What a comparison is told.

    Attributes:
        seeds: of unlearning; a seed also seeds the sampling of generations and the attack.
        steps: updates of everything that is trained.
        only: names of the contenders; empty for all. The references are always among them.
        n_trials: settings tried of each contender, the first of its space; None for all twelve.
    """

    seeds: tuple[int, ...] = (0, 1, 2, 3, 4)
    steps: int = 100
    only: tuple[str, ...] = ()
    n_trials: int | None = None

    def __post_init__(self) -> None:
        if not self.seeds or self.steps < 1:
            raise ConfigError(f"a comparison needs a seed and a step, got seeds {self.seeds} and {self.steps} steps")
        unknown = set(self.only) - {contender.name for contender in toxicity.contenders()}
        if unknown:
            names = ", ".join(contender.name for contender in toxicity.contenders())
            raise ConfigError(f"no contender {', '.join(sorted(unknown))}; expected of {names}")

    def quick(self) -> ComparisonConfig:
        """One seed, a tenth of the steps and two trials: to see that everything runs."""
        return replace(self, seeds=self.seeds[:1], steps=max(1, self.steps // 10), n_trials=2)

    @property
    def contenders(self) -> list[Contender]:
        every = toxicity.contenders()
        return [c for c in every if not self.only or c.name in self.only or c.standing == "reference"]


def compare_methods(out: Path, config: ComparisonConfig | None = None, workers: int = 2) -> None:
    """Compares the methods on toxicity, into `out`; continues where an interrupted comparison stopped.

    Args:
        out: folder: trials/, runs/, measures.parquet, verdicts.parquet, relearning.parquet, comparison.parquet (means
            with intervals), trials.parquet, comparison.md, ranking.md, search.md, figures/.
        config: settings, by default the study's own.
        workers: processes, one thread each.

    Raises:
        ArtifactError: `out` holds another comparison.
    """
    quieten()
    config = config or ComparisonConfig()
    identity = {"task": "compare", "goal": "toxicity", "config": asdict(config), "organism": twin_hashes()}
    claim_folder(out, identity)
    started = time.monotonic()
    if not (out / PROBES / "probes.json").exists():
        fit_goal_probes(load_stage("toxicity")).save(out / PROBES)
    searched = [c for c in config.contenders if c.standing != "reference"]
    trials = [(c.name, index, config.steps, out) for c in searched for index in _indices(c, config)]
    run_side_by_side(run_trial, trials, workers, "trials")
    runs = [(c.name, seed, config, out) for c in config.contenders for seed in config.seeds]
    run_side_by_side(run_seed, runs, workers, "runs")
    write_tables(out, config)
    draw_figures(out)
    record_run(out, {"environment": environment(), "seconds_of_last_session": round(time.monotonic() - started)})


def run_trial(name: str, index: int, steps: int, out: Path) -> None:
    """One trial, in a process of its own."""
    try_setting(contender_of(name), index, load_bench("toxicity", out / PROBES, steps), out)


def run_seed(name: str, seed: int, config: ComparisonConfig, out: Path) -> Path:
    """Unlearns under one seed with the setting found, measures and attacks; writes the tables of that run."""
    folder = out / "runs" / f"{name}-{seed}"
    if (folder / DONE).exists():
        return folder
    started = time.monotonic()
    contender = contender_of(name)
    bench = load_bench("toxicity", out / PROBES, config.steps)
    chosen = chosen_trial(contender, config, out)
    if contender.standing != "reference" and chosen is None:
        write_json(folder / DONE, {"contender": name, "seed": seed, "refused": True})
        return folder
    model = bench.stage.twin if name == "twin" else bench.stage.model("knows_all")
    edits = contender.forget(model, bench, chosen.setting if chosen else {}, seed)
    with under(model, edits):
        generations = judged_by_kind(model, bench, seed)
        measures = measure(model, bench, generations)
    # Whoever holds the weights leaves edits at inference aside.
    attacked = attack_curves(model, bench, seed)
    lines = [{"contender": name, "seed": seed, "measure": key, "value": value} for key, value in measures.items()]
    write_parquet(folder / "measures.parquet", pd.DataFrame(lines))
    write_parquet(folder / "verdicts.parquet", generations.assign(contender=name, seed=seed))
    write_parquet(folder / "relearning.parquet", attacked.assign(contender=name, seed=seed))
    write_json(folder / DONE, {"contender": name, "seed": seed, "seconds": round(time.monotonic() - started, 1)})
    return folder


def write_tables(out: Path, config: ComparisonConfig) -> None:
    """Joins the tables of all runs and says what they show."""
    tables = {name: _gather(out, config, name) for name in ("measures", "verdicts", "relearning")}
    for name, table in tables.items():
        write_parquet(out / f"{name}.parquet", table)
    searched = [contender for contender in config.contenders if contender.standing != "reference"]
    trials = pd.DataFrame(
        [
            {**asdict(trial), "setting": str(trial.setting), "chosen": trial is best_trial(tried)}
            for tried in (_trials(contender, config, out) for contender in searched)
            for trial in tried
        ]
    )
    write_parquet(out / "trials.parquet", trials)
    standings = {contender.name: contender.standing for contender in config.contenders}
    summary = summarize(tables["measures"], tables["verdicts"], tables["relearning"], standings)
    write_parquet(out / "comparison.parquet", summary)
    write_parquet(out / "excess.parquet", excess_table(tables["relearning"]))
    texts = {
        "comparison.md": summary_markdown(summary, trials, len(config.seeds)),
        "ranking.md": ranking_markdown(summary),
        "search.md": search_markdown(trials),
    }
    for name, text in texts.items():
        with replaced(out / name) as temporary:
            temporary.write_text(text + "\n", encoding="utf-8")


def draw_figures(out: Path) -> None:
    """Draws the figures of a finished comparison from its tables."""
    from interp_unlearn.artifacts import read_parquet
    from interp_unlearn.figures import plot_excess, plot_probe_auroc, save_figure
    from interp_unlearn.probes import ProbeSet

    save_figure(plot_excess(read_parquet(out / "excess.parquet")), out / "figures" / "relearning_excess")
    save_figure(plot_probe_auroc(ProbeSet.load(out / PROBES).to_frame()), out / "figures" / "probe_auroc")


def chosen_trial(contender: Contender, config: ComparisonConfig, out: Path) -> Trial | None:
    """What the search found; None for a reference, or if every setting was refused."""
    return None if contender.standing == "reference" else best_trial(_trials(contender, config, out))


@cache
def contender_of(name: str) -> Contender:
    """The contender of that name."""
    return next(contender for contender in toxicity.contenders() if contender.name == name)


def _trials(contender: Contender, config: ComparisonConfig, out: Path) -> list[Trial]:
    return read_trials(out, contender, _indices(contender, config))


def _indices(contender: Contender, config: ComparisonConfig) -> range:
    return range(min(len(contender.settings), config.n_trials or len(contender.settings)))


def _gather(out: Path, config: ComparisonConfig, table: str) -> pd.DataFrame:
    from interp_unlearn.artifacts import read_parquet

    folders = [out / "runs" / f"{c.name}-{seed}" for c in config.contenders for seed in config.seeds]
    files = [folder / f"{table}.parquet" for folder in folders]
    return pd.concat([read_parquet(file) for file in files if file.exists()], ignore_index=True)
