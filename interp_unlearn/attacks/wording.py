"""The same questions in other words: a verdict of forgetting must not depend on how a model is asked."""

import random
from abc import abstractmethod
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Literal

from interp_unlearn.attacks.attack import Attack, Attempt, Record, Setup, Target
from interp_unlearn.attacks.measures import QUESTION_FORMS, MultipleChoice, QuestionForm
from interp_unlearn.attacks.prompted_measure import PromptedMeasure
from interp_unlearn.errors import ConfigError

if TYPE_CHECKING:
    from interp_unlearn.interventions import HookedModel

Variant = tuple[dict[str, Any], PromptedMeasure]
"""A setting, and the measure asked so."""


@dataclass(frozen=True)
class Rewording(Attack):
    """Base of the attacks that ask in other words. The original is asked in the same words.

    So a share of 1 says: asked like this, the unlearned model knows as much as the original asked like this; 0, no more
    than it showed when asked plainly. Where other words leave the original with no more than that, there is no gap.
    Caveat: an easier form (fewer wrong choices that look right) lifts a model that never knew too.
    """

    @abstractmethod
    def variants(self, asked: PromptedMeasure, setup: Setup) -> list[Variant]:
        """The measure in other words, with what was changed."""

    def record(self, model: "HookedModel", setup: Setup) -> Record:
        return Record({str(number): asked(model) for number, (_, asked) in enumerate(self._variants(setup))})

    def attempts(self, target: Target, record: Record) -> Iterator[Attempt]:
        for number, (told, asked) in enumerate(self._variants(target.setup)):
            yield Attempt(told, asked(target.model), original=record.items[str(number)])

    def _variants(self, setup: Setup) -> list[Variant]:
        if not isinstance(setup.measure, PromptedMeasure):
            raise ConfigError("the measure asks no prompts that could be put otherwise; give a PromptedMeasure")
        if not (found := self.variants(setup.measure, setup)):
            raise ConfigError(f"{self.name}: nothing to ask otherwise; give wordings, prefixes or neutral texts")
        return found


@dataclass(frozen=True)
class Reformat(Rewording):
    """Other forms of multiple choice, a text before the question, other wordings.

    Our selection of what reviewers try: a verdict that changes with the wording was one on the wording.

    Attributes:
        forms: of multiple choice, but for the measure's own.
        prefixes: texts put before the question; none takes the first neutral texts, whole.
        n_prefixes: how many of those.
        wordings: prompts with {prompt} for the measure's own.
    """

    forms: tuple[QuestionForm, ...] = QUESTION_FORMS
    prefixes: tuple[str, ...] = ()
    n_prefixes: int = 2
    wordings: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        super().__post_init__()
        if wrong := [wording for wording in self.wordings if "{prompt}" not in wording]:
            raise ConfigError(f"wording {wrong[0]!r} has no {{prompt}}, so nothing would be asked")

    @property
    def name(self) -> str:
        return "reformat"

    def variants(self, asked: PromptedMeasure, setup: Setup) -> list[Variant]:
        found: list[Variant] = []
        if isinstance(asked, MultipleChoice):
            found += [({"form": form}, asked.in_form(form)) for form in self.forms if form != asked.form]
        for number, prefix in enumerate(self.prefixes or setup.data.whole("neutral")[: self.n_prefixes]):
            kind = "prefix" if self.prefixes else "neutral prefix"
            found.append(({kind: number}, asked.asked([f"{prefix} {prompt}" for prompt in asked.prompts])))
        for number, wording in enumerate(self.wordings):
            prompts = [wording.replace("{prompt}", prompt) for prompt in asked.prompts]
            found.append(({"wording": number}, asked.asked(prompts)))
        return found


@dataclass(frozen=True)
class FewShot(Rewording):
    """Solved examples before each question: of other groups, or benign ones.

    Attributes:
        shots: how many.
        examples: "others", items of the measure of other groups than the question's, with their true answers;
            "neutral", the neutral texts as they are.
        separator: between examples.
    """

    shots: tuple[int, ...] = (4,)
    examples: tuple[Literal["others", "neutral"], ...] = ("others",)
    separator: str = "\n\n"

    def __post_init__(self) -> None:
        super().__post_init__()
        if not self.shots or min(self.shots) < 1 or not self.examples:
            raise ConfigError(f"expected shots of at least 1, and examples, got {self.shots}, {self.examples}")

    @property
    def name(self) -> str:
        return "few_shot"

    def variants(self, asked: PromptedMeasure, setup: Setup) -> list[Variant]:
        solved = [prompt + asked.solution(row) for row, prompt in enumerate(asked.prompts)]
        groups = list(asked.groups or map(str, range(len(solved))))
        found: list[Variant] = []
        for examples in self.examples:
            for n in self.shots:
                prompts: list[str] = []
                for row, prompt in enumerate(asked.prompts):
                    if examples == "others":
                        pool = [text for text, group in zip(solved, groups, strict=True) if group != groups[row]]
                    else:
                        pool = setup.data.whole("neutral")
                    drawn = _drawn(pool, n, f"few-shot-{setup.seed}-{row}", examples)
                    prompts.append(self.separator.join([*drawn, prompt]))
                found.append(({"shots": n, "examples": examples}, asked.asked(prompts)))
        return found


def _drawn(pool: Sequence[str], n: int, seed: str, examples: str) -> list[str]:
    if len(pool) < n:
        what = "items of other groups" if examples == "others" else "neutral texts"
        raise ConfigError(f"few_shot: {n} solved examples wanted and there are {len(pool)} {what}")
    return random.Random(seed).sample(pool, n)
