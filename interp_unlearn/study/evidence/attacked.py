"""The suite of attacks on every unlearned model of the evidence, and on the twin, which shows what is only learned."""

from __future__ import annotations

import json
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
from interp_unlearn.attacks.recovery import Share, better_than
from interp_unlearn.interventions import HookedModel
from interp_unlearn.organism.sets import GOALS
from interp_unlearn.statistics import bootstrap_mean, holm
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
RATES, ADAPTER_RATES, STEPS = (3e-4, 1e-3, 3e-3), (1e-3, 3e-3, 1e-2), (10, 20, 60)
KEYS = ["goal", "method", "attack"]
KEPT = ("control", "broken", "broken_before")
NAMED = (
    *KEPT,
    *("control_recovered", "control_recovered_low", "control_recovered_high", "p"),
    *("recovered", "recovered_low", "recovered_high", "score", "original", "unlearned"),
    *("twin", "beyond_twin", "beyond_twin_low", "beyond_twin_high"),
)
ATTEMPT = ("setting", "step", "n_attempts")
SCORES = ["attacked", "unlearned", "original"]


def suite(goal: Goal) -> tuple[Attack, ...]:
    """The attacks on a goal's models, at rates for models of the organism's size."""
    return (
        *relearning(goal),
        AblateDirection(),
        AblateSubspace(),
        SteerBack(),
        NeuronScaling(),
        Quantise(),
        Prune(),
        Reformat(prefixes=unrelated_texts(goal)[:2]),
        FewShot(),
    )


def relearning(goal: Goal) -> tuple[Attack, ...]:
    """The attacks that teach: others of what was forgotten, what is next to it, what has nothing to do with it."""
    adapters, unrelated = RelearnConfig(lora=LoraConfig(), roles=("attn", "mlp")), unrelated_texts(goal)
    return (
        Relearn(learning_rates=RATES, checkpoints=STEPS),
        Relearn(attacker=adapters, learning_rates=ADAPTER_RATES, checkpoints=STEPS),
        Relearn("neutral", learning_rates=RATES, checkpoints=STEPS),
        Relearn("unrelated", learning_rates=RATES, checkpoints=STEPS, unrelated=unrelated),
        Relearn("unrelated", attacker=adapters, learning_rates=ADAPTER_RATES, checkpoints=STEPS, unrelated=unrelated),
    )


def unrelated_texts(goal: Goal) -> tuple[str, ...]:
    """What is neutral for the other goal: civil scenes, which tell no fact, or facts of towns, where nobody speaks."""
    (other,) = (one for one in GOALS if one != goal)
    return tuple(example.text for example in load_stage(other).sets.neutral)


def attack_folder(out: Path, name: str, seed: int) -> Path:
    """Where the attacks on a model lie."""
    return out / "attacks" / f"{name}-{seed}"


def attack_subject(subject: Subject, seed: int, config: EvidenceConfig, out: Path) -> None:
    """Runs the suite on one model, going on where it stopped."""
    stage = load_stage(subject.goal)
    _attack(stage, str(model_folder(out, subject, seed)), suite(subject.goal), subject.name, seed, config, out)


def attack_twin(goal: Goal, config: EvidenceConfig, out: Path) -> None:
    """Runs the attacks that teach on a goal's twin: what it gains there, it never knew."""
    stage = load_stage(goal)
    _attack(stage, str(stage.organism / TWINS[goal]), relearning(goal), f"{goal}-{TWIN}", config.seeds[0], config, out)


def _attack(
    stage: Stage, checkpoint: str, attacks: tuple[Attack, ...], name: str, seed: int, config: EvidenceConfig, out: Path
) -> None:
    folder = attack_folder(out, name, seed)
    if (folder / CHOSEN).exists() and set(read_parquet(folder / CHOSEN)["attack"]) >= {one.name for one in attacks}:
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
    items["broken_before"] = items["id"].map(dict(zip(before.ids, before.beside["broken"], strict=True)))
    items["group"] = items["id"].map(dict(zip(before.ids, before.groups, strict=True)))
    write_parquet(folder / "chosen_items.parquet", items.assign(goal=stage.goal, method=worst["method"].iloc[0]))
    write_parquet(folder / CHOSEN, worst)


