"""Which neurons of the MLPs write along a direction."""

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import torch
from jaxtyping import Float
from torch import Tensor

from interp_unlearn.directions.direction_set import Directions, residual_directions
from interp_unlearn.directions.logit_lens import through_norm
from interp_unlearn.directions.nulls import cosine_quantile
from interp_unlearn.errors import ConfigError
from interp_unlearn.probes import ProbeSet
from interp_unlearn.sites import Site

if TYPE_CHECKING:
    import pandas as pd

    from interp_unlearn.interventions import HookedModel


@torch.no_grad()
def aligned_value_vectors(
    model: "HookedModel", directions: Directions | ProbeSet, k: int = 10, layers: Sequence[int] | None = None
) -> "pd.DataFrame":
    """The k value vectors that point most along a direction and the k that point most against it, in each MLP.

    A neuron's value vector is what it writes into the stream: its column of down_proj (its row of GPT-2's c_proj). On
    Gemma2 and OLMo2, which normalise the MLP's output, the norm's weights are folded in.
    Source: Geva et al. 2022, arXiv 2203.14680; Lee et al. 2024, arXiv 2401.01967 (toxic value vectors).
    Caveat: a value vector matters as often as its neuron is active, and gated neurons are active with either sign; an
    alignment shows what can be written, not what is. The best of thousands is high by chance: see ``null_high``.

    Args:
        model: the model whose MLPs are searched; the directions' width is checked, not its weights.
        directions: in the residual stream.
        k: value vectors listed on either side.
        layers: the MLPs compared with every direction; None compares each direction with the MLP of its own layer, and
            passes over the embedding's.

    Returns:
        ``site, layer`` of the direction, ``mlp_layer, side`` (along, against), ``rank`` (counted from 1), ``neuron,
        cosine, norm`` (L2 of the value vector), ``null_high`` (95% quantile of the largest cosine of as many random
        vectors), ``n_vectors, d``.

    Raises:
        ConfigError: k is not between 1 and the number of neurons, there is no direction at a layer, the widths differ,
            or the matrix carries an adapter or is quantised.
        SiteError: a mixture of experts, an unknown kind of MLP, a layer out of range, or a direction outside the
            residual stream.
    """
    import pandas as pd

    found = residual_directions(directions)
    found.check_width(model)
    pairs = sorted((layer, site) for site in found.sites for layer in _searched(site, layers))
    if not pairs:
        raise ConfigError("no MLP to search: the only direction is the embedding's; name layers")
    rows: list[dict[str, Any]] = []
    values, held = torch.empty(0), -1
    for layer, site in pairs:
        if layer != held:  # each layer's matrix is made once
            values, held = value_vectors(model, layer), layer
        if not 1 <= k <= len(values):
            raise ConfigError(f"k: expected 1 to {len(values)} value vectors, the neurons of layer {layer}, got {k}")
        norms = values.norm(dim=1)
        cosines = values @ found[site] / norms.clamp_min(torch.finfo(torch.float32).tiny)
        n, d = values.shape
        null = cosine_quantile(d, 0.95, of_largest=n)
        for side, order in (("along", cosines.argsort(descending=True)), ("against", cosines.argsort())):
            for rank, neuron in enumerate(order[:k].tolist(), start=1):
                rows.append(
                    {
                        "site": str(site),
                        "layer": site.layer,
                        "mlp_layer": layer,
                        "side": side,
                        "rank": rank,
                        "neuron": neuron,
                        "cosine": float(cosines[neuron]),
                        "norm": float(norms[neuron]),
                        "null_high": null,
                        "n_vectors": n,
                        "d": d,
                    }
                )
    return pd.DataFrame(rows).astype({"layer": "Int64"})


@torch.no_grad()
def value_vectors(model: "HookedModel", layer: int) -> Float[Tensor, "d_mlp d_model"]:
    """What each neuron of an MLP writes into the stream per unit of its activation, in float32 on the CPU.

    Where the MLP's output is normalised before it is added, up to a positive factor that depends on the token.

    Raises:
        ConfigError: the matrix carries an adapter, or is quantised.
        SiteError: a mixture of experts, an unknown kind of MLP, or a layer out of range.
    """
    architecture = model.architecture
    module = architecture.module_at(Site(layer, "mlp_post"))
    if hasattr(module, "base_layer"):
        raise ConfigError(f"the MLP of layer {layer} carries an adapter; merge it first (merge_and_unload)")
    weight = module.get_parameter("weight").detach()
    if not weight.is_floating_point() or weight.element_size() < 2:
        raise ConfigError(f"the MLP of layer {layer} is quantised to {weight.dtype}; load the model in 16 or 32 bits")
    # GPT-2's Conv1D holds its matrix the other way round and has no in_features.
    rows = (weight.T if hasattr(module, "in_features") else weight).float().cpu()
    if not architecture.post_norms:
        return rows
    post_norm = architecture.module_at(Site(layer, "mlp_out"))
    # A norm brings every vector to one length: give each its own back.
    return through_norm(post_norm, rows) * rows.norm(dim=1, keepdim=True) / rows.shape[1] ** 0.5


def _searched(site: Site, layers: Sequence[int] | None) -> Sequence[int]:
    if layers is not None:
        return layers
    return [] if site.layer is None else [site.layer]
