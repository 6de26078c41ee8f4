"""A penalty on activations that lie beyond a class: along a probe's direction, or in a subspace."""

from dataclasses import dataclass

import torch
from jaxtyping import Bool, Float
from torch import Tensor

from interp_unlearn.errors import ConfigError
from interp_unlearn.objectives.tokens import select_tokens
from interp_unlearn.settings import check_fields


@dataclass(frozen=True)
class ProjectionScale:
    """Where a class begins along a direction, and how far the other one lies beyond it, in L2 units of the stream.

    Attributes:
        neutral_median: the median projection of the neutral class's tokens.
        gap: s, the other class's median minus the neutral one; positive.
        threshold: where the penalty begins; None for the neutral median.
    """

    neutral_median: float
    gap: float
    threshold: float | None = None

    def __post_init__(self) -> None:
        check_fields(self)
        if not self.gap > 0:
            raise ConfigError(
                "the forget texts must project beyond the neutral ones, but the gap of their medians is "
                f"{self.gap:.4g} (neutral median {self.neutral_median:.4g}); the direction may have the "
                "wrong sign, or not separate the classes at this layer: choose another layer or another estimator"
            )

    @property
    def start(self) -> float:
        """q, where the penalty begins."""
        return self.neutral_median if self.threshold is None else self.threshold


def projection_scale(
    forget: Float[Tensor, " tokens"], neutral: Float[Tensor, " others"], quantile: float = 0.5
) -> ProjectionScale:
    """The scale of a penalty from projections of tokens of both classes on the original model.

    Args:
        forget: projections of the class to be penalised.
        neutral: those of the other class.
        quantile: of the neutral tokens, from which on the penalty begins; above 0.5 fewer of them would be touched.

    Raises:
        ConfigError: the forget class does not lie beyond the neutral one, or the quantile is none.
    """
    if not 0 <= quantile <= 1:
        raise ConfigError(f"quantile must lie between 0 and 1, got {quantile}")
    median = float(torch.quantile(neutral.float(), 0.5))
    return ProjectionScale(
        neutral_median=median,
        gap=float(torch.quantile(forget.float(), 0.5)) - median,
        threshold=float(torch.quantile(neutral.float(), quantile)),
    )


def projection_hinge(
    h: Float[Tensor, "batch pos d_model"],
    mask: Bool[Tensor, "batch pos"],
    direction: Float[Tensor, " d_model"],
    scale: ProjectionScale,
) -> Float[Tensor, ""]:
    """Mean over tokens of ``relu((h . w - q) / s)^2``: 1 for a token at the forget class's median, 0 below the neutral.

    Source: our reading of the multi-layer probe-direction objective of Atil et al. 2026, arXiv 2605.26454, of which
    only the abstract is public; not the authors' code. Half of the neutral class lies beyond its own median and would
    be penalised too, which is why this loss is for forget texts only.
    """
    tokens = select_tokens(h, mask)
    return _beyond(tokens @ direction.to(tokens), scale)


def subspace_hinge(
    h: Float[Tensor, "batch pos d_model"],
    mask: Bool[Tensor, "batch pos"],
    basis: Float[Tensor, "k d_model"],
    centre: Float[Tensor, " k"],
    scale: ProjectionScale,
) -> Float[Tensor, ""]:
    """Mean over tokens of ``relu((||B h - c|| - q) / s)^2``: how far a token lies from the neutral class within a span.

    Ours: unlike `projection_hinge` it sees both sides of every direction, and their combinations, so that a class which
    no single direction parts off can still be penalised; a parity, for one, lies further out in its plane.

    Args:
        h: activations of one layer.
        mask: the tokens that count.
        basis: B, orthonormal rows.
        centre: c, the neutral class's mean in the basis.
        scale: of the distances ``||B h - c||``, not of projections.
    """
    tokens = select_tokens(h, mask)
    return _beyond(subspace_distance(tokens, basis, centre), scale)


def subspace_distance(
    tokens: Float[Tensor, "tokens d_model"], basis: Float[Tensor, "k d_model"], centre: Float[Tensor, " k"]
) -> Float[Tensor, " tokens"]:
    """L2 distance of each token from a centre within the span of orthonormal rows."""
    return (tokens @ basis.to(tokens).T - centre.to(tokens)).norm(dim=-1)


def _beyond(values: Float[Tensor, " tokens"], scale: ProjectionScale) -> Float[Tensor, ""]:
    return ((values - scale.start) / scale.gap).relu().square().mean()
