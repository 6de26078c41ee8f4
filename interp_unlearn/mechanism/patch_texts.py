"""The texts of activation patching, and which of their tokens are patched together."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import torch
from jaxtyping import Bool
from torch import Tensor

from interp_unlearn.errors import ConfigError, DataError
from interp_unlearn.models.encoding import encode_rows, special_id
from interp_unlearn.models.mentions import mentioned_tokens

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase


@dataclass(frozen=True, eq=False)
class PatchTexts:
    """Prompts, what is scored after each, and classes of their tokens.

    Attributes:
        prompts: texts up to the answer.
        answers: what follows each, with its leading space; tokenised apart and never patched, so that of an answer of
            several tokens only the first is predicted from patched positions.
        positions: by class, for each prompt which of its tokens belong to it, the BOS included in the count (it is
            never patched all the same, nor is padding). A class may be empty in some prompts.
    """

    prompts: Sequence[str]
    answers: Sequence[str]
    positions: Mapping[str, Sequence[Bool[Tensor, " pos"]]]

    def __post_init__(self) -> None:
        if not self.prompts or len(self.answers) != len(self.prompts):
            raise DataError("prompts", f"{len(self.prompts)} prompts, {len(self.answers)} answers; expected one each")
        if not self.positions:
            raise ConfigError('positions: no classes; expected for example {"subject": [...], "last": [...]}')
        for name, masks in self.positions.items():
            if len(masks) != len(self.prompts):
                raise ConfigError(f"positions {name}: {len(masks)} masks for {len(self.prompts)} prompts")
            if any(mask.dtype != torch.bool or mask.ndim != 1 for mask in masks):
                raise ConfigError(f"positions {name}: expected boolean masks [pos], one for each prompt")

    @classmethod
    def of_subjects(
        cls,
        tokenizer: "PreTrainedTokenizerBase",
        prompts: Sequence[str],
        answers: Sequence[str],
        subjects: Sequence[str],
    ) -> "PatchTexts":
        """The classes "subject" (every mention), "last" token of the prompt, "other", and "all" three together.

        A token that is both the subject's and the last one is "last" only, so that the three do not overlap.

        Args:
            tokenizer: the models' own, a fast one, for it has to say which characters a token covers.
            prompts: texts up to the answer.
            answers: what follows each.
            subjects: who or what each prompt is about, in its very letters.

        Raises:
            DataError: a subject does not occur in its prompt, or the lists differ in length.
            ConfigError: the tokenizer is not a fast one.
        """
        bos = torch.zeros(int(special_id(tokenizer, "bos") is not None), dtype=torch.bool)
        classes: dict[str, list[Tensor]] = {"subject": [], "last": [], "other": [], "all": []}
        for mentioned in mentioned_tokens(tokenizer, prompts, subjects):
            named = torch.cat([bos, mentioned])
            content = torch.cat([bos, torch.ones_like(mentioned)])
            final = torch.zeros_like(named)
            final[-1] = True
            classes["subject"].append(named & ~final)
            classes["last"].append(final)
            classes["other"].append(content & ~named & ~final)
            classes["all"].append(content)
        return cls(prompts, answers, classes)

    def rows(self, tokenizer: "PreTrainedTokenizerBase") -> tuple[list[tuple[int, ...]], list[int]]:
        """The token ids of each prompt with its answer, BOS first, and where each answer starts.

        Raises:
            DataError: a prompt or an answer has no tokens.
            ConfigError: a mask is not as long as its prompt.
        """
        encoded = encode_rows(tokenizer, self.prompts, completions=self.answers)
        assert encoded.completion_starts is not None
        for name, masks in self.positions.items():
            for row, (mask, length) in enumerate(zip(masks, encoded.completion_starts, strict=True)):
                if len(mask) != length:
                    raise ConfigError(
                        f"positions {name}: mask of {len(mask)} for prompt {row} of {length} tokens (BOS included)"
                    )
        return [tuple(row) for row in encoded.rows], encoded.completion_starts

    def mask(self, name: str, chosen: Sequence[int], width: int) -> Bool[Tensor, "batch pos"]:
        """The tokens of a class in some of the prompts, padded on the right."""
        padded = torch.zeros(len(chosen), width, dtype=torch.bool)
        for row, index in enumerate(chosen):
            mask = self.positions[name][index]
            padded[row, : len(mask)] = mask
        return padded
