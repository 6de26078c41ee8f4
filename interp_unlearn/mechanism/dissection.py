"""What tells the unlearning of two goals apart in the weights: every measure of this package on the same runs."""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from itertools import combinations, product
from pathlib import Path
from typing import TYPE_CHECKING

from interp_unlearn.artifacts import environment, write_json, write_parquet
from interp_unlearn.errors import ConfigError
from interp_unlearn.interventions import HookedModel
from interp_unlearn.mechanism.alignment import align_deltas
from interp_unlearn.mechanism.composition import CompositionConfig, carry_over, compose
from interp_unlearn.mechanism.conclusions import draw_conclusions
from interp_unlearn.mechanism.delta import WeightDelta
from interp_unlearn.mechanism.depth_profile import half_depths
from interp_unlearn.mechanism.donor_states import PatchConfig
from interp_unlearn.mechanism.outcome import Groups, Outcome, Resampling
from interp_unlearn.mechanism.over_seeds import averaged
from interp_unlearn.mechanism.patch_texts import PatchTexts
from interp_unlearn.mechanism.patching import patch_both_ways
from interp_unlearn.mechanism.rank_profile import RankConfig, rank_profile
from interp_unlearn.mechanism.transplant import TransplantConfig, transplant
from interp_unlearn.mechanism.weights import Weights
from interp_unlearn.settings import check_fields

if TYPE_CHECKING:
    import pandas as pd

TABLES = (
    *("transplant", "depth", "ranks", "sufficient_rank", "composition", "carried", "patching", "alignment"),
    "missing",
)


@dataclass(frozen=True, eq=False)
class GoalRuns:
    """The runs on one goal, and what they are judged by.

    Attributes:
        runs: the unlearned weights, one a seed, all from the same original and of the same trained tensors.
        outcome: of this goal, its target first, best with what was broken: {"target": [...], "broken": [...]}.
        groups: keys of the items that are resampled whole.
        twin: a model from the same initial weights that never learned this goal's target.
        texts: prompts and answers of the target, for patching states between the original and the twin.
        text_groups: keys of the texts that are resampled whole.
    """

    runs: Sequence[Weights]
    outcome: Outcome
    groups: Groups | None = None
    twin: HookedModel | None = None
    texts: PatchTexts | None = None
    text_groups: Sequence[object] | None = None


@dataclass(frozen=True)
class DissectionConfig:
    """How the runs are taken apart.

    Attributes:
        margin: largest mean difference that would not matter, in units of the outcomes. Choose it before looking.
        kinds: ways to move tensors.
        ranks: of the truncated changes; None for 1, 2, 4, ...
        share: of an effect that counts as most of it.
        n_null: draws of the null of alignment.
        resampling: every bootstrap.
    """

    margin: float
    kinds: tuple[str, ...] = ("all", "layer", "up_to", "from", "part", "rest")
    ranks: tuple[int, ...] | None = None
    share: float = 0.9
    n_null: int = 1000
    resampling: Resampling = field(default_factory=Resampling)

    def __post_init__(self) -> None:
        check_fields(self)
        self.composing()  # each refuses what it cannot do
        _ = self.transplanting, self.truncating
        if self.n_null < 1:
            raise ConfigError(f"n_null: a cosine without a null says nothing; got {self.n_null}")

    @property
    def transplanting(self) -> TransplantConfig:
        """Of the transplants."""
        return TransplantConfig(self.kinds, self.resampling)  # pyright: ignore[reportArgumentType] refused there

    @property
    def truncating(self) -> RankConfig:
        """Of the rank profiles."""
        return RankConfig(self.ranks, self.share, self.resampling)

    def composing(self, names: tuple[str, str] = ("first", "second")) -> CompositionConfig:
        """Of everything that is tested for equivalence."""
        return CompositionConfig(self.margin, names, resampling=self.resampling)


