"""All causal effects of a direction in one table."""

from collections.abc import Sequence
from typing import TYPE_CHECKING

from interp_unlearn.directions.continuations import Judge, generation_effects
from interp_unlearn.directions.direction_set import Directions
from interp_unlearn.directions.effects import EffectsConfig
from interp_unlearn.directions.next_tokens import next_token_effects
from interp_unlearn.probes import ProbeSet

if TYPE_CHECKING:
    import pandas as pd

    from interp_unlearn.activations import ActivationStore
    from interp_unlearn.interventions import HookedModel


def causal_effects(
    model: "HookedModel",
    prompts: Sequence[str],
    directions: Directions | ProbeSet,
    config: EffectsConfig | None = None,
    *,
    store: "ActivationStore | None" = None,
    completions: Sequence[str] | None = None,
    tokens: Sequence[str | int] = (),
    judge: Judge | None = None,
    groups: Sequence[object] | None = None,
    progress: bool = False,
) -> "pd.DataFrame":
    """Add, clamp and project out a direction, at each site and at all together: next tokens, and texts if judged.

    Arguments, columns and caveats as of `next_token_effects` and `generation_effects`, whose tables are put together.

    Raises:
        ConfigError: see there.
        DataError: a prompt has no tokens.
        SiteError: the model has no such site, or it is not in the residual stream.
    """
    import pandas as pd

    parts = [
        next_token_effects(
            model,
            prompts,
            directions,
            config,
            store=store,
            completions=completions,
            tokens=tokens,
            groups=groups,
            progress=progress,
        )
    ]
    if judge is not None:
        parts.append(
            generation_effects(model, prompts, directions, judge, config, store=store, groups=groups, progress=progress)
        )
    return pd.concat(parts, ignore_index=True)
