"""Log-probabilities of answers after a prompt: what cloze and multiple choice are made of."""

from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import torch
from torch import Tensor

from interp_unlearn.errors import DataError, ScoreError
from interp_unlearn.interventions.buckets import TokenRow, length_buckets, token_rows
from interp_unlearn.models.encoding import encode_continuations

if TYPE_CHECKING:
    import numpy as np

    from interp_unlearn.interventions import HookedModel


@dataclass(frozen=True, eq=False)
class PoolScores:
    """Scores of one prompt's answers.

    Attributes:
        log_probabilities: summed log-probability of each answer's tokens, in nats.
        lengths: tokens of each answer.
    """

    log_probabilities: "np.ndarray"
    lengths: "np.ndarray"


@torch.no_grad()
def score_pools(
    model: "HookedModel",
    prompts: Sequence[str],
    pools: Sequence[Sequence[str]],
    batch_size: int = 128,
    progress: str | None = None,
) -> list[PoolScores]:
    """`log p(answer | prompt)` for every answer of every prompt's pool.

    Prompt and answer are tokenised apart, and an answer is read as it is written, usually with a leading space. Answers
    that share all tokens but the last share a forward pass: a pool of single-token answers costs one pass a prompt,
    whatever its size.

    Raises:
        DataError: the lists do not match, or a pool or an answer is empty.
        ScoreError: a log-probability is infinite or NaN, so that no answer is the most probable.
    """
    if len(prompts) != len(pools):
        raise DataError("pools", f"{len(pools)} pools for {len(prompts)} prompts; expected as many")

    starts = token_rows(model, prompts)
    distinct = list(dict.fromkeys(answer for pool in pools for answer in pool))
    ids_of = dict(zip(distinct, map(tuple, encode_continuations(model.tokenizer, distinct)), strict=True))
    if () in ids_of.values():
        empty = next(answer for answer, ids in ids_of.items() if not ids)
        raise DataError("pools", f"answer {empty!r} has no tokens; drop it")
    answers = [[ids_of[answer] for answer in pool] for pool in pools]
    if not all(answers):
        raise DataError("pools", f"the pool of prompt {[bool(pool) for pool in answers].index(False)} is empty")
    # One forward row for each prompt and each distinct answer-but-its-last-token.
    places: dict[tuple[int, TokenRow], int] = {}
    rows: list[TokenRow] = []
    owners: list[tuple[int, list[int]]] = []
    for prompt, pool in enumerate(answers):
        for index, answer in enumerate(pool):
            key = (prompt, answer[:-1])
            if key not in places:
                places[key] = len(rows)
                rows.append(starts[prompt] + answer[:-1])
                owners.append((prompt, []))
            owners[places[key]][1].append(index)
    scores = [torch.zeros(len(pool), dtype=torch.float64) for pool in answers]
    for chosen, batch in length_buckets(model, rows, batch_size, progress=progress):
        logits = model.run(batch, logits=True).logits
        assert logits is not None
        _add_scores(scores, logits, [owners[row] for row in chosen], starts, answers)
    for row, score in enumerate(scores):
        if not bool(score.isfinite().all()):
            raise ScoreError(
                f"prompt {row}: the log-probabilities of its answers hold infinite values or NaN; check the model's "
                "weights, or use a wider dtype"
            )
    return [
        PoolScores(score.numpy(), torch.tensor([len(answer) for answer in pool]).numpy())
        for score, pool in zip(scores, answers, strict=True)
    ]


def _add_scores(
    scores: list[Tensor],
    logits: Tensor,
    owners: Sequence[tuple[int, list[int]]],
    starts: Sequence[TokenRow],
    answers: Sequence[Sequence[TokenRow]],
) -> None:
    """Read the answers of one batch; only the positions that predict answer tokens are normalised."""
    wanted: dict[tuple[int, int], int] = {}
    tokens: list[int] = []
    lines: list[int] = []
    targets: dict[tuple[int, int], list[int]] = defaultdict(list)
    for row, (prompt, indices) in enumerate(owners):
        for index in indices:
            for offset, token in enumerate(answers[prompt][index]):
                place = (row, len(starts[prompt]) - 1 + offset)
                lines.append(wanted.setdefault(place, len(wanted)))
                targets[prompt, index].append(len(tokens))
                tokens.append(token)
    at = torch.tensor(list(wanted), device=logits.device)
    predicted = logits[at[:, 0], at[:, 1]].float().log_softmax(-1)
    values = predicted[torch.tensor(lines), torch.tensor(tokens)].double().cpu()
    for (prompt, index), where in targets.items():
        scores[prompt][index] = values[where].sum()
