"""What a run of unlearning is told: numbers that are the same whatever the objective."""

from collections.abc import Sequence
from dataclasses import dataclass, fields
from typing import Literal

from interp_unlearn.errors import ConfigError
from interp_unlearn.settings import check_fields
from interp_unlearn.unlearning.trade_off import TradeOffConfig


@dataclass(frozen=True)
class AdversaryConfig:
    """The inner attacker of the meta-learned variant; the defaults are those of the study.

    Attributes:
        steps: K, inner AdamW steps on all parameters from fresh optimiser state.
        gradient_steps: the k at which the forget gradient is taken at the relearned weights.
        learning_rates: one is drawn for each outer step.
        batch_size: rows of an inner step, and of the batch the forget gradients are taken on, whatever `accumulation`.
        max_scale: the most a gradient taken at relearned weights is scaled up.
        min_norm: floor of the norm that those gradients are scaled to.
        relearns: "text", or "activations": the attacker brings back the original's activations at the objective's
            layers, so that nothing above them is computed. Weaker: who relearns the text may find another way.
    """

    steps: int = 8
    gradient_steps: tuple[int, ...] = (1, 2, 4, 8)
    learning_rates: tuple[float, ...] = (3e-4, 1e-3, 3e-3)
    batch_size: int = 16
    max_scale: float = 10.0
    min_norm: float = 0.05
    relearns: Literal["text", "activations"] = "text"

    def __post_init__(self) -> None:
        check_fields(self)
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
class ForkConfig:
    """MUDMAN's attacker: a second set of weights that relearns beside the main ones, and is set back to them at times.

    Where it is given, the forget gradient is taken at the attacker's weights instead of the main ones (Sondej et al.
    2025, arXiv 2506.12484); the update rule `mask_by_sign` belongs to it.

    Attributes:
        refork: updates between two copies of the main weights.
        learning_rate: of the attacker's steps, one an update, of plain gradient descent on all parameters.
    """

    refork: int = 30
    learning_rate: float = 1e-2

    def __post_init__(self) -> None:
        check_fields(self)
        _require_positive(self, ("refork", "learning_rate"))


@dataclass(frozen=True)
class GuardConfig:
    """When training stops early.

    Attributes:
        max_kl: KL from the original on retain rows, in nats per token, beyond which training stops.
        every: updates between two checks; the end is checked in any case.
        rows: of the retain corpus, its last; the same at every check.
    """

    max_kl: float = 0.05
    every: int = 10
    rows: int = 64

    def __post_init__(self) -> None:
        check_fields(self)
        if not self.max_kl > 0 or self.every < 1 or self.rows < 1:
            raise ConfigError(
                f"guard: max_kl must be more than 0, every and rows at least 1, got {self.max_kl}, {self.every}, "
                f"{self.rows}"
            )


@dataclass(frozen=True)
class LoraConfig:
    """Low-rank adapters on the matrices that roles and layers name, merged into the weights at the end. Needs peft.

    Attributes:
        rank: of each adapter.
        alpha: the adapter's output is scaled by `alpha / rank`.
        seed: of the first factor; the second starts at zero.
    """

    rank: int = 16
    alpha: float = 16.0
    seed: int = 0

    def __post_init__(self) -> None:
        check_fields(self)
        _require_positive(self, ("rank", "alpha"))


