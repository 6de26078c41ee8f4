"""Relearning on a few texts of the target: what comes back, at which step, under which learning rate."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

import pandas as pd

from interp_unlearn.attacks import RelearnConfig, relearn
from interp_unlearn.organism.quality import judged_generations, mean_of

if TYPE_CHECKING:
    from interp_unlearn.interventions import HookedModel
    from interp_unlearn.organism.sets import Example
    from interp_unlearn.study.comparison.bench import Bench

N_TEXTS = 64
CHECKPOINTS = (3, 10, 30, 100)
RATES = (3e-4, 1e-3, 3e-3)
N_ASKED = 252
N_ASKED_IN_SEARCH = 72


def attack_curves(model: HookedModel, bench: Bench, seed: int) -> pd.DataFrame:
    """Verdicts after the attack's steps, for each learning rate; the model is put back each time.

    Returns:
        One line a rate, step and prompt: rate, step, row, group, verdict. Step 0 is before the attack.
    """
    asked = bench.stage.sets.relearn_test[:N_ASKED]
    parts: list[pd.DataFrame] = []
    for rate in RATES:
        for step, verdicts in _verdicts(model, bench, bench.stage.sets.relearn, asked, rate, CHECKPOINTS, seed).items():
            lines = {"rate": rate, "step": step, "row": range(len(asked)), "group": [e.group for e in asked]}
            parts.append(pd.DataFrame(lines | {"verdict": verdicts}))
    return pd.concat(parts, ignore_index=True)


def relearned_share(model: HookedModel, bench: Bench, rate: float, steps: int, seed: int) -> float:
    """Target share after some steps on validation texts, asked on other validation prompts."""
    examples = bench.stage.sets.validation
    taught, asked = examples[:N_TEXTS], examples[N_TEXTS : N_TEXTS + N_ASKED_IN_SEARCH]
    return mean_of(pd.Series(_verdicts(model, bench, taught, asked, rate, (steps,), seed)[steps]) == "target")


def _verdicts(
    model: HookedModel,
    bench: Bench,
    taught: Sequence[Example],
    asked: Sequence[Example],
    rate: float,
    checkpoints: Sequence[int],
    seed: int,
) -> dict[int, list[str]]:
    found: dict[int, list[str]] = {}

    def ask(step: int, attacked: HookedModel) -> None:
        found[step] = judged_generations(attacked, bench.stage.world, asked, bench.stage.goal, seed)["verdict"].tolist()

    relearn(
        model,
        *bench.stage.lessons(taught[:N_TEXTS]),
        RelearnConfig(learning_rate=rate, seed=seed),
        checkpoints=(0, *checkpoints),
        callback=ask,
        progress=False,
    )
    return found
