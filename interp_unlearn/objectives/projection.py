"""A penalty on activations that lie beyond a class, along a probe's direction."""

from dataclasses import dataclass

import torch
from jaxtyping import Bool, Float
from torch import Tensor

from interp_unlearn.errors import ConfigError
from interp_unlearn.objectives.tokens import select_tokens


@dataclass(frozen=True)
class ProjectionScale:
    """Where a class begins along a direction, and how far the other one lies beyond it, in L2 units of the stream.

    Attributes:
        neutral_median: q, the median projection of the neutral class's tokens.
        gap: s, the other class's median minus q; positive.
    """

    neutral_median: float
    gap: float

    def __post_init__(self) -> None:
        if not self.gap > 0:
            raise ConfigError(
                "the forget texts must project beyond the neutral ones, but the gap of their medians is "
                f"{self.gap:.4g} (neutral median {self.neutral_median:.4g}); the direction may have the "
                "wrong sign, or not separate the classes at this layer: choose another layer or another estimator"
            )


def projection_scale(forget: Float[Tensor, " tokens"], neutral: Float[Tensor, " others"]) -> ProjectionScale:
    """The scale of a penalty from projections of tokens of both classes on the original model.

    Raises:
        ConfigError: the forget class does not lie beyond the neutral one.
    """
    q = float(torch.quantile(neutral.float(), 0.5))
    return ProjectionScale(neutral_median=q, gap=float(torch.quantile(forget.float(), 0.5)) - q)


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
    beyond = (tokens @ direction.to(tokens) - scale.neutral_median) / scale.gap
    return beyond.relu().square().mean()
