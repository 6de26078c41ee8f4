"""Any Hugging Face sequence classifier as a scorer of toxicity."""

import logging
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import torch
from torch import nn
from tqdm import tqdm

from interp_unlearn.errors import ConfigError, ScoreError
from interp_unlearn.evaluation.classifiers.heads import find_head
from interp_unlearn.evaluation.scorers import TextScores
from interp_unlearn.interventions.buckets import cut_buckets
from interp_unlearn.models import TokenBatch, load_classifier, weights_hash
from interp_unlearn.models.encoding import special_id

if TYPE_CHECKING:
    from transformers import PreTrainedModel, PreTrainedTokenizerBase

logger = logging.getLogger(__name__)


class ClassifierScorer:
    """A sequence classifier and its tokenizer, one label of which is the probability of being toxic.

    An empty text gets the score the classifier gives to its special tokens alone: a number without meaning, so whoever
    counts scores must count empty texts apart.

    Attributes:
        name: what its scores are called in tables.
        hash: SHA-256 of its weights.
        head: how its logits are read.
        max_length: tokens of its context, special tokens included.
    """

    def __init__(
        self,
        model: "PreTrainedModel",
        tokenizer: "PreTrainedTokenizerBase",
        name: str,
        label: str | None = None,
        batch_size: int = 64,
    ) -> None:
        try:
            self.head = find_head(model.config, label)
        except ConfigError as error:
            raise ConfigError(f"scorer {name}: {error}") from error
        self.model = model.eval()
        self.tokenizer = tokenizer
        self.name = name
        self.hash = weights_hash(model)
        self.max_length = _context(model, tokenizer)
        stated: int | None = model.config.get_text_config().pad_token_id
        self._pad = special_id(tokenizer, "pad") if stated is None else stated
        # A decoder's head finds a row's last token by the padding id: without one, rows cannot share a batch.
        self._batch_size = 1 if self._pad is None else batch_size
        if model.config.pad_token_id is None:
            model.config.pad_token_id = self._pad

    @classmethod
    def from_pretrained(
        cls,
        path: str | Path,
        *,
        label: str | None = None,
        name: str | None = None,
        device: str | torch.device = "cpu",
        batch_size: int = 64,
    ) -> "ClassifierScorer":
        """Load a directory in Hugging Face layout or a hub id; remote code is never run.

        Args:
            path: where it is.
            label: name of the toxic label, see `find_head`.
            name: what its scores are called; the last part of the path where not given.
            device: where it runs.
            batch_size: texts in a pass.

        Raises:
            CheckpointError: it cannot be loaded, or has no classification head.
            ConfigError: its toxic label cannot be told.
        """
        model, tokenizer = load_classifier(path, device=device)
        return cls(model, tokenizer, name or Path(path).name, label, batch_size)

    @property
    def label(self) -> str | None:
        """The toxic label."""
        return self.head.label

    def describe(self) -> dict[str, object]:
        """What identifies it in an artifact."""
        return {"name": self.name, "hash": self.hash, "label": self.head.label, "max_length": self.max_length}

    @torch.no_grad()
    def score(self, texts: Sequence[str], *, progress: bool = False) -> TextScores:
        """The probability of the toxic label for each text.

        Raises:
            ScoreError: a text has no tokens, or a score is no number.
        """
        rows, truncated = self._encode(texts)
        device = next(self.model.parameters()).device
        found = torch.full((len(rows),), torch.nan, dtype=torch.float64)
        with tqdm(total=len(rows), desc=f"scoring by {self.name}", disable=not progress) as bar:
            for chosen in cut_buckets([len(row) for row in rows], rows=self._batch_size):
                batch = TokenBatch.from_rows([rows[i] for i in chosen], pad_token_id=self._pad or 0).to(device)
                logits = self.model(input_ids=batch.input_ids, attention_mask=batch.attention_mask).logits
                found[chosen] = self.head.probabilities(logits).cpu()
                bar.update(len(chosen))
        wrong = (~found.isfinite()).nonzero().flatten().tolist()
        if wrong:
            raise ScoreError(
                f"scorer {self.name}: {len(wrong)} of {len(rows)} scores are NaN, first that of text {wrong[0]}; check "
                "the classifier's weights"
            )
        if truncated:
            logger.warning(
                "%s judged %d of %d texts by their first %d tokens", self.name, truncated, len(texts), self.max_length
            )
        return TextScores(found.numpy(), truncated)

    def _encode(self, texts: Sequence[str]) -> tuple[list[list[int]], int]:
        """Token ids with the classifier's own special tokens, and how many texts had to be cut."""
        if not texts:
            return [], 0
        rows: list[list[int]] = self.tokenizer(list(texts), verbose=False)["input_ids"]  # pyright: ignore[reportAssignmentType]
        long = [index for index, row in enumerate(rows) if len(row) > self.max_length]
        for index in long:  # cut by the tokenizer, which keeps the special tokens at the end
            rows[index] = self.tokenizer(texts[index], truncation=True, max_length=self.max_length)["input_ids"]  # pyright: ignore[reportArgumentType, reportCallIssue]
        bos, eos = special_id(self.tokenizer, "bos"), special_id(self.tokenizer, "eos")
        blank = bos if eos is None else eos
        for index, row in enumerate(rows):
            if not row and blank is None:
                raise ScoreError(f"scorer {self.name}: text {index} has no tokens in its tokenizer, so it has no score")
            if not row and blank is not None:
                rows[index] = [blank]
        return rows, len(long)


def _context(model: "PreTrainedModel", tokenizer: "PreTrainedTokenizerBase") -> int:
    """Tokens a classifier takes: what its tokenizer states, but never more than it has positions for."""
    limits: list[int] = [tokenizer.model_max_length]
    positions: int | None = getattr(model.config.get_text_config(), "max_position_embeddings", None)
    if positions is not None and positions > 0:
        table = next((m for name, m in model.named_modules() if name.endswith("position_embeddings")), None)
        # RoBERTa counts positions from beyond its padding id, and so has fewer than its table is long.
        unused = table.padding_idx + 1 if isinstance(table, nn.Embedding) and table.padding_idx is not None else 0
        limits.append(positions - unused)
    return min(limits)
