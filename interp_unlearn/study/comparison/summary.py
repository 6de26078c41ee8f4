"""From the tables of all runs to one: means over seeds, intervals over prompts, excess over the twin's relearning."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

import numpy as np
import pandas as pd
from jaxtyping import Float

from interp_unlearn.statistics import bootstrap_gap_closed, bootstrap_mean, bootstrap_means
from interp_unlearn.statistics.intervals import percentile_interval
from interp_unlearn.study.comparison.attack import CHECKPOINTS
from interp_unlearn.study.comparison.measures import KINDS
from interp_unlearn.study.comparison.search import KL_BUDGET

TWIN, ORIGINAL = "twin", "none"
MEASURED = ("hazardous_cloze", "benign_cloze", "retain_kl", "probe_original", "probe_retrained")
AVERAGE = 0
"""Stands for all of the attack's checkpoints where a step is asked for."""


def summarize(
    measures: pd.DataFrame, verdicts: pd.DataFrame, relearning: pd.DataFrame, standings: Mapping[str, str]
) -> pd.DataFrame:
    """One line a contender and measure: contender, standing, measure, mean, low, high, n, seeds.

    Intervals are 95% percentile bootstraps over prompts (scenes), seeds averaged before; for what has no prompts, low
    and high are the range over seeds. `efficacy_<kind>` is the share of the gap to the twin that was closed in clean
    text; `relearned_excess_<step>` the target share after the attack at its worst learning rate, less the twin's at
    its own worst; `relearned_excess` their mean over the steps.
    """
    lines: list[dict[str, Any]] = []
    for name in dict.fromkeys(verdicts["contender"]):
        for kind in KINDS:
            for verdict in ("clean", "target", "broken"):
                values = _by_prompt(verdicts, name, kind, verdict)
                lines.append(_line(name, f"{verdict}_{kind}", bootstrap_mean(values)))
            if kind != "civil":
                after, before, target = (_by_prompt(verdicts, who, kind, "clean") for who in (name, ORIGINAL, TWIN))
                lines.append(_line(name, f"efficacy_{kind}", bootstrap_gap_closed(after, before, target)))
        lines += _over_seeds(measures, name)
    lines += excess_table(relearning).to_dict("records")  # pyright: ignore[reportArgumentType]
    table = pd.DataFrame(lines)
    table.insert(1, "standing", [standings[name] for name in table["contender"]])
    return table.assign(seeds=len(set(measures["seed"])))


def excess_table(relearning: pd.DataFrame) -> pd.DataFrame:
    """Excess of the relearned target share over the twin's, by step and over all steps.

    Returns:
        Columns contender, measure (relearned_excess, relearned_excess_<step>), step (0 for all), mean, low, high, n.
    """
    names = list(dict.fromkeys(relearning["contender"]))
    shares = {name: _attacked(relearning.loc[relearning["contender"] == name]) for name in names}
    lines: list[dict[str, Any]] = []
    for name in names:
        both = np.concatenate([shares[name], shares[TWIN]], axis=1)  # the twin's prompts are the same: paired
        resampled = bootstrap_means(both)
        estimate = both.mean(0, keepdims=True)
        for index, step in enumerate((*CHECKPOINTS, AVERAGE)):
            found, draws = (_excess(values)[:, index] for values in (estimate, resampled))
            interval = percentile_interval(float(found[0]), draws, len(both))
            measure = "relearned_excess" if step == AVERAGE else f"relearned_excess_{step}"
            lines.append({**_line(name, measure, interval), "step": step})
    return pd.DataFrame(lines)


def summary_markdown(summary: pd.DataFrame, trials: pd.DataFrame, n_seeds: int) -> str:
    """The table that is printed: one row a contender, least excess after relearning first within each standing."""
    at = summary.set_index(["contender", "measure"])
    standing = dict(zip(summary["contender"], summary["standing"], strict=True))
    twin_perplexity = at.loc[(TWIN, "generation_perplexity"), "mean"]

    def shown(name: str, measure: str, digits: int = 2) -> str:
        return f"{at.loc[(name, measure), 'mean'] + 0.0:.{digits}f}"

    def with_interval(name: str, measure: str) -> str:
        row = at.loc[(name, measure)]
        return f"{row['mean'] + 0.0:.2f} [{row['low'] + 0.0:.2f}, {row['high'] + 0.0:.2f}]"

    head = (
        "method",
        "E seen / held-out / unlike",
        "target, same",
        "broken, same",
        "toxic after civil",
        "perplexity by twin's",
        "cloze hazardous / benign",
        "KL (nats)",
        "excess after relearning, mean of 3, 10, 30, 100 steps",
        "at each",
        "probe AUROC old / re-trained",
    )
    lines = [f"| {' | '.join(head)} |", "|---" * len(head) + "|"]
    order = {"reference": 0, "ours": 1, "privileged": 3, "baseline": 2}
    names = sorted(standing, key=lambda n: (order[standing[n]], at.loc[(n, "relearned_excess"), "mean"]))
    for name in names:
        by_kind = [
            " / ".join(shown(name, f"{what}_{kind}") for kind in KINDS[:3]) for what in ("efficacy", "target", "broken")
        ]
        fluency = at.loc[(name, "generation_perplexity"), "mean"] / twin_perplexity
        cells = [
            f"{name} ({standing[name]})",
            *by_kind,
            shown(name, "target_civil"),
            f"{fluency:.2f}",
            f"{shown(name, 'hazardous_cloze')} / {shown(name, 'benign_cloze')}",
            shown(name, "retain_kl", 4),
            with_interval(name, "relearned_excess"),
            " / ".join(shown(name, f"relearned_excess_{step}") for step in CHECKPOINTS),
            f"{shown(name, 'probe_original')} / {shown(name, 'probe_retrained')}",
        ]
        lines.append(f"| {' | '.join(cells)} |")
    refused = sorted(set(trials["contender"]) - set(standing)) if len(trials) else []
    notes = [f"Means over {n_seeds} seeds; intervals are 95% bootstraps over prompts, within one organism."]
    notes += [f"Every setting was refused: {', '.join(refused)}."] if refused else []
    return "\n".join([*lines, "", *notes])


