"""What the RealToxicityPrompts protocol was told and what it found, every generation kept."""

from collections.abc import Mapping
from dataclasses import asdict, dataclass
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from interp_unlearn.artifacts import check_columns, environment, read_parquet, read_record, write_json, write_parquet
from interp_unlearn.errors import ArtifactError, ConfigError
from interp_unlearn.evaluation.scorers import scorer_agreement
from interp_unlearn.evaluation.text_quality import text_quality_table
from interp_unlearn.evaluation.toxicity_measures import toxicity_table
from interp_unlearn.settings import check_fields

if TYPE_CHECKING:
    import pandas as pd

SCORE_COLUMN = "toxicity_"
"""What the column of a scorer's scores begins with; its name follows."""


@dataclass(frozen=True)
class ToxicityConfig:
    """The protocol's settings; the defaults are the paper's.

    Attributes:
        continuations: of each prompt.
        max_new_tokens: most tokens of a continuation, by the model's own tokenizer.
        top_p: nucleus of the sampling distribution.
        temperature: of the sampling distribution.
        k: samples of which the largest score counts; None takes all continuations. With fewer, the estimate is over
            all choices of k among them, and so less noisy (see `expected_maximum`).
        seed: of sampling and bootstrap.
        batch_size: continuations sampled at a time; another one draws other samples.
    """

    continuations: int = 25
    max_new_tokens: int = 20
    top_p: float = 0.9
    temperature: float = 1.0
    k: int | None = None
    seed: int = 0
    batch_size: int = 256

    def __post_init__(self) -> None:
        check_fields(self)
        for name in ("continuations", "max_new_tokens", "batch_size"):
            if getattr(self, name) < 1:
                raise ConfigError(f"{name}: expected at least 1, got {getattr(self, name)}")
        if not 0 < self.top_p <= 1 or not self.temperature > 0:
            raise ConfigError(
                f"expected 0 < top_p <= 1 and temperature > 0, got top_p={self.top_p}, temperature={self.temperature}"
            )
        if self.k is not None and not 1 <= self.k <= self.continuations:
            raise ConfigError(f"k: expected 1 to the {self.continuations} continuations, got {self.k}")


@dataclass(frozen=True, eq=False)
class ToxicityResult:
    """Every generation with its scores, and what is computed from them.

    Attributes:
        config: the protocol's settings.
        generations: one row a continuation, those of a prompt one after the other: row (of the prompt), prompt,
            prompt_toxicity (NaN where unknown), continuation (from 0), text (as it reads after the prompt; scored
            without the white space around it), tokens (the model's, the one that ended it included), toxicity_<scorer>
            for every scorer; with a judge judge_nll (nats) and judge_tokens.
        scorers: name, hash and toxic label of each, with how many texts it judged by their beginning only.
        model_hash: SHA-256 of the model's weights.
        judge_hash: of the judge's; None without one.
    """

    config: ToxicityConfig
    generations: "pd.DataFrame"
    scorers: tuple[Mapping[str, Any], ...]
    model_hash: str
    judge_hash: str | None = None

    @property
    def scores(self) -> "dict[str, np.ndarray]":
        """By the scorer's name, one score a generation."""
        return {s["name"]: self.generations[SCORE_COLUMN + s["name"]].to_numpy(dtype=float) for s in self.scorers}

    @property
    def prompts(self) -> list[str]:
        """The prompts, each once, in the order of their rows."""
        return self.generations["prompt"].tolist()[:: self.config.continuations]

    @property
    def empty(self) -> np.ndarray:
        """Which generations hold nothing but white space, ``[prompt, continuation]``."""
        return self.by_prompt((self.generations["text"].str.strip() == "").to_numpy())

    @property
    def prompt_toxicity(self) -> np.ndarray:
        """Of each prompt; NaN where unknown."""
        return self.generations["prompt_toxicity"].to_numpy(dtype=float)[:: self.config.continuations]

    def by_prompt(self, values: np.ndarray) -> np.ndarray:
        """One value a generation as ``[prompt, continuation]``."""
        return values.reshape(-1, self.config.continuations)

    @cached_property
    def metrics(self) -> "pd.DataFrame":
        """See `toxicity_table`, with its caveats."""
        matrices = {name: self.by_prompt(values) for name, values in self.scores.items()}
        k = self.config.k or self.config.continuations
        return toxicity_table(matrices, self.empty, self.prompt_toxicity, k, seed=self.config.seed)

    @cached_property
    def text_quality(self) -> "pd.DataFrame":
        """See `text_quality_table`."""
        return text_quality_table(self.generations, seed=self.config.seed)

    @cached_property
    def agreement(self) -> "pd.DataFrame":
        """Of the scorers on these generations, see `scorer_agreement`; no rows with one scorer."""
        return scorer_agreement(self.scores)

    def to_frame(self) -> "pd.DataFrame":
        """The toxicity measures."""
        return self.metrics

    def save(self, folder: str | Path) -> None:
        """Write generations.parquet, metrics.parquet, text_quality.parquet, agreement.parquet and toxicity.json."""
        folder = Path(folder)
        write_parquet(folder / "generations.parquet", self.generations)
        write_parquet(folder / "metrics.parquet", self.metrics)
        write_parquet(folder / "text_quality.parquet", self.text_quality)
        if len(self.scorers) > 1:
            write_parquet(folder / "agreement.parquet", self.agreement)
        record = {
            "config": asdict(self.config),
            "scorers": list(self.scorers),
            "model_hash": self.model_hash,
            "judge_hash": self.judge_hash,
            "environment": environment(),
        }
        write_json(folder / "toxicity.json", record)

    @classmethod
    def load(cls, folder: str | Path) -> "ToxicityResult":
        """Read what `save` wrote; the measures are computed anew.

        Raises:
            ArtifactError: a file is missing or damaged, or a generation has no score.
        """
        folder = Path(folder)
        record = read_record(folder / "toxicity.json", config=dict, scorers=list, model_hash=str)
        generations = read_parquet(folder / "generations.parquet")
        try:
            config = ToxicityConfig(**record["config"])
            columns = [SCORE_COLUMN + scorer["name"] for scorer in record["scorers"]]
        except (TypeError, KeyError) as error:
            raise ArtifactError(f"{folder / 'toxicity.json'}: {error}; run the evaluation again") from error
        check_columns(
            folder / "generations.parquet",
            generations,
            numbers=["prompt_toxicity", *columns],
            texts=["prompt", "text"],
            again="run the evaluation again",
        )
        result = cls(config, generations, tuple(record["scorers"]), record["model_hash"], record.get("judge_hash"))
        if generations.empty or len(generations) % config.continuations or generations[columns].isna().to_numpy().any():
            raise ArtifactError(f"{folder}: the generations are incomplete; run the evaluation again")
        return result
