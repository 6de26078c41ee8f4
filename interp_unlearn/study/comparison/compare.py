"""The pipeline of a comparison: search, then every seed of every contender, then the tables."""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import asdict, dataclass, fields, replace
from pathlib import Path
from typing import TYPE_CHECKING

import pandas as pd

from interp_unlearn.artifacts import (
    IDENTITY_FILE,
    claimed,
    read_parquet,
    read_record,
    record_run,
    replaced,
    write_json,
    write_parquet,
)
from interp_unlearn.errors import ArtifactError, ConfigError
from interp_unlearn.organism.shipped import twin_hashes
from interp_unlearn.settings import check_fields
from interp_unlearn.study.comparison.attack import attack_curves
from interp_unlearn.study.comparison.bench import load_bench
from interp_unlearn.study.comparison.contest import Contest, contest_on
from interp_unlearn.study.comparison.measures import counted, judged_by_kind, under
from interp_unlearn.study.comparison.search import Trial, best_trial, read_trials, try_setting
from interp_unlearn.study.comparison.summary import excess_table, summarize
from interp_unlearn.study.comparison.tables import (
    ablation_markdown,
    ranking_markdown,
    search_markdown,
    summary_markdown,
)
from interp_unlearn.study.plan import TWINS
from interp_unlearn.study.stage import fit_goal_probes, load_stage
from interp_unlearn.study.workers import quieten, run_side_by_side

if TYPE_CHECKING:
    from interp_unlearn.organism.sets import Goal
    from interp_unlearn.study.comparison.bench import Bench
    from interp_unlearn.study.comparison.contenders import Contender

DONE = "done.json"  # written last: a folder without it is a run that was interrupted
PROBES = "probes"


