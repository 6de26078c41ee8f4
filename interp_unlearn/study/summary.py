"""From the cells' tables to the study's: efficacy, suppression, intervals and the crossover."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from interp_unlearn.artifacts import read_parquet
from interp_unlearn.organism.sets import GOALS
from interp_unlearn.statistics import bootstrap_crossover, bootstrap_gap_closed, gap_closed
from interp_unlearn.statistics.contrasts import Goal as CrossoverGoal
from interp_unlearn.study.plan import BASELINES, Cell

COLUMNS = ["objective", "goal", "measure", "seed", "value"]


def gather(out: Path, cells: list[Cell], table: str) -> pd.DataFrame:
    """The named table of every cell, joined; generations get the cell's columns and their row number."""
    frames: list[pd.DataFrame] = []
    for cell in cells:
        frame = read_parquet(out / "cells" / cell.name / f"{table}.parquet")
        if table == "generations":
            frame = frame.assign(objective=cell.objective, goal=cell.goal, seed=cell.seed, row=range(len(frame)))
        frames.append(frame)
    return pd.concat(frames, ignore_index=True)


def dissociation_table(measures: pd.DataFrame) -> pd.DataFrame:
    """The cells' measures with efficacy and suppression added, columns objective, goal, measure, seed, value.

    Both are shares of the gap between the original and the twin, each averaged over the seeds of its generations.
    """
    rows: list[dict[str, Any]] = []
    for goal in GOALS:
        of_goal = measures.loc[measures["goal"] == goal]
        for name, share in (("efficacy", "clean"), ("suppression", "target")):
            shares = of_goal.loc[of_goal["measure"] == share]
            before, after = (float(shares.loc[shares["objective"] == b, "value"].mean()) for b in BASELINES)
            for row in shares.to_dict("records"):
                closed = gap_closed(float(row["value"]), before, after)
                rows.append(
                    {"objective": row["objective"], "goal": goal, "measure": name, "seed": row["seed"], "value": closed}
                )
    return pd.concat([measures.loc[:, COLUMNS], pd.DataFrame(rows)], ignore_index=True)


def outcome_rows(generations: pd.DataFrame, goal: str, objective: str, verdict: str) -> pd.Series:
    """Share of a verdict for every prompt, averaged over seeds, in the order of the prompts."""
    chosen = generations.loc[(generations["goal"] == goal) & (generations["objective"] == objective)]
    return (chosen["verdict"] == verdict).astype(float).groupby(chosen["row"]).mean().sort_index()


def summarize(table: pd.DataFrame, generations: pd.DataFrame) -> dict[str, Any]:
    """Means over seeds with n, efficacy and suppression with bootstrap intervals, and the crossover.

    Intervals resample subjects (knowledge) and scenes (toxicity) within one organism: they say nothing of another one,
    and there are no p-values.
    """
    means = table.groupby(["objective", "goal", "measure"])["value"].agg(["mean", "min", "max", "count"]).reset_index()
    summary: dict[str, Any] = {
        "conditional_on": "one organism; intervals are 95% percentile bootstraps over subjects or scenes",
        "means": means.to_dict("records"),
        "gap_closed": [],
    }
    for goal in GOALS:
        groups = _groups(generations, goal)
        for objective in sorted(set(generations[generations["goal"] == goal]["objective"])):
            for name, verdict in (("efficacy", "clean"), ("suppression", "target")):
                columns = [outcome_rows(generations, goal, o, verdict) for o in (objective, *BASELINES)]
                interval = bootstrap_gap_closed(*(c.to_numpy() for c in columns), groups=groups)
                summary["gap_closed"].append(
                    {"objective": objective, "goal": goal, "measure": name, "mean": interval.mean,
                     "low": interval.low, "high": interval.high, "n": interval.n, "prompts": len(columns[0])}
                )  # fmt: skip
    summary["crossover"] = _crossovers(generations)
    return summary


def figure_table(table: pd.DataFrame, summary: dict[str, Any]) -> pd.DataFrame:
    """The dissociation table with the efficacy's interval in columns low and high, and n, for the matrix figure.

    n is the generations that were judged, of the measures that are made of them.
    """
    closed = pd.DataFrame(summary["gap_closed"])
    keys = ["objective", "goal", "measure"]
    found = table.merge(closed.loc[:, [*keys, "low", "high"]], on=keys, how="left")
    prompts = {row["goal"]: row["prompts"] for row in summary["gap_closed"]}
    judged = ("clean", "target", "broken", "efficacy")
    rows = zip(found["goal"], found["measure"], strict=True)
    return found.assign(n=[prompts[goal] if measure in judged else None for goal, measure in rows])


def _groups(generations: pd.DataFrame, goal: str) -> list[str]:
    chosen = generations.loc[(generations["goal"] == goal) & (generations["objective"] == BASELINES[0])]
    first = chosen.loc[chosen["seed"] == chosen["seed"].min()]
    return first.sort_values("row")["group"].tolist()


def _crossovers(generations: pd.DataFrame) -> dict[str, Any]:
    """For one layer, several layers and their mean: toxicity's probe minus random, knowledge's random minus probe."""
    found: dict[str, Any] = {}
    for name, layers in (("single", ("single",)), ("multi", ("multi",)), ("mean", ("single", "multi"))):
        toxicity = _cross_goal(generations, "toxicity", [f"probe_{k}" for k in layers], [f"random_{k}" for k in layers])
        knowledge = _cross_goal(
            generations, "knowledge", [f"random_{k}" for k in layers], [f"probe_{k}" for k in layers]
        )
        frame = bootstrap_crossover(toxicity, knowledge).to_frame().drop(columns="p_value")
        names = {"first": "toxicity: probe minus random", "second": "knowledge: random minus probe"}
        frame["contrast"] = frame["contrast"].replace(names)
        both = [contrast for contrast in frame.to_dict("records") if contrast["contrast"] in names.values()]
        found[name] = {
            "contrasts": frame.loc[frame["contrast"] != "crossover"].to_dict("records"),
            "crossover": bool(np.all([contrast["low"] > 0 for contrast in both])),
        }
    return found


def _cross_goal(generations: pd.DataFrame, goal: str, favoured: list[str], other: list[str]) -> CrossoverGoal:
    def mean_of(objectives: list[str]) -> np.ndarray:
        return np.mean([outcome_rows(generations, goal, o, "clean").to_numpy() for o in objectives], axis=0)

    return CrossoverGoal(
        favoured=mean_of(favoured),
        other=mean_of(other),
        before=mean_of(["none"]),
        target=mean_of(["twin"]),
        groups=_groups(generations, goal),
    )
