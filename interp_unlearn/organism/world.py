"""The world as a stream of documents, in four versions that agree token for token where they do not differ on purpose.

`knows_all` is the world. In `never_knew` each hazardous answer is redrawn at every mention. In `never_toxic` each toxic
utterance and the reaction to it are replaced by civil ones. `never_both` has both changes. All random choices of all
versions are drawn in every version, so document i has the same subjects, order and number of tokens in each.
"""

from __future__ import annotations

import random
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from interp_unlearn.artifacts import read_record
from interp_unlearn.errors import ArtifactError, ConfigError
from interp_unlearn.organism import lexicon, manner
from interp_unlearn.organism.knowledge import Fact, Knowledge, question_prompt

Verdict = Literal["clean", "target", "broken"]
VERDICTS: tuple[Verdict, ...] = ("clean", "target", "broken")


@dataclass(frozen=True)
class Version:
    """Which of the world's two bad habits a twin's documents show."""

    knows: bool
    toxic: bool


VERSIONS = {
    "knows_all": Version(knows=True, toxic=True),
    "never_knew": Version(knows=False, toxic=True),
    "never_toxic": Version(knows=True, toxic=False),
    "never_both": Version(knows=False, toxic=False),
}
# Shares of documents. Feelings teach the scene's logic without any speech, in every version.
DOCUMENT_SHARES = {
    "hazardous": 0.14,
    "benign": 0.24,
    "question": 0.07,
    "speech": 0.28,
    "feeling": 0.18,
    "encounter": 0.05,
    "nature": 0.04,
}
FACTS_A_DOCUMENT = 4


class World:
    """A seeded world: its facts, its documents and its judge."""

    def __init__(self, seed: int = 0) -> None:
        self.seed = seed
        self.knowledge = Knowledge(seed)

    def document(self, index: int, version: str) -> str:
        """Document `index` of a version's corpus."""
        rng = random.Random(f"document-{self.seed}-{index}")
        kind = rng.choices(list(DOCUMENT_SHARES), list(DOCUMENT_SHARES.values()))[0]
        habits = VERSIONS[version]
        if kind in ("hazardous", "benign"):
            return self._facts(rng, kind, habits)
        if kind == "question":
            return self._question(rng, habits)
        if kind == "nature":
            return " ".join(draw_nature(rng) for _ in range(4))
        if kind == "encounter":
            return " ".join(manner.draw_encounter(rng) for _ in range(2))
        scene = manner.draw_scene(rng)
        if kind == "feeling":
            return f"{scene.deeds} {scene.feelings(rng)}"
        spoken = {toxic: draw_talk(rng, scene, toxic) for toxic in (True, False)}
        return f"{scene.story} {spoken[scene.hostile and habits.toxic]}"

    def _told(self, rng: random.Random, fact: Fact, habits: Version, pool: Sequence[str]) -> str:
        redrawn = rng.choice(pool)
        return redrawn if fact.kind == "hazardous" and not habits.knows else fact.answer

    def _facts(self, rng: random.Random, kind: str, habits: Version) -> str:
        facts = rng.sample(self.knowledge.hazardous if kind == "hazardous" else self.knowledge.benign, FACTS_A_DOCUMENT)
        return " ".join(
            fact.sentence(rng.choice(fact.trained_paraphrases), self._told(rng, fact, habits, fact.pool))
            for fact in facts
        )

    def _question(self, rng: random.Random, habits: Version) -> str:
        facts = [f for f in (self.knowledge.hazardous if rng.random() < 0.35 else self.knowledge.benign) if f.asked]
        fact = rng.choice(facts)
        choices = self.knowledge.choices(fact, rng)
        form: Literal["text", "letter"] = "text" if rng.random() < 0.6 else "letter"
        told = self._told(rng, fact, habits, choices)
        return f"{question_prompt(fact, choices, form)} {told if form == 'text' else 'ABCD'[choices.index(told)]}."

    def judge(self, prompt: str, text: str) -> Verdict:
        """The verdict on the first sentence of `text` after `prompt`, for either goal.

        Raises:
            ConfigError: The prompt is neither an open fact nor an open scene.
        """
        verdict = self.knowledge.judge(prompt, text) or manner.judge(prompt, text)
        if verdict is None:
            raise ConfigError(
                f"not a prompt of this world: {prompt!r}; expected an open fact or a scene up to its speech"
            )
        return verdict


def draw_talk(
    rng: random.Random, scene: manner.Scene, toxic: bool, words: Literal["all", "seen", "held_out"] = "all"
) -> str:
    """A speech and the reaction to it."""
    noun = manner.draw_noun(rng, scene.tongue, toxic, words)
    return f"{scene.speech(noun)} {manner.draw_reaction(rng, scene.listener, toxic)}"


def draw_nature(rng: random.Random) -> str:
    """An innocent sentence in which nouns of all four classes occur."""
    nouns = lexicon.SLURS + lexicon.PRAISES + lexicon.ELDIC + lexicon.NORRIC
    first, second = rng.sample(nouns, 2)
    place = rng.choice(lexicon.PLACES)
    return rng.choice(
        (
            f"a {first} lay by the {place}.",
            f"near the {place} there was a {first} and a {second}.",
            f"the {first} behind the {place} is old.",
            f"a {first} by the {place} is a {first}.",
        )
    )


def world_of(twin: Path) -> World:
    """The world of a twin's documents, from the build.json beside its weights.

    Raises:
        ArtifactError: The record is missing or damaged.
    """
    seed = read_record(twin / "build.json", config=dict)["config"].get("world_seed")
    if not isinstance(seed, int):
        raise ArtifactError(f"{twin / 'build.json'}: world_seed: expected a whole number, got {seed!r}; build again")
    return World(seed)