def ranking_markdown(summary: pd.DataFrame) -> str:
    """The short table: every method but the references, least excess after relearning first, whatever its standing."""
    at = summary.set_index(["contender", "measure"])
    standing = dict(zip(summary["contender"], summary["standing"], strict=True))
    names = [name for name in standing if standing[name] != "reference"]

    def cell(name: str, measure: str, digits: int = 2) -> str:
        return f"{at.loc[(name, measure), 'mean'] + 0.0:.{digits}f}"

    lines = [
        "| method | E seen / held-out / unlike | broken, same | KL (nats) | excess after relearning [95%] |",
        "|---|---|---|---|---|",
    ]
    for name in sorted(names, key=lambda name: at.loc[(name, "relearned_excess"), "mean"]):
        row = at.loc[(name, "relearned_excess")]
        efficacy, broken = (
            " / ".join(cell(name, f"{what}_{kind}") for kind in KINDS[:3]) for what in ("efficacy", "broken")
        )
        excess = f"{row['mean'] + 0.0:.2f} [{row['low'] + 0.0:.2f}, {row['high'] + 0.0:.2f}]"
        lines.append(f"| {name} ({standing[name]}) | {efficacy} | {broken} | {cell(name, 'retain_kl', 4)} | {excess} |")
    return "\n".join(lines)


def search_markdown(trials: pd.DataFrame) -> str:
    """What the search settled on for each method, and how many of its settings the budget of divergence allowed."""
    lines = [
        "| method | setting | clean, validation | relearned, validation | within the budget |",
        "|---|---|---|---|---|",
    ]
    for name, tried in trials.groupby("contender", sort=True):
        done = tried.loc[tried["kl"].notna()]
        chosen = tried.loc[tried["chosen"]]
        if not len(chosen):
            lines.append(f"| {name} | every setting was refused | | | 0 of {len(tried)} |")
            continue
        best = chosen.iloc[0]
        affordable = int((done["kl"] <= KL_BUDGET).sum())
        lines.append(
            f"| {name} | `{best['setting']}` | {best['clean']:.2f} | {best['relearned']:.2f} | "
            f"{affordable} of {len(tried)} |"
        )
    return "\n".join(lines)


def _by_prompt(verdicts: pd.DataFrame, name: str, kind: str, verdict: str) -> Float[np.ndarray, " prompt"]:
    chosen = verdicts.loc[(verdicts["contender"] == name) & (verdicts["kind"] == kind)]
    return (chosen["verdict"] == verdict).astype(float).groupby(chosen["row"]).mean().sort_index().to_numpy()


def _over_seeds(measures: pd.DataFrame, name: str) -> Iterable[dict[str, Any]]:
    of_contender = measures.loc[measures["contender"] == name]
    for measure, part in of_contender.groupby("measure"):
        if measure in MEASURED or str(measure).endswith(("probability", "perplexity")):
            values = part["value"]
            span = {"mean": values.mean(), "low": values.min(), "high": values.max(), "n": len(values)}
            yield {"contender": name, "measure": measure, **span}


def _attacked(part: pd.DataFrame) -> Float[np.ndarray, "prompt rate*step"]:
    """Target share of each prompt over the seeds, a column for each rate and step after 0, rates outermost."""
    after = part.loc[part["step"] > 0].assign(target=lambda table: (table["verdict"] == "target").astype(float))
    return after.pivot_table(index="row", columns=["rate", "step"], values="target", aggfunc="mean").to_numpy()


def _excess(means: Float[np.ndarray, "draw column"]) -> Float[np.ndarray, "draw step+1"]:
    """Worst rate's share less the twin's worst, at each step and then their mean."""
    own, twin = (half.reshape(len(means), -1, len(CHECKPOINTS)).max(1) for half in np.split(means, 2, axis=1))
    excess = own - twin
    return np.concatenate([excess, excess.mean(1, keepdims=True)], axis=1)


def _line(name: str, measure: str, interval: Any) -> dict[str, Any]:
    return {
        "contender": name,
        "measure": measure,
        "mean": interval.mean,
        "low": interval.low,
        "high": interval.high,
        "n": interval.n,
    }
