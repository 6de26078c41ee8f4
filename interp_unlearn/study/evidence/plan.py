"""Which unlearned models the evidence is about, and what is done to them."""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from typing import Any

from interp_unlearn.errors import ConfigError
from interp_unlearn.organism.build import BuildConfig
from interp_unlearn.organism.sets import Goal
from interp_unlearn.settings import check_fields


@dataclass(frozen=True)
class Subject:
    """A method on a goal, at one setting.

    Attributes:
        goal: what is unlearned.
        method: a contender of the goal's comparison.
        setting: of the method; the comparison's names.
    """

    goal: Goal
    method: str
    setting: tuple[tuple[str, Any], ...] = ()

    @property
    def name(self) -> str:
        """Of the method on its goal, in folders and tables."""
        return f"{self.goal}-{self.method}"


def _subject(goal: Goal, method: str, **setting: Any) -> Subject:
    return Subject(goal, method, tuple(setting.items()))


SUBJECTS = (
    _subject("knowledge", "rmu", layer=3, coefficient=2.0, retain_weight=30.0),
    _subject("knowledge", "cosine_rmu", learning_rate=1e-3, layer=4, retain_weight=3.0),
    _subject("knowledge", "cosine_rmu_meta", learning_rate=1e-3, layer=4, retain_weight=3.0),
    _subject("knowledge", "counterfactual", learning_rate=1e-3, kl_weight=10.0, retain_weight=0.0),
    _subject("knowledge", "hardened", learning_rate=1e-3, kl_weight=5.0, steps=60),
    _subject("knowledge", "oracle", learning_rate=1e-3, contexts=0.5),
    _subject("toxicity", "rmu", coefficient=2.0, retain_weight=30.0),
    _subject("toxicity", "cosine_rmu", learning_rate=3e-3, layer=4, retain_weight=3.0),
    _subject("toxicity", "probe_multi", learning_rate=1e-3, layers=(4, 5), estimator="mean_difference"),
    _subject("toxicity", "civil_finetuning", learning_rate=3e-3, kl_weight=10.0, retain_weight=1.0),
    _subject("toxicity", "dpo", learning_rate=3e-3, beta=0.5),
    _subject("toxicity", "hardened", learning_rate=1e-3, kl_weight=1.0, layers=(2, 3, 4, 5)),
    _subject("toxicity", "oracle", learning_rate=1.5e-3, contexts=0.5),
)
"""Settings within the comparisons' spaces, fixed before anything here was measured.

On toxicity those that the search had settled on, but for cosine RMU, whose chosen setting does nothing. On knowledge,
where no search had ended, those of pilots.
"""

PAIRS = (("oracle", "oracle"), ("counterfactual", "probe_multi"), ("cosine_rmu_meta", "probe_multi"))
"""Methods on knowledge and on toxicity whose changes of the weights are set beside each other.

The first pair has one objective for both goals, so that nothing but the goal differs; the second are clean methods
that need no twin; the third is the published pair.
"""


@dataclass(frozen=True)
class EvidenceConfig:
    """What the evidence is made of.

    Attributes:
        seeds: of unlearning, averaged within items; a seed also seeds the texts that a model is judged by.
        subjects: the methods.
        pairs: of methods on the two goals, for the mechanism.
        margin: largest mean difference of a share of prompts that would not matter; set before looking.
        n_asked: most prompts of a goal.
        n_patched: most prompts of a goal in patching.
        n_resamples: of every bootstrap.
        steps: updates of everything that is trained; None for the comparisons' own.
        stranger: how the original is trained anew from other initial weights: the floor of patching and carrying over.
    """

    seeds: tuple[int, ...] = (0, 1, 2)
    subjects: tuple[Subject, ...] = SUBJECTS
    pairs: tuple[tuple[str, str], ...] = PAIRS
    margin: float = 0.05
    n_asked: int = 336
    n_patched: int = 168
    n_resamples: int = 2000
    steps: int | None = None
    stranger: BuildConfig = field(default_factory=lambda: BuildConfig(init_seed=1))

    def __post_init__(self) -> None:
        check_fields(self)
        if not self.seeds or not self.subjects:
            raise ConfigError(f"expected a seed and a subject, got {len(self.seeds)} and {len(self.subjects)}")
        known = {(subject.goal, subject.method) for subject in self.subjects}
        for first, second in self.pairs:
            if ("knowledge", first) not in known or ("toxicity", second) not in known:
                raise ConfigError(f"the pair {first}, {second} is not among the subjects")

    def quick(self) -> EvidenceConfig:
        """One seed, one pair and a tenth of the steps: to see that everything runs."""
        subjects = tuple(subject for subject in self.subjects if subject.method == "oracle")
        return replace(
            self,
            seeds=self.seeds[:1],
            subjects=subjects,
            pairs=self.pairs[:1],
            n_asked=48,
            n_patched=24,
            n_resamples=200,
            steps=20,
            stranger=replace(self.stranger, common_steps=32, branch_steps=16),
        )

    def subject(self, goal: Goal, method: str) -> Subject:
        """The subject of a goal and method."""
        return next(one for one in self.subjects if (one.goal, one.method) == (goal, method))
