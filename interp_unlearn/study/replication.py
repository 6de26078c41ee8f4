"""The factorial on several organisms, each with a world, an initialisation and twins of its own.

The organism is what is replicated: unlearning seeds are averaged within one, and tests are over organisms.
"""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path

import pandas as pd

from interp_unlearn.artifacts import (
    claimed,
    read_parquet,
    record_run,
    replaced,
    write_parquet,
)
from interp_unlearn.errors import ConfigError
from interp_unlearn.figures import plot_replication, save_figure
from interp_unlearn.organism.build import SHIPPED_TWINS, BuildConfig
from interp_unlearn.organism.shipped import twin_hashes
from interp_unlearn.settings import check_fields
from interp_unlearn.statistics import spelled_interval
from interp_unlearn.study.crossover import (
    MARGIN,
    ORACLE_GATE,
    conclude,
    contrast_table,
    organism_differences,
    without_failed_oracles,
)
from interp_unlearn.study.plan import StudyConfig
from interp_unlearn.study.replica import is_made, make_replica, read_replicas
from interp_unlearn.study.workers import run_side_by_side


@dataclass(frozen=True)
class ReplicationConfig:
    """What a replication is told.

    Attributes:
        organisms: how many; number 0 is the shipped one.
        study: of each; without the attack, which no contrast is about.
        build: of each but the shipped one; organism k has world and initialisation of seed k.
    """

    organisms: int = 8
    study: StudyConfig = field(default_factory=lambda: StudyConfig(native=False, relearn_checkpoints=()))
    build: BuildConfig = field(default_factory=BuildConfig)

    def __post_init__(self) -> None:
        check_fields(self)
        if self.organisms < 2:
            raise ConfigError(f"a replication needs two organisms, got {self.organisms}; for one there is `reproduce`")


def replicate(
    out: Path, config: ReplicationConfig | None = None, workers: int = 2, only: Sequence[int] = ()
) -> list[int]:
    """Builds the organisms, runs the study on each that passed its gates, and tests the crossover over them.

    Continues where an interrupted replication stopped. An organism that failed a gate is named and left out, before
    anything was unlearned on it. Organisms may be made on several machines: `only` says which are made here, and what
    others left in `replicas/` is taken as it is, if made by the same settings.

    Args:
        out: folder: organisms/ (their weights), studies/, replicas/ (of each organism what the tests need, see
            `make_replica`), organisms.parquet (gates and hashes), efficacy.parquet, contrasts.parquet,
            replication.md, figures/.
        config: settings, by default eight organisms.
        workers: organisms made side by side, one thread each.
        only: numbers of the organisms to make, by default all that are missing.

    Returns:
        The organisms still missing. Tables and figures are made when there are none.

    Raises:
        ArtifactError: `out` holds another run, or a replica made by other settings.
        ConfigError: `only` names an organism that there is not; fewer than two organisms passed their gates, or on
            fewer than two the oracle passed its own.
    """
    config = config or ReplicationConfig()
    numbers = list(range(config.organisms))
    if unknown := sorted(set(only) - set(numbers)):
        raise ConfigError(f"there is no organism {unknown[0]} among {config.organisms}, which are numbered from 0")
    with claimed(out, {"task": "replicate", "config": asdict(config), "shipped": twin_hashes()}):
        started = time.monotonic()
        settings = (config.study, config.build)
        missing = [number for number in numbers if not is_made(out, number, *settings)]
        asked = [number for number in missing if not only or number in only]
        asked.sort(key=lambda number: not number)  # the shipped one, which needs no building, comes last
        run_side_by_side(make_replica, [(out, number, *settings) for number in asked], workers, "organisms")
        record_run(out, {"seconds_of_last_session": round(time.monotonic() - started)})
        if others := [number for number in missing if number not in asked]:
            return others
        write_tables(out, *read_replicas(out, numbers))
        draw_figures(out)
    return []


