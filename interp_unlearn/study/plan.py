"""Which runs the study consists of, and the settings that all of them share."""

from __future__ import annotations

from dataclasses import dataclass, replace

from interp_unlearn.errors import ConfigError
from interp_unlearn.organism.sets import GOALS, Goal
from interp_unlearn.settings import check_fields

FACTORIAL = ("random_single", "random_multi", "probe_single", "probe_multi")
NATIVE: dict[Goal, tuple[str, ...]] = {
    "knowledge": ("rmu", "cosine_rmu", "cosine_rmu_meta"),
    "toxicity": ("distilled", "civil_finetuning"),
}
BASELINES = ("none", "twin")
TWINS: dict[Goal, str] = {"knowledge": "never_knew", "toxicity": "never_toxic"}


@dataclass(frozen=True)
class Cell:
    """One run: an objective on a goal under a seed."""

    objective: str
    goal: Goal
    seed: int

    @property
    def name(self) -> str:
        """Folder of the run's results."""
        return f"{self.objective}-{self.goal}-{self.seed}"


@dataclass(frozen=True)
class StudyConfig:
    """What every run shares.

    Attributes:
        seeds: Unlearning seeds; a seed also seeds the sampling of generations.
        steps: Updates of every objective.
        batch_size: Rows of the forget batch, and of the retain batch.
        single_layer: The layer of the single-layer cells.
        multi_layers: The layers of the several-layer cells.
        trained_layers: Blocks whose matrices every objective trains.
        trained_roles: Which matrices.
        learning_rate: Of every objective: none was tuned for its cell, so no cell had more trials than another.
        retain_weight: Of the relative MSE on retain text.
        kl_weight: Of KL on retain text, but for RMU, whose recipe has none.
        rmu_coefficient: Length of RMU's target in mean norms of the stream (Adaptive RMU, arXiv 2408.06223).
        rmu_retain_weight: Of RMU's plain MSE on retain text.
        teacher_overshoot: How far the clamp that is distilled moves a token, in its distance to the neutral
            median; 1 is onto it. Weaker clamps (1 and 2) failed the teacher's check on validation prompts.
        relearn_rate: Learning rate of the relearning attack, the same for every model.
        relearn_checkpoints: Steps after which the attacked model is asked; none for no attack.
        relearn_prompts: Generations at each checkpoint.
        forget_share: Share of the subjects or scenes whose forget text unlearning and probes see.
        native: Whether the native methods run beside the factorial.
    """

    seeds: tuple[int, ...] = (0, 1, 2)
    steps: int = 100
    batch_size: int = 16
    single_layer: int = 4
    multi_layers: tuple[int, ...] = (2, 3, 4, 5)
    trained_layers: tuple[int, ...] = (1, 2, 3, 4, 5)
    trained_roles: tuple[str, ...] = ("attn", "mlp")
    learning_rate: float = 1e-3
    retain_weight: float = 10.0
    kl_weight: float = 10.0
    rmu_coefficient: float = 5.0
    rmu_retain_weight: float = 100.0
    teacher_overshoot: float = 4.0
    relearn_rate: float = 1e-3
    relearn_checkpoints: tuple[int, ...] = (10, 20, 60)
    relearn_prompts: int = 336
    forget_share: float = 1.0
    native: bool = True

    def __post_init__(self) -> None:
        check_fields(self)
        if not self.seeds or self.steps < 1:
            raise ConfigError(f"a study needs a seed and a step, got seeds {self.seeds} and {self.steps} steps")
        if not 0 < self.forget_share <= 1:
            raise ConfigError(f"forget_share is a share above 0 and up to 1, got {self.forget_share}")
        if self.single_layer not in self.multi_layers:
            raise ConfigError(f"single_layer {self.single_layer} must be one of multi_layers {self.multi_layers}")

    def quick(self) -> StudyConfig:
        """One seed, the factorial and the oracle, at a quarter of the steps."""
        return replace(self, seeds=self.seeds[:1], steps=self.steps // 4, native=False)


def cells_of(config: StudyConfig) -> list[Cell]:
    """Every run of a study, baselines first; the slowest objectives come early, so that no worker ends alone."""
    cells: list[Cell] = []
    for goal in GOALS:
        named = (*BASELINES, "oracle", *(NATIVE[goal] if config.native else ()), *FACTORIAL)
        cells += [Cell(objective, goal, seed) for objective in named for seed in config.seeds]
    order = {"none": 0, "twin": 0, "cosine_rmu_meta": 1, "oracle": 2, "distilled": 2}
    return sorted(cells, key=lambda cell: order.get(cell.objective, 3))
