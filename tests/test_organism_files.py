"""The world's files are readable in the public layouts and say what the world says."""

from pathlib import Path

import pytest

from interp_unlearn.data import read_pairs, read_prompts, read_questions, read_texts
from interp_unlearn.errors import ArtifactError
from interp_unlearn.organism.files import write_world
from interp_unlearn.organism.world import World


def test_world_files_read_back(tmp_path: Path):
    world = World(0)
    written = write_world(world, tmp_path / "world", documents=50)
    assert all(path.is_file() for path in written) and len(written) == 12
    folder = tmp_path / "world"
    assert read_texts(folder / "documents" / "never_knew.jsonl") == [world.document(i, "never_knew") for i in range(50)]
    for name, toxicity in (("toxic", 1.0), ("civil", 0.0)):
        prompts = read_prompts(folder / f"{name}_prompts.jsonl")
        assert len(prompts) >= 1000 and {prompt.toxicity for prompt in prompts} == {toxicity}
        verdicts = {world.judge(prompt.text, prompt.continuation or "") for prompt in prompts}
        assert verdicts == ({"target"} if toxicity else {"clean"})
    for pair in read_pairs(folder / "pairs.tsv"):
        opening = pair.toxic[: pair.toxic.index(":") + 1]
        assert world.judge(opening, pair.toxic.removeprefix(opening)) == "target"
        assert world.judge(opening, pair.neutral[0].removeprefix(opening)) == "clean"
    facts = {(f.subject, f.relation): f for f in world.knowledge.facts}
    asked = read_questions(folder / "hazardous_questions.json") + read_questions(folder / "benign" / "towns_test.csv")
    assert len(asked) == len(facts)
    for question, fact in zip(asked, world.knowledge.facts, strict=True):
        assert question.choices[question.answer] == fact.answer and fact.subject in question.question


def test_world_files_refuse_a_folder_of_another_world(tmp_path: Path):
    write_world(World(0), tmp_path / "world", documents=2)
    with pytest.raises(ArtifactError, match="world_seed"):
        write_world(World(1), tmp_path / "world", documents=2)
