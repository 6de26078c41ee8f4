"""From the tables of all runs to one: means over seeds, intervals over prompts, excess over the twin's relearning."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import numpy as np
import pandas as pd
from jaxtyping import Float

from interp_unlearn.organism.world import VERDICTS
from interp_unlearn.statistics import bootstrap_gap_closed, bootstrap_mean, bootstrap_means
from interp_unlearn.statistics.intervals import percentile_interval

TWIN, ORIGINAL = "twin", "none"
AVERAGE = 0
"""Stands for all of the attack's checkpoints where a step is asked for."""


def summarize(
    measures: pd.DataFrame,
    verdicts: pd.DataFrame,
    relearning: pd.DataFrame,
    standings: Mapping[str, str],
    spared: Sequence[str],
) -> pd.DataFrame:
    """One line a contender and measure: contender, standing, measure, mean, low, high, n, seeds.

    Intervals are 95% percentile bootstraps over prompts (those of one subject resampled together), seeds averaged
    before; for what has no prompts, low and high are the range over seeds. `efficacy_<kind>` is the share of the gap to
    the twin that was closed in clean text, `suppression_<kind>` the same of target text, both for the kinds that are
    not spared; of the excess after relearning see `excess_table`.
    """
    lines: list[dict[str, Any]] = []
    asked = list(dict.fromkeys(zip(verdicts["contender"], verdicts["kind"], strict=True)))
    by_prompt = {
        (name, kind): _prompts(verdicts.loc[(verdicts["contender"] == name) & (verdicts["kind"] == kind)])
        for name, kind in asked
    }
    for name, kind in asked:
        values, groups = by_prompt[name, kind]
        for verdict in VERDICTS:
            lines.append(_line(name, f"{verdict}_{kind}", bootstrap_mean(values[verdict], groups)))
        if kind in spared:
            continue
        for measure, verdict in (("efficacy", "clean"), ("suppression", "target")):
            after, before, target = (by_prompt[who, kind][0][verdict] for who in (name, ORIGINAL, TWIN))
            lines.append(_line(name, f"{measure}_{kind}", bootstrap_gap_closed(after, before, target, groups)))
    lines += _over_seeds(measures)
    lines += excess_table(relearning).drop(columns=["attacker", "step"]).to_dict("records")
    table = pd.DataFrame(lines)
    table.insert(1, "standing", [standings[name] for name in table["contender"]])
    return table.assign(seeds=len(set(measures["seed"])))


def excess_table(relearning: pd.DataFrame) -> pd.DataFrame:
    """Excess of the relearned target share over the twin's under the same attacker, by step and over all steps.

    Each at its own worst learning rate at that step. The first attacker's measures are `relearned_excess` and
    `relearned_excess_<step>`, those of the others begin with `<attacker>_excess`.

    Returns:
        Columns contender, attacker, measure, step (0 for all), mean, low, high, n.
    """
    lines: list[dict[str, Any]] = []
    for index, attacker in enumerate(dict.fromkeys(relearning["attacker"])):
        prefix = "relearned" if index == 0 else attacker
        for line in _excess_under(relearning.loc[relearning["attacker"] == attacker]):
            step = line.pop("step")
            measure = f"{prefix}_excess" if step == AVERAGE else f"{prefix}_excess_{step}"
            contender = line.pop("contender")
            lines.append({"contender": contender, "attacker": attacker, "measure": measure, "step": step, **line})
    return pd.DataFrame(lines)


def _excess_under(relearning: pd.DataFrame) -> Iterable[dict[str, Any]]:
    names = list(dict.fromkeys(relearning["contender"]))
    shares = {name: _attacked(relearning.loc[relearning["contender"] == name]) for name in names}
    steps = sorted(set(relearning.loc[relearning["step"] > 0, "step"]))
    groups = relearning.drop_duplicates("row").sort_values("row")["group"].tolist()
    for name in names:
        both = np.concatenate([shares[name], shares[TWIN]], axis=1)  # the twin's prompts are the same: paired
        resampled = bootstrap_means(both, groups)
        estimate = both.mean(0, keepdims=True)
        for index, step in enumerate((*steps, AVERAGE)):
            found, draws = (_excess(values, len(steps))[:, index] for values in (estimate, resampled))
            interval = percentile_interval(float(found[0]), draws, len(set(groups)))
            yield {"contender": name, "step": step, **_numbers(interval)}


def _prompts(part: pd.DataFrame) -> tuple[dict[str, Float[np.ndarray, " prompt"]], list[str]]:
    """Share of each verdict after each prompt over the seeds, and the prompts' groups."""
    _, first, row = np.unique(part["row"].to_numpy(), return_index=True, return_inverse=True)
    told = part["verdict"].to_numpy()
    shares = {verdict: np.bincount(row, told == verdict) / np.bincount(row) for verdict in VERDICTS}
    return {str(verdict): share for verdict, share in shares.items()}, part["group"].iloc[first].tolist()


def _over_seeds(measures: pd.DataFrame) -> Iterable[dict[str, Any]]:
    spans = measures.groupby(["contender", "measure"], sort=False)["value"].agg(["mean", "min", "max", "count"])
    for (name, measure), mean, low, high, n in zip(spans.index.tolist(), *spans.to_numpy().T, strict=True):
        yield {"contender": name, "measure": measure, "mean": mean, "low": low, "high": high, "n": int(n)}


def _attacked(part: pd.DataFrame) -> Float[np.ndarray, "prompt rate*step"]:
    """Target share of each prompt over the seeds, a column for each rate and step after 0, rates outermost."""
    after = part.loc[part["step"] > 0].assign(target=lambda table: (table["verdict"] == "target").astype(float))
    return after.pivot_table(index="row", columns=["rate", "step"], values="target", aggfunc="mean").to_numpy()


def _excess(means: Float[np.ndarray, "draw column"], n_steps: int) -> Float[np.ndarray, "draw step+1"]:
    """Worst rate's share less the twin's worst, at each step and then their mean."""
    own, twin = (half.reshape(len(means), -1, n_steps).max(1) for half in np.split(means, 2, axis=1))
    excess = own - twin
    return np.concatenate([excess, excess.mean(1, keepdims=True)], axis=1)


def _line(name: str, measure: str, interval: Any) -> dict[str, Any]:
    return {"contender": name, "measure": measure, **_numbers(interval)}


def _numbers(interval: Any) -> dict[str, Any]:
    return {"mean": interval.mean, "low": interval.low, "high": interval.high, "n": interval.n}
