"""What every run of a study works with: the models, the texts and the probes of one goal."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING

from interp_unlearn.interventions import HookedModel
from interp_unlearn.organism.sets import Goal, GoalSets, goal_sets
from interp_unlearn.organism.shipped import shipped_twins
from interp_unlearn.organism.world import World
from interp_unlearn.probes import ProbeSet, fit_probes
from interp_unlearn.sites import Site
from interp_unlearn.study.plan import TWINS
from interp_unlearn.unlearning import UnlearnData

if TYPE_CHECKING:
    from collections.abc import Sequence

    from interp_unlearn.organism.sets import Example


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
        replies = self.sets.replies if objective == "civil_finetuning" else self.sets.neutral
        speech = self.goal == "toxicity"
        return UnlearnData(
            forget=_prompts(self.sets.forget) if speech else [e.text for e in self.sets.forget],
            forget_completions=_completions(self.sets.forget) if speech else None,
            neutral=_prompts(replies) if speech else [e.text for e in replies],
            neutral_completions=_completions(replies) if speech else None,
            retain=[e.text for e in self.sets.retain],
            groups=[e.group for e in self.sets.forget],
            prompts=_prompts(self.sets.forget),
        )

    @property
    def forget_on(self) -> str:
        """Which tokens of forget text count."""
        return "completion" if self.goal == "toxicity" else "content"


@cache
def load_stage(goal: Goal, organism: Path | None = None) -> Stage:
    """The stage of a goal on a built organism, by default the shipped one."""
    from interp_unlearn.artifacts import read_json

    folder = organism or shipped_twins()
    seed = read_json(folder / "knows_all" / "build.json")["config"]["world_seed"]
    world = World(seed)
    return Stage(goal, world, goal_sets(world, goal), folder)


def fit_goal_probes(stage: Stage) -> ProbeSet:
    """Probes of forget against neutral text on the original, at the embedding and after every block.

    The pooled tokens are those whose activations the objectives move.
    """
    from interp_unlearn.activations import collect

    model = stage.model("knows_all")
    sites = [Site.embed, *(Site(layer, "resid_post") for layer in range(model.n_layers))]
    examples = [*stage.sets.forget[: len(stage.sets.neutral)], *stage.sets.neutral]
    labels = [1] * min(len(stage.sets.forget), len(stage.sets.neutral)) + [0] * len(stage.sets.neutral)
    texts = [e.text for e in examples]
    if stage.goal == "toxicity":
        store = collect(
            model, _prompts(examples), sites, pool="mean", completions=_completions(examples), progress=False
        )
    else:
        store = collect(model, texts, sites, pool="mean", progress=False)
    return fit_probes(store, labels, groups=[e.group for e in examples], texts=texts)


def neutral_projections(stage: Stage, probes: ProbeSet) -> dict[Site, float]:
    """Median projection of neutral texts on each site's mean difference, on the original, in L2 units of the stream."""
    from interp_unlearn.activations import collect

    examples = stage.sets.neutral[:400]
    completions = _completions(examples) if stage.goal == "toxicity" else None
    texts = _prompts(examples) if completions else [e.text for e in examples]
    store = collect(
        stage.model("knows_all"), texts, list(probes.sites), pool="mean", completions=completions, progress=False
    )
    return {
        site: float((store[site].float() @ probes.direction(site, "mean_difference").float()).median())
        for site in probes.sites
    }


def _prompts(examples: Sequence[Example]) -> list[str]:
    return [example.prompt for example in examples]


def _completions(examples: Sequence[Example]) -> list[str]:
    return [example.completion for example in examples]
