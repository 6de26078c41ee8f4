"""A reviewer's suite of attacks on an unlearned model, beside its original, one of the two in memory at a time."""

import logging
import math
from collections.abc import Collection, Sequence
from contextlib import nullcontext
from pathlib import Path
from typing import TYPE_CHECKING

from tqdm import tqdm

from interp_unlearn.artifacts import claim_folder, claimed, read_parquet, replaced, write_json, write_parquet
from interp_unlearn.attacks.ablation import AblateDirection, AblateSubspace
from interp_unlearn.attacks.attack import Attack, Attempt, Setup, Target
from interp_unlearn.attacks.measured_items import MeasuredItems
from interp_unlearn.attacks.neurons import NeuronScaling
from interp_unlearn.attacks.original import Original, base_items, record_original, suite_identity
from interp_unlearn.attacks.prompted_measure import Measure
from interp_unlearn.attacks.pruning import Prune
from interp_unlearn.attacks.recovery import COLUMNS, describe
from interp_unlearn.attacks.relearn import RelearnConfig
from interp_unlearn.attacks.relearning import Relearn
from interp_unlearn.attacks.result import AttackResult, joined
from interp_unlearn.attacks.rounding import Quantise
from interp_unlearn.attacks.steering import SteerBack
from interp_unlearn.attacks.wording import FewShot, Reformat
from interp_unlearn.errors import ArtifactError, ConfigError, DiskError, InterpError
from interp_unlearn.interventions import HookedModel
from interp_unlearn.interventions.model_source import ModelSource, load_source, release
from interp_unlearn.models.modes import eval_mode
from interp_unlearn.unlearning import LoraConfig, UnlearnData

if TYPE_CHECKING:
    import pandas as pd

logger = logging.getLogger(__name__)

ATTACKS = "attacks"  # a folder of an attack's own stands under it once the attack is finished
ITEM_COLUMNS = ("attack", "setting", "step", "id", "score", "reason", "original", "control")


def default_attacks() -> tuple[Attack, ...]:
    """One of each attack, at settings to start from; learning rates above all depend on the model."""
    adapters = RelearnConfig(lora=LoraConfig(), roles=("attn", "mlp"))
    return (
        Relearn(),
        Relearn(attacker=adapters, learning_rates=(1e-4, 1e-3, 1e-2)),
        Relearn("neutral"),
        Relearn("unrelated"),
        Relearn("unrelated", attacker=adapters, learning_rates=(1e-4, 1e-3, 1e-2)),
        AblateDirection(),
        AblateSubspace(),
        SteerBack(),
        NeuronScaling(),
        Quantise(),
        Prune(),
        Reformat(),
        FewShot(),
    )


def run_attacks(
    unlearned: ModelSource,
    original: ModelSource,
    measure: Measure,
    data: UnlearnData,
    attacks: Sequence[Attack] | None = None,
    *,
    out: str | Path | None = None,
    n_texts: int = 256,
    seed: int = 0,
    n_resamples: int = 2000,
    progress: bool = True,
) -> AttackResult:
    """Try to bring back what was unlearned, in many ways, and say how much of the gap to the original each closes.

    The original is loaded first, measured, what the attacks need of it recorded, and freed; then the unlearned model is
    loaded and attacked. After every attempt its weights are as they were. An attack that does not fit (no neutral
    texts, a quantised model) gets a row with the reason; if none fits, its error is raised.

    With ``out`` every finished attack is stored at once, and the same call on what an interrupted suite left behind
    does only what is missing. Other attacks on the same models, measure and texts may go into the same folder: all that
    is stored there is in the result.
    Caveat: a suite that recovers nothing shows that these attacks do not; a stronger one may.

    Args:
        unlearned: the model that is attacked.
        original: what it was before.
        measure: what is judged; see `attacks.measures`.
        data: `forget` (with `groups`, the same names as the measure's where they mean the same) and, for some attacks,
            `neutral`.
        attacks: None for `default_attacks`.
        out: folder of the results; None keeps them in memory.
        n_texts: most forget, and neutral, texts whose activations are read.
        seed: of splits, random directions and the bootstrap.
        n_resamples: of the bootstrap.
        progress: whether to show a progress bar.

    Raises:
        ConfigError: no attack was given, or two alike.
        ScoreError: no item can be scored on one of the models.
        ArtifactError: ``out`` holds other models, another measure or other texts, or an attack without what the
            original scored beside it; or another process is writing to it.
        InterpError: of the attack that was to be made, if none could be.
    """
    attacks = default_attacks() if attacks is None else tuple(attacks)
    if not attacks or len({attack.key for attack in attacks}) < len(attacks):
        raise ConfigError("attacks: expected at least one, and none twice")
    setup = Setup(measure, data, n_texts, seed, n_resamples)
    folder = None if out is None else Path(out)
    with nullcontext() if folder is None else claimed(folder, suite_identity(setup)):
        known = record_original(original, attacks, setup, folder, progress)
        release(original)
        return _attack_all(unlearned, known, attacks, setup, folder, progress)


