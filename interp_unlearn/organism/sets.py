"""What is forgotten, kept, asked and attacked with, for either goal: every text of a study, drawn from a world's seed.

Knowledge: facts of all agents are to be forgotten from their five trained paraphrases; prompts ask with all six.
Manner: scenes of the seen families with seen nouns are to be forgotten; half the prompts are of held-out families.
Agents for validation and agents for the test are disjoint, and so are scenes.
"""

from __future__ import annotations

import random
from dataclasses import dataclass, field, replace
from typing import Literal

from interp_unlearn.organism import manner
from interp_unlearn.organism.knowledge import Fact
from interp_unlearn.organism.world import World, draw_nature, draw_talk

Goal = Literal["knowledge", "toxicity"]
GOALS: tuple[Goal, Goal] = ("knowledge", "toxicity")

VALIDATION_AGENTS = 8  # tuning sees generations about these agents only; the test has the other 56
N_FORGET_SCENES = 1000
N_TEST_SCENES = 1008
N_VALIDATION_SCENES = 144
N_RETAIN = 1600
N_RETAIN_VALIDATION = 200
N_NEUTRAL = 800


@dataclass(frozen=True)
class Example:
    """A prompt and how it went on in the world.

    Attributes:
        prompt: Text up to the telling part; empty where the whole text counts.
        completion: The rest.
        group: What must not be split: the subject of a fact, or the number of a scene.
        held_out: Whether the wording is kept from probes, unlearning and classifiers.
    """

    prompt: str
    completion: str
    group: str
    held_out: bool = False

    @property
    def text(self) -> str:
        """Prompt and completion."""
        return self.prompt + self.completion


@dataclass(frozen=True)
class GoalSets:
    """The texts of one goal.

    Attributes:
        forget: What unlearning sees of the thing to forget.
        neutral: The nearest innocent counterpart of `forget`: facts about towns, or civil scenes.
        retain: Documents without the thing to forget, of every other kind.
        retain_test: Fresh documents like `retain`, for measuring divergence.
        validation: Prompts for tuning.
        retain_validation: Fresh documents like `retain`, for the divergence that tuning is bounded by.
        test: Prompts for the reported numbers, at least 1,000.
        relearn: What a relearning attack trains on: half the test agents, or fresh toxic scenes.
        relearn_test: Prompts asked after it: the other half, or fresh prompts.
        replies: Civil replies to the forget prompts; empty for knowledge.
    """

    forget: list[Example]
    neutral: list[Example]
    retain: list[Example]
    retain_test: list[Example]
    validation: list[Example]
    retain_validation: list[Example]
    test: list[Example]
    relearn: list[Example]
    relearn_test: list[Example]
    replies: list[Example] = field(default_factory=list)

    def with_forget_share(self, share: float, seed: int) -> GoalSets:
        """The same with the forget text, and replies to it, of a share of the subjects or scenes, drawn by a seed."""
        groups = list(dict.fromkeys(example.group for example in self.forget))
        kept = set(random.Random(f"forget-{seed}").sample(groups, max(1, round(share * len(groups)))))
        return replace(
            self,
            forget=[example for example in self.forget if example.group in kept],
            replies=[example for example in self.replies if example.group in kept],
        )


def goal_sets(world: World, goal: Goal) -> GoalSets:
    """All texts of a goal."""
    return _knowledge_sets(world) if goal == "knowledge" else _toxicity_sets(world)


def fact_examples(facts: list[Fact], paraphrases: Literal["all", "trained", "held_out"]) -> list[Example]:
    """Facts as prompts with their true answers."""
    examples: list[Example] = []
    for fact in facts:
        chosen = {"all": list(range(6)), "trained": fact.trained_paraphrases, "held_out": [fact.held_out]}[paraphrases]
        for i in chosen:
            prompt = fact.prompt(i)
            examples.append(Example(prompt, fact.sentence(i).removeprefix(prompt), fact.subject, i == fact.held_out))
    return examples


def scene_examples(
    world: World, name: str, n: int, hostile: bool, toxic: bool, families: tuple[int, ...] = manner.SEEN_FAMILIES
) -> list[Example]:
    """Scenes with a speech and the reaction to it; with the held-out families come the held-out nouns.

    Args:
        world: Supplies the seed.
        name: Sets of different names hold different scenes.
        n: Number of examples.
        hostile: The speaker's mood.
        toxic: Whether the speech is an insult.
        families: Wordings to draw from in turn.
    """
    examples: list[Example] = []
    for i in range(n):
        rng = random.Random(f"scene-{world.seed}-{name}-{i}")
        family = families[i % len(families)]
        held_out = family in manner.HELD_OUT_FAMILIES
        scene = manner.draw_scene(rng, family, hostile)
        text = f"{scene.story} {draw_talk(rng, scene, toxic, 'held_out' if held_out else 'seen')}"
        examples.append(Example(scene.opening, text.removeprefix(scene.opening), f"{name}-{i}", held_out))
    return examples


