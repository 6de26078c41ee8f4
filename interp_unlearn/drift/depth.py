"""Unlearning depth: from which layers of an unlearned model an original can still make the answer."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal

import numpy as np
import torch
from jaxtyping import Bool, Float
from torch import Tensor
from tqdm import tqdm

from interp_unlearn.activations import ActivationStore
from interp_unlearn.drift.paired import check_paired
from interp_unlearn.errors import ConfigError, DataError
from interp_unlearn.interventions import Edit, Replace, TokenMask
from interp_unlearn.interventions.buckets import length_buckets
from interp_unlearn.models import TokenBatch
from interp_unlearn.models.encoding import EncodedRows, encode_rows
from interp_unlearn.objectives import token_nll
from interp_unlearn.sites import Site
from interp_unlearn.statistics import bootstrap_mean

if TYPE_CHECKING:
    import pandas as pd

    from interp_unlearn.interventions import HookedModel

Patched = Literal["all", "answer"]
"""Which positions take the donor's stream: every token, or only those that predict the answer's."""


@dataclass(frozen=True, eq=False)
class UnlearningDepth:
    """How much of what the original knows beyond the twin is gone from an unlearned model's stream.

    Attributes:
        score: mean over the texts that count; 0: the unlearned model's stream serves the original as its own does, 1:
            no better than the twin's. None where no layer of any text passes the threshold.
        low, high: 95% bootstrap interval over texts, or groups; NaN with fewer than two.
        n: texts that count: those with a layer above the threshold.
        reason: why there is no score; None where there is one.
        layers: one row a layer: ``site, layer, drop_never_knew, drop_unlearned`` (mean over all texts of the answer's
            log-probability lost to the donor, nats per token), ``encoding`` (share of texts that count at this layer),
            ``erasure`` (the layer erasure ratio of those, weighted by their drop; NaN where there are none), ``n`` (all
            texts).
        texts: one row a text: ``row, log_probability`` (of the answer under the original, nats per token), ``depth``
            (NaN where no layer counts), ``n_layers`` (that count).
        patched: which positions took the donor's stream.
    """

    score: float | None
    low: float
    high: float
    n: int
    reason: str | None
    layers: "pd.DataFrame"
    texts: "pd.DataFrame"
    patched: Patched

    def to_frame(self) -> "pd.DataFrame":
        """A copy of the table of layers."""
        return self.layers.copy()


def unlearning_depth(
    model: "HookedModel",
    prompts: Sequence[str],
    answers: Sequence[str],
    never_knew: ActivationStore,
    unlearned: ActivationStore,
    *,
    threshold: float = 0.05,
    patched: Patched = "all",
    groups: Sequence[object] | None = None,
    batch_size: int = 64,
    seed: int = 0,
    progress: bool = True,
) -> UnlearningDepth:
    """Put other models' streams into the original, one layer at a time, and see what it loses of each true answer.

    With s(y) the mean log-probability of an answer's tokens: at each layer l the drop ``dS1_l`` is what s loses to the
    stream of a model that never knew, ``dS2_l`` what it loses to the unlearned model's. Layers with ``dS1 > threshold``
    encode the knowledge (KE). There ``LER_l = clip(dS2_l / dS1_l, 0, 1)``, and a text's depth is
    ``sum_KE dS1 LER / sum_KE dS1``. A text without such a layer is left out, for the original knows no more of it than
    the twin; where no text has one there is no score, and the reason says so.
    Source: Unlearning Depth Score, Lee et al. 2026, arXiv 2605.24614, section 3. The paper patches only the positions
    that predict the answer (``patched="answer"``): later layers may then fetch the fact from the original's own subject
    tokens. ``patched="all"``, our default, leaves them nothing of the original's below the layer.
    Caveat: any donor costs something, also one that knows. Measure the floor with a second model that knows in the
    place of the unlearned one, and the same score on answers that should be kept. A stream that is merely broken loses
    the answer too: depth near 1 does not tell forgetting from corruption. BOS keeps the original's stream unless the
    stores hold it.

    Args:
        model: the original; no other model is needed.
        prompts: texts up to the answer.
        answers: the true answers, with their leading space.
        never_knew: the donor of S1: a token-level store of a model that never knew, collected with the same prompts,
            ``completions=answers`` and ``tokens="all"``, at resid_post of the layers.
        unlearned: the donor of S2, of the same tokens and sites.
        threshold: nats per token, above 0.
        patched: which positions take the donor's stream.
        groups: one key a text; texts of a group are resampled together.
        batch_size: texts in a pass.
        seed: of the bootstrap.
        progress: whether to show a progress bar.

    Raises:
        ConfigError: a setting is out of range, lengths differ, or the stores do not fit each other or hold no
            resid_post.
        DataError: the stores' tokens are not those of prompts and answers.
    """
    if not threshold > 0 or patched not in ("all", "answer"):
        raise ConfigError(f"expected a threshold above 0 and patched all or answer, got {threshold}, {patched!r}")
    sites = [site for site in check_paired(never_knew, unlearned) if site.component == "resid_post"]
    if not sites:
        raise ConfigError("the stores hold no resid_post of a layer; collect them there")
    encoded = encode_rows(model.tokenizer, prompts, completions=answers)
    if groups is not None and len(groups) != len(prompts):
        raise ConfigError(f"groups: expected one a text ({len(prompts)}), got {len(groups)}")
    with_bos = bool(never_knew.metadata.get("include_bos"))
    _check_tokens(model, encoded, never_knew, with_bos)
    scores = _scores(model, encoded, (never_knew, unlearned), sites, patched, with_bos, batch_size, progress)
    return _depth(scores, sites, threshold, patched, groups, seed)


@torch.no_grad()
def _scores(
    model: "HookedModel",
    encoded: EncodedRows,
    donors: Sequence[ActivationStore],
    sites: Sequence[Site],
    patched: Patched,
    with_bos: bool,
    batch_size: int,
    progress: bool,
) -> Float[np.ndarray, "pass text"]:
    """Mean log-probability of each answer: first unpatched, then for each donor with each site patched."""
    rows = [tuple(row) for row in encoded.rows]
    scores = np.zeros((1 + len(donors) * len(sites), len(rows)))
    batches = list(length_buckets(model, rows, batch_size, completion_starts=encoded.completion_starts))
    with tqdm(total=len(batches) * len(scores), desc="depth", disable=not progress) as bar:
        for chosen, batch in batches:
            scores[0, chosen] = _answer_score(model, batch, {})
            bar.update()
            for number, donor in enumerate(donors):
                for place, site in enumerate(sites):
                    edit = _patch(donor, site, chosen, batch, patched, with_bos)
                    scores[1 + number * len(sites) + place, chosen] = _answer_score(model, batch, {site: edit})
                    bar.update()
    return scores


def _answer_score(model: "HookedModel", batch: TokenBatch, edits: dict[Site, Edit]) -> Float[np.ndarray, " batch"]:
    logits = model.run(batch, edits=edits, logits=True).logits
    mask = batch.completion_mask
    assert logits is not None and mask is not None
    nll = token_nll(logits, batch.input_ids.to(logits.device), mask.to(logits.device)).double().cpu()
    return np.array([-float(part.mean()) for part in nll.split(mask[:, 1:].sum(1).tolist())])


def _patch(
    donor: ActivationStore, site: Site, chosen: list[int], batch: TokenBatch, patched: Patched, with_bos: bool
) -> Replace:
    """The edit that puts a donor's stream at its tokens; under the mask they come in the order of the store."""
    vectors = donor.read(site, chosen).to(batch.device)
    held: Bool[Tensor, "batch pos"] = batch.mask if with_bos else batch.content_mask
    value = vectors.new_zeros(*held.shape, vectors.shape[1])
    value[held] = vectors
    if patched == "all":
        return Replace(value, include_bos=with_bos)
    assert batch.completion_mask is not None
    predicting = torch.zeros_like(held)
    predicting[:, :-1] = batch.completion_mask[:, 1:]
    return Replace(value, tokens=TokenMask(predicting), include_bos=with_bos)


