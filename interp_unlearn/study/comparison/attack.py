"""Relearning: what comes back, at which step, under which learning rate, of which attacker."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal

import pandas as pd

from interp_unlearn.attacks import RelearnConfig, relearn
from interp_unlearn.organism.quality import judged_generations, mean_of

if TYPE_CHECKING:
    from interp_unlearn.interventions import HookedModel
    from interp_unlearn.organism.sets import Example
    from interp_unlearn.study.comparison.bench import Bench
    from interp_unlearn.unlearning import LoraConfig

Lessons = Callable[["Bench"], "tuple[Sequence[Example], Sequence[Example]]"]
"""What an attacker is taught, and what it is asked afterwards."""


@dataclass(frozen=True)
class Attacker:
    """One way to relearn.

    Attributes:
        name: in tables.
        lessons: what is taught and what is asked.
        rates: learning rates; the worst for a model counts.
        checkpoints: steps after which the attacked model is asked.
        optimizer: that trains.
        lora: adapters on attention and MLP instead of all parameters.
    """

    name: str
    lessons: Lessons
    rates: tuple[float, ...]
    checkpoints: tuple[int, ...]
    optimizer: Literal["adamw", "sgd"] = "adamw"
    lora: LoraConfig | None = None


def attack_curves(model: HookedModel, bench: Bench, attackers: Sequence[Attacker], seed: int) -> pd.DataFrame:
    """Verdicts after each attacker's steps, for each learning rate; the model is put back each time.

    Returns:
        One line an attacker, rate, step and prompt: attacker, rate, step, row, group, verdict. Step 0 is before it.
    """
    parts: list[pd.DataFrame] = []
    for attacker in attackers:
        taught, asked = attacker.lessons(bench)
        lines = {"attacker": attacker.name, "row": range(len(asked)), "group": [example.group for example in asked]}
        for rate in attacker.rates:
            for step, verdicts in _verdicts(model, bench, attacker, taught, asked, rate, seed).items():
                parts.append(pd.DataFrame(lines | {"rate": rate, "step": step, "verdict": verdicts}))
    return pd.concat(parts, ignore_index=True)


def relearned_share(model: HookedModel, bench: Bench, attacker: Attacker, seed: int) -> float:
    """Target share after the attacker's last step, at its worst learning rate."""
    taught, asked = attacker.lessons(bench)
    curves = [_verdicts(model, bench, attacker, taught, asked, rate, seed) for rate in attacker.rates]
    return max(mean_of(pd.Series(curve[attacker.checkpoints[-1]]) == "target") for curve in curves)


def _verdicts(
    model: HookedModel,
    bench: Bench,
    attacker: Attacker,
    taught: Sequence[Example],
    asked: Sequence[Example],
    rate: float,
    seed: int,
) -> dict[int, list[str]]:
    found: dict[int, list[str]] = {}

    def ask(step: int, attacked: HookedModel) -> None:
        found[step] = judged_generations(attacked, bench.stage.world, asked, bench.stage.goal, seed)["verdict"].tolist()

    relearn(
        model,
        *bench.stage.lessons(taught),
        RelearnConfig(
            learning_rate=rate,
            optimizer=attacker.optimizer,
            lora=attacker.lora,
            roles=("attn", "mlp") if attacker.lora else None,
            seed=seed,
        ),
        checkpoints=(0, *attacker.checkpoints),
        callback=ask,
        progress=False,
    )
    return found
