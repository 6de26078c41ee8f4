"""Interventions at inference that probes give: baselines without training, and teachers to distil.

Each is what `HookedModel.edited` and the `distilled` objective take. The weights stay as they are.
"""

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING

import torch
from torch import Tensor

from interp_unlearn.errors import ConfigError
from interp_unlearn.interventions import Add, Clamp, Edit, ProjectOut
from interp_unlearn.objectives import ProjectionScale
from interp_unlearn.sites import Site
from interp_unlearn.unlearning.config import UnlearnConfig
from interp_unlearn.unlearning.corpora import UnlearnData
from interp_unlearn.unlearning.projections import layer_directions, projection_scales

if TYPE_CHECKING:
    from interp_unlearn.interventions import HookedModel
    from interp_unlearn.probes import Estimator, ProbeSet

Scales = Mapping[int, ProjectionScale]


def clamp_edits(
    directions: "ProbeSet | Mapping[int, Tensor]",
    layers: Sequence[int],
    *,
    estimator: "Estimator" = "logistic",
    scales: Scales | None = None,
    overshoot: float = 1.0,
) -> dict[Site, Edit]:
    """At each layer's output, tokens beyond a threshold along the direction are moved back over it.

    Args:
        directions: probes, or a vector for each layer.
        layers: where.
        estimator: which direction of a `ProbeSet`.
        scales: of `projection_scales`, whose start (the neutral median by default) is the threshold; None takes the
            probe's own border, which parts pooled texts and not tokens.
        overshoot: 1 stops at the threshold, 2 reflects to the other side of it.

    Raises:
        ConfigError: vectors were given without scales, or a layer has no scale.
        SiteError: a layer has no probe.
    """
    found = layer_directions(directions, layers, estimator)
    if scales is None and isinstance(directions, Mapping):
        raise ConfigError("plain vectors have no border to clamp at; give scales=projection_scales(...)")
    edits: dict[Site, Edit] = {}
    for layer in layers:
        site = Site(layer, "resid_post")
        if scales is not None:
            threshold = _scale(scales, layer).start
        else:
            assert not isinstance(directions, Mapping)
            threshold = -directions.bias(site, estimator)
        edits[site] = Clamp(found[layer], threshold, overshoot)
    return edits


def project_out_edits(
    directions: "ProbeSet | Mapping[int, Tensor]", layers: Sequence[int], *, estimator: "Estimator" = "logistic"
) -> dict[Site, Edit]:
    """At each layer's output, the direction's component is removed, of either sign.

    Caveat: this moves every token to projection 0, which need not be where neutral tokens are.

    Args:
        directions: probes, or one vector or k of them [k, d_model] for each layer.
        layers: where.
        estimator: which direction of a `ProbeSet`.

    Raises:
        ConfigError: a layer has no vector.
        SiteError: a layer has no probe.
    """
    found = layer_directions(directions, layers, estimator)
    return {Site(layer, "resid_post"): ProjectOut(found[layer].detach()) for layer in layers}


def steering_edits(
    directions: "ProbeSet | Mapping[int, Tensor]",
    layers: Sequence[int],
    coefficient: float,
    *,
    estimator: "Estimator" = "mean_difference",
    scales: Scales | None = None,
) -> dict[Site, Edit]:
    """At each layer's output, `coefficient` times the unit direction is subtracted from every token.

    Mean-difference steering at inference: activation addition of Turner et al. 2023, arXiv 2308.10248, with the
    contrastive mean difference of Rimsky et al. 2024, arXiv 2312.06681, away from the target.

    Args:
        directions: probes, or a vector for each layer, pointing at the target.
        layers: where.
        coefficient: above 0 steers away from the target; in L2 units of the stream, or in class gaps with `scales`.
        estimator: which direction of a `ProbeSet`.
        scales: of `projection_scales`: the coefficient then counts gaps between the classes' median tokens, so that it
            means the same at every layer.

    Raises:
        ConfigError: a layer has no vector, or no scale.
        SiteError: a layer has no probe.
    """
    found = layer_directions(directions, layers, estimator)
    units = {layer: 1.0 if scales is None else _scale(scales, layer).gap for layer in layers}
    edits: dict[Site, Edit] = {}
    for layer in layers:
        # At least in float32: in half precision a norm may overflow, and the vector would come out as zero.
        vector = found[layer].to(torch.promote_types(found[layer].dtype, torch.float32))
        edits[Site(layer, "resid_post")] = Add(vector / vector.norm(), -coefficient * units[layer])
    return edits


def candidate_teachers(
    model: "HookedModel",
    data: UnlearnData,
    probes: "ProbeSet",
    layers: Sequence[int],
    config: UnlearnConfig | None = None,
    *,
    estimators: "Sequence[Estimator]" = ("logistic", "mean_difference"),
    overshoots: Sequence[float] = (1.0, 2.0, 4.0),
    coefficients: Sequence[float] = (1.0, 2.0),
) -> dict[str, dict[Site, Edit]]:
    """Clamps, projections and steering along both estimators' directions, for `compare_teachers` to choose from.

    Thresholds and gaps are measured on the model: the neutral median, and the distance of the classes' medians.

    Args:
        model: the original.
        data: forget and neutral texts.
        probes: with both estimators.
        layers: where all of them edit.
        config: which tokens count in thresholds and gaps.
        estimators: which directions.
        overshoots: of the clamps.
        coefficients: of the steering, in class gaps.

    Raises:
        ConfigError: there are no neutral texts, or at some layer the forget texts do not project beyond them.
        SiteError: a layer has no probe.
    """
    found: dict[str, dict[Site, Edit]] = {}
    for name in estimators:
        scales = projection_scales(model, data, probes, layers, config, estimator=name)
        for overshoot in overshoots:
            edits = clamp_edits(probes, layers, estimator=name, scales=scales, overshoot=overshoot)
            found[f"clamp {name} x{overshoot:g}"] = edits
        found[f"project_out {name}"] = project_out_edits(probes, layers, estimator=name)
        for coefficient in coefficients:
            edits = steering_edits(probes, layers, coefficient, estimator=name, scales=scales)
            found[f"steering {name} x{coefficient:g}"] = edits
    return found


def _scale(scales: Scales, layer: int) -> ProjectionScale:
    if layer not in scales:
        raise ConfigError(f"no scale for layer {layer}; there are some for layers {sorted(scales)}")
    return scales[layer]
