"""The texts of a run, tokenised once, and which of their rows each step sees."""

import hashlib
import random
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, fields, replace
from typing import TYPE_CHECKING, Literal

import torch
from jaxtyping import Bool
from torch import Tensor

from interp_unlearn.errors import ConfigError, DataError
from interp_unlearn.models import TokenBatch, tokenize
from interp_unlearn.unlearning.config import UnlearnConfig

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase

CorpusName = Literal["forget", "retain", "neutral", "counterparts"]


@dataclass(frozen=True)
class UnlearnData:
    """The texts an objective works on. Where a corpus has completions, its texts are the prompts they follow.

    Attributes:
        forget: texts of what is to be forgotten.
        retain: texts on which the model must not change.
        neutral: texts of the harmless class: what a projection is measured against, or what fine-tuning learns.
        forget_completions, retain_completions, neutral_completions: one for each text, or None.
        groups: subject of each forget row; the adversary splits by it, so that no fact is on both sides.
        topics: topic of each forget row, where there are several: each batch is of one, in turn, as published for RMU.
        counterparts: for each forget row what should stand there instead: another completion of its prompt where the
            forget rows have completions, otherwise a whole text (a rewrite). Losses and edits on pairs need them.
        prompts: openings from which a distilled student is sampled; the forget prompts where there are none.
    """

    forget: Sequence[str]
    retain: Sequence[str] = ()
    neutral: Sequence[str] = ()
    forget_completions: Sequence[str] | None = None
    retain_completions: Sequence[str] | None = None
    neutral_completions: Sequence[str] | None = None
    groups: Sequence[str] | None = None
    topics: Sequence[str] | None = None
    prompts: Sequence[str] = ()
    counterparts: Sequence[str] | None = None

    def __post_init__(self) -> None:
        for field in fields(self):
            value = getattr(self, field.name)
            if isinstance(value, str):
                raise DataError(field.name, "expected a list of texts, got one string; wrap it in a list")
            if value is None and field.default is None:
                continue
            # Going through a table would give the names of its columns.
            if isinstance(value, Mapping) or hasattr(value, "columns"):
                raise DataError(field.name, "expected a list of texts, got a table; give one of its columns")
            if not isinstance(value, Iterable):
                raise DataError(field.name, f"expected a list of texts, got {type(value).__name__}")
            object.__setattr__(self, field.name, tuple(value))
        for name in ("forget", "retain", "neutral"):
            texts, completions = getattr(self, name), getattr(self, f"{name}_completions")
            if completions is not None and len(completions) != len(texts):
                raise DataError(name, f"{len(texts)} texts but {len(completions)} completions; expected as many")
        if not self.forget:
            raise DataError("forget", "empty; expected at least one text")
        for name in ("groups", "topics", "counterparts"):
            value = getattr(self, name)
            if value is not None and len(value) != len(self.forget):
                raise DataError(name, f"{len(value)} {name} for {len(self.forget)} forget texts; give one each")

    def texts_of(self, name: CorpusName) -> tuple[Sequence[str], Sequence[str] | None]:
        """The texts of a corpus and what completes them, None where they stand alone; no texts where there are none."""
        if name != "counterparts":
            return getattr(self, name), getattr(self, f"{name}_completions")
        if self.counterparts is None or self.forget_completions is None:
            return self.counterparts or (), None
        return self.forget, self.counterparts

    def whole(self, name: CorpusName) -> list[str]:
        """The texts of a corpus with what completes them."""
        texts, completions = self.texts_of(name)
        return [text + end for text, end in zip(texts, completions or [""] * len(texts), strict=True)]


@dataclass(frozen=True, eq=False)
class TokenCorpus:
    """Rows of token ids of different lengths.

    Attributes:
        rows: ids of each row, BOS included.
        starts: index of the first token that a completion-only loss counts; the first content token of rows that have
            no completion.
        bos_token_id: what counts as BOS.
        has_completions: whether the texts came with completions.
        groups: subject of each row, if known.
        topics: topic of each row, if there are several.
    """

    rows: tuple[tuple[int, ...], ...]
    starts: tuple[int, ...]
    bos_token_id: int | None
    has_completions: bool = False
    groups: tuple[str, ...] | None = None
    topics: tuple[str, ...] | None = None

    @classmethod
    def from_texts(
        cls,
        tokenizer: "PreTrainedTokenizerBase",
        texts: Sequence[str],
        completions: Sequence[str] | None = None,
        *,
        groups: Sequence[str] | None = None,
        topics: Sequence[str] | None = None,
        max_length: int | None = None,
    ) -> "TokenCorpus":
        """Tokenise the texts of one corpus.

        Raises:
            DataError: a text has no tokens, or `max_length` cuts a completion away.
        """
        batch = tokenize(tokenizer, texts, completions=completions, max_length=max_length)
        counted = batch.content_mask if batch.completion_mask is None else batch.completion_mask
        corpus = cls.from_batch(batch, counted, has_completions=completions is not None, groups=groups)
        return replace(corpus, topics=None if topics is None else tuple(topics))

    @classmethod
    def from_batch(
        cls,
        batch: TokenBatch,
        counted: Bool[Tensor, "batch pos"],
        *,
        has_completions: bool,
        groups: Sequence[str] | None = None,
    ) -> "TokenCorpus":
        """The rows of a batch without their padding; `counted` is True from each row's first counted token on."""
        rows = tuple(tuple(ids[mask].tolist()) for ids, mask in zip(batch.input_ids, batch.mask, strict=True))
        starts = tuple(len(row) - int(count) for row, count in zip(rows, counted.sum(1), strict=True))
        return cls(rows, starts, batch.bos_token_id, has_completions, None if groups is None else tuple(groups))

    def __len__(self) -> int:
        return len(self.rows)

    def batch(self, indices: Sequence[int], device: torch.device | str = "cpu") -> TokenBatch:
        """The given rows, padded to the longest of them."""
        return TokenBatch.from_rows(
            [self.rows[i] for i in indices],
            bos_token_id=self.bos_token_id,
            completion_starts=[self.starts[i] for i in indices],
        ).to(device)

    def chosen(self, indices: Sequence[int]) -> "TokenCorpus":
        """The given rows, as a corpus."""
        return TokenCorpus(
            tuple(self.rows[i] for i in indices),
            tuple(self.starts[i] for i in indices),
            self.bos_token_id,
            self.has_completions,
            None if self.groups is None else tuple(self.groups[i] for i in indices),
            None if self.topics is None else tuple(self.topics[i] for i in indices),
        )

    def scheduled(self, batch_size: int, step: int, seed: int, stream: str) -> list[int]:
        """Which rows a step sees, as `scheduled_rows` has them; with several topics, each step's rows are of one."""
        topics = sorted(set(self.topics or ()))
        if self.topics is None or len(topics) < 2:
            return scheduled_rows(len(self), batch_size, step, seed, stream)
        turn, topic = divmod(step, len(topics))
        rows = [row for row, name in enumerate(self.topics) if name == topics[topic]]
        return [rows[i] for i in scheduled_rows(len(rows), batch_size, turn, seed, f"{stream}-{topics[topic]}")]

    def joined(self, other: "TokenCorpus") -> "TokenCorpus":
        """The rows of this corpus, then those of the other; groups and topics are dropped."""
        return TokenCorpus(self.rows + other.rows, self.starts + other.starts, self.bos_token_id, self.has_completions)


