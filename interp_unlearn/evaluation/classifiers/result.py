"""A trained classifier, and what stands beside its weights."""

from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from interp_unlearn.artifacts import environment, replaced, write_json, write_parquet
from interp_unlearn.evaluation.classifiers.config import ClassifierConfig
from interp_unlearn.evaluation.classifiers.families import FAMILIES
from interp_unlearn.evaluation.classifiers.scorer import ClassifierScorer

if TYPE_CHECKING:
    import pandas as pd

CARD = """---
library_name: transformers
pipeline_tag: text-classification
tags: [toxicity, evaluation]
---
# Toxicity classifier ({kind})

{summary}, {shape}, trained from scratch on labelled texts by `interp-unlearn classifier`. Label 1 is toxic. It scores a
model's generations where no better classifier is at hand. It knows little beyond the words of its training texts, takes
over their annotators' views, and must not be used to moderate people; a claim needs a second scorer of another kind.

- Texts: {texts}; a group (a sentence and its rewrite) is never split.
- Training: {training}.
- SHA-256 of the weights: `{hash}`
{data}
On held-out groups, with 95% bootstrap intervals over groups:

| measure | value | interval | texts | groups |
|---|---|---|---|---|
{table}

Accuracy is at 0.5; the calibration error is over 15 bins of equal width. Other texts than these give other numbers.
"""


@dataclass(frozen=True, eq=False)
class TrainedClassifier:
    """A classifier of toxic and neutral texts, with the record of its training.

    Attributes:
        config: what it was trained with.
        scorer: the classifier itself.
        history: one row an epoch: epoch, train_loss, validation_loss (nats per text).
        held_out: one row a text it was measured on: row (of the texts given), label, group, probability.
        quality: measured on those, see `classifier_quality`.
        sizes: texts of each part of the split: train, validation, held_out.
        seconds: wall-clock time of tokenizer, training and measuring.
    """

    config: ClassifierConfig
    scorer: ClassifierScorer
    history: "pd.DataFrame"
    held_out: "pd.DataFrame"
    quality: "pd.DataFrame"
    sizes: dict[str, int]
    seconds: float

    def to_frame(self) -> "pd.DataFrame":
        """The quality on held-out groups."""
        return self.quality

    def save(self, folder: str | Path, data: Mapping[str, object] | None = None) -> None:
        """Write a directory that `AutoModelForSequenceClassification` loads, with its record and card.

        Files: the weights (safetensors), config and tokenizer; history.parquet and held_out.parquet (no texts);
        classifier.json; README.md. `seconds` is in none of them: the same training leaves the same bytes.

        Args:
            folder: where.
            data: what it was trained on, for the record (hashes of the files, for instance).
        """
        folder = Path(folder)
        folder.mkdir(parents=True, exist_ok=True)
        self.scorer.model.save_pretrained(folder)
        self.scorer.tokenizer.save_pretrained(folder)
        write_parquet(folder / "history.parquet", self.history)
        write_parquet(folder / "held_out.parquet", self.held_out)
        record = {
            "config": asdict(self.config),
            "data": dict(data or {}),
            "weights": self.scorer.hash,
            "texts": self.sizes,
            "quality": {row["measure"]: row for row in self.quality.to_dict("records")},
            "environment": environment(),
        }
        write_json(folder / "classifier.json", record)
        with replaced(folder / "README.md") as temporary:
            temporary.write_text(self._card(data or {}), encoding="utf-8")

    def _card(self, data: Mapping[str, object]) -> str:
        config, texts = self.config, self.sizes
        rows = [
            f"| {r['measure']} | {r['value']:.4g} | {r['low']:.4g} to {r['high']:.4g} | {r['n']} | {r['n_groups']} |"
            for r in self.quality.to_dict("records")
        ]
        return CARD.format(
            kind=config.kind,
            summary=FAMILIES[config.kind].summary,
            shape=f"{config.layers} layers of width {config.width}",
            texts=f"{texts['train']} to train on, {texts['validation']} to stop by, {texts['held_out']} to measure on",
            training=f"{len(self.history)} epochs, learning rate {config.learning_rate:g}, seed {config.seed}",
            hash=self.scorer.hash,
            data="".join(f"- {key}: `{value}`\n" for key, value in data.items() if value is not None),
            table="\n".join(rows).replace("nan to nan", ""),
        )