def _scores(items: pd.DataFrame, worst: pd.DataFrame) -> pd.DataFrame:
    """The items of each attack's worst attempt, with what the original scored when it was asked in the same words."""
    parts: list[pd.DataFrame] = []
    for row in worst.to_dict("records"):
        found: Any = items.loc[(items["attack"] == row["attack"]) & (items["setting"] == row["setting"])]
        at = found["step"].isna() if pd.isna(row["step"]) else found["step"] == row["step"]
        kept = found.loc[at, ["attack", "id", "score", "original", "control", "broken"]]
        parts.append(kept.rename(columns={"score": "attacked"}).assign(**{name: row[name] for name in ATTEMPT}))
    return pd.concat(parts, ignore_index=True)


def attack_table(out: Path, config: EvidenceConfig) -> pd.DataFrame:
    """Every attack on every model, seeds averaged within items, each seed at its worst setting.

    Returns:
        One row a goal, method and attack: score, original, unlearned; recovered with recovered_low and recovered_high
        (95% bootstrap over groups); broken and broken_before, shares of answers that are no sentence of the world;
        where there is a control, its score as control, what it recovers (control_recovered, with _low and _high), and p
        (one-sided sign-flip over groups, the attack against its few random draws as they are, times the settings that
        it is the worst of), p_adjusted by Holm's method among all of a goal's; where the twin was attacked too, its
        score as twin, and beyond_twin with its _low and _high, the paired difference on the items that both were scored
        on; seeds, n (items), n_groups; chosen, each seed's setting and step (JSON); reason where no share can be named.
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
        row |= {"n_groups": means["group"].nunique(), "chosen": _chosen(part)}
        row |= dict.fromkeys(NAMED, float("nan")) | {"reason": None}
        if means.empty:
            rows.append(row | {"reason": "no item was scored"})
            continue
        values = {name: np.asarray(means[name], dtype=float) for name in SCORES}
        row |= {"score": values["attacked"].mean()} | {n: values[n].mean() for n in ("unlearned", "original")}
        attacked, before, target = values.values()
        row |= {name: np.asarray(means[name], dtype=float).mean() for name in KEPT}
        groups = means["group"].tolist()
        share = share_of_gap(attacked, before, target, groups, config.n_resamples)
        row |= _named("recovered", share) | {"reason": share.reason}
        control = np.asarray(means["control"], dtype=float)
        if not np.isnan(control).any():
            row |= _named("control_recovered", share_of_gap(control, before, target, groups, config.n_resamples))
            row["p"] = min(1.0, float(part["n_attempts"].max()) * better_than(attacked, control, groups))
        goal, method, attack = key
        if method != TWIN and (goal, TWIN, attack) in parts:
            row |= _beyond(means, parts[goal, TWIN, attack][1], config.n_resamples)
        rows.append(row)
    table = pd.DataFrame(rows)
    tested = table["p"].notna()
    table["p_adjusted"] = table.loc[tested].groupby("goal")["p"].transform(holm)
    return table


def _averaged(part: pd.DataFrame) -> pd.DataFrame:
    """Means over the seeds of every item that was scored before and after."""
    scored: Any = part.dropna(subset=SCORES)
    return scored.groupby(["id", "group"], sort=False)[[*SCORES, *KEPT]].mean().reset_index()


def _named(name: str, share: Share) -> dict[str, float]:
    """A share and its interval as columns, where there is one."""
    found = share.interval
    return {} if found is None else {name: found.mean, f"{name}_low": found.low, f"{name}_high": found.high}


def _chosen(part: pd.DataFrame) -> str:
    """Each seed's setting and step."""
    rows: Any = part.drop_duplicates(subset=["seed"])
    return json.dumps(
        [
            {"seed": int(row["seed"]), **json.loads(row["setting"])}
            | ({} if pd.isna(row["step"]) else {"step": int(row["step"])})
            for row in rows.to_dict("records")
        ]
    )


def _beyond(means: pd.DataFrame, twin: pd.DataFrame, n_resamples: int) -> dict[str, float]:
    """What an attacked model does more than the attacked twin, item by item."""
    both: Any = means.merge(twin[["id", "attacked"]], on="id", suffixes=("", "_twin"))
    if len(set(both["group"])) < 2:  # too few for an interval
        return {}
    found = bootstrap_mean(both["attacked"] - both["attacked_twin"], both["group"].tolist(), n_resamples)
    beyond = {"beyond_twin": found.mean, "beyond_twin_low": found.low, "beyond_twin_high": found.high}
    return {"twin": float(both["attacked_twin"].mean())} | beyond
