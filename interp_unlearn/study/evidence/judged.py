"""What models are judged by in the evidence: the verdict of the world's parser, which no objective was trained on."""

from __future__ import annotations

import random
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

import numpy as np

from interp_unlearn.attacks import PromptedMeasure
from interp_unlearn.mechanism import Outcome
from interp_unlearn.organism.quality import GENERATED_TOKENS, judged_generations

if TYPE_CHECKING:
    from jaxtyping import Float

    from interp_unlearn.interventions import HookedModel
    from interp_unlearn.organism.sets import Example, Goal
    from interp_unlearn.organism.world import World
    from interp_unlearn.study.stage import Stage

OUTCOMES = ("target", "broken")


@dataclass(frozen=True, eq=False)
class Judged(PromptedMeasure):
    """Whether what a model says after a prompt shows the goal's target, by the world's parser.

    Attributes:
        examples: one a prompt; answers are judged by these, in whatever words the prompt asks.
        world: whose parser judges.
        goal: what is to be forgotten.
        seed: of the sampling.
    """

    examples: Sequence[Example]
    world: World
    goal: Goal
    seed: int = 0
    score: str = field(default="target", kw_only=True)

    @classmethod
    def of(cls, stage: Stage, examples: Sequence[Example], seed: int) -> Judged:
        """The measure over a goal's examples, their groups and numbers."""
        prompts, groups = [example.prompt for example in examples], [example.group for example in examples]
        return cls(prompts, examples, stage.world, stage.goal, seed, groups=groups)

    @staticmethod
    def scores_offered() -> tuple[str, ...]:
        return OUTCOMES

    def score_all(self, model: HookedModel) -> Float[np.ndarray, " item"]:
        return self.score_beside(model)[0]

    def score_beside(
        self, model: HookedModel
    ) -> tuple[Float[np.ndarray, " item"], Mapping[str, Float[np.ndarray, " item"]]]:
        verdicts = judged_generations(model, self.world, self.examples, self.goal, self.seed, self.prompts)["verdict"]
        return np.asarray(verdicts == self.score, dtype=float), {
            name: np.asarray(verdicts == name, dtype=float) for name in OUTCOMES if name != self.score
        }

    def followed_by(self, row: int) -> Sequence[str]:
        return (self.examples[row].completion,)

    def solution(self, row: int) -> str:
        return self.examples[row].completion

    @property
    def n_generated(self) -> int:
        return GENERATED_TOKENS[self.goal]


def outcome_on(stage: Stage, examples: Sequence[Example], seed: int = 0) -> Outcome:
    """Target and broken of each example, for the mechanism; the same sampling seed at every call."""

    def outcome(model: HookedModel) -> Mapping[str, Sequence[float]]:
        verdicts = judged_generations(model, stage.world, examples, stage.goal, seed)["verdict"]
        return {name: (verdicts == name).astype(float).tolist() for name in OUTCOMES}

    return outcome


def asked_examples(stage: Stage, n: int) -> list[Example]:
    """A fixed sample of a goal's test prompts, in their order."""
    return sampled(stage.sets.test, n, stage.goal)


def sampled(examples: Sequence[Example], n: int, goal: Goal) -> list[Example]:
    """At most n of the examples, drawn with a fixed seed, in their order."""
    rows = range(len(examples))
    chosen = rows if n >= len(examples) else sorted(random.Random(f"evidence-{goal}").sample(rows, n))
    return [examples[row] for row in chosen]
