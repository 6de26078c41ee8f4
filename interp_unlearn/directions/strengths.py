"""What is done along a direction: added, clamped or projected out, in units that mean something at each site."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from numbers import Real
from typing import TYPE_CHECKING, Literal, get_args

import numpy as np
import torch

from interp_unlearn.activations import ActivationStore
from interp_unlearn.directions.direction_set import Directions
from interp_unlearn.errors import ConfigError
from interp_unlearn.interventions import Add, Clamp, Edit, ProjectOut
from interp_unlearn.interventions.buckets import length_buckets, token_rows
from interp_unlearn.probes.folds import binary_labels
from interp_unlearn.sites import Site

if TYPE_CHECKING:
    from interp_unlearn.interventions import HookedModel

Kind = Literal["add", "clamp", "project_out"]
Unit = Literal["gap", "norm"]


@dataclass(frozen=True)
class Intervention:
    """One kind of edit along a direction, at every token but the BOS.

    Attributes:
        kind: "add" moves by a multiple of the direction; "clamp" pushes projections above the neutral class's mean back
            to it (or beyond), and leaves lower ones alone; "project_out" removes the projection, whatever it is.
        strength: of add, how many units, negative to move away from class 1; of clamp, the overshoot: 1 stops at the
            neutral mean, 2 reflects to its other side. Projecting out has none.
        unit: of add: "gap" is the distance between the class means along the direction, "norm" the mean L2 norm of the
            stream at the site.

    Raises:
        ConfigError: an unknown kind or unit, or a strength that is no finite number or for which nothing is edited.
    """

    kind: Kind
    strength: float = 1.0
    unit: Unit = "gap"

    def __post_init__(self) -> None:
        if self.kind not in get_args(Kind):
            raise ConfigError(f"intervention: expected one of {', '.join(get_args(Kind))}, got {self.kind!r}")
        if self.unit not in get_args(Unit):
            raise ConfigError(f"unit: expected gap or norm, got {self.unit!r}")
        if not isinstance(self.strength, Real):
            raise ConfigError(f"strength: expected a number, got {self.strength!r}")
        if not np.isfinite(self.strength) or self.strength == 0 or (self.kind == "clamp" and self.strength < 0):
            raise ConfigError(f"{self.kind}: expected a strength other than 0 (of clamp above 0), got {self.strength}")
        if self.kind == "project_out" and self.strength != 1:
            raise ConfigError(f"project_out has no strength, got {self.strength}")


@dataclass(frozen=True)
class Calibration:
    """What the strengths of interventions are counted in at each site, in L2 units along the unit direction.

    Attributes:
        gaps: mean projection of class 1 less that of class 0; negative where the direction points away from class 1.
        norms: mean L2 norm of the stream.
        thresholds: where clamps stop: mean projection of class 0, or without classes the directions' border.
    """

    gaps: Mapping[Site, float]
    norms: Mapping[Site, float]
    thresholds: Mapping[Site, float]


def default_interventions(directions: Directions, store: ActivationStore | None) -> tuple[Intervention, ...]:
    """Add either way, clamp to and beyond the neutral mean, project out; what cannot be calibrated is left out."""
    added = [Intervention("add", s, "gap") for s in (-1.0, 1.0)]
    if store is None:
        added = [Intervention("add", s, "norm") for s in (-0.1, 0.1)]
    clamps = [Intervention("clamp", s) for s in (1.0, 2.0)]
    bordered = store is not None or set(directions.biases) == set(directions.sites)
    return (*added, *(clamps if bordered else []), Intervention("project_out"))


def calibrate(
    model: "HookedModel",
    prompts: Sequence[str],
    directions: Directions,
    interventions: Sequence[Intervention],
    store: ActivationStore | None = None,
    batch_size: int = 64,
) -> Calibration:
    """Measure what the interventions need, and nothing else.

    Args:
        model: the model that is edited; norms are measured on it.
        prompts: the texts that norms are measured on, BOS apart.
        directions: where.
        interventions: what is going to be done.
        store: activations with labels 0 and 1; a vector for each text or each token.
        batch_size: prompts in a pass.

    Raises:
        ConfigError: gaps or thresholds are needed and there is neither a store nor a border, or its labels are not of
            two classes.
        SiteError: the store lacks a site.
    """
    gaps: dict[Site, float] = {}
    thresholds = {site: -bias for site, bias in directions.biases.items()}
    if store is not None:
        classes = binary_labels(store.labels, len(store))
        if store.token_level:
            classes = np.repeat(classes, store.rows["n_tokens"].to_numpy())
        for site, vector in directions.vectors.items():
            projections = store.array(site).astype(float) @ vector.double().numpy()
            thresholds[site] = float(projections[~classes].mean())
            gaps[site] = float(projections[classes].mean()) - thresholds[site]
    adding = {intervention.unit for intervention in interventions if intervention.kind == "add"}
    if "gap" in adding and store is None:
        raise ConfigError("adding in units of the class gap needs a store with labels 0 and 1; or use unit='norm'")
    missing = [site for site in directions.sites if site not in thresholds]
    if missing and any(intervention.kind == "clamp" for intervention in interventions):
        raise ConfigError(
            f"clamping at {missing[0]} needs a threshold: give a store with labels, or directions with biases"
        )
    norms = _mean_norms(model, prompts, directions.sites, batch_size) if "norm" in adding else {}
    return Calibration(gaps, norms, thresholds)


def make_edit(intervention: Intervention, site: Site, directions: Directions, calibration: Calibration) -> Edit:
    """The edit that carries an intervention out at a site."""
    vector = directions[site]
    if intervention.kind == "project_out":
        return ProjectOut(vector)
    if intervention.kind == "clamp":
        return Clamp(vector, calibration.thresholds[site], overshoot=intervention.strength)
    lengths = calibration.gaps if intervention.unit == "gap" else calibration.norms
    return Add(vector, intervention.strength * lengths[site])


@torch.no_grad()
def _mean_norms(
    model: "HookedModel", prompts: Sequence[str], sites: Sequence[Site], batch_size: int
) -> dict[Site, float]:
    totals, n = dict.fromkeys(sites, 0.0), 0
    for _, batch in length_buckets(model, token_rows(model, prompts), batch_size):
        trace = model.run(batch, reads=sites)
        n += int(batch.content_mask.sum())
        for site in sites:
            totals[site] += float(trace[site][batch.content_mask.to(trace[site].device)].float().norm(dim=-1).sum())
    return {site: total / n for site, total in totals.items()}
