"""What the verbs measured on a model, read from their folders; numbers only, never a generated text."""

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from interp_unlearn.artifacts import IDENTITY_FILE, read_parquet, read_record
from interp_unlearn.errors import ArtifactError
from interp_unlearn.statistics import bootstrap_mean

if TYPE_CHECKING:
    import pandas as pd

EVALUATIONS = {
    "evaluate": "Perplexity of target and neutral texts, KL to the original",
    "exam": "Multiple-choice questions",
    "facts": "Questions with an answer in words",
    "toxicity": "Toxicity of generated text",
    "drift": "Displacement of activations",
}
"""The verbs whose folders are read, and what each measures."""
_TABLES: Mapping[str, Mapping[str, tuple[str, ...]]] = {
    "evaluate": {
        "predictions": ("corpus", "measure", "model", "value", "low", "high", "n_texts"),
        "probe_scores": ("site", "model", "auroc", "accuracy"),
    },
    "exam": {"summary": ("form", "subject", "accuracy", "low", "high", "chance", "n")},
    "facts": {"facts": ("probability", "rouge_l", "truth_ratio")},
    "toxicity": {
        "metrics": ("scorer", "prompts", "measure", "value", "low", "high", "n_prompts"),
        "comparison": ("scorer", "prompts", "measure", "original", "model", "difference", "low", "high", "n_prompts"),
    },
    "drift": {"drift": ("corpus", "site", "relative_displacement", "cosine", "n_tokens")},
}
_OPTIONAL = ("probe_scores", "comparison")


@dataclass(frozen=True, eq=False)
class Measurement:
    """What one folder says about a model.

    Attributes:
        task: the verb that wrote it.
        tables: by name; of attacks `attempts` and `models`.
        model_hash: of the weights measured.
        original_hash: of the weights they were compared with; None where they were compared with none.
        inputs: names of data and models, where the verb recorded them.
        settings: the run's identity, but for hashes of models.
    """

    task: str
    tables: "Mapping[str, pd.DataFrame]"
    model_hash: str
    original_hash: str | None
    inputs: Mapping[str, Any]
    settings: Mapping[str, Any]


def read_evaluation(folder: str | Path) -> Measurement:
    """Read what `evaluate`, `exam`, `facts`, `toxicity` or `drift` wrote.

    Raises:
        ArtifactError: it is the folder of another verb, or damaged.
    """
    folder = Path(folder)
    record, identity = _read_run(folder)
    task = str(identity.get("task"))
    if task == "attack":
        raise ArtifactError(f"{folder}: holds attacks, expected an evaluation; give it as --attack (attacks=)")
    if task not in EVALUATIONS:
        raise ArtifactError(f"{folder}: holds {task}, expected what {', '.join(EVALUATIONS)} wrote")
    tables: dict[str, pd.DataFrame] = {}
    for name, columns in _TABLES[task].items():
        if name in _OPTIONAL and not (folder / f"{name}.parquet").is_file():
            continue
        tables[name] = _read_table(folder, name, columns)
    if task == "exam":
        every = tables["summary"]
        tables["summary"] = every.loc[every["subject"] == "all"].drop(columns="subject")
    if task == "facts":
        tables["facts"] = _means(tables["facts"])
    model_hash = identity.get("model_hash")
    if not isinstance(model_hash, str):
        raise ArtifactError(f"{folder / IDENTITY_FILE}: names no model_hash; measure again")
    return Measurement(task, tables, model_hash, identity.get("original_hash"), _inputs(record), _settings(identity))


def read_attack(folder: str | Path) -> Measurement:
    """Read what `attack` wrote.

    Raises:
        ArtifactError: it is the folder of another verb, or damaged.
    """
    folder = Path(folder)
    record, identity = _read_run(folder)
    if identity.get("task") != "attack":
        raise ArtifactError(f"{folder}: holds {identity.get('task')}, expected what attack wrote")
    hashes = read_record(folder / "attacks.json", hashes=dict)["hashes"]
    if not all(isinstance(hashes.get(name), str) for name in ("original", "unlearned")):
        raise ArtifactError(f"{folder / 'attacks.json'}: names no hashes of both models; run the attacks again")
    numbers = ("score", "recovered", "recovered_low", "recovered_high")
    tables = {
        "attempts": _read_table(folder, "attempts", ("attack", "setting", "step", "n", "reason", *numbers)),
        "models": _read_table(folder, "models", ("model", "score", "mean", "low", "high", "n")),
    }
    settings = _settings(identity)
    return Measurement("attack", tables, hashes["unlearned"], hashes["original"], _inputs(record), settings)


def _read_run(folder: Path) -> tuple[dict[str, Any], dict[str, Any]]:
    if not folder.is_dir():
        raise ArtifactError(f"{folder}: no such folder; expected one that a verb wrote")
    record = read_record(folder / IDENTITY_FILE, identity=dict)
    return record, record["identity"]


def _read_table(folder: Path, name: str, columns: tuple[str, ...]) -> "pd.DataFrame":
    path = folder / f"{name}.parquet"
    table = read_parquet(path)
    if missing := [column for column in columns if column not in table]:
        raise ArtifactError(f"{path}: has no column {', '.join(missing)}; measure again")
    if not len(table):
        raise ArtifactError(f"{path}: has no rows; measure again")
    if name == "attempts":
        try:
            return table.astype(dict.fromkeys(("score", "recovered", "recovered_low", "recovered_high"), float))
        except (TypeError, ValueError) as error:
            raise ArtifactError(f"{path}: expected numbers, got {error}; run the attacks again") from error
    return table.filter(list(columns))


def _means(scores: "pd.DataFrame") -> "pd.DataFrame":
    """Mean and interval of each measure of facts, where it was taken of more than one."""
    import pandas as pd

    rows: list[dict[str, Any]] = []
    for measure in scores.columns:
        values = scores[measure].dropna()
        if len(values) > 1:
            found = bootstrap_mean(values)
            rows.append({"measure": measure, "mean": found.mean, "low": found.low, "high": found.high, "n": found.n})
    return pd.DataFrame(rows, columns=["measure", "mean", "low", "high", "n"])


def _inputs(record: Mapping[str, Any]) -> Mapping[str, Any]:
    inputs = record.get("inputs")
    return inputs if isinstance(inputs, dict) else {}


def _settings(identity: Mapping[str, Any]) -> dict[str, Any]:
    return {name: value for name, value in identity.items() if name != "task" and not name.endswith("_hash")}