@dataclass(frozen=True, eq=False)
class Corpora:
    """The tokenised corpora of a run; None where the data has none."""

    forget: TokenCorpus
    retain: TokenCorpus | None
    neutral: TokenCorpus | None
    prompts: tuple[str, ...]
    counterparts: TokenCorpus | None = None

    @classmethod
    def from_data(
        cls, tokenizer: "PreTrainedTokenizerBase", data: UnlearnData, max_length: int | None = None
    ) -> "Corpora":
        """Tokenise all of a run's data."""

        def corpus(name: CorpusName) -> TokenCorpus | None:
            texts, completions = data.texts_of(name)
            groups, topics = (data.groups, data.topics) if name == "forget" else (None, None)
            if not texts:
                return None
            return TokenCorpus.from_texts(
                tokenizer, texts, completions, groups=groups, topics=topics, max_length=max_length
            )

        forget = corpus("forget")
        assert forget is not None  # UnlearnData refuses an empty one
        prompts = data.prompts or (data.forget if data.forget_completions is not None else ())
        return cls(forget, corpus("retain"), corpus("neutral"), tuple(prompts), corpus("counterparts"))

    def require(self, name: CorpusName, objective: str) -> TokenCorpus:
        """The corpus of that name.

        Raises:
            ConfigError: the data has none.
        """
        corpus: TokenCorpus | None = getattr(self, name)
        if corpus is None:
            raise ConfigError(
                f"objective {objective} needs {name} texts, and there are none; give UnlearnData({name}=...)"
            )
        return corpus

    def hash(self) -> str:
        """SHA-256 of all rows."""
        digest = hashlib.sha256()
        for name in ("forget", "retain", "neutral", "counterparts"):
            corpus: TokenCorpus | None = getattr(self, name)
            rows = None if corpus is None else (corpus.rows, corpus.starts, corpus.groups, corpus.topics)
            digest.update(repr((name, rows)).encode())
        digest.update(repr(self.prompts).encode())
        return digest.hexdigest()

    def pairs(self, rows: Sequence[int], objective: str, device: torch.device | str = "cpu") -> TokenBatch:
        """Forget rows, then their counterparts in the same order.

        Raises:
            ConfigError: the data has no counterparts.
        """
        pairs = self.forget.chosen(rows).joined(self.require("counterparts", objective).chosen(rows))
        return pairs.batch(range(len(pairs)), device)


def scheduled_rows(n_rows: int, batch_size: int, step: int, seed: int, stream: str) -> list[int]:
    """Which rows step `step` of a stream sees: shuffled epochs laid end to end, cut into batches.

    A function of its arguments alone, so runs with different objectives see the same rows, whatever else they draw.
    """
    first = step * batch_size
    shuffled: dict[int, list[int]] = {}
    rows: list[int] = []
    for place in range(first, first + batch_size):
        epoch = place // n_rows
        if epoch not in shuffled:
            shuffled[epoch] = random.Random(f"{stream}-{seed}-{epoch}").sample(range(n_rows), n_rows)
        rows.append(shuffled[epoch][place % n_rows])
    return rows


def forget_mask(batch: TokenBatch, config: UnlearnConfig) -> Bool[Tensor, "batch pos"]:
    """The tokens an objective's own loss is over."""
    if config.forget_on == "completion" and batch.completion_mask is not None:
        return batch.completion_mask & batch.content_mask
    return batch.mask if config.include_bos else batch.content_mask


def retain_mask(batch: TokenBatch, config: UnlearnConfig) -> Bool[Tensor, "batch pos"]:
    """The tokens over which activations are retained: all real ones, the BOS only where the config says so."""
    return batch.mask if config.include_bos else batch.content_mask
