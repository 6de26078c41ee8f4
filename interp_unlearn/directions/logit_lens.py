"""Which tokens a direction writes for, were it read out at once: the logit lens of a direction."""

import copy
from typing import TYPE_CHECKING, Any

import torch
import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor, nn

from interp_unlearn.directions.direction_set import Directions, residual_directions
from interp_unlearn.directions.nulls import random_unit_vectors
from interp_unlearn.directions.readout import Readout
from interp_unlearn.errors import CheckpointError, ConfigError, ScoreError
from interp_unlearn.probes import ProbeSet
from interp_unlearn.probes.token_scores import token_text

if TYPE_CHECKING:
    import pandas as pd

    from interp_unlearn.interventions import HookedModel

_FAR = 1e4
"""Factor that makes a norm's epsilon vanish beside the vector it is given."""
_VOCABULARY_AT_ONCE = 16_384


@torch.no_grad()
def promoted_tokens(
    model: "HookedModel",
    directions: Directions | ProbeSet,
    k: int = 10,
    *,
    n_null: int = 100,
    seed: int = 0,
    with_text: bool = True,
) -> "pd.DataFrame":
    """The k tokens that a direction raises most and the k that it lowers most, ``unembed(final norm(direction))``.

    The final norm's weights are folded in, a LayerNorm's centring with them; biases of norm and head are left out,
    since they belong to no direction.
    Source: nostalgebraist 2020 (the logit lens); Geva et al. 2022, arXiv 2203.14680 (of vectors in the weights).
    Caveat: the lens ignores everything that later layers do with the direction, so that of early layers it says little;
    and one of a vocabulary's tokens is always at the top, which is what ``null_high`` is for.

    Args:
        model: the model whose norm and head are used; the directions' width is checked, not its weights.
        directions: in the residual stream.
        k: tokens listed on either side.
        n_null: random directions that the null is taken from.
        seed: of the random directions.
        with_text: whether the table holds the tokens' text, which may offend, beside their ids.

    Returns:
        ``site, layer, side`` (promoted, suppressed), ``rank`` (counted from 1), ``token`` (its text, if asked for),
        ``token_id``, ``value`` (logits, nats, of a stream that points along the direction, less those of a stream at
        0), ``z`` (the value in standard deviations from the mean over the vocabulary), ``null_high`` (95% quantile over
        random directions of the largest value in the vocabulary; for suppressed tokens, of the lowest, with the sign
        turned).

    Raises:
        ConfigError: k is not between 1 and the vocabulary's size, or the widths differ.
        CheckpointError: the model has no head, one with an adapter, or final norm and head do not give its logits.
        SiteError: a direction is outside the residual stream.
        ScoreError: the norm or the head holds infinite values or NaN.
    """
    import pandas as pd

    found = residual_directions(directions)
    found.check_width(model)
    head = model.architecture.unembed
    if head is None:
        raise CheckpointError(f"{model.name or 'the model'} has no head that turns the stream into logits")
    if hasattr(head, "base_layer"):
        raise CheckpointError("the head has an adapter, which this lens would leave out; merge it first")
    Readout(model)
    weight = head.get_parameter("weight").detach()
    if not 1 <= k <= len(weight):
        raise ConfigError(f"k: expected 1 to {len(weight)} tokens, the size of the vocabulary, got {k}")
    norm = model.architecture.final_norm
    logits = _logits(norm, weight, torch.stack(list(found.vectors.values())))
    if not bool(logits.isfinite().all()):
        raise ScoreError(
            f"{model.name or 'the model'}: its final norm or head holds infinite values or NaN; load it again"
        )
    chance = _logits(norm, weight, random_unit_vectors(n_null, weight.shape[1], seed))
    null = {"promoted": _high(chance.amax(1)), "suppressed": _high((-chance).amax(1))}
    rows: list[dict[str, Any]] = []
    for site, values in zip(found.sites, logits, strict=True):
        standard = (values - values.mean()) / values.std(correction=0)
        for side, order in (("promoted", values.argsort(descending=True)), ("suppressed", values.argsort())):
            for rank, token in enumerate(order[:k].tolist(), start=1):
                rows.append(
                    {"site": str(site), "layer": site.layer, "side": side, "rank": rank, "token_id": token}
                    | ({"token": token_text(model.tokenizer, token)} if with_text else {})
                    | {"value": float(values[token]), "z": float(standard[token]), "null_high": null[side]}
                )
    return pd.DataFrame(rows).astype({"layer": "Int64"})


@torch.no_grad()
def through_norm(norm: nn.Module | None, vectors: Float[Tensor, "*n d"]) -> Float[Tensor, "*n d"]:
    """What a norm makes of a stream that points along each vector, less its bias, in float32.

    It is asked, not taken apart: so a weight that counts from 1 (Gemma) or a mean that is removed (LayerNorm) is right.
    """
    if norm is None:
        return vectors.float()
    device = next(norm.parameters()).device if any(True for _ in norm.parameters()) else vectors.device
    exact = copy.deepcopy(norm).float()
    far = _FAR * F.normalize(vectors.float().to(device), dim=-1)
    return (exact(far) - exact(torch.zeros_like(far[..., :1, :] if far.ndim > 1 else far))).to(vectors.device)


def _logits(norm: nn.Module | None, weight: Tensor, vectors: Float[Tensor, "n d"]) -> Float[Tensor, "n vocab"]:
    read = through_norm(norm, vectors).to(weight.device)
    # In float32, a part of the vocabulary at a time: the whole head need not be held twice.
    return torch.cat([read @ part.float().T for part in weight.split(_VOCABULARY_AT_ONCE)], dim=1).cpu()


def _high(values: Float[Tensor, " draw"]) -> float:
    return float(values.quantile(0.95))
