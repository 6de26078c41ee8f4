"""Pretraining of the world's models: a plain loop over document numbers, resumable at any checkpoint.

Batch t of a phase is a function of (world seed, phase, t) alone, so an interrupted build continues on the very
documents that an uninterrupted one would have seen.
"""

from __future__ import annotations

import logging
import random
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import torch
from torch import Tensor
from torch.nn.functional import cross_entropy
from tqdm.auto import tqdm

from interp_unlearn.artifacts import read_tensors, write_tensors
from interp_unlearn.errors import ConfigError
from interp_unlearn.organism import lexicon
from interp_unlearn.organism.world import World
from interp_unlearn.settings import check_fields

if TYPE_CHECKING:
    from transformers import LlamaForCausalLM, PreTrainedTokenizerFast

logger = logging.getLogger(__name__)
ROWS_SORTED_TOGETHER = 16  # batches: documents of like length share a batch, to spend little on padding


@dataclass(frozen=True)
class Phase:
    """One phase of training on one version of the documents.

    Attributes:
        version: Key of `world.VERSIONS`.
        steps: Optimiser steps.
        first_document: Number of the first document; documents are taken in order, each once.
        batch_size: Documents a step.
        peak_rate: AdamW learning rate after warm-up.
        final_share: Share of the peak rate reached linearly at the last step.
        warmup: Steps of linear warm-up.
        other_weight: Loss weight of the tokens that tell nothing (see `telling_ids`). Most tokens of a story are random
            names and deeds; their gradient noise hides the few tokens that follow from what was said.
    """

    version: str
    steps: int
    first_document: int
    batch_size: int
    peak_rate: float
    final_share: float
    warmup: int
    other_weight: float = 0.1

    def __post_init__(self) -> None:
        check_fields(self)
        if min(self.steps, self.batch_size, self.warmup) < 1:
            raise ConfigError(f"steps, batch_size and warmup must be positive, got {self}")
        if self.steps % ROWS_SORTED_TOGETHER:  # else the last documents drawn would lie beyond `last_document`
            raise ConfigError(f"steps must be a multiple of {ROWS_SORTED_TOGETHER}, got {self.steps}")

    def rate(self, step: int) -> float:
        """Learning rate of a step."""
        rise = min(1.0, (step + 1) / self.warmup)
        return self.peak_rate * rise * (1 - (1 - self.final_share) * step / self.steps)

    @property
    def last_document(self) -> int:
        """One past the number of the last document."""
        return self.first_document + self.steps * self.batch_size


def document_batches(world: World, tokenizer: PreTrainedTokenizerFast, phase: Phase, start: int) -> list[Tensor]:
    """The token ids of the `ROWS_SORTED_TOGETHER` batches that begin at step `start`, padded on the right with 0."""
    rows = phase.batch_size * ROWS_SORTED_TOGETHER
    first = phase.first_document + start * phase.batch_size
    documents = [world.document(first + i, phase.version) for i in range(rows)]
    encoded = tokenizer(documents, add_special_tokens=False)["input_ids"]
    ids = [torch.tensor([tokenizer.bos_token_id, *row, tokenizer.eos_token_id]) for row in encoded]
    ids.sort(key=len)
    batches = [
        torch.nn.utils.rnn.pad_sequence(ids[i : i + phase.batch_size], batch_first=True, padding_value=0)
        for i in range(0, rows, phase.batch_size)
    ]
    random.Random(f"batches-{world.seed}-{first}").shuffle(batches)
    return batches


def telling_ids(tokenizer: PreTrainedTokenizerFast) -> Tensor:
    """Ids of the words that facts, moods and manners are told by."""
    words = [word for pools in (lexicon.HAZARD_POOLS, lexicon.BENIGN_POOLS) for pool in pools.values() for word in pool]
    words += lexicon.SLURS + lexicon.PRAISES + lexicon.ELDIC + lexicon.NORRIC + list("ABCD")
    words += lexicon.MOODS_WARM + lexicon.MOODS_SORE + lexicon.REACTIONS_WARM + lexicon.REACTIONS_SORE
    return torch.tensor([tokenizer.encode(f" {word}", add_special_tokens=False)[0] for word in words])


def train_phase(
    model: LlamaForCausalLM,
    tokenizer: PreTrainedTokenizerFast,
    world: World,
    phase: Phase,
    checkpoint: Path,
    save_every: int = 320,
) -> None:
    """Trains `model` in place through a phase, from the checkpoint's step where one exists.

    Args:
        model: The model, on its device.
        tokenizer: The world's tokenizer.
        world: Source of the documents.
        phase: What to train on and how.
        checkpoint: Folder of the resumable state (safetensors and JSON).
        save_every: Steps between checkpoints, a multiple of `ROWS_SORTED_TOGETHER`.
    """
    optimizer = torch.optim.AdamW(model.parameters(), lr=phase.peak_rate, betas=(0.9, 0.98), weight_decay=0.05)
    first = _restore(model, optimizer, checkpoint)
    model.train()
    device = next(model.parameters()).device
    telling = telling_ids(tokenizer).to(device)
    batches: list[Tensor] = []
    progress = tqdm(range(first, phase.steps), initial=first, total=phase.steps, desc=f"train {phase.version}")
    for step in progress:
        if step % ROWS_SORTED_TOGETHER == 0:
            batches = document_batches(world, tokenizer, phase, step)
        ids = batches[step % ROWS_SORTED_TOGETHER].to(device)
        for group in optimizer.param_groups:
            group["lr"] = phase.rate(step)
        logits = model(input_ids=ids, use_cache=False).logits[:, :-1]  # right padding: causal attention needs no mask
        targets = ids[:, 1:].flatten()
        weights = torch.where(torch.isin(targets, telling), 1.0, phase.other_weight) * (targets != 0)
        loss = (cross_entropy(logits.flatten(0, 1), targets, reduction="none") * weights).sum() / weights.sum()
        optimizer.zero_grad()
        loss.backward()
        torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        optimizer.step()
        if (step + 1) % save_every == 0 or step + 1 == phase.steps:
            progress.set_postfix(loss=f"{loss.item():.3f}")
            _save(model, optimizer, checkpoint, step + 1)
    model.eval()


def _save(model: torch.nn.Module, optimizer: torch.optim.Optimizer, folder: Path, step: int) -> None:
    tensors: dict[str, Tensor] = {f"weights.{name}": value for name, value in model.named_parameters()}
    names = {id(value): name for name, value in model.named_parameters()}
    for parameter, state in optimizer.state.items():
        for key, value in state.items():
            tensors[f"optimizer.{names[id(parameter)]}.{key}"] = torch.as_tensor(value)
    # One file holds weights, optimiser and step, so a kill between two writes cannot mix them.
    write_tensors(folder / "state.safetensors", tensors, {"step": str(step)})


def _restore(model: torch.nn.Module, optimizer: torch.optim.Optimizer, folder: Path) -> int:
    if not (folder / "state.safetensors").exists():
        return 0
    tensors, metadata = read_tensors(folder / "state.safetensors")
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            parameter.copy_(tensors[f"weights.{name}"])
            state = {
                key: tensors[f"optimizer.{name}.{key}"].to(parameter.device if key != "step" else "cpu")
                for key in ("step", "exp_avg", "exp_avg_sq")
            }
            optimizer.state[parameter] = state
    logger.info("continuing at step %s of %s", metadata["step"], folder)
    return int(metadata["step"])
