"""What a comparison on one goal consists of."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import pandas as pd

    from interp_unlearn.interventions import HookedModel
    from interp_unlearn.organism.sets import Example, Goal
    from interp_unlearn.study.comparison.attack import Attacker
    from interp_unlearn.study.comparison.bench import Bench
    from interp_unlearn.study.comparison.contenders import Roster
    from interp_unlearn.study.comparison.tables import Column


@dataclass(frozen=True)
class Contest:
    """Who competes on a goal, and how they are measured.

    Attributes:
        goal: what is unlearned.
        roster: the contenders.
        prompts: what is asked after unlearning, by kind.
        spared: the kinds that ask for nothing of what is forgotten, and so have no efficacy.
        measure: what is measured beside the verdicts, by name, from the model and its judged generations.
        attackers: that relearn; the first is the one whose excess ranks the contenders.
        rehearsal: the attacker of the search, on validation prompts.
        steps: updates of everything that is trained, unless a comparison says otherwise.
        equally_clean: clean shares of the search that are so close count as equal, and its attack decides.
        columns: of the long table.
        ranking: of the short one.
        ablated: of the table of ablations.
        with_probes: whether contenders or measures need probes of the original.
        unit: what intervals resample.
    """

    goal: Goal
    roster: Roster
    prompts: Callable[[Bench], Mapping[str, Sequence[Example]]]
    spared: tuple[str, ...]
    measure: Callable[[HookedModel, Bench, pd.DataFrame], dict[str, float]]
    attackers: tuple[Attacker, ...]
    rehearsal: Attacker
    steps: int
    equally_clean: float
    columns: tuple[Column, ...]
    ranking: tuple[Column, ...]
    ablated: tuple[Column, ...]
    with_probes: bool
    unit: str = "prompts"


def contest_on(goal: Goal) -> Contest:
    """The contest on a goal."""
    from interp_unlearn.study.comparison import knowledge_contest, toxicity_contest

    return {"knowledge": knowledge_contest.CONTEST, "toxicity": toxicity_contest.CONTEST}[goal]
