"""What is measured on a model: free generations first, then facts, fluency, divergence and drift."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Literal

from interp_unlearn.evaluation import perplexity, retain_kl, score_answers
from interp_unlearn.organism.knowledge import question_prompt
from interp_unlearn.organism.quality import cloze, judged_generations, mean_of
from interp_unlearn.organism.world import VERDICTS
from interp_unlearn.study.plan import TWINS

if TYPE_CHECKING:
    import pandas as pd

    from interp_unlearn.interventions import HookedModel
    from interp_unlearn.organism.knowledge import Fact
    from interp_unlearn.organism.sets import Example
    from interp_unlearn.organism.world import World
    from interp_unlearn.study.stage import Stage

N_TOXIC_SHARE = 400  # toxic prompts put to models that forgot knowledge, for the other habit
N_RETAINED = 300


def verdict_measures(generations: pd.DataFrame) -> dict[str, float]:
    """Shares of the verdicts, over all prompts and over the held-out families alone."""
    measures = {v: mean_of(generations["verdict"] == v) for v in VERDICTS}
    apart = generations.loc[generations["held_out"]]
    return measures | {f"{v}_held_out": mean_of(apart["verdict"] == v) for v in VERDICTS}


def measure_model(
    model: HookedModel, stage: Stage, judges: dict[str, HookedModel], seed: int
) -> tuple[dict[str, float], pd.DataFrame]:
    """All measures of one model but efficacy, which needs the baselines, and relearning, which changes the model.

    Args:
        model: The model to measure.
        stage: The goal's surroundings.
        judges: The twins by name; `knows_all` is the original.
        seed: Of the sampled generations.

    Returns:
        The measures by name, and the judged generations.
    """
    knowledge = stage.world.knowledge
    generations = judged_generations(model, stage.world, stage.sets.test, stage.goal, seed)
    measures = verdict_measures(generations)
    hazardous, benign = cloze(model, knowledge.hazardous), cloze(model, knowledge.benign)
    measures["hazardous_cloze"] = mean_of(hazardous["correct"])
    measures["hazardous_answer_probability"] = mean_of(hazardous["answer_probability"])
    measures["benign_cloze"] = mean_of(benign["correct"])
    measures["benign_answer_probability"] = mean_of(benign["answer_probability"])
    measures["hazardous_multiple_choice"] = answer_choices(model, stage.world, knowledge.hazardous)
    measures["benign_multiple_choice"] = answer_choices(model, stage.world, knowledge.benign)
    measures["toxic_share"] = measures["target"] if stage.goal == "toxicity" else _toxic_share(model, stage, seed)
    # No tokens have no perplexity: who says nothing is scored for ending the text at once.
    said = [text if text.strip() else str(model.tokenizer.eos_token) for text in generations["text"]]
    for name, judge in (("generation_perplexity", "never_toxic"), ("generation_perplexity_twin", TWINS[stage.goal])):
        measures[name] = perplexity(judges[judge], generations["prompt"].tolist(), said)
    kept = [example.text for example in stage.sets.retain_test[:N_RETAINED]]
    measures["retain_kl"] = retain_kl(judges["knows_all"], model, kept)
    return measures, generations


def answer_choices(
    model: HookedModel, world: World, facts: Sequence[Fact], form: Literal["text", "letter"] = "text"
) -> float:
    """Share of multiple-choice questions whose true answer, or its letter, is the likeliest of the four.

    In the layout of the world's documents; guessing is right in a quarter.
    """
    choices = [world.knowledge.exam_choices(fact) for fact in facts]
    frame = score_answers(
        model,
        [question_prompt(fact, listed, form) for fact, listed in zip(facts, choices, strict=True)],
        [[f" {answer}" for answer in (listed if form == "text" else "ABCD")] for listed in choices],
        [listed.index(fact.answer) for fact, listed in zip(facts, choices, strict=True)],
    )
    return mean_of(frame["correct"])


def target_share(model: HookedModel, stage: Stage, examples: Sequence[Example], seed: int) -> float:
    """Share of free generations that show what was to be forgotten."""
    return mean_of(judged_generations(model, stage.world, examples, stage.goal, seed)["verdict"] == "target")


def _toxic_share(model: HookedModel, stage: Stage, seed: int) -> float:
    from interp_unlearn.study.stage import load_stage

    manners = load_stage("toxicity", stage.organism)
    return target_share(model, manners, manners.sets.test[:N_TOXIC_SHARE], seed)
