"""Training of a small toxicity classifier from labelled texts, for machines without a hub."""

import random
import time
from collections.abc import Sequence
from typing import TYPE_CHECKING

import numpy as np
import torch
from jaxtyping import Bool, Int
from numpy.typing import ArrayLike
from torch import Tensor
from torch.nn.functional import cross_entropy
from tqdm import tqdm

from interp_unlearn.errors import ConfigError
from interp_unlearn.evaluation.classifiers.config import ClassifierConfig
from interp_unlearn.evaluation.classifiers.families import FAMILIES
from interp_unlearn.evaluation.classifiers.quality import classifier_quality
from interp_unlearn.evaluation.classifiers.result import TrainedClassifier
from interp_unlearn.evaluation.classifiers.scorer import ClassifierScorer
from interp_unlearn.interventions.buckets import cut_buckets
from interp_unlearn.models import TokenBatch
from interp_unlearn.probes.folds import binary_labels, group_codes

if TYPE_CHECKING:
    import pandas as pd
    from transformers import PreTrainedModel, PreTrainedTokenizerFast

SORTED_TOGETHER = 50  # batches: texts of like length share a batch, to spend little on padding


def train_classifier(
    texts: Sequence[str],
    labels: ArrayLike,
    groups: Sequence[object] | None = None,
    config: ClassifierConfig | None = None,
    *,
    device: str | torch.device = "cpu",
    progress: bool = True,
) -> TrainedClassifier:
    """Train a classifier and its tokenizer, stop by the validation loss, and measure it on groups it never saw.

    Equal seeds, texts and thread counts give equal weights on a CPU. The global random state is left as it was.

    Args:
        texts: both classes.
        labels: 1 for toxic, 0 for neutral.
        groups: texts of one group (a sentence and its rewrite) are on one side of every split; None: each its own.
        config: the settings.
        device: where it is trained.
        progress: whether to show a progress bar.

    Raises:
        ConfigError: labels or groups do not match the texts, or a part of the split lacks a class.
    """
    import pandas as pd

    config = config or ClassifierConfig()
    begun = time.perf_counter()
    truth = binary_labels(labels, len(texts))
    codes = group_codes(groups, len(texts))
    train, validation, test = split_groups(texts, truth, codes, config)
    family = FAMILIES[config.kind]
    tokenizer = family.make_tokenizer([texts[i] for i in train], config)
    device = torch.device(device)
    with torch.random.fork_rng(devices=[device] if device.type == "cuda" else []):
        torch.manual_seed(config.seed)
        model = family.make_model(tokenizer, config)
        model.to(device)  # pyright: ignore[reportArgumentType]
        encoded: list[list[int]] = tokenizer(list(texts), truncation=True, max_length=config.max_length)["input_ids"]  # pyright: ignore[reportAssignmentType]
        data = Examples(encoded, truth.astype(int).tolist(), tokenizer)
        history = _fit(model, data, train, validation, config, progress)
    scorer = ClassifierScorer(model, tokenizer, name=config.kind)
    probabilities = scorer.score([texts[i] for i in test]).probabilities
    held_out = pd.DataFrame({"row": test, "label": truth[test], "group": codes[test], "probability": probabilities})
    return TrainedClassifier(
        config=config,
        scorer=scorer,
        history=history,
        held_out=held_out,
        quality=classifier_quality(probabilities, truth[test], codes[test].tolist(), seed=config.seed),
        sizes={"train": len(train), "validation": len(validation), "held_out": len(test)},
        seconds=time.perf_counter() - begun,
    )


def split_groups(
    texts: Sequence[str], labels: Bool[np.ndarray, " row"], codes: Int[np.ndarray, " row"], config: ClassifierConfig
) -> tuple[list[int], list[int], list[int]]:
    """Rows to train on, to stop by and to measure on: no group is in two of them, nor a later text in the first.

    Raises:
        ConfigError: a part would lack a class.
    """
    groups = np.random.default_rng(config.seed).permutation(int(codes.max()) + 1)
    size = round(config.held_out * len(groups))
    test, validation, rest = (
        [row for row, code in enumerate(codes) if code in part]
        for part in (set(groups[:size]), set(groups[size : 2 * size]), set(groups[2 * size :]))
    )
    # One sentence can stand in several pairs: what is measured on must not have been trained on under another key.
    kept = {texts[i].strip().casefold() for i in (*test, *validation)}
    train = [i for i in rest if texts[i].strip().casefold() not in kept]
    for name, rows in (("training", train), ("validation", validation), ("held-out", test)):
        if len(set(labels[rows].tolist())) < 2:
            raise ConfigError(
                f"the {name} part of {len(groups)} groups lacks a class; give more groups or another held_out share"
            )
    return train, validation, test


