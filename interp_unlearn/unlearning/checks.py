"""What a run must not do silently: go on from a loss that is no number, or leave a target untouched."""

import math
from collections.abc import Mapping, Set
from typing import TYPE_CHECKING

import numpy as np
from torch import nn

from interp_unlearn.errors import ConfigError
from interp_unlearn.unlearning.config import UnlearnConfig

if TYPE_CHECKING:
    import pandas as pd


def check_finite(loss: float, step: int, name: str) -> None:
    """The loss of a step must be a finite number.

    Raises:
        ConfigError: it is not.
    """
    if not math.isfinite(loss):
        raise ConfigError(
            f"objective {name}: the loss is {loss} at step {step}; the original weights are put back; "
            "lower the learning rate, set clip, or check the model for non-finite weights"
        )


def check_gradient(norm: float, step: int, name: str) -> None:
    """The gradient of a step must be finite, or the next weights would not be.

    Raises:
        ConfigError: it is not.
    """
    if not math.isfinite(norm):
        raise ConfigError(
            f"objective {name}: the norm of the gradient is {norm} at step {step}; the original weights are put back; "
            "lower the learning rate, or train in a wider dtype"
        )


def check_reached(trained: Mapping[str, nn.Parameter], reached: Set[str], name: str, config: UnlearnConfig) -> None:
    """After a backward pass every named matrix must have a gradient; where all are trained, some may not be used.

    Raises:
        ConfigError: a tensor has none.
    """
    missed = [tensor for tensor in trained if tensor not in reached]
    if missed and (config.roles is not None or len(missed) == len(trained)):
        raise ConfigError(
            f"objective {name}: no gradient reaches {len(missed)} of {len(trained)} trained tensors, first "
            f"{missed[0]}; train only layers that the losses reach (a KL on retain text reaches all), or use a backend "
            "whose gradients reach the weights"
        )


def check_moved(changed: "pd.DataFrame", name: str, config: UnlearnConfig) -> None:
    """Every named matrix must have moved, and to finite values; `changed` is `Reference.changed()`.

    Raises:
        ConfigError: one has not.
    """
    spoiled = changed.loc[~np.isfinite(changed["change"]), "tensor"].tolist()
    if spoiled:
        raise ConfigError(
            f"objective {name}: {spoiled[0]} is not finite afterwards; lower the learning rate or the coefficient"
        )
    still = changed.loc[changed["moved"] == 0, "tensor"].tolist()
    if still and (config.roles is not None or len(still) == len(changed)):
        raise ConfigError(
            f"objective {name}: {len(still)} of {len(changed)} trained tensors have not moved, first "
            f"{still[0]}; name only layers that it reaches, or raise the learning rate"
        )