@dataclass(frozen=True)
class ComparisonConfig:
    """What a comparison is told.

    Attributes:
        seeds: of unlearning; a seed also seeds the sampling of generations and the attack.
        steps: updates of everything that is trained; None for the contest's own number.
        only: names of the contenders; empty for all. The references are always among them.
        n_trials: settings tried of each contender, the first of its space; None for all twelve.
    """

    seeds: tuple[int, ...] = (0, 1, 2, 3, 4)
    steps: int | None = None
    only: tuple[str, ...] = ()
    n_trials: int | None = None

    def __post_init__(self) -> None:
        check_fields(self)
        if not self.seeds or (self.steps is not None and self.steps < 1):
            raise ConfigError(f"a comparison needs a seed and a step, got seeds {self.seeds} and {self.steps} steps")

    def quick(self, contest: Contest) -> ComparisonConfig:
        """One seed, a tenth of the steps and two trials: to see that everything runs."""
        return replace(self, seeds=self.seeds[:1], steps=max(1, (self.steps or contest.steps) // 10), n_trials=2)


def compare_methods(
    out: Path,
    goal: Goal = "toxicity",
    config: ComparisonConfig | None = None,
    workers: int = 2,
    organism: Path | None = None,
) -> None:
    """Compares the methods on a goal, into `out`; continues where an interrupted comparison stopped.

    Args:
        out: folder: trials/, runs/, measures.parquet, verdicts.parquet, relearning.parquet, comparison.parquet (means
            with intervals), trials.parquet, comparison.md, ranking.md, search.md, figures/; ablation.md where methods
            were ablated.
        goal: what is unlearned.
        config: settings, by default the study's own.
        workers: processes, one thread each.
        organism: folder of the twins, by default the shipped ones.

    Raises:
        ConfigError: there is no contender of a name.
        ArtifactError: `out` holds another comparison, or the organism lacks a twin.
    """
    quieten()
    contest = contest_on(goal)
    config = config or ComparisonConfig()
    config = replace(config, steps=config.steps or contest.steps)
    runs = _running(contest, config)
    twins = twin_hashes(organism)
    if lacking := sorted({"knows_all", TWINS[goal]} - twins.keys()):
        raise ArtifactError(
            f"{organism} has no twin {', '.join(lacking)}; make them with `interp-unlearn organism build`"
        )
    identity = {"task": "compare", "goal": goal, "config": asdict(config), "organism": twins}
    with claimed(out, identity):
        started = time.monotonic()
        if contest.with_probes and not (out / PROBES / "probes.json").exists():
            fit_goal_probes(load_stage(goal, organism)).save(out / PROBES)
        shared = (config, out, organism)
        trials = [(goal, c.name, index, *shared) for c in _searched(contest, runs) for index in _indices(c, config)]
        run_side_by_side(run_trial, trials, workers, "trials")
        seeds = [(goal, c.name, seed, *shared) for c in runs for seed in config.seeds]
        run_side_by_side(run_seed, seeds, workers, "runs")
        write_tables(out, contest, config)
        draw_figures(out)
        made = _how_made(out, runs, config)
        record_run(out, {"runs": made, "seconds_of_last_session": round(time.monotonic() - started)})


def run_trial(
    goal: Goal, name: str, index: int, config: ComparisonConfig, out: Path, organism: Path | None = None
) -> None:
    """One trial, in a process of its own."""
    contest = contest_on(goal)
    try_setting(contest.roster[name], index, _bench(contest, config, out, organism), contest.rehearsal, out)


def run_seed(
    goal: Goal, name: str, seed: int, config: ComparisonConfig, out: Path, organism: Path | None = None
) -> Path:
    """Unlearns under one seed with the setting found, measures and attacks; writes the tables of that run."""
    folder = out / "runs" / f"{name}-{seed}"
    if (folder / DONE).exists():
        return folder
    with claimed(folder, {"task": "run of a comparison", "contender": name, "seed": seed}):
        started = time.monotonic()
        contest = contest_on(goal)
        contender, bench = contest.roster[name], _bench(contest, config, out, organism)
        chosen = chosen_trial(contest, contender, config, out)
        if contender.standing != "reference" and chosen is None:
            write_json(folder / DONE, {"contender": name, "seed": seed, "refused": True})
            return folder
        model = bench.stage.twin if name == "twin" else bench.stage.model("knows_all")
        with counted(model) as work:
            edits = contender.forget(model, bench, chosen.setting if chosen else {}, seed)
        with under(model, edits):
            generations = judged_by_kind(model, bench, contest.prompts(bench), seed)
            measures = contest.measure(model, bench, generations)
        measures["training_tokens"] = work.million_tokens
        # Whoever holds the weights leaves edits at inference aside.
        attacked = attack_curves(model, bench, contest.attackers, seed)
        lines = [{"contender": name, "seed": seed, "measure": key, "value": value} for key, value in measures.items()]
        write_parquet(folder / "measures.parquet", pd.DataFrame(lines))
        write_parquet(folder / "verdicts.parquet", generations.assign(contender=name, seed=seed))
        write_parquet(folder / "relearning.parquet", attacked.assign(contender=name, seed=seed))
        record_run(folder, {"seconds": round(time.monotonic() - started, 1)})
        write_json(folder / DONE, {"contender": name, "seed": seed})
    return folder


def write_tables(out: Path, contest: Contest, config: ComparisonConfig) -> None:
    """Joins the tables of all runs and says what they show."""
    runs = _running(contest, config)
    tables = {name: _gather(out, runs, config, name) for name in ("measures", "verdicts", "relearning")}
    for name, table in tables.items():
        write_parquet(out / f"{name}.parquet", table)
    tried = {c.name: _trials(c, config, out) for c in _searched(contest, runs)}
    chosen = {name: best_trial(trials, contest.equally_clean) for name, trials in tried.items()}
    lines = [
        {**asdict(trial), "setting": str(trial.setting), "chosen": trial is chosen[name]}
        for name, trials in tried.items()
        for trial in trials
    ]
    trials = pd.DataFrame(lines, columns=[*(field.name for field in fields(Trial)), "chosen"])  # none of references
    write_parquet(out / "trials.parquet", trials)
    standings = {contender.name: contender.standing for contender in runs}
    summary = summarize(tables["measures"], tables["verdicts"], tables["relearning"], standings, contest.spared)
    write_parquet(out / "comparison.parquet", summary)
    write_parquet(out / "excess.parquet", excess_table(tables["relearning"]).assign(unit=contest.unit))
    texts = {
        "comparison.md": summary_markdown(summary, trials, contest.columns, len(config.seeds), contest.unit),
        "ranking.md": ranking_markdown(summary, contest.ranking),
        "search.md": search_markdown(trials),
    }
    if "ablation" in standings.values():
        texts["ablation.md"] = ablation_markdown(summary, contest.roster, contest.ablated)
    for name, text in texts.items():
        with replaced(out / name) as temporary:
            temporary.write_text(text + "\n", encoding="utf-8")


def draw_figures(out: Path) -> None:
    """Draws the figures of a finished comparison from its tables."""
    from interp_unlearn.figures import plot_excess, plot_probe_auroc, save_figure
    from interp_unlearn.probes import ProbeSet

    save_figure(plot_excess(read_parquet(out / "excess.parquet")), out / "figures" / "relearning_excess")
    if (out / PROBES / "probes.json").exists():
        save_figure(plot_probe_auroc(ProbeSet.load(out / PROBES).to_frame()), out / "figures" / "probe_auroc")


def chosen_trial(contest: Contest, contender: Contender, config: ComparisonConfig, out: Path) -> Trial | None:
    """What the search found, for an ablation what it found for the parent; None if every setting was refused."""
    if contender.standing == "reference":
        return None
    searched = contest.roster[contender.parent] if contender.parent else contender
    return best_trial(_trials(searched, config, out), contest.equally_clean)


def _running(contest: Contest, config: ComparisonConfig) -> list[Contender]:
    names = [contender.name for contender in contest.roster]
    if unknown := set(config.only) - set(names):
        raise ConfigError(f"no contender {', '.join(sorted(unknown))}; expected of {', '.join(names)}")
    return [c for c in contest.roster if not config.only or c.name in config.only or c.standing == "reference"]


def _searched(contest: Contest, runs: Sequence[Contender]) -> list[Contender]:
    """The contenders with settings of their own, and the parents of ablations."""
    needed = {contender.parent or contender.name for contender in runs}
    return [contender for contender in contest.roster if contender.searched and contender.name in needed]


def _bench(contest: Contest, config: ComparisonConfig, out: Path, organism: Path | None) -> Bench:
    assert config.steps is not None
    return load_bench(contest.goal, out / PROBES if contest.with_probes else None, config.steps, organism)


def _trials(contender: Contender, config: ComparisonConfig, out: Path) -> list[Trial]:
    return read_trials(out, contender, _indices(contender, config))


def _indices(contender: Contender, config: ComparisonConfig) -> range:
    return range(min(len(contender.settings), config.n_trials or len(contender.settings)))


def _how_made(out: Path, runs: Sequence[Contender], config: ComparisonConfig) -> list[dict[str, object]]:
    """The runs by the versions they were made with, and their seconds: a comparison may go on elsewhere."""
    names = [f"{contender.name}-{seed}" for contender in runs for seed in config.seeds]
    made = [read_record(out / "runs" / name / IDENTITY_FILE) for name in names]
    records = pd.DataFrame([{"environment": {}, "seconds": 0.0} | record for record in made])
    by_versions = records.assign(run=names).groupby(records["environment"].map(str), sort=False)
    return [
        {"environment": of["environment"].iloc[0], "runs": of["run"].tolist(), "seconds": round(of["seconds"].sum())}
        for _, of in by_versions
    ]


def _gather(out: Path, runs: Sequence[Contender], config: ComparisonConfig, table: str) -> pd.DataFrame:
    folders = [out / "runs" / f"{c.name}-{seed}" for c in runs for seed in config.seeds]
    files = [folder / f"{table}.parquet" for folder in folders]
    return pd.concat([read_parquet(file) for file in files if file.exists()], ignore_index=True)