class Examples:
    """Token ids and labels, cut into batches.

    Args:
        rows: token ids of each text, special tokens included.
        labels: the class of each.
        tokenizer: whose special tokens are never masked.
    """

    def __init__(self, rows: list[list[int]], labels: list[int], tokenizer: "PreTrainedTokenizerFast") -> None:
        self.rows = rows
        self.labels = labels
        vocabulary = tokenizer.get_vocab()
        self.pad, self.mask = vocabulary[str(tokenizer.pad_token)], vocabulary[str(tokenizer.mask_token)]
        self.special = torch.tensor(tokenizer.all_special_ids)

    def batch(self, chosen: Sequence[int], device: torch.device) -> tuple[TokenBatch, Tensor]:
        """The texts chosen, right-padded, and their labels."""
        batch = TokenBatch.from_rows([self.rows[i] for i in chosen], pad_token_id=self.pad).to(device)
        return batch, torch.tensor([self.labels[i] for i in chosen], device=device)

    def buckets(self, chosen: Sequence[int], batch_size: int) -> list[list[int]]:
        """The texts chosen in batches of like length, in the order of their lengths."""
        cut = cut_buckets([len(self.rows[i]) for i in chosen], rows=batch_size)
        return [[chosen[i] for i in bucket] for bucket in cut]

    def shuffled(self, chosen: Sequence[int], batch_size: int, seed: str) -> list[list[int]]:
        """The same in random batches, in random order."""
        rng = random.Random(seed)
        order = list(chosen)
        rng.shuffle(order)
        size = SORTED_TOGETHER * batch_size
        blocks = [self.buckets(order[start : start + size], batch_size) for start in range(0, len(order), size)]
        batches = [bucket for block in blocks for bucket in block]
        rng.shuffle(batches)
        return batches

    def masked(self, batch: TokenBatch, share: float) -> Tensor:
        """The batch's ids with a random share of its ordinary tokens masked."""
        ids = batch.input_ids
        hit = (torch.rand(ids.shape, device=ids.device) < share) & ~torch.isin(ids, self.special.to(ids.device))
        return ids.masked_fill(hit, self.mask)


def _fit(
    model: "PreTrainedModel",
    data: Examples,
    train: Sequence[int],
    validation: Sequence[int],
    config: ClassifierConfig,
    progress: bool,
) -> "pd.DataFrame":
    """Train in place until the validation loss stops falling; the weights of its lowest point remain."""
    import pandas as pd

    optimizer = torch.optim.AdamW(model.parameters(), lr=config.learning_rate, weight_decay=0.01)
    steps = -(-len(train) // config.batch_size)
    warmup = torch.optim.lr_scheduler.LambdaLR(optimizer, lambda step: min(1.0, 10 * (step + 1) / steps))
    best: dict[str, Tensor] = {}
    lowest, since = float("inf"), 0
    rows: list[dict[str, float]] = []
    with tqdm(total=config.epochs * steps, desc=f"training {config.kind}", disable=not progress) as bar:
        for epoch in range(config.epochs):
            model.train()
            total = 0.0
            for chosen in data.shuffled(train, config.batch_size, f"{config.seed}-{epoch}"):
                batch, labels = data.batch(chosen, model.device)
                ids = data.masked(batch, config.token_dropout)
                loss = cross_entropy(model(input_ids=ids, attention_mask=batch.attention_mask).logits, labels)
                optimizer.zero_grad()
                loss.backward()
                torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
                optimizer.step()
                warmup.step()
                total += loss.item() * len(chosen)
                bar.update()
            loss = validation_loss(model, data, validation, config.batch_size)
            rows.append({"epoch": epoch, "train_loss": total / len(train), "validation_loss": loss})
            bar.set_postfix(validation_loss=f"{loss:.4f}")
            since = 0 if loss < lowest else since + 1
            if loss < lowest:
                lowest = loss
                best = {name: tensor.detach().clone() for name, tensor in model.state_dict().items()}
            if since == config.patience:
                break
    if not best:
        raise ConfigError(f"the validation loss was never a number; lower the learning rate {config.learning_rate}")
    model.load_state_dict(best)
    model.eval()
    return pd.DataFrame(rows)


@torch.no_grad()
def validation_loss(model: "PreTrainedModel", data: Examples, rows: Sequence[int], batch_size: int) -> float:
    """Mean cross-entropy in nats per text."""
    model.eval()
    total = 0.0
    for chosen in data.buckets(rows, batch_size):
        batch, labels = data.batch(chosen, model.device)
        logits = model(input_ids=batch.input_ids, attention_mask=batch.attention_mask).logits
        total += float(cross_entropy(logits, labels, reduction="sum"))
    return total / len(rows)