def _check_tokens(model: "HookedModel", encoded: EncodedRows, store: ActivationStore, with_bos: bool) -> None:
    bos = model.tokenizer.bos_token_id
    rows = [row if with_bos or row[0] != bos else row[1:] for row in encoded.rows]
    counts = store.rows["n_tokens"].tolist()
    lengths = [len(row) for row in rows]
    ids = [token for row in rows for token in row]
    if counts != lengths or store.token_frame()["token_id"].tolist() != ids:
        raise DataError(
            "never_knew",
            f"its {sum(counts)} tokens of {len(counts)} texts are not the {sum(lengths)} of these {len(lengths)} "
            'prompts and answers; collect it with completions=answers, tokens="all" and this tokenizer',
        )


def _depth(
    scores: Float[np.ndarray, "pass text"],
    sites: Sequence[Site],
    threshold: float,
    patched: Patched,
    groups: Sequence[object] | None,
    seed: int,
) -> UnlearningDepth:
    import pandas as pd

    drops = (scores[0] - scores[1:]).reshape(2, len(sites), -1)
    first, second = drops[0], drops[1]
    encoding = first > threshold
    weights = np.where(encoding, first, 0.0)
    ratios = np.clip(second / np.where(encoding, first, 1.0), 0, 1)
    counted = encoding.any(0)
    depth = np.full(len(counted), np.nan)
    depth[counted] = (weights * ratios).sum(0)[counted] / weights.sum(0)[counted]
    present = encoding.any(1)
    erasure = np.full(len(sites), np.nan)
    erasure[present] = (weights * ratios).sum(1)[present] / weights.sum(1)[present]
    layers = pd.DataFrame(
        {
            "site": [str(site) for site in sites],
            "layer": [site.layer for site in sites],
            "drop_never_knew": first.mean(1),
            "drop_unlearned": second.mean(1),
            "encoding": encoding.mean(1),
            "erasure": erasure,
            "n": len(depth),
        }
    ).astype({"layer": "Int64"})
    texts = pd.DataFrame(
        {"row": range(len(depth)), "log_probability": scores[0], "depth": depth, "n_layers": encoding.sum(0)}
    )
    n = int(counted.sum())
    if n == 0:
        reason = (
            f"no text loses more than {threshold} nats per token at any layer to the stream of the model that never "
            f"knew (the most is {first.max():.3g}): the original knows no more of these answers, so there is no depth"
        )
        return UnlearningDepth(None, float("nan"), float("nan"), 0, reason, layers, texts, patched)
    score, low, high = float(depth[counted].mean()), float("nan"), float("nan")
    kept = None if groups is None else [group for group, counts in zip(groups, counted, strict=True) if counts]
    if (n if kept is None else len(set(kept))) > 1:
        interval = bootstrap_mean(depth[counted], kept, seed=seed)
        low, high = interval.low, interval.high
    return UnlearningDepth(score, low, high, n, None, layers, texts, patched)
