"""Relearning: does fine-tuning on some of what was forgotten bring the rest back?"""

from collections.abc import Collection, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal

from interp_unlearn.unlearning import FineTuning, LoraConfig, UnlearnConfig, UnlearnData, UnlearnResult, unlearn

if TYPE_CHECKING:
    from interp_unlearn.interventions import HookedModel
    from interp_unlearn.unlearning.loop import Callback


@dataclass(frozen=True)
class RelearnConfig:
    """An attacker.

    Attributes:
        batch_size: rows of a step.
        learning_rate: constant; report the worst of several for each model that is attacked.
        optimizer: "adamw" or "sgd".
        seed: of the batches.
        clip: largest norm of the gradient; None leaves it as it is.
        max_length: tokens kept of a text.
        roles: what is trained; None is every parameter.
        lora: adapters on the matrices of `roles` are trained instead; None for none.
    """

    batch_size: int = 16
    learning_rate: float = 1e-3
    optimizer: Literal["adamw", "sgd"] = "adamw"
    seed: int = 0
    clip: float | None = 1.0
    max_length: int | None = None
    roles: tuple[str, ...] | None = None
    lora: LoraConfig | None = None


def relearn(
    model: "HookedModel",
    texts: Sequence[str],
    completions: Sequence[str] | None = None,
    config: RelearnConfig | None = None,
    *,
    checkpoints: Collection[int] = (10, 20, 60),
    callback: "Callback | None" = None,
    restore: bool = True,
    progress: bool = True,
) -> UnlearnResult:
    """Fine-tune on texts of the target and measure at checkpoints; the loss is over completions where they are given.

    Relearn some subjects and measure on others: what comes back there was hidden, not forgotten. Caveat: a model that
    never knew the target also improves under the attack (it learns the format), so compare with its curve.

    Args:
        model: the model; its weights are put back afterwards unless `restore` is False.
        texts: what is relearned, or its prompts.
        completions: what follows each prompt.
        config: the attacker; defaults where None.
        checkpoints: numbers of steps after which the callback is called; the attack takes as many steps as the largest.
        callback: called with the number of steps and the model; what it returns becomes a row of `curve`.
        restore: whether the weights are put back at the end.
        progress: whether to show a progress bar.

    Returns:
        The run, its `curve` one row a checkpoint.

    Raises:
        ConfigError: there is no checkpoint above 0, or the loss is not finite.
        DataError: there are no texts.
    """
    config = config or RelearnConfig()
    return unlearn(
        model,
        FineTuning("forget", retains=False, name="relearn"),
        UnlearnData(forget=texts, forget_completions=completions),
        UnlearnConfig(
            steps=max(checkpoints, default=0),
            batch_size=config.batch_size,
            learning_rate=config.learning_rate,
            optimizer=config.optimizer,
            roles=config.roles,
            lora=config.lora,
            seed=config.seed,
            clip=config.clip,
            max_length=config.max_length,
            forget_on="content" if completions is None else "completion",
        ),
        checkpoints=checkpoints,
        callback=callback,
        restore=restore,
        progress=progress,
    )