def _attack_all(
    source: ModelSource,
    original: Original,
    attacks: Sequence[Attack],
    setup: Setup,
    out: Path | None,
    progress: bool,
) -> AttackResult:
    model = load_source(source)
    hashed = model.hash()
    folder = None
    if out is not None:
        folder = out / "unlearned"
        claim_folder(folder, {"model_hash": hashed})
    tables: dict[str, tuple[pd.DataFrame, pd.DataFrame]] = {}
    failures = dict(original.failures)
    with eval_mode(model.hf):
        items = base_items(model, setup.measure, folder)
        target = Target(model, setup, items, original.streams)
        for attack in tqdm(attacks, "attacks", disable=not progress):
            kept = None if out is None else out / ATTACKS / attack.key
            if kept is not None and kept.exists():
                tables[attack.key] = _read(kept)
                continue
            try:
                tables[attack.key] = _attempt_all(attack, target, original, failures.get(attack.key))
            except DiskError:
                raise
            except InterpError as error:
                logger.warning("%s: %s", attack.name, error)
                failures[attack.key] = error
                refused = Attempt({}, None, reason=str(error))
                tables[attack.key] = _tables(attack.name, [refused], items, original.items, setup)
            _check_weights(model, hashed, attack)
            if kept is not None and attack.key not in failures:
                _store(kept, attack, *tables[attack.key])
    if len(failures) == len(attacks):
        raise next(iter(failures.values()))
    others = [] if out is None else _others(out / ATTACKS, tables)
    every = [*tables.values(), *map(_read, others)]
    result = AttackResult(
        joined([attempts for attempts, _ in every], COLUMNS),
        joined([scores for _, scores in every], ITEM_COLUMNS),
        original.items,
        items,
        {"original": original.hash, "unlearned": hashed},
    )
    if out is not None:
        result.save(out)
    return result


def _attempt_all(
    attack: Attack, target: Target, original: Original, failure: InterpError | None
) -> "tuple[pd.DataFrame, pd.DataFrame]":
    if failure is not None:
        raise failure
    attempts = list(attack.attempts(target, original.records[attack.key]))
    return _tables(attack.name, attempts, target.unlearned, original.items, target.setup)


def _check_weights(model: HookedModel, hashed: str, attack: Attack) -> None:
    """Refuse to go on with a model that an attack has left changed: all that follows would be of another one."""
    if model.hash() != hashed:
        raise ConfigError(f"{attack.name} left the model's weights changed; an attack puts them back (Reference)")


def _tables(
    name: str,
    attempts: Sequence[Attempt],
    unlearned: MeasuredItems,
    original: MeasuredItems,
    setup: Setup,
) -> "tuple[pd.DataFrame, pd.DataFrame]":
    """The rows of an attack, and the scores behind them."""
    import pandas as pd

    rows = [describe(name, attempt, unlearned, original, setup.n_resamples, setup.seed) for attempt in attempts]
    table = pd.DataFrame(rows, columns=list(COLUMNS)).astype({"step": "Int64", "reason": "string"})
    parts: list[pd.DataFrame] = []
    for row, attempt in zip(rows, attempts, strict=True):
        if attempt.items is None:
            continue
        scores = attempt.items.to_frame().drop(columns="group")
        scores.insert(0, "attack", name)
        scores.insert(1, "setting", row["setting"])
        scores.insert(2, "step", pd.array([attempt.step] * len(scores), dtype="Int64"))
        scores["original"] = _beside(scores, original if attempt.original is None else attempt.original)
        scores["control"] = _beside(scores, attempt.control)
        parts.append(scores)
    return table, joined(parts, ITEM_COLUMNS)


def _beside(scores: "pd.DataFrame", other: MeasuredItems | None) -> list[float]:
    """Another model's scores of the same items; NaN where it has none."""
    known = {} if other is None else dict(zip(other.ids, other.scores.tolist(), strict=True))
    return [known.get(name, math.nan) for name in scores["id"]]


def _store(folder: Path, attack: Attack, attempts: "pd.DataFrame", items: "pd.DataFrame") -> None:
    """A finished attack: the folder is there whole or not at all."""
    with replaced(folder) as temporary:
        write_parquet(temporary / "attempts.parquet", attempts)
        write_parquet(temporary / "items.parquet", items)
        write_json(temporary / "attack.json", {"attack": attack.name, "settings": attack.settings()})


def _others(folder: Path, but: Collection[str]) -> list[Path]:
    """The attacks that stand in a folder beside some; what is hidden was not finished."""
    return sorted(path for path in folder.glob("*-*") if path.name not in but and not path.name.startswith("."))


def _read(folder: Path) -> "tuple[pd.DataFrame, pd.DataFrame]":
    items = read_parquet(folder / "items.parquet")
    if missing := [name for name in ITEM_COLUMNS if name not in items.columns]:
        raise ArtifactError(
            f"{folder}: its items have no column {missing[0]}; remove the folder and run the attack again"
        )
    return read_parquet(folder / "attempts.parquet"), items
