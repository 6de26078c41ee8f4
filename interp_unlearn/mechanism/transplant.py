"""Tensor transplant: which tensors carry what a run changed, found by moving them between the two models."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import cached_property
from typing import TYPE_CHECKING

from tqdm import tqdm

from interp_unlearn.interventions import HookedModel
from interp_unlearn.mechanism.outcome import (
    Groups,
    ItemValues,
    Outcome,
    PairedMeans,
    Resampling,
    check_units,
    groups_of,
    measure,
)
from interp_unlearn.mechanism.places import GroupKind, TensorGroup, tensor_groups
from interp_unlearn.mechanism.weights import Weights, changed_tensors, swapped
from interp_unlearn.settings import check_fields

if TYPE_CHECKING:
    import pandas as pd

Tensors = frozenset[str]
"""A condition: the tensors that have the changed model's values, all others having the original's."""
NONE: Tensors = frozenset()


@dataclass(frozen=True)
class TransplantConfig:
    """What is moved.

    Attributes:
        kinds: ways to group the tensors, each group being moved by itself.
        resampling: the bootstrap over items or groups.
    """

    kinds: tuple[GroupKind, ...] = ("all", "layer", "up_to", "from", "part", "rest")
    resampling: Resampling = field(default_factory=Resampling)

    def __post_init__(self) -> None:
        check_fields(self)


@dataclass(frozen=True, eq=False)
class Transplant:
    """What was measured when groups of tensors were moved.

    Attributes:
        config: what was moved.
        groups: the groups of tensors.
        changed: names of the tensors that differ between the models.
        values: by the set of tensors that had the changed model's values, what was measured.
        item_groups: keys of the items.
        n_layers: blocks of the model.
    """

    config: TransplantConfig
    groups: tuple[TensorGroup, ...]
    changed: Tensors
    values: Mapping[Tensors, ItemValues]
    item_groups: Groups | None
    n_layers: int

    @cached_property
    def means(self) -> dict[str, PairedMeans[Tensors]]:
        """By outcome, its means under every condition."""
        return {
            outcome: PairedMeans(
                {tensors: values[outcome] for tensors, values in self.values.items()},
                groups_of(self.item_groups, outcome),
                self.config.resampling,
            )
            for outcome in self.values[NONE]
        }

    def inserted(self, group: TensorGroup) -> Tensors:
        """The condition in which a group of the changed model's tensors is in the original."""
        return group.tensors & self.changed

    def restored(self, group: TensorGroup) -> Tensors:
        """The condition in which a group of the original's tensors is back in the changed model."""
        return self.changed - group.tensors

    def to_frame(self) -> "pd.DataFrame":
        """One row a direction, group and outcome.

        Columns: direction, kind, group, layer, part, outcome, n_tensors (that differ); mean; effect, effect_low,
        effect_high (on the model the tensors were put into); share, share_low, share_high (of the whole difference
        between the two models; NaN where the interval of that holds 0, without bounds where that is 0 in a resample);
        whole (that difference, in the same sense), n.
        """
        import pandas as pd

        rows: list[dict[str, object]] = []
        for direction, start, end in (("inserted", NONE, self.changed), ("restored", self.changed, NONE)):
            for group in self.groups:
                condition = self.inserted(group) if direction == "inserted" else self.restored(group)
                for outcome, means in self.means.items():
                    effect, share = means.effect(condition, start), means.share(condition, start, end)
                    rows.append(
                        {
                            "direction": direction,
                            "kind": group.kind,
                            "group": group.name,
                            "layer": group.layer,
                            "part": group.part,
                            "outcome": outcome,
                            "n_tensors": len(self.inserted(group)),
                            "mean": means.mean(condition),
                            "effect": effect.mean,
                            "effect_low": effect.low,
                            "effect_high": effect.high,
                            "share": share.mean,
                            "share_low": share.low,
                            "share_high": share.high,
                            "whole": means.effect(end, start).mean,
                            "n": means.n,
                        }
                    )
        return pd.DataFrame(rows).astype({"layer": "Int64"})


def transplant(
    original: HookedModel,
    changed: Weights,
    outcome: Outcome,
    config: TransplantConfig | None = None,
    *,
    groups: Groups | None = None,
    progress: bool = False,
) -> Transplant:
    """Put groups of the changed model's tensors into the original ("inserted"), and the reverse ("restored").

    What a group does when inserted is what it suffices for; what is lost when the original's tensors come back is what
    it is needed for. Exact and causal: values are copied, not recomputed, and the complete transplant is the other
    model. One group after another is moved; each condition is measured once, and most serve both directions.

    Caveat: shares of single groups need not sum to 1. Where groups work together, each alone shows less than its share
    inserted and more than it restored; where one stands in for another, the reverse. A hybrid of two models may break
    where neither of them does: read "broken" beside every share. It says which weights carry a change, not which
    activations carried the behaviour before, and nothing of a run with another seed.

    Args:
        original: the model from before; hybrids are made in it, in place, and its weights put back bit for bit.
        changed: the model, checkpoint or tensors of the run.
        outcome: what is measured.
        config: what is moved; defaults where None.
        groups: keys of the items that are resampled whole.
        progress: whether to show a progress bar.

    Raises:
        ConfigError: the models do not fit together or have the same weights, or the outcome changes its items.
        CheckpointError: a checkpoint cannot be read.
        BackendError: the backend cannot follow a change of the weights.
    """
    config = config or TransplantConfig()
    after = {name: value for name, (_, value) in changed_tensors(original, changed).items()}
    every: Tensors = frozenset(after)
    moved = tuple(tensor_groups(original, config.kinds))
    conditions = [every]
    for group in moved:
        conditions += [group.tensors & every, every - group.tensors]
    values: dict[Tensors, ItemValues] = {NONE: measure(original, outcome)}
    check_units(values[NONE], groups)
    for tensors in tqdm([c for c in dict.fromkeys(conditions) if c], desc="transplant", disable=not progress):
        with swapped(original, {name: after[name] for name in sorted(tensors)}):
            values[tensors] = measure(original, outcome, values[NONE])
    return Transplant(config, moved, every, values, groups, original.n_layers)
