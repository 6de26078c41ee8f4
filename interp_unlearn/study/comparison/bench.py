"""What all contenders of a comparison share: stage, probes, data and the numbers of training."""

from __future__ import annotations

from dataclasses import dataclass, replace
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING, Any

from interp_unlearn.errors import ConfigError
from interp_unlearn.organism.sets import without_reaction
from interp_unlearn.organism.strangers import with_strangers
from interp_unlearn.probes import ProbeSet
from interp_unlearn.study.plan import StudyConfig
from interp_unlearn.study.run import clean_share
from interp_unlearn.study.stage import Stage, load_stage
from interp_unlearn.unlearning import UnlearnConfig, UnlearnData, unlearn

if TYPE_CHECKING:
    from collections.abc import Sequence

    from interp_unlearn.interventions import HookedModel
    from interp_unlearn.organism.sets import Goal
    from interp_unlearn.study.comparison.contenders import Setting
    from interp_unlearn.unlearning import Objective, UpdateRule

STUDY = StudyConfig()
"""The numbers of the study behind `reproduce`, which a setting or a method may override."""
TRAINED_LAYERS = STUDY.trained_layers


@dataclass(frozen=True)
class Bench:
    """The surroundings of every run on one goal.

    Attributes:
        stage: models and texts.
        fitted: probes of the original, forget against neutral text; None where no contender needs them.
        steps: updates of everything that is trained.
        batch_size: rows of the forget batch, and of the retain batch.
        n_strangers: counterparts of a fact.
    """

    stage: Stage
    fitted: ProbeSet | None
    steps: int = STUDY.steps
    batch_size: int = STUDY.batch_size
    n_strangers: int = 4

    @property
    def probes(self) -> ProbeSet:
        """The fitted probes.

        Raises:
            ConfigError: there are none on this goal.
        """
        if self.fitted is None:
            raise ConfigError(f"the comparison on {self.stage.goal} fits no probes; its contest says with_probes=False")
        return self.fitted

    def data(self, neutral: str = "neutral") -> UnlearnData:
        """The texts of a run; `neutral="replies"` puts civil replies to the forget prompts there.

        Facts come several times, each time with another stranger's name in the counterpart; scenes once, with the civil
        reply as counterpart.
        """
        data = self.stage.data("civil_finetuning" if neutral == "replies" else "")
        if self.stage.goal == "knowledge":
            return with_strangers(data, self.stage.world, self.n_strangers)
        civil = [without_reaction(example).completion for example in self.stage.sets.replies]
        return replace(data, counterparts=civil)

    def config(self, setting: Setting, seed: int, **fixed: Any) -> UnlearnConfig:
        """Numbers of training: those of the setting, those that a method fixes, and the study's for the rest."""
        named = ("learning_rate", "retain_weight", "kl_weight", "steps")
        shared: dict[str, Any] = {
            "steps": self.steps,
            "batch_size": self.batch_size,
            "learning_rate": STUDY.learning_rate,
            "roles": STUDY.trained_roles,
            "layers": TRAINED_LAYERS,
            "retain_weight": STUDY.retain_weight,
            "kl_weight": STUDY.kl_weight,
            "seed": seed,
            "forget_on": self.stage.forget_on,
        }
        return UnlearnConfig(**shared | {name: setting[name] for name in named if name in setting} | fixed)

    def train(
        self,
        model: HookedModel,
        objective: Objective,
        setting: Setting,
        seed: int,
        *,
        neutral: str = "neutral",
        replay: Sequence[str] = (),
        rules: Sequence[UpdateRule] = (),
        **fixed: Any,
    ) -> None:
        """Trains a model in place; `replay` is retained beside the other texts."""
        data = self.data(neutral)
        data = replace(data, retain=[*data.retain, *replay])
        unlearn(model, objective, data, self.config(setting, seed, **fixed), rules=rules, progress=False)

    def clean_share(self, model: HookedModel) -> float:
        """Share of clean generations after validation prompts: what a teacher is admitted by."""
        return clean_share(model, self.stage, 0)


@cache
def load_bench(goal: Goal, probes: Path | None, steps: int, organism: Path | None = None) -> Bench:
    """The bench of a goal on a built organism, by default the shipped one, with probes fitted before."""
    return Bench(load_stage(goal, organism), None if probes is None else ProbeSet.load(probes), steps)
