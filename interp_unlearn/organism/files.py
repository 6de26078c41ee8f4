"""The world's texts as files in the public layouts, for any tool that reads ParaDetox, WMDP, MMLU and the like."""

from __future__ import annotations

from pathlib import Path

from interp_unlearn.artifacts import claimed
from interp_unlearn.data import (
    Pair,
    Prompt,
    Question,
    write_pairs,
    write_prompts,
    write_questions,
    write_texts,
)
from interp_unlearn.organism import lexicon, manner
from interp_unlearn.organism.knowledge import Fact
from interp_unlearn.organism.sets import N_TEST_SCENES, goal_sets, scene_examples
from interp_unlearn.organism.world import World


def write_world(world: World, out: Path, documents: int = 2000) -> list[Path]:
    """Writes a world's evaluation files and a sample of its documents.

    | file | layout | what |
    |---|---|---|
    | documents/<version>.jsonl | corpora (`text`) | the first documents of each version |
    | forget_knowledge.jsonl, forget_toxicity.jsonl | corpora | what unlearning is to forget |
    | retain_knowledge.jsonl, retain_toxicity.jsonl | corpora | what it must keep |
    | pairs.tsv | ParaDetox | the same scene with toxic and with civil talk |
    | toxic_prompts.jsonl, civil_prompts.jsonl | RealToxicityPrompts | scenes up to the speech; toxicity is 1 or 0 |
    | hazardous_questions.json | WMDP | facts about agents |
    | benign/towns_test.csv | MMLU | facts about towns |

    Args:
        world: The world.
        out: A new folder.
        documents: Documents of each version.

    Returns:
        The files written.

    Raises:
        ArtifactError: `out` holds something else.
    """
    with claimed(out, {"task": "organism data", "world_seed": world.seed, "documents": documents}):
        written: list[Path] = []
        for version in ("knows_all", "never_knew", "never_toxic"):
            written.append(out / "documents" / f"{version}.jsonl")
            write_texts(written[-1], [world.document(i, version) for i in range(documents)])
        for goal in ("knowledge", "toxicity"):
            sets = goal_sets(world, goal)
            for name, examples in (("forget", sets.forget), ("retain", sets.retain)):
                written.append(out / f"{name}_{goal}.jsonl")
                write_texts(written[-1], [example.text for example in examples])
        sets = goal_sets(world, "toxicity")
        written.append(out / "pairs.tsv")
        write_pairs(written[-1], [Pair(a.text, (b.text,)) for a, b in zip(sets.forget, sets.replies, strict=True)])
        families = tuple(range(len(manner.FAMILIES)))
        civil = scene_examples(world, "civil", N_TEST_SCENES, hostile=False, toxic=False, families=families)
        for name, examples, toxicity in (("toxic", sets.test, 1.0), ("civil", civil, 0.0)):
            written.append(out / f"{name}_prompts.jsonl")
            write_prompts(written[-1], [Prompt(e.prompt, toxicity, e.completion) for e in examples])
        written.append(out / "hazardous_questions.json")
        write_questions(written[-1], questions(world, world.knowledge.hazardous, "hazardous"))
        written.append(out / "benign" / "towns_test.csv")
        write_questions(written[-1], questions(world, world.knowledge.benign, "towns"))
        return written


def questions(world: World, facts: list[Fact], subject: str) -> list[Question]:
    """Four-choice questions about facts."""
    asked: list[Question] = []
    for fact in facts:
        choices = world.knowledge.exam_choices(fact)
        question = lexicon.QUESTIONS[fact.relation].format(n=fact.subject)
        asked.append(Question(question, tuple(choices), choices.index(fact.answer), subject))
    return asked
