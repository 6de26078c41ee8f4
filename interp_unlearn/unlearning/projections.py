"""Where tokens lie along directions of the stream: what thresholds and class gaps are measured from."""

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING

import torch
import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor

from interp_unlearn.errors import ConfigError
from interp_unlearn.objectives import ProjectionScale, projection_scale
from interp_unlearn.sites import Site
from interp_unlearn.unlearning.config import UnlearnConfig
from interp_unlearn.unlearning.corpora import Corpora, TokenCorpus, UnlearnData, forget_mask
from interp_unlearn.unlearning.misdirection import unit_direction

if TYPE_CHECKING:
    from interp_unlearn.interventions import HookedModel
    from interp_unlearn.probes import Estimator, ProbeSet

SCALE_BATCH = 64


def layer_directions(
    directions: "ProbeSet | Mapping[int, Tensor]", layers: Sequence[int], estimator: "Estimator" = "logistic"
) -> dict[int, Tensor]:
    """A direction for each layer's output, of probes or as they are given.

    Raises:
        SiteError: a layer has no probe.
        ConfigError: a layer has no vector.
    """
    if not isinstance(directions, Mapping):
        return {layer: directions.direction(Site(layer, "resid_post"), estimator) for layer in layers}
    missing = [layer for layer in layers if layer not in directions]
    if missing:
        raise ConfigError(f"no direction for layer {missing[0]}; there are some for layers {sorted(directions)}")
    return {layer: directions[layer] for layer in layers}


@torch.no_grad()
def token_projections(
    model: "HookedModel", corpus: TokenCorpus, directions: Mapping[int, Tensor], config: UnlearnConfig
) -> dict[int, Float[Tensor, "tokens *k"]]:
    """Dot products of all counted tokens with each layer's direction [d_model], or its k directions [k, d_model].

    Counted are the tokens that an objective's own loss would be over. Tokens come in no particular order.
    """
    sites = {layer: Site(layer, "resid_post") for layer in directions}
    found: dict[int, list[Tensor]] = {layer: [] for layer in directions}
    by_length = sorted(range(len(corpus)), key=lambda row: len(corpus.rows[row]))
    for first in range(0, len(by_length), SCALE_BATCH):
        batch = corpus.batch(by_length[first : first + SCALE_BATCH], model.device)
        trace, mask = model.run(batch, reads=list(sites.values())), forget_mask(batch, config)
        for layer, site in sites.items():
            tokens = trace[site][mask].float()
            found[layer].append(F.linear(tokens, directions[layer].to(tokens)))
    return {layer: torch.cat(parts) for layer, parts in found.items()}


def measure_scales(
    model: "HookedModel",
    corpora: Corpora,
    directions: Mapping[int, Tensor],
    config: UnlearnConfig,
    quantile: float = 0.5,
    name: str = "projection_scales",
) -> dict[int, ProjectionScale]:
    """The scale of each layer from the forget and the neutral corpus.

    Args:
        directions: a unit vector for each layer.
        name: of the objective, for error messages.

    Raises:
        ConfigError: there are no neutral texts, or at some layer the forget texts do not project beyond them.
    """
    forget = token_projections(model, corpora.forget, directions, config)
    neutral = token_projections(model, corpora.require("neutral", name), directions, config)
    return {
        layer: checked_scale(forget[layer], neutral[layer], quantile, f"objective {name}, layer {layer}")
        for layer in directions
    }


def checked_scale(forget: Tensor, neutral: Tensor, quantile: float, where: str) -> ProjectionScale:
    """`projection_scale`, whose errors say where.

    Raises:
        ConfigError: the forget class does not lie beyond the neutral one.
    """
    try:
        return projection_scale(forget, neutral, quantile)
    except ConfigError as error:
        raise ConfigError(f"{where}: {error}") from error


def projection_scales(
    model: "HookedModel",
    data: UnlearnData,
    directions: "ProbeSet | Mapping[int, Tensor]",
    layers: Sequence[int],
    config: UnlearnConfig | None = None,
    *,
    estimator: "Estimator" = "logistic",
    quantile: float = 0.5,
) -> dict[int, ProjectionScale]:
    """Where neutral tokens end and how far forget tokens lie beyond, along each layer's unit direction.

    Thresholds for `clamp_edits`, units for `steering_edits`.

    Args:
        model: measured on its current weights.
        data: forget and neutral texts.
        directions: probes, or a vector for each layer.
        layers: blocks whose output is measured.
        config: which tokens count, and how long texts may be.
        estimator: which direction of a `ProbeSet`.
        quantile: of the neutral tokens, at which `threshold` lies.

    Raises:
        ConfigError: there are no neutral texts, or at some layer the forget texts do not project beyond them.
        SiteError: a layer has no probe.
    """
    config = config or UnlearnConfig()
    found = layer_directions(directions, layers, estimator)
    units = {layer: unit_direction(found, layer, model.d_model) for layer in layers}
    corpora = Corpora.from_data(model.tokenizer, data, config.max_length or model.context_length)
    return measure_scales(model, corpora, units, config, quantile)