def write_tables(out: Path, organisms: pd.DataFrame, measured: pd.DataFrame) -> None:
    """Averages seeds within the organisms that passed their gates, and tests the crossover over them.

    Raises:
        ConfigError: fewer than two organisms passed their gates, or on fewer than two the oracle passed its own.
    """
    write_parquet(out / "organisms.parquet", organisms)
    if (passed := organisms["passed"].tolist().count(True)) < 2:
        raise ConfigError(f"{passed} of {len(organisms)} organisms passed their gates, and two are needed")
    keys = ["organism", "objective", "goal", "measure"]
    means = measured.pivot_table(index=keys, values="value", aggfunc="mean", sort=False).reset_index()
    write_parquet(out / "efficacy.parquet", means)
    valid = without_failed_oracles(means)
    if len(set(valid["organism"])) < 2:
        raise ConfigError(
            f"the oracle reaches {ORACLE_GATE} on fewer than two organisms; no test can be made over them"
        )
    contrasts = contrast_table(valid)
    write_parquet(out / "contrasts.parquet", contrasts)
    with replaced(out / "replication.md") as temporary:
        temporary.write_text(replication_markdown(means, contrasts, organisms) + "\n", encoding="utf-8")


def draw_figures(out: Path) -> None:
    """Draws the figure of a finished replication from its tables, as PDF and PNG."""
    means, contrasts = (read_parquet(out / f"{name}.parquet") for name in ("efficacy", "contrasts"))
    figure = plot_replication(organism_differences(without_failed_oracles(means)), contrasts)
    save_figure(figure, out / "figures" / "replication")


def replication_markdown(means: pd.DataFrame, contrasts: pd.DataFrame, organisms: pd.DataFrame) -> str:
    """The tables in words: efficacy by cell over organisms, the contrasts, what they show, and the organisms."""
    everything, means = means, without_failed_oracles(means)
    of_cells = means.loc[means["measure"].isin(["efficacy", "broken"])]
    spread = of_cells.groupby(["goal", "objective", "measure"], sort=False)["value"].agg(["mean", "min", "max"])
    lines = ["| goal | objective | E, mean [least, most] | broken, mean [least, most] |", "|---|---|---|---|"]
    for goal, objective in dict.fromkeys(zip(means["goal"], means["objective"], strict=True)):
        cells = [spelled_interval(*spread.loc[(goal, objective, measure)]) for measure in ("efficacy", "broken")]
        lines.append(f"| {goal} | {objective} | {' | '.join(cells)} |")
    lines += ["", "| layers | contrast | mean [95% t] | p | p, Holm |", "|---|---|---|---|---|"]
    for row in contrasts.to_dict("records"):
        value = "" if pd.isna(row["mean"]) else spelled_interval(row["mean"], row["low"], row["high"])
        adjusted = "" if pd.isna(row["p_adjusted"]) else f"{row['p_adjusted']:.3f}"
        lines.append(f"| {row['layers']} | {row['contrast']} | {value} | {row['p_value']:.3f} | {adjusted} |")
    n = means["organism"].nunique()
    lines += [
        "",
        f"{n} organisms that passed their gates, and on which the oracle reaches {ORACLE_GATE} on both goals, seeds "
        f"averaged within; one-sided exact sign-flips, which cannot give a p below {2.0**-n:.3g}. Intervals are not "
        f"corrected for their number. The margin of {MARGIN} only says how small a difference is; the crossover does "
        "not depend on it.",
        "",
        conclude(means, contrasts),
        "",
        f"| organism | gates | E of the oracle | {' | '.join(SHIPPED_TWINS)} |",
        "|---" * (3 + len(SHIPPED_TWINS)) + "|",
    ]
    asked = everything.loc[(everything["objective"] == "oracle") & (everything["measure"] == "efficacy")]
    for row in organisms.to_dict("records"):
        digests = [row[f"{twin}_sha256"][:12] for twin in SHIPPED_TWINS]
        hashes = " | ".join(f"`{digest}`" if digest else "" for digest in digests)
        reached = asked.loc[asked["organism"] == row["organism"]].to_dict("records")
        oracle = ", ".join(f"{one['goal']} {one['value']:.2f}" for one in reached) or "not run"
        lines.append(f"| {row['organism']} | {row['failed'] or 'all passed'} | {oracle} | {hashes} |")
    lines += [
        "",
        "Number 0 is the shipped one. Hashes are the first digits of the SHA-256 of each twin's weights; where "
        f"{SHIPPED_TWINS[0]} failed a gate, the others were not built.",
    ]
    return "\n".join(lines)
