"""How much the retain terms weigh against forgetting, when that is learned rather than told."""

import math
from dataclasses import dataclass
from typing import Literal

from interp_unlearn.errors import ConfigError
from interp_unlearn.settings import check_fields


@dataclass(frozen=True)
class TradeOffConfig:
    """A factor on all retain terms that moves during training, from 1.

    `dual` is constrained optimisation: ascent on the multiplier of `KL <= budget`, so that the factor grows while the
    divergence on the retain batch is above the budget and shrinks while it is below. `lookahead` is our reading (B) of
    the meta-learned variant in Atil et al. 2026, arXiv 2605.26454 (abstract only; not the authors' code): after an
    update the gradient of the validation loss (forget plus retain, at the config's weights, on rows of another draw) is
    compared with the retain gradient before it; `dL_val / d factor = -eta <grad L_val(theta'), grad L_r(theta)>`, of
    which the sign and the angle are used (less of it while the retain gradient is shorter than the forget gradient).

    Attributes:
        kind: "dual" or "lookahead".
        budget: of "dual": KL on retain text in nats per token.
        rate: the factor is multiplied by `exp(rate * x)` an update, x between -1 and 1.
        least, largest: bounds of the factor.
    """

    kind: Literal["dual", "lookahead"] = "dual"
    budget: float = 0.01
    rate: float = 0.1
    least: float = 0.01
    largest: float = 100.0

    def __post_init__(self) -> None:
        check_fields(self)
        if not (self.budget > 0 and self.rate > 0 and 0 < self.least <= 1 <= self.largest):
            raise ConfigError(
                "trade_off: budget and rate must be more than 0 and the bounds enclose 1, got "
                f"budget {self.budget}, rate {self.rate}, bounds {self.least} to {self.largest}"
            )


class TradeOff:
    """The factor's current value.

    Attributes:
        config: how it moves.
        factor: what the retain terms are multiplied by.
    """

    def __init__(self, config: TradeOffConfig, factor: float = 1.0) -> None:
        self.config = config
        self.factor = factor

    def follow_divergence(self, kl: float) -> None:
        """Dual ascent on the logarithm of the multiplier, the violation relative to the budget and capped at it."""
        self._move(min(1.0, kl / self.config.budget - 1))

    def follow_cosine(self, cosine: float) -> None:
        """One look-ahead step: a retain update that lowers the validation loss makes the next one larger."""
        self._move(cosine)

    def _move(self, x: float) -> None:
        moved = self.factor * math.exp(self.config.rate * x)
        self.factor = min(self.config.largest, max(self.config.least, moved))