def unlike_examples(world: World, name: str, n: int) -> list[Example]:
    """Prompts of another kind than any in the sets: hostile scenes after innocent sentences, or up to the telling noun.

    The innocent sentences name insulting nouns without insulting anybody.
    """
    examples: list[Example] = []
    for i in range(n):
        rng = random.Random(f"unlike-{world.seed}-{name}-{i}")
        scene = manner.draw_scene(rng, manner.SEEN_FAMILIES[i % len(manner.SEEN_FAMILIES)], hostile=True)
        begun = f"{draw_nature(rng)} {draw_nature(rng)} {scene.opening}" if i % 2 else scene.prompt
        examples.append(Example(begun, "", f"unlike-{name}-{i}"))
    return examples


def without_reaction(example: Example) -> Example:
    """A scene up to the end of its speech."""
    return replace(example, completion=example.completion[: example.completion.index(".") + 1])


def _documents(world: World, name: str, n: int, hazardous: bool, toxic: bool) -> list[Example]:
    """Documents of every kind but the one to forget, a quarter each of facts, speech, feelings and nature."""
    documents: list[Example] = []
    for i in range(n):
        rng = random.Random(f"retain-{world.seed}-{name}-{i}")
        kind = rng.choices(("facts", "speech", "feeling", "nature"), (4, 4, 2, 1))[0]
        scene = manner.draw_scene(rng, rng.choice(manner.SEEN_FAMILIES), None if toxic or kind == "feeling" else False)
        if kind == "facts":
            pool = world.knowledge.benign + (world.knowledge.hazardous if hazardous else [])
            # Agents make half of the facts where they are kept, so that they are not drowned by the towns.
            if hazardous:
                pool = rng.choice((world.knowledge.benign, world.knowledge.hazardous))
            text = " ".join(fact.sentence(rng.choice(fact.trained_paraphrases)) for fact in rng.sample(pool, 4))
        elif kind == "speech":
            text = f"{scene.story} {draw_talk(rng, scene, scene.hostile, 'seen')}"
        elif kind == "feeling":
            text = f"{scene.deeds} {scene.feelings(rng)}"
        else:
            text = " ".join(draw_nature(rng) for _ in range(4))
        documents.append(Example("", text, f"{name}-{i}"))
    return documents


def _knowledge_sets(world: World) -> GoalSets:
    facts = world.knowledge.hazardous
    order = list(dict.fromkeys(fact.subject for fact in facts))
    random.Random(f"agents-{world.seed}").shuffle(order)
    tested = order[VALIDATION_AGENTS:]
    attacked, probed = set(tested[::2]), set(tested[1::2])
    neutral = fact_examples(world.knowledge.benign, "trained")
    random.Random(f"neutral-{world.seed}").shuffle(neutral)
    return GoalSets(
        forget=fact_examples(facts, "trained"),
        neutral=neutral[:N_NEUTRAL],
        retain=_documents(world, "knowledge", N_RETAIN, hazardous=False, toxic=True),
        retain_test=_documents(world, "knowledge-test", 400, hazardous=False, toxic=True),
        retain_validation=_documents(world, "knowledge-validation", N_RETAIN_VALIDATION, hazardous=False, toxic=True),
        validation=fact_examples([f for f in facts if f.subject not in tested], "all"),
        test=fact_examples([f for f in facts if f.subject in tested], "all"),
        relearn=fact_examples([f for f in facts if f.subject in attacked], "trained"),
        relearn_test=fact_examples([f for f in facts if f.subject in probed], "all"),
    )


def _toxicity_sets(world: World) -> GoalSets:
    return GoalSets(
        forget=scene_examples(world, "forget", N_FORGET_SCENES, hostile=True, toxic=True),
        neutral=scene_examples(world, "neutral", N_NEUTRAL, hostile=False, toxic=False),
        retain=_documents(world, "toxicity", N_RETAIN, hazardous=True, toxic=False),
        retain_test=_documents(world, "toxicity-test", 400, hazardous=True, toxic=False),
        retain_validation=_documents(world, "toxicity-validation", N_RETAIN_VALIDATION, hazardous=True, toxic=False),
        validation=scene_examples(world, "validation", N_VALIDATION_SCENES, hostile=True, toxic=True),
        test=scene_examples(
            world, "final", N_TEST_SCENES, True, True, manner.SEEN_FAMILIES[::2] + manner.HELD_OUT_FAMILIES
        ),
        relearn=scene_examples(world, "relearn", N_FORGET_SCENES, hostile=True, toxic=True),
        relearn_test=scene_examples(
            world, "relearn-test", N_TEST_SCENES // 2, True, True, manner.SEEN_FAMILIES[1::2] + manner.HELD_OUT_FAMILIES
        ),
        # The same scenes as `forget`, since a scene's number and set seed it, answered civilly.
        replies=scene_examples(world, "forget", N_FORGET_SCENES, hostile=True, toxic=False),
    )
