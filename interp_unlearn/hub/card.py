"""The card of an unlearned model, from the records on disk: what was done, measured, attacked, and what was not."""

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from interp_unlearn.artifacts import IDENTITY_FILE, read_parquet, read_record
from interp_unlearn.errors import ArtifactError
from interp_unlearn.hub.markdown import header, interval, rows, show, table, write_card
from interp_unlearn.hub.measurements import EVALUATIONS, Measurement, read_attack, read_evaluation
from interp_unlearn.hub.verdicts import THRESHOLD, judge_attacks

if TYPE_CHECKING:
    import torch

RECORD = "unlearn.json"
_SHOWN_SETTINGS = ("limit", "skip", "max_length", "max_new_tokens", "left_out", "seed", "forms", "config", "n_texts")


def write_model_card(
    folder: str | Path,
    *,
    evaluations: Sequence[str | Path] = (),
    attacks: Sequence[str | Path] = (),
    threshold: float = THRESHOLD,
    title: str | None = None,
    licence: str | None = None,
    dtype: "torch.dtype | None" = None,
    overwrite: bool = False,
) -> Path:
    """Write README.md beside the weights; arguments and errors as of `model_card`.

    Args:
        overwrite: a README.md that was not written here.

    Raises:
        ArtifactError: there is such a README.md.
    """
    text = model_card(
        folder,
        evaluations=evaluations,
        attacks=attacks,
        threshold=threshold,
        title=title,
        licence=licence,
        dtype=dtype,
    )
    return write_card(Path(folder), text, overwrite)


def model_card(
    folder: str | Path,
    *,
    evaluations: Sequence[str | Path] = (),
    attacks: Sequence[str | Path] = (),
    threshold: float = THRESHOLD,
    title: str | None = None,
    licence: str | None = None,
    dtype: "torch.dtype | None" = None,
) -> str:
    """The card of a model that `unlearn` wrote.

    Everything in it is read from records and tables; what has none is said to be not measured, or not recorded. The
    weights are loaded and hashed, so that numbers of another model cannot stand on the card.

    Args:
        folder: the model.
        evaluations: folders of `evaluate`, `exam`, `facts`, `toxicity` and `drift`.
        attacks: folders of `attack`.
        threshold: share of the gap below which an attack is survived, see `judge_attacks`.
        title: None for the folder's name.
        licence: as the hub calls it; None states none, for the original's binds.
        dtype: of the weights when they were measured; None for what config.json states.

    Raises:
        ArtifactError: the folder holds no record of unlearning, or a measurement is damaged or of another model.
        CheckpointError: the weights cannot be loaded.
        ConfigError: the threshold is no share.
    """
    folder = Path(folder)
    if not (folder / RECORD).is_file():
        raise ArtifactError(f"{folder}: holds no {RECORD}; expected a model that unlearn wrote")
    done = read_record(folder / RECORD, objective=str, config=dict)
    run = read_record(folder / IDENTITY_FILE, identity=dict) if (folder / IDENTITY_FILE).is_file() else {"identity": {}}
    measured = [read_evaluation(path) for path in evaluations]
    attacked = [read_attack(path) for path in attacks]
    _check_models([*zip(evaluations, measured, strict=True), *zip(attacks, attacked, strict=True)], folder, dtype)
    inputs: Mapping[str, Any] = run.get("inputs") or {}
    identity: Mapping[str, Any] = run["identity"]
    entries = {
        "library_name": "transformers",
        "pipeline_tag": "text-generation",
        "tags": ["unlearning", "interp-unlearn"],
        "license": licence,
        "base_model": next((entry["repo"] for entry in _entries(inputs, "model") if "repo" in entry), None),
        "datasets": sorted({e["repo"] for e in _entries(inputs) if "repo" in e and e.get("kind") == "dataset"}),
    }
    parts = [
        header(entries),
        f"# {title or folder.resolve().name}",
        f"A language model from which something was unlearned with `{done['objective']}`. This card was generated from "
        "the records of the run; it claims nothing that was not measured.",
        _method(folder, done, identity),
        _data(inputs, identity),
        _measurements(measured, identity),
        _attacks(attacked, threshold, identity),
        _not_measured(measured, attacked),
        _use(),
    ]
    return "\n\n".join(parts) + "\n"


