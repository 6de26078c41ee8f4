"""The methods that are compared, and the twelve settings that each is searched over."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, replace
from itertools import product
from typing import TYPE_CHECKING, Any, Literal

if TYPE_CHECKING:
    from interp_unlearn.interventions import Edit, HookedModel
    from interp_unlearn.sites import Site
    from interp_unlearn.study.comparison.bench import Bench

Setting = Mapping[str, Any]
Standing = Literal["ours", "baseline", "privileged", "ablation", "reference"]

Forget = Callable[["HookedModel", "Bench", Setting, int], "Mapping[Site, Edit]"]
"""Unlearns a model in place under a setting and a seed; returns the edits it is to be run under, for most none."""


@dataclass(frozen=True)
class Contender:
    """One method.

    Attributes:
        name: in tables.
        standing: "ours", "baseline", "privileged" for what needs the twin or the answer pools, which nobody has,
            "ablation" for a method of ours with something left out, or "reference" for the original and the twin.
        space: values of each setting; their combinations are the trials.
        forget: the method.
        parent: the method whose setting an ablation takes over instead of a search of its own.
    """

    name: str
    standing: Standing
    space: Mapping[str, tuple[Any, ...]]
    forget: Forget
    parent: str = ""

    @property
    def settings(self) -> list[dict[str, Any]]:
        """Every combination, in the order of the space."""
        return [dict(zip(self.space, values, strict=True)) for values in product(*self.space.values())]

    @property
    def searched(self) -> bool:
        """Whether it has settings of its own."""
        return self.standing not in ("reference", "ablation")


class Roster:
    """The contenders on one goal: the original and the twin first, then in the order they were added."""

    def __init__(self) -> None:
        self._all = {name: Contender(name, "reference", {}, _unchanged) for name in ("none", "twin")}

    def __iter__(self) -> Iterator[Contender]:
        return iter(self._all.values())

    def __getitem__(self, name: str) -> Contender:
        return self._all[name]

    def add(self, name: str, standing: Standing, **space: tuple[Any, ...]) -> Callable[[Forget], Forget]:
        """A decorator that adds a method under a name, searched over a space."""
        return self._adder(Contender(name, standing, space, _unchanged))

    def ablate(self, parent: str, name: str) -> Callable[[Forget], Forget]:
        """A decorator that adds a variant of a method, under the setting that the method's search found."""
        return self._adder(Contender(name, "ablation", {}, _unchanged, parent))

    def _adder(self, described: Contender) -> Callable[[Forget], Forget]:
        def add(forget: Forget) -> Forget:
            self._all[described.name] = replace(described, forget=forget)
            return forget

        return add


def _unchanged(model: HookedModel, bench: Bench, setting: Setting, seed: int) -> Mapping[Site, Edit]:
    return {}
