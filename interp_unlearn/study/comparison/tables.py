"""The tables of a comparison as they are printed."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import pandas as pd

from interp_unlearn.study.comparison.search import KL_BUDGET

if TYPE_CHECKING:
    from interp_unlearn.study.comparison.contenders import Contender

_ORDER = {"reference": 0, "ours": 1, "baseline": 2, "privileged": 3, "ablation": 4}


@dataclass(frozen=True)
class Column:
    """One column: the means of some measures, separated by slashes.

    Attributes:
        head: its title.
        measures: by name; one that a contender lacks is shown as a dash.
        digits: after the point.
        interval: whether the interval stands behind the mean.
        by_twin: whether means are divided by the twin's.
    """

    head: str
    measures: tuple[str, ...]
    digits: int = 2
    interval: bool = False
    by_twin: bool = False

    def cell(self, of_contender: pd.DataFrame, of_twin: pd.DataFrame) -> str:
        """The text for a contender, from its lines of the summary by measure."""
        return " / ".join(self._shown(of_contender, of_twin, measure) for measure in self.measures)

    def _shown(self, of_contender: pd.DataFrame, of_twin: pd.DataFrame, measure: str) -> str:
        if measure not in of_contender.index:
            return "–"
        row, unit = of_contender.loc[measure], of_twin.loc[measure, "mean"] if self.by_twin else 1.0
        # Adding 0.0 makes 0 of -0.
        mean, low, high = (f"{row[name] / unit + 0.0:.{self.digits}f}" for name in ("mean", "low", "high"))
        return f"{mean} [{low}, {high}]" if self.interval else mean


def summary_markdown(
    summary: pd.DataFrame, trials: pd.DataFrame, columns: Sequence[Column], n_seeds: int, unit: str = "prompts"
) -> str:
    """The table that is printed: one row a contender, least excess after relearning first within each standing."""
    standing = _standings(summary)
    excess = _excess(summary)
    names = sorted(standing, key=lambda name: (_ORDER[standing[name]], excess[name]))
    lines = _table(summary, names, columns)
    refused = sorted(set(trials["contender"]) - set(standing)) if len(trials) else []
    notes = [f"Means over {n_seeds} seeds; intervals are 95% bootstraps over {unit}, within one organism."]
    notes += [f"Every setting was refused: {', '.join(refused)}."] if refused else []
    return "\n".join([*lines, "", *notes])


def ranking_markdown(summary: pd.DataFrame, columns: Sequence[Column]) -> str:
    """The short table: every searched method, least excess after relearning first, whatever its standing."""
    excess = _excess(summary)
    names = [name for name, standing in _standings(summary).items() if standing not in ("reference", "ablation")]
    return "\n".join(_table(summary, sorted(names, key=lambda name: excess[name]), columns))


def ablation_markdown(summary: pd.DataFrame, roster: Iterable[Contender], columns: Sequence[Column]) -> str:
    """Each ablated method, and under it what it is with something left out or exchanged."""
    compared = list(dict.fromkeys(summary["contender"]))
    families: dict[str, list[str]] = {}
    for contender in roster:
        if contender.parent and contender.name in compared:
            families.setdefault(contender.parent, [contender.parent]).append(contender.name)
    names = [name for family in families.values() for name in family if name in compared]
    return "\n".join(_table(summary, names, columns))


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


def _table(summary: pd.DataFrame, names: Sequence[str], columns: Sequence[Column]) -> list[str]:
    by_measure = {str(name): part.set_index("measure") for name, part in summary.groupby("contender")}
    standing = _standings(summary)
    lines = [f"| {' | '.join(['method', *(column.head for column in columns)])} |", "|---" * (len(columns) + 1) + "|"]
    for name in names:
        cells = [column.cell(by_measure[name], by_measure["twin"]) for column in columns]
        lines.append(f"| {' | '.join([f'{name} ({standing[name]})', *cells])} |")
    return lines


def _standings(summary: pd.DataFrame) -> dict[str, str]:
    return dict(zip(summary["contender"], summary["standing"], strict=True))


def _excess(summary: pd.DataFrame) -> pd.Series:
    return summary.loc[summary["measure"] == "relearned_excess"].set_index("contender")["mean"]
