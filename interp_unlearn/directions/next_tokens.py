"""How an intervention along a direction changes the distribution of the next token."""

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor
from tqdm import tqdm

from interp_unlearn.directions.controls import random_moves, recorded
from interp_unlearn.directions.direction_set import Directions, residual_directions
from interp_unlearn.directions.effects import EffectsConfig, contrast_rows, make_conditions
from interp_unlearn.errors import ConfigError, DataError
from interp_unlearn.evaluation.generations import token_id
from interp_unlearn.interventions import Edit
from interp_unlearn.interventions.buckets import TokenRow, length_buckets, token_rows
from interp_unlearn.models import TokenBatch
from interp_unlearn.models.encoding import encode_rows
from interp_unlearn.objectives import token_kl
from interp_unlearn.objectives.tokens import select_predictions
from interp_unlearn.probes import ProbeSet
from interp_unlearn.sites import Site

if TYPE_CHECKING:
    import pandas as pd

    from interp_unlearn.activations import ActivationStore
    from interp_unlearn.interventions import HookedModel


@torch.no_grad()
def next_token_effects(
    model: "HookedModel",
    prompts: Sequence[str],
    directions: Directions | ProbeSet,
    config: EffectsConfig | None = None,
    *,
    store: "ActivationStore | None" = None,
    completions: Sequence[str] | None = None,
    tokens: Sequence[str | int] = (),
    groups: Sequence[object] | None = None,
    progress: bool = False,
) -> "pd.DataFrame":
    """Compare the model's next-token distributions with and without each intervention.

    The control moves every token, at every site, exactly as far as the intervention moved it there, along a random
    direction instead. So ``difference`` is what the direction does beyond what its size does.
    Caveat: any large move changes predictions, and a small effect at one layer may be made good by later ones.

    Args:
        model: the model, under any surrounding edits.
        prompts: whose next token is predicted; edits are made at all their tokens but the BOS.
        directions: where and along what.
        config: how.
        store: activations with labels, which class gaps and clamping thresholds are measured on.
        completions: texts after each prompt, over which the divergence is also measured (under teacher forcing).
        tokens: a set of tokens, by id or by text, whose summed probability is followed.
        groups: one key a prompt; prompts of one group are resampled together.
        progress: whether to show a progress bar.

    Returns:
        ``intervention, strength, unit, site`` ("all" for all sites together), ``layer`` (null for the embedding and for
        all), ``control`` (direction, random, difference), ``seed`` (of the random direction), ``measure, mean, low,
        high`` (95% bootstrap over prompts), ``n``. Measures, means over prompts, at the last prompt token: ``kl``
        (KL(plain || edited), nats), ``total_variation`` (0 to 1), ``token_set_log_probability`` (edited less plain,
        nats); ``completion_kl`` (nats per completion token); ``distance`` (how far the edits moved the last prompt
        token, L2, summed over sites; equal for the control).

    Raises:
        ConfigError: fewer than two prompts or groups, lengths that differ, a text in ``tokens`` that is not one token,
            or something that strengths are counted in is not known.
        DataError: a prompt has no tokens.
        SiteError: the model has no such site, or it is not in the residual stream.
    """
    import pandas as pd

    config = config or EffectsConfig()
    found = residual_directions(directions)
    found.check_width(model)
    rows, starts = _rows_of(model, prompts, completions)
    ids = sorted({token if isinstance(token, int) else token_id(model, token) for token in tokens})
    if ids and not 0 <= ids[0] <= ids[-1] < len(model.tokenizer):
        raise ConfigError(f"tokens: expected ids from 0 to {len(model.tokenizer) - 1}, got {ids[0]} to {ids[-1]}")
    conditions = make_conditions(model, prompts, found, config, store)
    values: list[list[dict[str, np.ndarray]]] = [[{} for _ in range(1 + config.n_random)] for _ in conditions]

    def keep(condition: int, control: int, chosen: list[int], measures: dict[str, Tensor]) -> None:
        for name, part in measures.items():
            into = values[condition][control].setdefault(name, np.zeros(len(rows)))
            into[chosen] = part.double().cpu().numpy()

    batches = list(length_buckets(model, rows, config.batch_size, completion_starts=starts))
    with tqdm(total=len(batches) * len(conditions), desc="next tokens", disable=not progress) as bar:
        for chosen, batch in batches:
            last = _last_of_prompt(batch)
            plain = _logits(model, batch, {})
            for number, condition in enumerate(conditions):
                edits, moves = recorded(condition.edits, found)
                edited = _logits(model, batch, edits)
                distances = [moved.to(last.device).gather(1, last[:, None])[:, 0].abs() for moved in moves.values()]
                distance = torch.stack(distances).sum(0)
                keep(number, 0, chosen, _measures(plain, edited, batch, last, ids) | {"distance": distance})
                for control, seed in enumerate(config.random_seeds, start=1):
                    edited = _logits(model, batch, random_moves(moves, found, seed))
                    measures = _measures(plain, edited, batch, last, ids)
                    keep(number, control, chosen, measures | {"distance": distance})
                bar.update()
    table: list[dict[str, Any]] = []
    for condition, found_values in zip(conditions, values, strict=True):
        for measure in found_values[0]:
            columns = np.stack([value[measure] for value in found_values])[..., None]
            for row in contrast_rows(columns[0], columns[1:], config, groups):
                table.append({**condition.describe(), "measure": measure, **row})
    return pd.DataFrame(table).astype({"layer": "Int64", "seed": "Int64"})


