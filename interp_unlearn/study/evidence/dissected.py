"""The mechanism on the organism: pairs of changes taken apart, and states patched between the twins."""

from __future__ import annotations

import re
from pathlib import Path
from typing import TYPE_CHECKING

import pandas as pd

from interp_unlearn.artifacts import read_parquet, write_parquet
from interp_unlearn.errors import DataError
from interp_unlearn.interventions import HookedModel
from interp_unlearn.mechanism import (
    DissectionConfig,
    GoalRuns,
    PatchConfig,
    PatchTexts,
    Resampling,
    dissect,
    patch_both_ways,
)
from interp_unlearn.organism.build import build_organism
from interp_unlearn.organism.sets import without_reaction
from interp_unlearn.study.evidence.judged import asked_examples, outcome_on, sampled
from interp_unlearn.study.evidence.models import model_folder
from interp_unlearn.study.stage import Stage, load_stage

if TYPE_CHECKING:
    from collections.abc import Sequence

    from interp_unlearn.organism.sets import Example, Goal
    from interp_unlearn.study.evidence.plan import EvidenceConfig

DISSECTED = "dissection.json"  # written last
ORIGINAL = "knows_all"
_LISTENER = re.compile(r"(\w+)(?: and said)?:")
_NOUN = re.compile(r" (\w+)(?: you are)?\.$")


def build_stranger(config: EvidenceConfig, out: Path) -> None:
    """Trains the original anew on the same world from other initial weights."""
    build_organism(out / "stranger", config.stranger, (ORIGINAL,))


def pair_folder(out: Path, pair: tuple[str, str]) -> Path:
    """Where the tables of a pair of methods lie."""
    return out / "mechanism" / "-".join(pair)


def dissect_pair(pair: tuple[str, str], config: EvidenceConfig, out: Path) -> None:
    """Takes the changes of a method on knowledge and one on toxicity apart, unless that was done already."""
    folder = pair_folder(out, pair)
    if (folder / DISSECTED).exists():
        return
    stages: dict[Goal, Stage] = {goal: load_stage(goal) for goal in ("knowledge", "toxicity")}
    goals: dict[str, GoalRuns] = {}
    for (goal, stage), method in zip(stages.items(), pair, strict=True):
        asked = asked_examples(stage, config.n_asked)
        goals[goal] = GoalRuns(
            [model_folder(out, config.subject(goal, method), seed) for seed in config.seeds],
            outcome_on(stage, asked),
            [example.group for example in asked],
            stage.twin,
        )
    found = dissect(
        stages["knowledge"].model(ORIGINAL),
        goals,
        DissectionConfig(config.margin, resampling=Resampling(config.n_resamples)),
        stranger=HookedModel.from_pretrained(str(out / "stranger" / ORIGINAL)),
    )
    found.save(folder)


def patching_file(out: Path, goal: Goal) -> Path:
    """Where the table of patching between a goal's twins lies."""
    return out / "mechanism" / f"patching-{goal}.parquet"


def patch_twins(goal: Goal, config: EvidenceConfig, out: Path) -> None:
    """Patches states between the original and the goal's twin, both ways, beside the stranger's; writes one table."""
    path = patching_file(out, goal)
    if path.exists():
        return
    stage = load_stage(goal)
    asked = sampled(stage.sets.test, config.n_patched, goal)
    models = {"original": stage.model(ORIGINAL), "twin": stage.twin}
    into_twin, into_original = patch_both_ways(
        models["original"],
        models["twin"],
        patch_texts(stage, asked, models["original"]),
        PatchConfig(resampling=Resampling(config.n_resamples)),
        floor=HookedModel.from_pretrained(str(out / "stranger" / ORIGINAL)),
        groups=[example.group for example in asked],
    )
    tables = [into_twin.to_frame().assign(into="twin"), into_original.to_frame().assign(into="original")]
    write_parquet(path, pd.concat(tables, ignore_index=True).assign(goal=goal))


def patch_texts(stage: Stage, examples: Sequence[Example], model: HookedModel) -> PatchTexts:
    """Facts up to the answer, about their agent; scenes up to the insult, about the one who is spoken to.

    Raises:
        DataError: a scene has no listener or no noun where its wording puts them.
    """
    if stage.goal == "knowledge":
        prompts, answers = [example.prompt for example in examples], [_word(example.completion) for example in examples]
        subjects = [example.group for example in examples]
    else:
        prompts, answers, subjects = ([*column] for column in zip(*map(_insult, examples), strict=True))
    return PatchTexts.of_subjects(model.tokenizer, prompts, answers, subjects)


def _word(completion: str) -> str:
    return completion.removesuffix(".")


def _insult(example: Example) -> tuple[str, str, str]:
    """Prompt up to the noun, the noun, and who is spoken to."""
    text = without_reaction(example).text
    noun, listener = _NOUN.search(text), _LISTENER.search(text)
    if noun is None or listener is None:
        raise DataError(example.group, "a scene there has no listener or no insult where its wording puts them")
    return text[: noun.start()], text[noun.start() : noun.end(1)], listener[1]


def pair_name(pair: Sequence[str]) -> str:
    """What a pair is called in the tables."""
    return " / ".join(pair)


def mechanism_table(config: EvidenceConfig, out: Path, name: str) -> pd.DataFrame:
    """One table of all pairs, with the methods of each as the column pair."""
    parts: list[pd.DataFrame] = []
    for pair in config.pairs:
        table = read_parquet(pair_folder(out, pair) / f"{name}.parquet")
        parts.append(table.assign(pair=pair_name(pair)))
    return pd.concat(parts, ignore_index=True)
