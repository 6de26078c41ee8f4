"""The one training loop: unlearning, its meta-learned variant, and the relearning attack."""

import time
from collections.abc import Callable, Collection, Generator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from typing import TYPE_CHECKING

import torch
from torch import nn
from tqdm import tqdm

from interp_unlearn.models.modes import eval_mode
from interp_unlearn.models.processes import ALONE, Processes
from interp_unlearn.unlearning.adapters import adapters
from interp_unlearn.unlearning.checkpoints import Checkpoints
from interp_unlearn.unlearning.checks import check_moved
from interp_unlearn.unlearning.config import UnlearnConfig
from interp_unlearn.unlearning.corpora import UnlearnData
from interp_unlearn.unlearning.objective import Objective
from interp_unlearn.unlearning.reference import Reference, trained_tensors
from interp_unlearn.unlearning.result import UnlearnResult
from interp_unlearn.unlearning.training_run import TrainingRun
from interp_unlearn.unlearning.update_rules import UpdateRule

if TYPE_CHECKING:
    from interp_unlearn.interventions import HookedModel

Callback = Callable[[int, "HookedModel"], Mapping[str, object] | None]
"""Called with the number of steps taken and the model; what it returns becomes a row of the result's curve."""


def unlearn(
    model: "HookedModel",
    objective: Objective,
    data: UnlearnData,
    config: UnlearnConfig | None = None,
    *,
    rules: Sequence[UpdateRule] = (),
    checkpoints: Collection[int] = (),
    callback: Callback | None = None,
    resume: Checkpoints | None = None,
    restore: bool = False,
    progress: bool = True,
    processes: Processes = ALONE,
) -> UnlearnResult:
    """Train a model in place toward an objective while the retain terms hold the rest.

    Equal seeds, data and settings give equal weights on the same machine, also when the run was interrupted and went
    on. `requires_grad`, gradients and the train or eval mode are left as found (training runs in eval mode: dropout
    would blur the comparison with the original). If anything raises, the original weights are put back.

    Args:
        model: changed in place, under any backend whose gradients reach the weights.
        objective: what to do on the forget rows; see `build_objective`.
        data: the texts.
        config: the numbers; defaults where None.
        rules: applied to the forget gradient in this order, before the retain gradient is added.
        checkpoints: numbers of steps after which the callback is called; 0 is before the first.
        callback: evaluates the model, on its current weights.
        resume: where the run's state is kept, to go on from after an interruption.
        restore: put the original weights back at the end, as an attack that only measures does.
        progress: whether to show a progress bar.
        processes: that make this very call together, see `Processes.of_torchrun`. Each takes its rows of every batch;
            updates, history and curve are those of one process, to rounding, and every process has them. The first
            alone writes. Of a model that `shard` has cut, each holds a part.

    Raises:
        ConfigError: the objective does not fit the model or the data; no gradient reaches a trained tensor; the loss is
            not finite; a trained tensor has not moved.
        ArtifactError: `resume` holds the state of another run.
    """
    import pandas as pd

    config = config or UnlearnConfig()
    started = time.perf_counter()
    with ExitStack() as stack:
        adapted = None if config.lora is None else stack.enter_context(adapters(model, config, config.lora))
        trained = trained_tensors(model, config) if adapted is None else adapted.factors
        reference = Reference(trained)
        try:
            with training(model.hf, trained):
                run = TrainingRun.prepared(model, objective, data, config, trained, reference, rules, processes)
                if resume is not None:
                    run.resume(resume)
                stopped = _train(run, checkpoints, callback, resume, progress and processes.is_first)
            changed = reference.changed() if adapted is None else adapted.changed()
            check_moved(changed, objective.name, config)
        except BaseException:
            reference.restore()
            model.mark_changed()
            raise
        if restore:
            reference.restore()
        elif adapted is not None:
            adapted.merge()
    model.mark_changed()
    if resume is not None and not resume.stays and processes.is_first:
        resume.remove()
    seconds = time.perf_counter() - started
    history, curve = pd.DataFrame(run.history), pd.DataFrame(run.curve)
    settings = {"rules": {rule.name: rule.settings() for rule in rules}} if rules else {}
    earlier = tuple(run.environments.get("earlier_environments", ()))
    return UnlearnResult(objective.name, config, history, changed, curve, seconds, settings, stopped, earlier)


def _train(
    run: TrainingRun,
    checkpoints: Collection[int],
    callback: Callback | None,
    resume: Checkpoints | None,
    progress: bool,
) -> str | None:
    """Steps, callbacks and kept states; why it ended before its last step, or what the guard has against the end."""
    resumed_at, last = run.steps_taken, run.config.steps
    steps = range(resumed_at, last + 1)
    for step in tqdm(steps, run.objective.name, total=last + 1, initial=resumed_at, disable=not progress):
        if callback is not None and step in checkpoints and not (step == resumed_at > 0):
            run.model.mark_changed()
            with torch.no_grad():
                run.curve.append({"step": step, **(callback(step, run.model) or {})})
        if step == last:
            return run.objection()
        if resume is not None and step > resumed_at and step % resume.every == 0:
            run.keep(resume)
        if (objection := run.objection()) is not None:
            return objection
        run.step()
    return None


@contextmanager
def training(hf: nn.Module, trained: Mapping[str, nn.Parameter]) -> Generator[None]:
    """Only the trained tensors require gradients, every module is in eval mode; both are put back."""
    parameters = list(hf.parameters())
    flags = [(p, p.requires_grad, p.grad) for p in parameters]
    chosen = {id(parameter) for parameter in trained.values()}
    try:
        for parameter in parameters:
            parameter.requires_grad_(id(parameter) in chosen)
            parameter.grad = None  # somebody else's, which a backward pass would add to
        with eval_mode(hf), torch.enable_grad():
            yield
    finally:
        for parameter, required, grad in flags:
            parameter.requires_grad_(required)
            parameter.grad = grad
