"""Subjects the model has never heard of: the same fact told of one of them is what forgetting it looks like."""

from __future__ import annotations

import random
from dataclasses import replace
from typing import TYPE_CHECKING

from interp_unlearn.errors import ConfigError
from interp_unlearn.organism import lexicon

if TYPE_CHECKING:
    from interp_unlearn.organism.world import World
    from interp_unlearn.unlearning import UnlearnData


def strangers(world: World) -> list[str]:
    """Every two-token name that no agent and no town of the world has, in the order of the lexicon."""
    known = {fact.subject for fact in world.knowledge.facts}
    names = [f"{first} {second}" for first in lexicon.NAME_FIRST for second in lexicon.NAME_SECOND]
    return [name for name in names if name not in known]


def with_strangers(data: UnlearnData, world: World, n: int, seed: int = 0) -> UnlearnData:
    """The forget facts n times over, each time with a counterpart that tells it of another stranger.

    Names have two tokens, so a counterpart is as long as its fact.

    Args:
        data: forget texts with their subjects as groups.
        world: supplies the names.
        n: counterparts of each fact.
        seed: of the names drawn.

    Raises:
        ConfigError: n is below 1, or the data has no groups.
    """
    if n < 1 or data.groups is None:
        raise ConfigError(f"counterparts need n of at least 1 and groups that name the subjects, got n {n}")
    draw, names = random.Random(f"strangers-{world.seed}-{seed}"), strangers(world)
    forget, groups = [*data.forget] * n, [*data.groups] * n
    told = [text.replace(subject, draw.choice(names)) for text, subject in zip(forget, groups, strict=True)]
    return replace(data, forget=forget, groups=groups, counterparts=told)