@dataclass(frozen=True, eq=False)
class Dissection:
    """Tables of all measures.

    Attributes:
        goals: in the order given; the first outcome of each is its target.
        tables: by the names of `TABLES`; those of measures that could not be made are not there. "missing" says which
            these are, what they need, and what the floor of the others is.
        margin: of the equivalence tests.
        original_hash: of the original's weights.
    """

    goals: tuple[str, ...]
    tables: "Mapping[str, pd.DataFrame]"
    margin: float
    original_hash: str

    def conclusions(self) -> str:
        """A paragraph that says what the tables show, sentence by sentence from their numbers."""
        return draw_conclusions(self.tables, self.goals, self.margin)

    def save(self, folder: str | Path) -> None:
        """Write each table as Parquet, conclusions.md's text and the rest as dissection.json into a folder."""
        folder = Path(folder)
        for name, table in self.tables.items():
            write_parquet(folder / f"{name}.parquet", table)
        record = {"goals": self.goals, "margin": self.margin, "original_hash": self.original_hash}
        write_json(
            folder / "dissection.json", record | {"conclusions": self.conclusions(), "environment": environment()}
        )


def dissect(
    original: HookedModel,
    goals: Mapping[str, GoalRuns],
    config: DissectionConfig,
    *,
    stranger: HookedModel | None = None,
    progress: bool = False,
) -> Dissection:
    """Take the changes of one or two goals apart, the causal measures first.

    Transplants say which tensors carry each effect, depths where half of it sits, truncation how many directions it
    takes. With two goals: composition says whether the changes act independently, alignment whether they point the same
    way, beside two seeds of one goal. With twins: whether a change does the same in a model that never learned the
    *other* goal's target and, with texts, at which layers and tokens states of the original make the twin answer, and
    the other way round. Seeds are averaged within items.

    Without a twin, transplants, depths, ranks and, with two goals, composition remain; their floor is the original,
    whose own outcome is every effect's zero, and, of alignment, flipped signs and other seeds of the same goal. Nothing
    then says what a model that never learned the target would do.

    Caveat: see each measure's own. All of it is of these runs: what one method does is not what a goal needs.

    Args:
        original: the model that all runs started from; its weights are put back bit for bit.
        goals: one or two, by name.
        config: how.
        stranger: an original trained anew from other initial weights, the floor of carrying over and of patching: what
            a change does in a network that it was not made for, and what foreign states do.
        progress: whether to show progress bars.

    Raises:
        ConfigError: no goal or more than two, a goal without runs, or runs that do not fit the original.
        CheckpointError: a checkpoint cannot be read.
        BackendError: the backend cannot follow a change of the weights.
    """
    import pandas as pd

    if not 1 <= len(goals) <= 2 or not all(goal.runs for goal in goals.values()):
        raise ConfigError(f"expected one or two goals with at least one run each, got {list(goals)}")
    deltas = {name: [WeightDelta.between(original, run) for run in goal.runs] for name, goal in goals.items()}
    parts: dict[str, list[pd.DataFrame]] = {name: [] for name in TABLES}
    for name, goal in goals.items():
        for table, frame in _alone(original, goal, deltas[name], config, progress):
            parts[table].append(frame.assign(goal=name))
    if len(goals) == 2:
        parts["composition"].append(_composed(original, goals, deltas, config))
    for name, goal in goals.items():
        for other, twin in _beside(goals, name, stranger):
            found = [
                carry_over(original, twin, delta, goal.outcome, config.composing(), groups=goal.groups)
                for delta in deltas[name]
            ]
            parts["carried"].append(averaged(found).to_frame().assign(goal=name, onto=other))
        if goal.twin is not None and goal.texts is not None:
            patched = _patched(original, goal, goal.twin, goal.texts, config, stranger)
            parts["patching"].append(patched.assign(goal=name))
    parts["alignment"] += _aligned(original, deltas, config.n_null)
    parts["missing"].append(_missing(goals, stranger))
    tables = {name: pd.concat(frames, ignore_index=True) for name, frames in parts.items() if frames}
    return Dissection(tuple(goals), tables, config.margin, original.hash())


def _alone(
    original: HookedModel, goal: GoalRuns, deltas: Sequence[WeightDelta], config: DissectionConfig, progress: bool
) -> "Iterator[tuple[str, pd.DataFrame]]":
    """What can be said of a goal by itself."""
    moved = averaged(
        [
            transplant(original, run, goal.outcome, config.transplanting, groups=goal.groups, progress=progress)
            for run in goal.runs
        ]
    )
    yield "transplant", moved.to_frame().assign(seeds=len(goal.runs))
    if "up_to" in config.kinds:
        yield "depth", half_depths(moved)
    cut = averaged(
        [
            rank_profile(original, delta, goal.outcome, config.truncating, groups=goal.groups, progress=progress)
            for delta in deltas
        ]
    )
    yield "ranks", cut.to_frame()
    yield "sufficient_rank", cut.sufficient_ranks()


