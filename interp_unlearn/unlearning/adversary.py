"""The inner attacker: forgetting is trained at weights that have begun to relearn.

Our first-order reading (A) of the meta-learned variant in Atil et al. 2026, arXiv 2605.26454 (abstract only; not the
authors' code), close to TAR (Tamirisa et al. 2024, arXiv 2408.00761), with splits by subject and all parameters
attacked.
"""

import random
from collections.abc import Callable, Generator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING

import torch
from torch import Tensor, nn

from interp_unlearn.errors import ConfigError
from interp_unlearn.models import TokenBatch
from interp_unlearn.objectives import cross_entropy
from interp_unlearn.unlearning.config import AdversaryConfig, UnlearnConfig
from interp_unlearn.unlearning.corpora import TokenCorpus, forget_mask
from interp_unlearn.unlearning.gradients import norm_of

if TYPE_CHECKING:
    from interp_unlearn.interventions import HookedModel


@dataclass(frozen=True, eq=False)
class Attack:
    """What one outer step's adversary works with.

    Attributes:
        inner: a batch of the attacked subjects for each inner step.
        outer: rows of the other subjects, on which the forget gradient is taken.
        learning_rate: of the inner AdamW.
    """

    inner: tuple[TokenBatch, ...]
    outer: TokenBatch
    learning_rate: float


def draw_attack(
    forget: TokenCorpus,
    config: AdversaryConfig,
    seed: int,
    step: int,
    device: torch.device | str,
    outer: Callable[[list[int]], TokenBatch] | None = None,
) -> Attack:
    """Split the subjects in two at random, and draw a step's rows and learning rate: a function of (seed, step).

    Args:
        forget: what is relearned.
        config: of the adversary.
        seed: of the run.
        step: of the run.
        device: where the batches go.
        outer: makes the batch of the other subjects' rows; by default these rows themselves.

    Raises:
        ConfigError: the forget rows carry no subjects, or only one.
    """
    groups = sorted(set(forget.groups or ()))
    if len(groups) < 2:
        raise ConfigError(
            f"the adversary relearns some subjects and is judged on others, but the forget rows have {len(groups)}; "
            "give UnlearnData(groups=...), a subject for each forget row"
        )
    draw = random.Random(f"adversary-{seed}-{step}")
    attacked = set(draw.sample(groups, len(groups) // 2))
    assert forget.groups is not None
    inner_rows = [row for row, group in enumerate(forget.groups) if group in attacked]
    outer_rows = [row for row, group in enumerate(forget.groups) if group not in attacked]
    inner = tuple(forget.batch(_draw_rows(draw, inner_rows, config), device) for _ in range(config.steps))
    chosen = _draw_rows(draw, outer_rows, config)
    return Attack(
        inner=inner,
        outer=forget.batch(chosen, device) if outer is None else outer(chosen),
        learning_rate=draw.choice(config.learning_rates),
    )


def attacked_gradient(
    model: "HookedModel",
    trained: Mapping[str, nn.Parameter],
    attack: Attack,
    outer_loss: Callable[[], Tensor],
    base_norm: float,
    adversary: AdversaryConfig,
    config: UnlearnConfig,
    inner_loss: Callable[[int], Tensor] | None = None,
) -> list[Tensor]:
    """`sum_k g_k`: forget gradients on the outer rows at weights relearned on the inner ones, ordered as `trained`.

    `phi_k = AdamW(phi_{k-1}, grad CE(phi_{k-1}; inner))` over all parameters, from fresh state; at each k of
    `gradient_steps`, `g_k = grad outer_loss(phi_k)` restricted to the trained tensors and scaled by
    `min(max_scale, max(min_norm, base_norm) / |g_k|)`. First order: nothing is differentiated through the inner steps.
    The weights, `requires_grad` and gradients are afterwards what they were, bit for bit.
    Caveat: the inner steps are taken in the weights' own precision, for the memory of float32 copies of all of them
    would double a large model's. In half precision steps below the spacing of the weights are lost.

    Args:
        outer_loss: the objective's loss on the outer rows at the current weights.
        base_norm: |g_0|, norm of the forget gradient at the weights themselves.
        adversary: the attacker.
        config: of the run.
        inner_loss: what inner step k (from 0) minimises; by default the relearning loss on its rows.
    """
    targets = list(trained.values())
    total = [torch.zeros_like(parameter) for parameter in targets]
    with borrowed(list(model.hf.parameters())) as parameters:
        # No weight decay: the attacker relearns, it does not regularise.
        optimizer = torch.optim.AdamW(parameters, lr=attack.learning_rate, weight_decay=0.0)
        for k in range(1, adversary.steps + 1):
            optimizer.zero_grad(set_to_none=True)
            relearned = attack.inner[k - 1]
            (relearning_loss(model, relearned, config) if inner_loss is None else inner_loss(k - 1)).backward()
            optimizer.step()
            if k not in adversary.gradient_steps:
                continue
            gradients = gradient(outer_loss(), targets)
            scale = min(
                adversary.max_scale,
                max(adversary.min_norm, base_norm) / max(norm_of(gradients), 1e-30),
            )
            for accumulated, part in zip(total, gradients, strict=True):
                accumulated.add_(part, alpha=scale)
    return total


def relearning_loss(model: "HookedModel", batch: TokenBatch, config: UnlearnConfig) -> Tensor:
    """What an attacker that relearns texts minimises: cross-entropy in nats per token, on the run's forget tokens."""
    logits = model.run(batch, logits=True).logits
    assert logits is not None
    return cross_entropy(logits, batch.input_ids, forget_mask(batch, config))


def gradient(loss: Tensor, parameters: Sequence[Tensor]) -> list[Tensor]:
    """The gradient of a loss; zeros for parameters it does not depend on."""
    return list(torch.autograd.grad(loss, list(parameters), allow_unused=True, materialize_grads=True))


@contextmanager
def borrowed(parameters: list[nn.Parameter]) -> Generator[list[nn.Parameter]]:
    """All parameters require gradients inside; values, flags and gradients are put back, whatever happens."""
    kept = [(p, p.detach().clone(), p.requires_grad, p.grad) for p in parameters]
    try:
        for parameter in parameters:
            parameter.requires_grad_(True)
            parameter.grad = None
        yield parameters
    finally:
        with torch.no_grad():
            for parameter, value, required, grad in kept:
                parameter.copy_(value)
                parameter.requires_grad_(required)
                parameter.grad = grad


def _draw_rows(draw: random.Random, rows: list[int], config: AdversaryConfig) -> list[int]:
    return draw.sample(rows, min(config.batch_size, len(rows)))
