"""What a run of unlearning is told: numbers that are the same whatever the objective."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

from interp_unlearn.errors import ConfigError


@dataclass(frozen=True)
class AdversaryConfig:
    """The inner attacker of the meta-learned variant; the defaults are those of the study.

    Attributes:
        steps: K, inner AdamW steps on all parameters from fresh optimiser state.
        gradient_steps: the k at which the forget gradient is taken at the relearned weights.
        learning_rates: one is drawn for each outer step.
        batch_size: rows of an inner step, and of the batch the forget gradients are taken on.
        max_scale: the most a gradient taken at relearned weights is scaled up.
        min_norm: floor of the norm that those gradients are scaled to.
    """

    steps: int = 8
    gradient_steps: tuple[int, ...] = (1, 2, 4, 8)
    learning_rates: tuple[float, ...] = (3e-4, 1e-3, 3e-3)
    batch_size: int = 16
    max_scale: float = 10.0
    min_norm: float = 0.05

    def __post_init__(self) -> None:
        object.__setattr__(self, "gradient_steps", tuple(self.gradient_steps))
        object.__setattr__(self, "learning_rates", tuple(self.learning_rates))
        _require_positive(self, ("steps", "batch_size", "max_scale", "min_norm"))
        if not self.gradient_steps or not all(1 <= k <= self.steps for k in self.gradient_steps):
            raise ConfigError(
                f"gradient_steps must lie between 1 and steps = {self.steps}, got {self.gradient_steps}; "
                "give at least one inner step at which the forget gradient is taken"
            )
        if not self.learning_rates or min(self.learning_rates) <= 0:
            raise ConfigError(f"learning_rates must be positive numbers, got {self.learning_rates}")


@dataclass(frozen=True)
class UnlearnConfig:
    """Optimisation of one run. Two runs with equal seeds and data see the same rows in the same order.

    Attributes:
        steps: updates.
        batch_size: rows of the forget batch, and of the retain batch.
        learning_rate: constant.
        optimizer: "adamw"; "sgd" for attackers that no method trained against; "rmsprop" for the published DPO.
        weight_decay: 0 by default, since it would pull toward zero, not toward the original.
        roles: matrices to train or edit, as ``parameters_by_role`` names them; None means every parameter.
        layers: blocks whose matrices are trained or edited; None means all.
        retain_weight: of the activation term on retain text (the relative MSE, or the plain one for RMU).
        kl_weight: of KL(original || model) on retain text, in nats per token; 0 lets the pass stop early.
        max_length: tokens kept of a text; None keeps all.
        seed: of the batches and of everything an objective draws while it trains.
        adversary: the inner attacker; None for plain training.
        clip: largest norm of the whole gradient; None leaves it as it is.
        forget_on: "content" for all tokens, "completion" for those of the completions alone (rows without one count
            in full). Applies to the objective's own loss and to the adversary, never to the retain terms.
        include_bos: whether the BOS token counts in activation losses, as in the published recipes.
    """

    steps: int = 100
    batch_size: int = 16
    learning_rate: float = 1e-3
    optimizer: Literal["adamw", "sgd", "rmsprop"] = "adamw"
    weight_decay: float = 0.0
    roles: tuple[str, ...] | None = ("mlp.down",)
    layers: tuple[int, ...] | None = None
    retain_weight: float = 10.0
    kl_weight: float = 10.0
    max_length: int | None = None
    seed: int = 0
    adversary: AdversaryConfig | None = None
    clip: float | None = 1.0
    forget_on: Literal["content", "completion"] = "content"
    include_bos: bool = False

    def __post_init__(self) -> None:
        for name in ("roles", "layers"):
            value: Sequence[object] | None = getattr(self, name)
            if isinstance(value, str) or (value is not None and len(value) == 0):
                raise ConfigError(f"{name} must be a non-empty sequence or None for all, got {value!r}")
            object.__setattr__(self, name, None if value is None else tuple(value))
        if isinstance(self.adversary, dict):  # a recipe read from JSON
            object.__setattr__(self, "adversary", AdversaryConfig(**self.adversary))
        _require_positive(self, ("steps", "batch_size", "learning_rate", "max_length", "clip"))
        for name in ("retain_weight", "kl_weight", "weight_decay"):
            if not getattr(self, name) >= 0:
                raise ConfigError(f"{name} must be 0 or more, got {getattr(self, name)!r}")
        if self.optimizer not in ("adamw", "sgd", "rmsprop"):
            raise ConfigError(f'optimizer must be "adamw", "sgd" or "rmsprop", got {self.optimizer!r}')
        if self.forget_on not in ("content", "completion"):
            raise ConfigError(f'forget_on must be "content" or "completion", got {self.forget_on!r}')


def _require_positive(config: object, names: Sequence[str]) -> None:
    for name in names:
        value = getattr(config, name)
        if value is not None and not value > 0:
            raise ConfigError(f"{name} must be more than 0, got {value!r}")