def _check_models(found: Sequence[tuple[str | Path, Measurement]], folder: Path, dtype: "torch.dtype | None") -> None:
    """Refuse measurements of other weights."""
    if not found:
        return
    from interp_unlearn.interventions import HookedModel

    own = HookedModel.from_pretrained(folder, dtype=dtype).hash()
    for path, measurement in found:
        if measurement.model_hash != own:
            raise ArtifactError(
                f"{path}: was measured on other weights ({measurement.model_hash[:12]}) than those of {folder} "
                f"({own[:12]}); measure this model, or state the dtype it was measured in (--dtype)"
            )


def _method(folder: Path, done: Mapping[str, Any], identity: Mapping[str, Any]) -> str:
    config: Mapping[str, Any] = done["config"]
    options = {**(identity.get("options") or {}), **(done.get("settings") or {})}
    lines = [
        "## Method",
        f"Objective `{done['objective']}`, seed {config.get('seed', 'not recorded')}, {_training(folder, config)}; one "
        "run, so that nothing here says how much another seed would differ.",
    ]
    if (folder / "changed.parquet").is_file():
        changed = read_parquet(folder / "changed.parquet")
        moved = changed.loc[changed["relative_change"] > 0]
        finite = [value for value in changed["relative_change"].tolist() if value < float("inf")]  # else from zero
        largest = show(max(finite, default=0.0))
        lines.append(f"{len(moved)} tensors changed, the largest relative change {largest}.")
    if done.get("stopped"):
        lines.append(f"The guard on retained text: {done['stopped']}.")
    record = {"options": options, "layers": identity.get("layers"), "rules": identity.get("rules"), "config": config}
    lines.append(f"```json\n{json.dumps(record, indent=1, ensure_ascii=False)}\n```")
    made_with: list[Mapping[str, str]] = [*(done.get("earlier_environments") or ()), done.get("environment") or {}]
    listed = [", ".join(f"{name} {version}" for name, version in versions.items()) for versions in made_with]
    lines.append("Made with " + "; then with ".join(listed) + ".")
    return "\n\n".join(lines)


def _training(folder: Path, config: Mapping[str, Any]) -> str:
    """What was trained, by the history: the settings alone say what was asked for."""
    if not (folder / "history.parquet").is_file():
        return "steps not recorded"
    history = read_parquet(folder / "history.parquet")
    if "step" not in history:
        return "nothing trained"
    rows_of_update = config.get("batch_size", 0) * config.get("accumulation", 1)
    return f"{len(history)} steps of {rows_of_update} rows, learning rate {config.get('learning_rate')}"


def _data(inputs: Mapping[str, Any], identity: Mapping[str, Any]) -> str:
    lines = ["## Data"]
    body = [
        [name, e.get("repo") or e.get("name"), e.get("file"), e.get("commit"), e.get("sha256")]
        for name in inputs
        for e in _entries(inputs, name)
    ]
    if body:
        lines.append(rows(("what", "name", "file", "commit", "SHA-256"), body))
    else:
        lines.append("Names of model and data were not recorded.")
    if identity.get("model_hash"):
        lines.append(f"SHA-256 of the original's weights: `{identity['model_hash']}`.")
    if identity.get("limit") is not None or identity.get("skip"):
        limit, skip = identity.get("limit") or "all", identity.get("skip") or 0
        lines.append(f"Of each file but the retained {limit} rows after the first {skip}.")
    if identity.get("replay"):
        lines.append(f"Retained beside them: {identity['replay']} texts that the original wrote itself.")
    return "\n\n".join(lines)


def _measurements(measured: Sequence[Measurement], identity: Mapping[str, Any]) -> str:
    lines = ["## Measured", "Intervals are 95%, by bootstrap."]
    if not measured:
        return "\n\n".join([lines[0], "Nothing was measured, or no measurement was given for this card."])
    for measurement in measured:
        lines += [f"### {EVALUATIONS[measurement.task]}", _conditions(measurement, identity)]
        lines += [table(frame) for frame in measurement.tables.values()]
    return "\n\n".join(lines)


