"""Which methods change the weights the same way: what an angle between two goals has to be read beside."""

from __future__ import annotations

from itertools import combinations
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pandas as pd

from interp_unlearn.artifacts import write_parquet
from interp_unlearn.mechanism import WeightDelta, align_deltas
from interp_unlearn.organism.sets import GOALS
from interp_unlearn.statistics import spelled_interval
from interp_unlearn.study.evidence.models import model_folder
from interp_unlearn.study.stage import load_stage

if TYPE_CHECKING:
    from interp_unlearn.study.evidence.plan import EvidenceConfig

METHODS = "methods.parquet"
N_NULL = 1000


def align_methods(config: EvidenceConfig, out: Path) -> None:
    """Cosines between the changes of every two methods, and of each with itself, unless that was done already.

    Each is between the first seed of the one and the second of the other, where there are two: runs of one seed have
    their batches in common, too.

    Writes:
        methods.parquet: goal, method, other_goal, other, and the columns of `align_deltas` over all tensors.
    """
    if (out / METHODS).exists():
        return
    original = load_stage("knowledge").model("knows_all")
    seeds = (config.seeds[0], config.seeds[min(1, len(config.seeds) - 1)])
    first, second = (
        {one.name: WeightDelta.between(original, model_folder(out, one, seed)) for one in config.subjects}
        for seed in seeds
    )
    pairs = [*combinations(config.subjects, 2), *((one, one) for one in config.subjects if seeds[0] != seeds[1])]
    parts: list[pd.DataFrame] = []
    for one, other in pairs:
        named = {"goal": one.goal, "method": one.method, "other_goal": other.goal, "other": other.method}
        found = align_deltas(original, first[one.name], second[other.name], kinds=("all",), n_null=N_NULL)
        parts.append(found.assign(**named))
    write_parquet(out / METHODS, pd.concat(parts, ignore_index=True))


def alignment_text(table: pd.DataFrame) -> str:
    """Cosines between the changes of two methods, within a goal and between the goals, in a sentence."""
    same = table["goal"] == table["other_goal"]
    others = table.loc[~same | (table["method"] != table["other"])]
    ranges = [
        *(f"both on {goal} {_range(others.loc[same & (others['goal'] == goal)])}" for goal in GOALS),
        f"one on each goal {_range(others.loc[~same])}",
        f"two seeds of one method {_range(table.loc[same & (table['method'] == table['other'])])}",
    ]
    return (
        f"Cosines between the changes of all weights that two methods make, median [least, most]: {'; '.join(ranges)}. "
        f"With signs flipped, 95% lie between {table['null_low'].min():.3f} and {table['null_high'].max():.3f}."
    )


def _range(rows: pd.DataFrame) -> str:
    values: Any = rows["cosine"].dropna()
    if values.empty:
        return "none"
    return f"{spelled_interval(values.median(), values.min(), values.max(), 3)} ({len(values)} pairs)"
