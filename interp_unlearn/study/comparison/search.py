"""The search: every contender's settings, tried once on a seed that is never reported, on validation prompts."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from interp_unlearn.artifacts import as_read_back, read_json, write_json
from interp_unlearn.errors import ArtifactError, ConfigError
from interp_unlearn.organism.quality import judged_generations, mean_of
from interp_unlearn.organism.world import VERDICTS
from interp_unlearn.study.comparison.attack import relearned_share
from interp_unlearn.study.comparison.measures import divergence, under

if TYPE_CHECKING:
    from interp_unlearn.study.comparison.attack import Attacker
    from interp_unlearn.study.comparison.bench import Bench
    from interp_unlearn.study.comparison.contenders import Contender

TUNING_SEED = 1000
KL_BUDGET = 0.01
"""Nats per token of KL on retained text that a setting may cost."""


@dataclass(frozen=True)
class Trial:
    """One setting, tried.

    Attributes:
        contender: its name.
        setting: what was tried.
        clean, target, broken: shares of the verdicts after validation prompts; None where the method refused.
        kl: on validation documents to be retained, in nats per token.
        relearned: target share after the rehearsal of relearning, on validation prompts.
        refusal: why the method refused, if it did.
    """

    contender: str
    setting: dict[str, Any]
    clean: float | None = None
    target: float | None = None
    broken: float | None = None
    kl: float | None = None
    relearned: float | None = None
    refusal: str | None = None

    @property
    def affordable(self) -> bool:
        """Whether the retained text is left alone as far as the budget asks."""
        return self.kl is not None and self.kl <= KL_BUDGET


def try_setting(contender: Contender, index: int, bench: Bench, rehearsal: Attacker, out: Path) -> Path:
    """Tries one setting and writes what came of it, unless that was done already."""
    file = out / "trials" / f"{contender.name}-{index:02d}.json"
    if file.exists():
        _read_trial(out, contender, index)
        return file
    setting = contender.settings[index]
    model = bench.stage.model("knows_all")
    try:
        edits = contender.forget(model, bench, setting, TUNING_SEED)
    except ConfigError as error:  # a teacher that is not admitted, a layer without a gap, a loss that overflows
        found: dict[str, Any] = {"refusal": str(error)}
    else:
        with under(model, edits):
            verdicts = judged_generations(
                model, bench.stage.world, bench.stage.sets.validation, bench.stage.goal, TUNING_SEED
            )["verdict"]
            kl = divergence(model, bench, bench.stage.sets.retain_validation)
        found = {verdict: mean_of(verdicts == verdict) for verdict in VERDICTS} | {"kl": kl}
        found["relearned"] = relearned_share(model, bench, rehearsal, TUNING_SEED)
    write_json(file, asdict(Trial(contender.name, setting, **found)))
    return file


def read_trials(out: Path, contender: Contender, indices: Iterable[int]) -> list[Trial]:
    """The trials of a contender.

    Raises:
        ArtifactError: one was made with another setting than stands there now.
    """
    return [_read_trial(out, contender, index) for index in indices]


def _read_trial(out: Path, contender: Contender, index: int) -> Trial:
    file, setting = out / "trials" / f"{contender.name}-{index:02d}.json", contender.settings[index]
    stored = read_json(file)
    if stored["setting"] != as_read_back(setting):
        raise ArtifactError(
            f"{file} holds a trial of {stored['setting']}, and the search space now has {setting} there; remove the "
            "trials of this method, or choose another --out"
        )
    return Trial(**stored | {"setting": setting})  # as the space has it: JSON knows no tuples


def best_trial(trials: list[Trial], equally_clean: float) -> Trial | None:
    """The trial a contender goes on with; None if the method refused every setting.

    Of the settings within the budget of divergence those with the highest clean share, and of those that are equally
    clean (within `equally_clean`) the one of which least comes back under the attack. Where none is within the budget,
    the cheapest.
    """
    done = [trial for trial in trials if trial.kl is not None]
    affordable = [trial for trial in done if trial.affordable]
    if not affordable:
        return min(done, key=lambda trial: trial.kl or 0.0, default=None)
    cleanest = max(trial.clean or 0.0 for trial in affordable)
    equals = [trial for trial in affordable if (trial.clean or 0.0) >= cleanest - equally_clean]
    return min(equals, key=lambda trial: (trial.relearned or 0.0, trial.kl or 0.0))