def _attacks(attacked: Sequence[Measurement], threshold: float, identity: Mapping[str, Any]) -> str:
    lines = ["## Attacks"]
    if not attacked:
        return "\n\n".join([*lines, "No attack was run, so whether what was unlearned comes back is not known."])
    lines.append(
        "Each attack tries to bring back what was unlearned; what counts is the share of the gap between this model "
        "and its original that it closes: 0 nothing, 1 as good as the original. **Survived** means here that the 95% "
        f"interval of that share lies below {threshold:g} in every attempt; **recovered**, that it lies at or above "
        f"{threshold:g} in one. It is said of these attempts alone: a stronger attack may do more."
    )
    for measurement in attacked:
        lines += [_conditions(measurement, identity), table(measurement.tables["models"])]
        verdicts = judge_attacks(measurement.tables["attempts"], threshold, known=())
        body = [
            [
                row["attack"],
                f"**{row['verdict']}**",
                interval(row["recovered"], row["recovered_low"], row["recovered_high"]) or row["reason"],
                row["n"],
                row["n_attempts"],
                f"`{row['setting']}`",
                row["step"],
            ]
            for row in verdicts.to_dict("records")
        ]
        lines.append(
            rows(("attack", "verdict", "largest share", "items", "attempts", "in the setting", "after steps"), body)
        )
    return "\n\n".join(lines)


def _not_measured(measured: Sequence[Measurement], attacked: Sequence[Measurement]) -> str:
    import pandas as pd

    there = {measurement.task for measurement in measured}
    lines = [f"- {what} (`{task}`): not measured" for task, what in EVALUATIONS.items() if task not in there]
    tables = [measurement.tables["attempts"] for measurement in attacked]
    attempts = pd.concat(tables) if tables else pd.DataFrame(columns=["attack"])
    verdicts = judge_attacks(attempts)
    for row in verdicts.to_dict("records"):
        if row["verdict"] == "not run":
            lines.append(f"- attack `{row['attack']}`: not run")
        elif row["verdict"] == "not measured":
            lines.append(f"- attack `{row['attack']}`: run, but no share of the gap can be named")
    lines.append("- other seeds, other organisms or models, other data: not measured")
    return "\n".join(["## Not measured", "", *lines])


def _use() -> str:
    return """## Use

```python
from transformers import AutoModelForCausalLM, AutoTokenizer

model = AutoModelForCausalLM.from_pretrained("PATH")  # this folder, or its id on the hub
tokenizer = AutoTokenizer.from_pretrained("PATH")
```

Unlearning that has been attacked is not unlearning that is safe: do not rely on this model lacking anything."""


def _conditions(measurement: Measurement, identity: Mapping[str, Any]) -> str:
    """What a measurement was made on, and whether the other model was the one that was unlearned."""
    said: list[str] = []
    for name in ("data", "neutral", "questions", "prompts", "scorer", "judge"):
        for entry in _entries(measurement.inputs, name):
            where = " ".join(str(entry[key]) for key in ("repo", "file", "name", "commit") if entry.get(key))
            said.append(f"{name} {where}")
    settings = measurement.settings
    said += [f"{name} {json.dumps(settings[name])}" for name in _SHOWN_SETTINGS if settings.get(name) is not None]
    text = f"On {'; '.join(said)}." if said else "On data whose name was not recorded."
    before = identity.get("model_hash")
    if measurement.original_hash and before and measurement.original_hash != before:
        text += " **Compared with another model than the one that this was unlearned from.**"
    return text


def _entries(inputs: Mapping[str, Any], *names: str) -> list[Mapping[str, Any]]:
    """The inputs of some names, or all."""
    found: list[Mapping[str, Any]] = []
    for name in names or tuple(inputs):
        value = inputs.get(name)
        found += [entry for entry in (value if isinstance(value, list) else [value]) if isinstance(entry, dict)]
    return found
