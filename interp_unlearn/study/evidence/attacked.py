"""The suite of attacks on every unlearned model of the evidence, and on the twin, which shows what is only learned."""

from __future__ import annotations

from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd

from interp_unlearn.artifacts import read_parquet, write_parquet
from interp_unlearn.attacks import (
    AblateDirection,
    AblateSubspace,
    Attack,
    FewShot,
    NeuronScaling,
    Prune,
    Quantise,
    Reformat,
    Relearn,
    RelearnConfig,
    SteerBack,
    run_attacks,
    share_of_gap,
)
from interp_unlearn.interventions import HookedModel
from interp_unlearn.statistics import bootstrap_mean
from interp_unlearn.study.evidence.judged import Judged, asked_examples
from interp_unlearn.study.evidence.models import model_folder
from interp_unlearn.study.plan import TWINS
from interp_unlearn.study.stage import Stage, load_stage
from interp_unlearn.unlearning import LoraConfig

if TYPE_CHECKING:
    from interp_unlearn.organism.sets import Goal
    from interp_unlearn.study.evidence.plan import EvidenceConfig, Subject

TWIN = "twin"
CHOSEN = "worst.parquet"  # written last
RATES, STEPS = (3e-4, 1e-3, 3e-3), (10, 20, 60)
KEYS = ["goal", "method", "attack"]
NAMED = (
    *("recovered", "recovered_low", "recovered_high", "score", "original", "unlearned"),
    *("twin", "beyond_twin", "beyond_twin_low", "beyond_twin_high"),
)
SCORES = ["attacked", "unlearned", "original"]


def suite() -> tuple[Attack, ...]:
    """The attacks, at rates for models of the organism's size."""
    adapters = RelearnConfig(lora=LoraConfig(), roles=("attn", "mlp"))
    return (
        *relearning(),
        Relearn(attacker=adapters, learning_rates=(1e-3, 3e-3, 1e-2), checkpoints=STEPS),
        AblateDirection(),
        AblateSubspace(),
        SteerBack(),
        NeuronScaling(),
        Quantise(),
        Prune(),
        Reformat(),
        FewShot(),
    )


def relearning() -> tuple[Attack, ...]:
    """The attacks that teach: on others of what was forgotten, and on what has nothing to do with it."""
    return (
        Relearn(learning_rates=RATES, checkpoints=STEPS),
        Relearn("neutral", learning_rates=RATES, checkpoints=STEPS),
    )


def attack_folder(out: Path, name: str, seed: int) -> Path:
    """Where the attacks on a model lie."""
    return out / "attacks" / f"{name}-{seed}"


def attack_subject(subject: Subject, seed: int, config: EvidenceConfig, out: Path) -> None:
    """Runs the suite on one model, going on where it stopped."""
    stage = load_stage(subject.goal)
    _attack(stage, str(model_folder(out, subject, seed)), suite(), subject.name, seed, config, out)


def attack_twin(goal: Goal, config: EvidenceConfig, out: Path) -> None:
    """Runs the attacks that teach on a goal's twin: what it gains there, it never knew."""
    stage = load_stage(goal)
    _attack(stage, str(stage.organism / TWINS[goal]), relearning(), f"{goal}-{TWIN}", config.seeds[0], config, out)


def _attack(
    stage: Stage, checkpoint: str, attacks: tuple[Attack, ...], name: str, seed: int, config: EvidenceConfig, out: Path
) -> None:
    folder = attack_folder(out, name, seed)
    if (folder / CHOSEN).exists():
        return
    result = run_attacks(
        partial(HookedModel.from_pretrained, checkpoint),
        partial(stage.model, "knows_all"),
        Judged.of(stage, asked_examples(stage, config.n_asked), seed),
        stage.data(""),
        attacks,
        out=folder,
        n_resamples=config.n_resamples,
        progress=False,
    )
    worst = result.worst().assign(goal=stage.goal, method=name.split("-", 1)[1], seed=seed)
    items: Any = _scores(result.items, worst)
    before = result.unlearned
    items["unlearned"] = items["id"].map(dict(zip(before.ids, before.scores, strict=True)))
    items["group"] = items["id"].map(dict(zip(before.ids, before.groups, strict=True)))
    write_parquet(folder / "chosen_items.parquet", items.assign(goal=stage.goal, method=worst["method"].iloc[0]))
    write_parquet(folder / CHOSEN, worst)


