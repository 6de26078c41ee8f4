"""What an intervention along a direction changes, beside the same change of size along random ones."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Literal

import numpy as np
from jaxtyping import Float

from interp_unlearn.directions.direction_set import Directions
from interp_unlearn.directions.strengths import (
    Calibration,
    Intervention,
    calibrate,
    default_interventions,
    make_edit,
)
from interp_unlearn.errors import ConfigError
from interp_unlearn.interventions import Edit
from interp_unlearn.settings import check_fields
from interp_unlearn.sites import Site
from interp_unlearn.statistics import bootstrap_means
from interp_unlearn.statistics.intervals import percentile_interval, unit_count

if TYPE_CHECKING:
    from interp_unlearn.activations import ActivationStore
    from interp_unlearn.interventions import HookedModel

Layers = Literal["each", "all", "both"]
Statistic = Callable[[Float[np.ndarray, "*draw column"]], Float[np.ndarray, "*draw"]]
"""From means of columns to the number reported."""

ALL = "all"
"""The `site` of an intervention at all sites together."""


@dataclass(frozen=True)
class EffectsConfig:
    """How causal effects are measured.

    Attributes:
        interventions: what is done along the direction; None for `default_interventions`.
        layers: "each" site alone, "all" sites together, or "both".
        n_random: random directions of the control, at least 1.
        seed: of the random directions, the bootstrap and the sampling of texts.
        n_resamples: of the bootstrap over prompts.
        batch_size: prompts in a pass.
        max_new_tokens: length of generations.
        temperature: of the sampling.
        top_p: of the sampling.
        stop: tokens that end a generation, besides the model's own.

    Raises:
        ConfigError: a setting is out of range.
    """

    interventions: tuple[Intervention, ...] | None = None
    layers: Layers = "both"
    n_random: int = 3
    seed: int = 0
    n_resamples: int = 2000
    batch_size: int = 64
    max_new_tokens: int = 20
    temperature: float = 1.0
    top_p: float = 0.9
    stop: str | tuple[str, ...] | None = None

    def __post_init__(self) -> None:
        if self.layers not in ("each", "all", "both"):
            raise ConfigError(f"layers: expected each, all or both, got {self.layers!r}")
        check_fields(self)
        if self.n_random < 1:
            raise ConfigError(f"n_random: an effect without a random direction says nothing; got {self.n_random}")
        if self.interventions is not None and not self.interventions:
            raise ConfigError("interventions: none given; leave it out for the default ones")

    @property
    def random_seeds(self) -> list[int]:
        """Of the control's directions; runs of different seeds share none."""
        return [self.seed * 1000 + number for number in range(self.n_random)]


@dataclass(frozen=True)
class Condition:
    """An intervention and where it is made."""

    intervention: Intervention
    edits: dict[Site, Edit]

    def describe(self) -> dict[str, Any]:
        """The columns that name the condition."""
        kind, strength = self.intervention.kind, self.intervention.strength
        unit = {"add": self.intervention.unit, "clamp": "overshoot", "project_out": ""}[kind]
        site = next(iter(self.edits)) if len(self.edits) == 1 else None
        return {
            "intervention": kind,
            "strength": float("nan") if kind == "project_out" else strength,
            "unit": unit,
            "site": ALL if site is None else str(site),
            "layer": None if site is None else site.layer,
        }


def make_conditions(
    model: "HookedModel",
    prompts: Sequence[str],
    directions: Directions,
    config: EffectsConfig,
    store: "ActivationStore | None",
) -> list[Condition]:
    """Every intervention at every place.

    Raises:
        ConfigError: something an intervention is counted in is not known; see `calibrate`.
    """
    wanted = config.interventions or default_interventions(directions, store)
    calibration: Calibration = calibrate(model, prompts, directions, wanted, store, config.batch_size)
    each = [(site,) for site in directions.sites] if config.layers != "all" else []
    together = [directions.sites] if config.layers != "each" and len(directions.sites) > 1 else []
    places = [*each, *together] or [directions.sites]
    return [
        Condition(intervention, {site: make_edit(intervention, site, directions, calibration) for site in sites})
        for intervention in wanted
        for sites in places
    ]


def contrast_rows(
    direction: Float[np.ndarray, "prompt column"],
    random: Float[np.ndarray, "control prompt column"],
    config: EffectsConfig,
    groups: Sequence[object] | None = None,
    statistic: Statistic = lambda means: means[..., 0],
) -> list[dict[str, Any]]:
    """A number under the direction, under each random one, and the difference from their mean, with 95% intervals.

    All share the draws of prompts, so that the difference is paired. Caveat: the difference's interval holds the random
    directions fixed; how much they differ among themselves is to be seen in their own rows.

    Returns:
        Rows of ``control`` (direction, random, difference), ``seed`` (of a random direction), ``mean, low, high, n``.
    """
    conditions = np.concatenate([direction[None], random])  # [1 + control, prompt, column]
    k, rows, columns = conditions.shape
    table = conditions.transpose(1, 0, 2).reshape(rows, k * columns)
    drawn = bootstrap_means(table, groups, config.n_resamples, config.seed).reshape(-1, k, columns)
    estimates, resampled = statistic(conditions.mean(1)), statistic(drawn)
    n = unit_count(rows, groups)

    def row(control: str, seed: int | None, estimate: float, values: np.ndarray) -> dict[str, Any]:
        interval = percentile_interval(estimate, values, n)
        found = {"mean": interval.mean, "low": interval.low, "high": interval.high, "n": n}
        return {"control": control, "seed": seed, **found}

    difference = float(estimates[0] - estimates[1:].mean())
    return [
        row("direction", None, float(estimates[0]), resampled[:, 0]),
        *(
            row("random", seed, float(estimates[1 + number]), resampled[:, 1 + number])
            for number, seed in enumerate(config.random_seeds)
        ),
        row("difference", None, difference, resampled[:, 0] - resampled[:, 1:].mean(1)),
    ]