@dataclass(frozen=True)
class UnlearnConfig:
    """Optimisation of one run. Two runs with equal seeds and data see the same rows in the same order.

    Attributes:
        steps: updates.
        batch_size: rows of the forget batch, and of the retain batch.
        accumulation: batches of an update, computed one after the other: the gradient of all in the memory of one.
        learning_rate: constant.
        optimizer: "adamw"; "sgd" for attackers that no method trained against; "rmsprop" for the published DPO.
        weight_decay: 0 by default, since it would pull toward zero, not toward the original.
        roles: matrices to train or edit, as ``parameters_by_role`` names them; None means every parameter.
        layers: blocks whose matrices are trained or edited; None means all.
        retain_weight: of the activation term on retain text (the relative MSE, or the plain one for RMU).
        kl_weight: of KL(original || model) on retain text, in nats per token; 0 lets the pass stop early.
        nll_weight: of next-token cross-entropy on retain text, the published retain term of GradDiff, NPO and SimNPO.
        max_length: tokens kept of a text; None keeps what fits into the model's context. What is cut is logged.
        seed: of the batches and of everything an objective draws while it trains.
        adversary: the inner attacker, or MUDMAN's; None for plain training.
        trade_off: a factor on the retain terms that is learned; None leaves them at their weights.
        guard: a limit at which training stops; None for none.
        lora: adapters to train instead of the matrices themselves; None for none.
        cache_prefix: keep the stream below the first trained block of every row, on the CPU, over the epochs: faster,
            for `rows * tokens * d_model` numbers of memory. A run that goes on after an interruption then equals the
            uninterrupted one but for rounding: a row's stream has that of the batch it was first met in.
        clip: largest norm of the whole gradient; None leaves it as it is.
        forget_on: "content" for all tokens, "completion" for those of the completions alone (rows without one count
            in full). Applies to the objective's own loss and to the adversary, never to the retain terms.
        include_bos: whether the BOS token counts in activation losses, as in the published recipes.
    """

    steps: int = 100
    batch_size: int = 16
    accumulation: int = 1
    learning_rate: float = 1e-3
    optimizer: Literal["adamw", "sgd", "rmsprop"] = "adamw"
    weight_decay: float = 0.0
    roles: tuple[str, ...] | None = ("mlp.down",)
    layers: tuple[int, ...] | None = None
    retain_weight: float = 10.0
    kl_weight: float = 10.0
    nll_weight: float = 0.0
    max_length: int | None = None
    seed: int = 0
    adversary: AdversaryConfig | ForkConfig | None = None
    clip: float | None = 1.0
    forget_on: Literal["content", "completion"] = "content"
    include_bos: bool = False
    trade_off: TradeOffConfig | None = None
    guard: GuardConfig | None = None
    lora: LoraConfig | None = None
    cache_prefix: bool = False

    def __post_init__(self) -> None:
        self._read_nested()
        for name in ("roles", "layers"):
            value: Sequence[object] | None = getattr(self, name)
            if isinstance(value, str) or (isinstance(value, Sequence) and len(value) == 0):
                raise ConfigError(f"{name} must be a non-empty sequence or None for all, got {value!r}")
            object.__setattr__(self, name, tuple(value) if isinstance(value, Sequence) else value)
        check_fields(self)
        _require_positive(self, ("steps", "batch_size", "accumulation", "learning_rate", "max_length", "clip"))
        for name in ("retain_weight", "kl_weight", "nll_weight", "weight_decay"):
            if not getattr(self, name) >= 0:
                raise ConfigError(f"{name} must be 0 or more, got {getattr(self, name)!r}")
        if self.lora is not None and self.roles is None:
            raise ConfigError("lora puts adapters on matrices by role, and roles is None; name roles")

    def _read_nested(self) -> None:
        """Make dataclasses of what a recipe or a record in JSON has as objects."""
        attacker = ForkConfig if isinstance(self.adversary, dict) and "refork" in self.adversary else AdversaryConfig
        nested = {"adversary": attacker, "trade_off": TradeOffConfig, "guard": GuardConfig, "lora": LoraConfig}
        for name, kind in nested.items():
            value = getattr(self, name)
            if isinstance(value, dict):
                try:
                    object.__setattr__(self, name, kind(**value))
                except TypeError as error:
                    raise ConfigError(f"{name}: {error}; its settings are {', '.join(_names(kind))}") from error


def _names(kind: type) -> list[str]:
    return [field.name for field in fields(kind)]


def _require_positive(config: object, names: Sequence[str]) -> None:
    for name in names:
        value = getattr(config, name)
        if value is not None and not value > 0:
            raise ConfigError(f"{name} must be more than 0, got {value!r}")
