"""What every run of a study works with: the models, the texts and the probes of one goal."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING, Literal

import torch

from interp_unlearn.interventions import HookedModel
from interp_unlearn.organism.sets import Goal, GoalSets, goal_sets, without_reaction
from interp_unlearn.organism.shipped import shipped_twins
from interp_unlearn.organism.world import World, world_of
from interp_unlearn.probes import ProbeSet, fit_probes
from interp_unlearn.sites import Site, residual_stream
from interp_unlearn.study.plan import TWINS
from interp_unlearn.unlearning import UnlearnData

if TYPE_CHECKING:
    from collections.abc import Sequence

    from interp_unlearn.activations import ActivationStore
    from interp_unlearn.organism.sets import Example


N_CLAMPED = 400  # neutral texts that a clamp's threshold is measured on


@dataclass(frozen=True)
class Stage:
    """The fixed surroundings of the runs on one goal."""

    goal: Goal
    world: World
    sets: GoalSets
    organism: Path

    def model(self, twin: str) -> HookedModel:
        """A fresh copy of a twin."""
        return HookedModel.from_pretrained(str(self.organism / twin))

    @property
    def twin(self) -> HookedModel:
        """A fresh copy of the model that never learned the goal's target."""
        return self.model(TWINS[self.goal])

    def data(self, objective: str) -> UnlearnData:
        """The texts of a run; every objective sees the same forget and retain rows.

        Facts count in full, as in RMU. Of scenes only the speech counts: the stories before it are innocent.
        """
        forget, forget_completions = self.split(self.sets.forget)
        neutral, neutral_completions = self.split(
            self.sets.replies if objective == "civil_finetuning" else self.sets.neutral
        )
        return UnlearnData(
            forget=forget,
            forget_completions=forget_completions,
            neutral=neutral,
            neutral_completions=neutral_completions,
            retain=[e.text for e in self.sets.retain],
            groups=[e.group for e in self.sets.forget],
            prompts=[e.prompt for e in self.sets.forget],
        )

    def split(self, examples: Sequence[Example]) -> tuple[list[str], list[str] | None]:
        """Texts, and the completions that count where not all of a text does.

        Scenes end with the speech: the reaction to it would tell its manner in one word.
        """
        if self.goal == "knowledge":
            return [e.text for e in examples], None
        spoken = [without_reaction(e) for e in examples]
        return [e.prompt for e in spoken], [e.completion for e in spoken]

    def lessons(self, examples: Sequence[Example]) -> tuple[list[str], list[str] | None]:
        """What an attacker trains on: whole facts, or scenes' prompts and all that follows them."""
        if self.goal == "knowledge":
            return [e.text for e in examples], None
        return [e.prompt for e in examples], [e.completion for e in examples]

    @property
    def forget_on(self) -> Literal["content", "completion"]:
        """Which tokens of forget text count."""
        return "completion" if self.goal == "toxicity" else "content"


@cache
def load_stage(goal: Goal, organism: Path | None = None, forget_share: float = 1.0) -> Stage:
    """The stage of a goal on a built organism, by default the shipped one, with all or a share of the forget text."""
    folder = organism or shipped_twins()
    world = world_of(folder / "knows_all")
    sets = goal_sets(world, goal)
    return Stage(goal, world, sets if forget_share == 1 else sets.with_forget_share(forget_share, world.seed), folder)


def fit_goal_probes(stage: Stage) -> ProbeSet:
    """Probes of forget against neutral text on the original, at the embedding and after every block.

    They pool the very tokens whose activations the objectives move.
    """
    n = min(len(stage.sets.forget), len(stage.sets.neutral))
    examples = [*stage.sets.forget[:n], *stage.sets.neutral[:n]]
    groups = [e.group for e in examples]
    store = _collected(stage, examples)
    # Unigrams get the whole text: what the words could tell, had they been counted everywhere.
    prompts, completions = stage.split(examples)
    texts = [a + b for a, b in zip(prompts, completions or [""] * len(prompts), strict=True)]
    return fit_probes(store, [1] * n + [0] * n, groups=groups, texts=texts, progress=False)


def neutral_projections(stage: Stage, probes: ProbeSet, layers: Sequence[int]) -> dict[Site, float]:
    """Median projection of neutral tokens on each layer's probe direction, on the original (L2 units of the stream)."""
    model = stage.model("knows_all")
    texts, completions = stage.split(stage.sets.neutral[:N_CLAMPED])
    batch = model.tokenize(texts, completions=completions)
    mask = batch.content_mask if batch.completion_mask is None else batch.completion_mask
    sites = [Site(layer, "resid_post") for layer in layers]
    with torch.no_grad():
        trace = model.run(batch, reads=sites)
    return {site: float((trace[site] @ probes.direction(site))[mask].median()) for site in sites}


def _collected(stage: Stage, examples: Sequence[Example]) -> ActivationStore:
    from interp_unlearn.activations import collect

    model = stage.model("knows_all")
    sites = residual_stream(model.n_layers)
    texts, completions = stage.split(examples)
    return collect(model, texts, sites, pool="mean", completions=completions, progress=False)
