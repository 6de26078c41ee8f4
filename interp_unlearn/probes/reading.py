"""Texts read as those were that probes were fitted on, so that the probes can be used on them."""

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from interp_unlearn.activations import ActivationStore, collect
from interp_unlearn.errors import ConfigError
from interp_unlearn.interventions.selections import named_tokens

if TYPE_CHECKING:
    from interp_unlearn.interventions import HookedModel
    from interp_unlearn.probes.probe_set import ProbeSet
    from interp_unlearn.sites import Site


def collect_as_fitted(
    probes: "ProbeSet",
    model: "HookedModel",
    texts: Sequence[str],
    sites: "Sequence[Site] | None" = None,
    *,
    completions: Sequence[str] | None = None,
    **options: Any,
) -> ActivationStore:
    """Read texts in any model as the probes' own were read: pooled over the same tokens, cut at the same length.

    Args:
        probes: what is to read the store.
        model: the original, or a changed one.
        texts: prompts, where completions are given.
        sites: where; None for the probes' sites.
        completions: appended to the texts.
        options: of `collect`: labels, groups, out and others; max_length, None for that of the fit, or the model's
            context length where it is shorter.

    Raises:
        ConfigError: the probes do not say which tokens they were fitted on, or these are a part of prompt and
            completion and there are no completions.
    """
    if "tokens" not in probes.metadata:
        raise ConfigError("the probes do not say which tokens they were fitted on; fit them again")
    tokens = named_tokens(probes.metadata["tokens"])
    if tokens in ("prompt", "completion") and completions is None:
        raise ConfigError(
            f"the probes were fitted on the {tokens}s of prompts with completions, and here are whole texts; fit them "
            "on whole texts, or collect such a store yourself and use ProbeSet.evaluate"
        )
    if options.get("max_length") is None and (fitted := probes.metadata.get("max_length")) is not None:
        options = options | {"max_length": min(fitted, model.context_length or fitted)}
    return collect(
        model,
        texts,
        list(probes.sites if sites is None else sites),
        probes.metadata["pool"],
        tokens=tokens,
        completions=completions,
        include_bos=bool(probes.metadata["include_bos"]),
        **options,
    )