def _composed(
    original: HookedModel,
    goals: Mapping[str, GoalRuns],
    deltas: Mapping[str, Sequence[WeightDelta]],
    config: DissectionConfig,
) -> "pd.DataFrame":
    """Both changes in one model, seed by seed; outcomes are named after their goal."""
    one, other = goals
    n_seeds = min(len(deltas[one]), len(deltas[other]))

    def outcome(model: HookedModel) -> Mapping[str, Sequence[float]]:
        return {f"{goal}: {name}": v for goal in goals for name, v in goals[goal].outcome(model).items()}

    named = outcome(original)
    keys = {name: goals[name.split(": ")[0]].groups for name in named}
    groups = {
        name: list(range(len(named[name]))) if given is None else _of(given, name.split(": ", 1)[1])
        for name, given in keys.items()
    }
    found = [
        compose(
            original, deltas[one][seed], deltas[other][seed], outcome, config.composing((one, other)), groups=groups
        )
        for seed in range(n_seeds)
    ]
    return averaged(found).to_frame().assign(seeds=n_seeds)


def _of(groups: Groups, outcome: str) -> Sequence[object]:
    return groups[outcome] if isinstance(groups, Mapping) else groups


def _patched(
    original: HookedModel,
    goal: GoalRuns,
    twin: HookedModel,
    texts: PatchTexts,
    config: DissectionConfig,
    stranger: HookedModel | None,
) -> "pd.DataFrame":
    """States of the original in the twin, and of the twin in the original."""
    import pandas as pd

    found = patch_both_ways(
        original, twin, texts, PatchConfig(resampling=config.resampling), floor=stranger, groups=goal.text_groups
    )
    frames = [one.to_frame().assign(into=into) for one, into in zip(found, ("twin", "original"), strict=True)]
    return pd.concat(frames, ignore_index=True)


def _beside(
    goals: Mapping[str, GoalRuns], name: str, stranger: HookedModel | None
) -> Iterator[tuple[str, HookedModel]]:
    """The models that a goal's change is carried onto: the other goal's twin, and a stranger."""
    for other, goal in goals.items():
        if other != name and goal.twin is not None:
            yield f"the twin of {other}", goal.twin
    if stranger is not None:
        yield "a stranger", stranger


def _aligned(model: HookedModel, deltas: Mapping[str, Sequence[WeightDelta]], n_null: int) -> "Iterator[pd.DataFrame]":
    """Cosines of changes: between the goals, seed by seed with every other, and between the seeds of each."""
    pairs = {name: list(combinations(found, 2)) for name, found in deltas.items()}
    if len(deltas) == 2:
        first, second = deltas.values()
        pairs[" and ".join(deltas)] = list(product(first, second))
    for name, compared in pairs.items():
        for number, (one, other) in enumerate(compared):
            yield align_deltas(model, one, other, n_null=n_null).assign(between=name, pair=number)


def _missing(goals: Mapping[str, GoalRuns], stranger: HookedModel | None) -> "pd.DataFrame":
    """What was not measured, what it needs, and what is left as a floor."""
    import pandas as pd

    rows: list[tuple[str, str, str]] = []
    floor = "the original: its own outcome is every effect's zero"
    if len(goals) < 2:
        rows.append(("composition", "runs on a second goal", floor))
        rows.append(("alignment between goals", "runs on a second goal", "signs flipped; seeds of the one goal"))
    for name, goal in goals.items():
        if goal.twin is None:
            others = ", ".join(other for other in goals if other != name) or "another goal"
            rows.append((f"{others} carried over", f"a twin that never learned {name}", floor))
        if goal.twin is None or goal.texts is None:
            twin = f", and a twin that never learned {name}" if goal.twin is None else ""
            needs = f"texts with their answers{twin}"
            rows.append((f"patching, {name}", needs, "none: which layer and token it comes in at stays open"))
        if len(goal.runs) < 2:
            rows.append((f"alignment of seeds, {name}", "a second run", "signs flipped"))
    if stranger is None:
        rows.append(
            (
                "floor of carrying over and patching",
                "an original trained anew",
                "none: a failure to carry over says nothing, nor does a disturbance by foreign states",
            )
        )
    return pd.DataFrame(rows, columns=["measure", "needs", "floor"])