def _scores(items: pd.DataFrame, worst: pd.DataFrame) -> pd.DataFrame:
    """The items of each attack's worst attempt, with what the original scored when it was asked in the same words."""
    parts: list[pd.DataFrame] = []
    for row in worst.to_dict("records"):
        found: Any = items.loc[(items["attack"] == row["attack"]) & (items["setting"] == row["setting"])]
        at = found["step"].isna() if pd.isna(row["step"]) else found["step"] == row["step"]
        parts.append(found.loc[at, ["attack", "id", "score", "original"]].rename(columns={"score": "attacked"}))
    return pd.concat(parts, ignore_index=True)


def attack_table(out: Path, config: EvidenceConfig) -> pd.DataFrame:
    """Every attack on every model, seeds averaged within items, each seed at its worst setting.

    Returns:
        One row a goal, method and attack: score, original, unlearned; recovered with recovered_low and recovered_high
        (95% bootstrap over groups); where the twin was attacked too, its score as twin, and beyond_twin with its _low
        and _high, the paired difference on the items that both were scored on; seeds, n; reason where no share can be
        named.
    """
    folders = [(subject.name, seed) for subject in config.subjects for seed in config.seeds]
    folders += [(f"{goal}-{TWIN}", config.seeds[0]) for goal in {one.goal: None for one in config.subjects}]
    items: Any = pd.concat(
        [read_parquet(attack_folder(out, *one) / "chosen_items.parquet").assign(seed=one[1]) for one in folders],
        ignore_index=True,
    )
    parts = {key: (part, _averaged(part)) for key, part in items.groupby(KEYS, sort=False)}
    rows: list[dict[str, Any]] = []
    for key, (part, means) in parts.items():
        row: dict[str, Any] = dict(zip(KEYS, key, strict=True)) | {"seeds": part["seed"].nunique(), "n": len(means)}
        row |= dict.fromkeys(NAMED, float("nan")) | {"reason": None}
        if means.empty:
            rows.append(row | {"reason": "no item was scored"})
            continue
        values = {name: np.asarray(means[name], dtype=float) for name in SCORES}
        row |= {"score": values["attacked"].mean()} | {n: values[n].mean() for n in ("unlearned", "original")}
        attacked, before, target = values.values()
        share = share_of_gap(attacked, before, target, means["group"].tolist(), config.n_resamples)
        if share.interval is not None:
            found = share.interval
            row |= {"recovered": found.mean, "recovered_low": found.low, "recovered_high": found.high}
        row |= {"reason": share.reason}
        goal, method, attack = key
        if method != TWIN and (goal, TWIN, attack) in parts:
            row |= _beyond(means, parts[goal, TWIN, attack][1], config.n_resamples)
        rows.append(row)
    return pd.DataFrame(rows)


def _averaged(part: pd.DataFrame) -> pd.DataFrame:
    """Means over the seeds of every item that was scored before and after."""
    scored: Any = part.dropna(subset=SCORES)
    return scored.groupby(["id", "group"], sort=False)[SCORES].mean().reset_index()


def _beyond(means: pd.DataFrame, twin: pd.DataFrame, n_resamples: int) -> dict[str, float]:
    """What an attacked model does more than the attacked twin, item by item."""
    both: Any = means.merge(twin[["id", "attacked"]], on="id", suffixes=("", "_twin"))
    if len(set(both["group"])) < 2:  # too few for an interval
        return {}
    found = bootstrap_mean(both["attacked"] - both["attacked_twin"], both["group"].tolist(), n_resamples)
    beyond = {"beyond_twin": found.mean, "beyond_twin_low": found.low, "beyond_twin_high": found.high}
    return {"twin": float(both["attacked_twin"].mean())} | beyond
