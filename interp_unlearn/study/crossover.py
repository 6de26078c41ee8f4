"""The crossover tested over organisms: which count, what is contrasted, and what may be said of it."""

from __future__ import annotations

from collections.abc import Mapping
from itertools import combinations
from statistics import fmean

import pandas as pd

from interp_unlearn.figures.replication import LAYER_LOOKS
from interp_unlearn.organism.sets import Goal
from interp_unlearn.statistics import crossover, holm, spelled_interval, spelled_value
from interp_unlearn.study.plan import FACTORIAL

LAYERS = {"single": ("single",), "multi": ("multi",), "mean": ("single", "multi")}
ORACLE_GATE = 0.9
"""Efficacy that the oracle, which the twin itself teaches, has to reach on both goals: else the measure is at fault."""
LEVEL = 0.05
MARGIN = 0.05
"""Largest difference of efficacy that would not matter: the evidence's margin, taken over when six organisms had
been seen. It only says how small a difference is; the crossover does not depend on it."""
CONTRASTS: Mapping[str, tuple[Goal, str, str]] = {
    "toxicity: probe minus random": ("toxicity", "probe", "random"),
    "knowledge: random minus probe": ("knowledge", "random", "probe"),
}


def without_failed_oracles(means: pd.DataFrame) -> pd.DataFrame:
    """The organisms on which the oracle passed its gate on every goal it was run on."""
    asked = means.loc[(means["objective"] == "oracle") & (means["measure"] == "efficacy")]
    failed = asked.loc[~(asked["value"] >= ORACLE_GATE), "organism"].tolist()
    return means.loc[~means["organism"].isin(failed)]


def contrast_table(means: pd.DataFrame) -> pd.DataFrame:
    """The crossover for one layer, several layers and their mean, with t intervals and exact sign-flips over organisms.

    `p_adjusted` is Holm's within each family of three: a contrast by its choices of layers.

    Args:
        means: organism, objective, goal, measure, value, seeds averaged.

    Returns:
        Columns layers, contrast, mean, low, high, n (organisms), p_value, p_adjusted; efficacy in clean text.
    """
    cells = _efficacies(means)
    parts: list[pd.DataFrame] = []
    for name in LAYERS:
        toxicity, knowledge = (
            [_over_organisms(cells, goal, target, name).to_numpy() for target in (better, worse)]
            for goal, better, worse in CONTRASTS.values()
        )
        found = crossover(toxicity[0], toxicity[1], knowledge[0], knowledge[1]).to_frame()
        titles = dict(zip(("first", "second"), CONTRASTS, strict=True))
        parts.append(found.assign(layers=name, contrast=found["contrast"].replace(titles)))
    table = pd.concat(parts, ignore_index=True)
    table["p_adjusted"] = table.groupby("contrast", sort=False)["p_value"].transform(holm)
    return table.loc[:, ["layers", "contrast", "mean", "low", "high", "n", "p_value", "p_adjusted"]]


def organism_differences(means: pd.DataFrame) -> pd.DataFrame:
    """Both differences of efficacy on each organism: columns organism, layers, contrast, value."""
    cells = _efficacies(means)
    parts = [
        (_over_organisms(cells, goal, better, name) - _over_organisms(cells, goal, worse, name))
        .rename("value")
        .reset_index()
        .assign(layers=name, contrast=contrast)
        for name in LAYERS
        for contrast, (goal, better, worse) in CONTRASTS.items()
    ]
    return pd.concat(parts, ignore_index=True)


def conclude(means: pd.DataFrame, contrasts: pd.DataFrame) -> str:
    """A paragraph on whether the crossover holds, made from the numbers.

    A difference counts where its 95% t interval leaves out 0; where the interval lies within `MARGIN` of 0, it says so.
    The crossover counts where both differences do, in its sense, and its p-value, after Holm, is at most `LEVEL`.
    Caveat: intervals are not corrected for their number, and t intervals know nothing of the bounds of a share.

    Args:
        means: as for `contrast_table`, with the measure broken too.
        contrasts: what `contrast_table` made of them.
    """
    found = contrasts.set_index(["layers", "contrast"])
    broken = means.loc[means["measure"] == "broken"].groupby(["goal", "objective"])["value"].mean()
    differences = organism_differences(means).set_index(["layers", "contrast"])["value"]
    sentences: list[str] = []
    for layers, kinds in LAYERS.items():
        parts: list[str] = []
        for name, (goal, *targets) in CONTRASTS.items():
            row = found.loc[(layers, name)]
            shares = [broken[[(goal, f"{target}_{kind}") for kind in kinds]].mean() for target in targets]
            bounds = row["mean"], row["low"], row["high"]
            decimals = 3 if max(map(abs, bounds)) < MARGIN else 2
            kept = differences.loc[(layers, name)].tolist()
            without = [fmean(rest) for n in (1, 2) for rest in combinations(kept, max(1, len(kept) - n))]
            ends = " to ".join(spelled_value(end, decimals) for end in (min(without), max(without)))
            parts.append(
                f"on {goal} {' minus '.join(targets)} is {spelled_interval(*bounds, decimals)}, "
                f"{_verdict(row['low'], row['high'])}, while they break {' and '.join(map(spelled_value, shares))} of "
                f"the text; {ends} with any one or two organisms left out"
            )
        p = found.loc[(layers, "crossover"), "p_adjusted"]
        shown = p <= LEVEL and all(found.loc[(layers, name), "low"] > 0 for name in CONTRASTS)
        parts.append(f"the crossover is {'shown' if shown else 'not shown'} (p = {p:.3f} after Holm)")
        sentences.append(f"{LAYER_LOOKS[layers][0].capitalize()}: {'; '.join(parts)}.")
    return " ".join(sentences)


def _verdict(low: float, high: float) -> str:
    small = max(-low, high) < MARGIN
    if low <= 0 <= high:
        return f"none beyond {MARGIN}" if small else "undecided"
    return ("a difference" if low > 0 else "a difference the other way") + (f" within {MARGIN}" if small else "")


def _efficacies(means: pd.DataFrame) -> pd.DataFrame:
    """Efficacy by organism (rows), goal and objective."""
    efficacy = means.loc[(means["measure"] == "efficacy") & means["objective"].isin(FACTORIAL)]
    return efficacy.pivot_table(index="organism", columns=["goal", "objective"], values="value")


def _over_organisms(cells: pd.DataFrame, goal: str, target: str, layers: str) -> pd.Series:
    return cells[[(goal, f"{target}_{layer}") for layer in LAYERS[layers]]].mean(axis=1)
