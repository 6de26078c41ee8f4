"""Which layers an objective works at, and how much each counts."""

import logging
from collections import defaultdict
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

from interp_unlearn.errors import ConfigError
from interp_unlearn.unlearning.teachers import UNEDITED, Judge, compare_teachers

if TYPE_CHECKING:
    from interp_unlearn.interventions import Edit, HookedModel
    from interp_unlearn.probes import ProbeSet
    from interp_unlearn.sites import Site

logger = logging.getLogger(__name__)


def choose_layers(probes: "ProbeSet", n: int, *, how: str = "auroc", contiguous: bool = False) -> tuple[int, ...]:
    """The n layers whose output the probes read best; of equals the deeper, which have read more of the context.

    Caveat: AUROC says where the class can be read off, not where the model uses it, and nothing at all where it is 1
    everywhere (a warning says so): measure `effect_weights` then.

    Args:
        probes: fitted at `resid_post` of several layers.
        n: how many layers.
        how: the column of the probes' table that ranks them: "auroc" or "auroc_mean_difference".
        contiguous: neighbouring layers, the run of n with the highest mean, instead of the n best one by one.

    Returns:
        Layers in ascending order.

    Raises:
        ConfigError: there is no such column, or there are fewer such layers (or no run of them).
    """
    table = probes.table
    if how not in table.columns:
        raise ConfigError(f"the probes' table has no column {how!r}; expected one of {', '.join(table.columns)}")
    if n < 1:
        raise ConfigError(f"n must be at least 1 layer, got {n}")
    rows = zip(probes.sites, table[how].tolist(), strict=True)
    quality = {site.layer: float(value) for site, value in rows if site.component == "resid_post"}
    found = {layer: value for layer, value in quality.items() if layer is not None}
    width = n if contiguous else 1
    runs = [tuple(range(first, first + width)) for first in sorted(found)]
    ranked = sorted(
        (sum(found[layer] for layer in run) / width, run) for run in runs if all(layer in found for layer in run)
    )
    taken = 1 if contiguous else n
    if len(ranked) < taken:
        what = f"a run of {n} neighbouring layers" if contiguous else f"{n} layers"
        raise ConfigError(
            f"asked for {what} with a probe at resid_post, and there are probes for layers {sorted(found)}; "
            "collect and probe those sites"
        )
    if len(ranked) > taken and ranked[-taken - 1][0] == ranked[-1][0]:
        logger.warning("%s is %.3f at more layers than asked for, so it does not choose among them", how, ranked[-1][0])
    return tuple(sorted(layer for _, run in ranked[-taken:] for layer in run))


def effect_weights(
    model: "HookedModel",
    edits: "Mapping[Site, Edit | Sequence[Edit]]",
    judge: Judge,
    prompts: Sequence[str],
    max_new_tokens: int,
    *,
    measure: str = "target",
    **generation: Any,
) -> dict[int, float]:
    """a_l proportional to the drop in the target's share when the edits of layer l are applied alone.

    A layer without a drop gets 0; the weights sum to 1. Source: one of the readings of the multi-layer objective of
    Atil et al. 2026, arXiv 2605.26454 (abstract only; not the authors' code).
    Caveat: shares of n prompts move by about 1 / sqrt(n) by chance; a small drop is no evidence of an effect.

    Args:
        model: the original.
        edits: such as `clamp_edits`, of all layers that come into question.
        judge: see `compare_teachers`.
        prompts: of validation.
        max_new_tokens: upper bound of each text.
        measure: the column of `compare_teachers` that is to drop: a verdict, or "score" or "from_half".
        generation: further arguments of `compare_teachers`.

    Returns:
        `layer_weights` for a `ProjectionPenalty` at exactly those layers.

    Raises:
        ConfigError: an edit is at no layer, the judge has no such measure, or it drops nowhere.
    """
    by_layer: dict[int, dict[Site, Edit | Sequence[Edit]]] = defaultdict(dict)
    for site, edit in edits.items():
        if site.layer is None:
            raise ConfigError(f"{site} belongs to no layer; give edits inside the blocks")
        by_layer[site.layer][site] = edit
    candidates = {str(layer): chosen for layer, chosen in by_layer.items()}
    frame = compare_teachers(model, candidates, judge, prompts, max_new_tokens, **generation)
    if measure not in frame.columns:
        raise ConfigError(f"no {measure!r} among {', '.join(frame.columns)}; name a verdict that the judge gives")
    share = dict(zip(frame["teacher"].tolist(), frame[measure].tolist(), strict=True))
    drops = {layer: max(0.0, share[UNEDITED] - share[str(layer)]) for layer in sorted(by_layer)}
    total = sum(drops.values())
    if not total > 0:
        raise ConfigError(
            f"{measure} drops at none of layers {sorted(by_layer)} (unedited {share[UNEDITED]:.3f}); strengthen them"
        )
    return {layer: drop / total for layer, drop in drops.items()}
