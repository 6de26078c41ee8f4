"""The evidence as tables to read."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from interp_unlearn.figures.attacks import ATTACK_NAMES
from interp_unlearn.organism.sets import GOALS
from interp_unlearn.statistics import spelled_interval
from interp_unlearn.study.evidence.attacked import TWIN

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    import pandas as pd

BROKEN_BESIDE = 0.05
"""Share of broken answers under an attack from which it is named beside what came back."""
_RECOVERED = ("recovered", "recovered_low", "recovered_high")
CONTROL = "*at random instead*"
OF = {"recovered": "share of the gap", "beyond_twin": "beyond the twin"}
REASKED = ("reformat", "few_shot")
"""Attacks that ask the original otherwise, too: shares of what it then does."""


def evidence_markdown(
    attacks: pd.DataFrame,
    predictions: pd.DataFrame,
    conclusions: Mapping[tuple[str, str], str],
    alignment: str,
    patching: str,
    drift: Sequence[str],
    n_seeds: int,
    n_asked: int,
) -> str:
    """Attacks by goal, what was predicted of them, and the conclusions on each pair of methods.

    Args:
        attacks: of `attack_table`.
        predictions: of `check_predictions`.
        conclusions: by pair of methods.
        alignment: which methods change the weights the same way.
        drift: the section on it.
        patching: what patching between the twins showed, which is of no method.
        n_seeds: of unlearning.
        n_asked: most prompts of a goal.
    """
    lines: list[str] = []
    for goal in GOALS:
        if goal in set(attacks["goal"]):
            lines += [f"### {goal.capitalize()}", "", *attack_lines(attacks.loc[attacks["goal"] == goal]), ""]
    lines += [_footnote(n_seeds, n_asked), "", "### Predicted and found", "", *prediction_lines(predictions), ""]
    for (first, second), text in conclusions.items():
        lines += [f"### {first} on knowledge, {second} on toxicity", "", text, ""]
    lines += ["### Every two methods", "", alignment, ""]
    lines += ["### The original and its twins", "", patching, "", "### Drift", "", *drift]
    return "\n".join(lines).rstrip()


def attack_lines(attacks: pd.DataFrame) -> list[str]:
    """One row an attack, one column a method: the share of the gap to the original that came back."""
    methods = [method for method in dict.fromkeys(attacks["method"]) if method != TWIN]
    lines = ["| attack | " + " | ".join(methods) + " |", "|---" * (len(methods) + 1) + "|"]
    whole = attacks.sort_values("n", kind="stable")  # where every prompt was asked
    before = {row["method"]: row for row in whole.to_dict("records")}
    for told, column in (("target", "unlearned"), ("broken", "broken_before")):
        cells = " | ".join(f"{before[name][column]:.2f}" for name in methods)
        lines.append(f"| *{told} before any* | {cells} |")
    for attack in (name for name in ATTACK_NAMES if name in set(attacks["attack"])):
        rows = {row["method"]: row for row in attacks.loc[attacks["attack"] == attack].to_dict("records")}
        lines.append(f"| {ATTACK_NAMES[attack]} | " + " | ".join(share_cell(rows.get(name)) for name in methods) + " |")
        if any(row["control"] == row["control"] for row in rows.values()):
            lines.append(f"| {CONTROL} | " + " | ".join(_control_cell(rows.get(name)) for name in methods) + " |")
        if attack in REASKED:
            scores = (rows[name]["original"] if name in rows else float("nan") for name in methods)
            cells = ("" if score != score else f"{score:.2f}" for score in scores)
            lines.append(f"| *the original, asked so* | {' | '.join(cells)} |")
    return lines


def share_cell(row: Mapping[Any, Any] | None) -> str:
    """A share with its interval, or why there is none."""
    if row is None:
        return "not run"
    if row["recovered"] == row["recovered"]:
        told = [spelled_interval(*(row[name] for name in _RECOVERED))]
    else:
        told = ["no gap" if str(row["reason"]).startswith("no gap") else "not scored"]
    if row["beyond_twin"] == row["beyond_twin"]:
        middle, low, high = (round(row[f"beyond_twin{end}"], 2) + 0.0 for end in ("", "_low", "_high"))
        told.append(f"{middle:+.2f} [{low:+.2f}, {high:+.2f}]")
    if row["broken"] > BROKEN_BESIDE:
        told.append(f"broken {row['broken']:.2f}")
    return "; ".join(told)


def _control_cell(row: Mapping[Any, Any] | None) -> str:
    """What random directions or neurons bring back, and whether the attack brings more."""
    if row is None or row["control_recovered"] != row["control_recovered"]:
        return ""
    return spelled_interval(*(row[f"control_{name}"] for name in _RECOVERED)) + f"; p = {row['p_adjusted']:.2g}"


def prediction_lines(predictions: pd.DataFrame) -> list[str]:
    """One row a prediction, and how many agreed."""
    columns = (
        "attack",
        "goal",
        "method",
        "of",
        "published",
        "known before",
        "predicted",
        "found",
        "",
        "by what is published",
    )
    lines = [f"| {' | '.join(columns)} |", "|---" * len(columns) + "|"]
    for row in predictions.to_dict("records"):
        none = row["found"] != row["found"]
        found = "none" if none else spelled_interval(*(row[f"found{end}"] for end in ("", "_low", "_high")))
        predicted = f"{row['predicted_low']:.2f} to {row['predicted_high']:.2f}"
        cells = [
            row["attack"],
            row["goal"],
            row["method"],
            OF[row["of"]],
            row["published"],
            row["seen"],
            predicted,
            found,
        ]
        lines.append("| " + " | ".join([*cells, row["outcome"], row["beside_published"]]) + " |")
    counts = predictions["outcome"].value_counts()
    outcomes = ("agrees", "undecided", "disagrees", "not measured")
    words = ("as predicted", "undecided", "otherwise", "not measured")
    told = ", ".join(f"{counts.get(name, 0)} {word}" for name, word in zip(outcomes, words, strict=True))
    beside = predictions["beside_published"].value_counts()
    known = ", ".join(f"{beside[name]} {name}" for name in ("below", "as published", "above") if name in beside)
    return [*lines, "", f"Of {len(predictions)} predictions: {told}. By the published shares: {known or 'none'}."]


def _footnote(n_seeds: int, n_asked: int) -> str:
    return (
        "Share of the gap to the original that an attack brings back, at its worst setting, with a 95% bootstrap "
        f"over subjects or scenes; {n_seeds} seeds averaged within prompts, up to {n_asked} prompts, "
        "judged by the world's parser. Then, where the attack teaches: target share beyond that of the twin under the "
        "same attack, item by item, of one run of the twin's; and the broken share where it is above "
        f"{BROKEN_BESIDE}: what broke does not say that nothing is left. At random instead: random directions, along "
        "which every token is moved as far, or random neurons; p that the attack brings back more than these few draws "
        "do, one-sided, by subject or scene, times its settings, after Holm among all of the goal's. Relearning: of "
        "knowledge half of the subjects are "
        "taught and the others asked; of toxicity the scenes that were unlearned are taught and others asked. Neutral: "
        "facts of towns, civil scenes. Unrelated: the other goal's neutral texts. Another form: one of two unrelated "
        "texts put before; there, and after solved examples, the original is asked so too. The worst of several "
        "settings is high by chance too."
    )
