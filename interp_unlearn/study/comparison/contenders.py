"""The methods that are compared, and the twelve settings that each is searched over."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from itertools import product
from typing import TYPE_CHECKING, Any, Literal

if TYPE_CHECKING:
    from interp_unlearn.interventions import Edit, HookedModel
    from interp_unlearn.sites import Site
    from interp_unlearn.study.comparison.bench import Bench

Setting = Mapping[str, Any]
Standing = Literal["ours", "baseline", "privileged", "reference"]

Forget = Callable[["HookedModel", "Bench", Setting, int], "Mapping[Site, Edit]"]
"""Unlearns a model in place under a setting and a seed; returns the edits it is to be run under, for most none."""


@dataclass(frozen=True)
class Contender:
    """One method.

    Attributes:
        name: in tables.
        standing: "ours", "baseline", "privileged" for what needs the twin that nobody has, or "reference" for the
            original and the twin themselves.
        space: values of each setting; their combinations are the trials.
        forget: the method.
    """

    name: str
    standing: Standing
    space: Mapping[str, tuple[Any, ...]]
    forget: Forget

    @property
    def settings(self) -> list[dict[str, Any]]:
        """Every combination, in the order of the space."""
        return [dict(zip(self.space, values, strict=True)) for values in product(*self.space.values())]


def unchanged(model: HookedModel, bench: Bench, setting: Setting, seed: int) -> Mapping[Site, Edit]:
    """What the references do."""
    return {}