def _rows_of(
    model: "HookedModel", prompts: Sequence[str], completions: Sequence[str] | None
) -> tuple[list[TokenRow], list[int]]:
    """Token rows, and where the completion of each begins (or would)."""
    if completions is None:
        rows = token_rows(model, prompts)
        return rows, [len(row) for row in rows]
    encoded = encode_rows(model.tokenizer, prompts, completions=completions)
    starts = encoded.completion_starts
    assert starts is not None
    if 0 in starts:
        raise DataError("prompts", f"prompt {starts.index(0)} has no tokens, not even a BOS, to predict from; drop it")
    return [tuple(row) for row in encoded.rows], starts


def _last_of_prompt(batch: TokenBatch) -> Tensor:
    """Column of each row's last prompt token; the batch is padded on the right."""
    assert batch.completion_mask is not None
    return (batch.mask & ~batch.completion_mask).sum(1) - 1


def _logits(model: "HookedModel", batch: TokenBatch, edits: dict[Site, Edit]) -> Float[Tensor, "batch pos vocab"]:
    logits = model.run(batch, edits=edits, logits=True).logits
    assert logits is not None
    return logits


def _measures(
    plain: Float[Tensor, "batch pos vocab"],
    edited: Float[Tensor, "batch pos vocab"],
    batch: TokenBatch,
    last: Tensor,
    ids: list[int],
) -> dict[str, Float[Tensor, " batch"]]:
    rows = torch.arange(len(last), device=last.device)
    p, q = plain[rows, last].double(), edited[rows, last].double()  # in float32 a small KL drowns, or falls below 0
    log_p, log_q = p.log_softmax(-1), q.log_softmax(-1)
    measures = {
        "kl": _kl(p, q),
        "total_variation": (log_p.exp() - log_q.exp()).abs().sum(-1) / 2,
    }
    if ids:
        measures["token_set_log_probability"] = log_q[:, ids].logsumexp(-1) - log_p[:, ids].logsumexp(-1)
    assert batch.completion_mask is not None
    if bool(batch.completion_mask.any()):
        counts: list[int] = batch.completion_mask.sum(1).tolist()
        p, q = (select_predictions(logits, batch.completion_mask).double() for logits in (plain, edited))
        measures["completion_kl"] = torch.stack([part.mean() for part in _kl(p, q).split(counts)])
    return measures


def _kl(p: Float[Tensor, "n vocab"], q: Float[Tensor, "n vocab"]) -> Float[Tensor, " n"]:
    # token_kl takes the prediction of a token to stand one position before it.
    following = torch.tensor([False, True], device=p.device).expand(len(p), 2)
    return token_kl(p[:, None].expand(-1, 2, -1), q[:, None].expand(-1, 2, -1), following)
