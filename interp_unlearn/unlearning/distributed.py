"""Data-parallel training: every process takes its rows of each batch, and the update is that of the whole batch.

Every process draws the same batches from the seed and counts what each part of them weighs, so that a part's mean loss
enters with its share of all tokens (or rows, or pairs) and the gradients are summed: a mean of the processes' means
would weigh a token of a short part more. Everything else (attacker, guard, samplings, preparation) each process does
whole, and alike.
"""

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING

import torch
from torch import nn

from interp_unlearn.errors import ConfigError
from interp_unlearn.models import TokenBatch
from interp_unlearn.models.processes import Processes, is_sharded
from interp_unlearn.unlearning.config import UnlearnConfig
from interp_unlearn.unlearning.gradients import Gradients
from interp_unlearn.unlearning.objective import Logs, Objective
from interp_unlearn.unlearning.update_rules import UpdateRule

if TYPE_CHECKING:
    from interp_unlearn.interventions import HookedModel


def parts_of(batches: Sequence[TokenBatch], stacks: int, processes: Processes) -> list[TokenBatch]:
    """Each batch cut into as many parts as there are processes, in their order; of one process the batches themselves.

    Args:
        batches: of one update.
        stacks: 2 where a batch is rows and then as many counterparts, which stay together; 1 otherwise.
        processes: that share the update.
    """
    if processes.size == 1:
        return list(batches)
    parts: list[TokenBatch] = []
    for batch in batches:
        n_rows = len(batch) // stacks
        for rank in range(processes.size):
            rows = range(rank, n_rows, processes.size)
            parts.append(batch.select([stack * n_rows + row for stack in range(stacks) for row in rows]))
    return parts


def summed(gradients: Gradients, trained: Mapping[str, nn.Parameter], processes: Processes) -> Gradients:
    """The sum of the processes' gradients; of sharded tensors FSDP2 has taken the mean of them already."""
    if processes.size == 1:
        return gradients
    return {
        name: gradients[name] * processes.size
        if hasattr(gradients[name], "full_tensor")
        else processes.total(gradients[name])
        for name in trained
        if name in gradients
    }


def summed_logs(logs: Logs, processes: Processes) -> Logs:
    """The sum of the processes' numbers, each of which is weighted with its part's share already."""
    totals = processes.total(torch.tensor(list(logs.values()), dtype=torch.float64)) if processes.size > 1 else None
    return logs if totals is None else dict(zip(logs, totals.tolist(), strict=True))


def check_distributed(
    model: "HookedModel",
    objective: Objective,
    config: UnlearnConfig,
    rules: Sequence[UpdateRule],
    processes: Processes,
) -> None:
    """Refuse what would differ from a run of one process.

    Raises:
        ConfigError: a process would get no rows, or something needs all tokens, or all weights, in one place.
    """
    if is_sharded(model.hf):
        needs_weights = {
            "an adversary": objective.adversary(config) is not None,
            "lora": config.lora is not None,
            "update rules": bool(rules),
        }
        if asking := [what for what, needed in needs_weights.items() if needed]:
            raise ConfigError(
                f"objective {objective.name}: {', '.join(asking)} cannot be had of a sharded model; drop --shard, or "
                "these"
            )
    if processes.size == 1:
        return
    if config.batch_size < processes.size:
        raise ConfigError(
            f"batch_size {config.batch_size} gives some of {processes.size} processes no row; give at least as many"
        )
    watching = [rule.name for rule in rules if type(rule).watching is not UpdateRule.watching]
    if watching:
        raise ConfigError(
            f"update rule {', '.join(watching)} looks at every token of a batch, and each process has only its own; "
            "run it in one process"
        )
