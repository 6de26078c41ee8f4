"""The one training loop: unlearning, its meta-learned variant, and the relearning attack."""

import time
from collections.abc import Callable, Collection, Generator, Mapping
from contextlib import AbstractContextManager, contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING

import torch
from torch import Tensor, nn
from tqdm import tqdm

from interp_unlearn.errors import ConfigError
from interp_unlearn.models import TokenBatch
from interp_unlearn.unlearning.adversary import attacked_gradient, draw_attack, norm_of
from interp_unlearn.unlearning.checks import check_finite, check_moved, check_reached
from interp_unlearn.unlearning.config import AdversaryConfig, UnlearnConfig
from interp_unlearn.unlearning.corpora import Corpora, UnlearnData, forget_mask, retain_mask, scheduled_rows
from interp_unlearn.unlearning.modes import eval_mode
from interp_unlearn.unlearning.objective import Logs, Objective
from interp_unlearn.unlearning.reference import Reference, trained_tensors
from interp_unlearn.unlearning.result import UnlearnResult
from interp_unlearn.unlearning.retention import Retention

if TYPE_CHECKING:
    from interp_unlearn.interventions import HookedModel

_OPTIMIZERS = {"adamw": torch.optim.AdamW, "sgd": torch.optim.SGD, "rmsprop": torch.optim.RMSprop}

Callback = Callable[[int, "HookedModel"], Mapping[str, object] | None]
"""Called with the number of steps taken and the model; what it returns becomes a row of the result's curve."""


def unlearn(
    model: "HookedModel",
    objective: Objective,
    data: UnlearnData,
    config: UnlearnConfig | None = None,
    *,
    checkpoints: Collection[int] = (),
    callback: Callback | None = None,
    restore: bool = False,
    progress: bool = True,
) -> UnlearnResult:
    """Train a model in place toward an objective while the retain terms hold the rest.

    Equal seeds, data and settings give equal weights on the same machine. `requires_grad`, gradients and the train or
    eval mode are left as found (training runs in eval mode: dropout would blur the comparison with the original). If
    anything raises, the original weights are put back.

    Args:
        model: changed in place, under any backend whose gradients reach the weights.
        objective: what to do on the forget rows; see `build_objective`.
        data: the texts.
        config: the numbers; defaults where None.
        checkpoints: numbers of steps after which the callback is called; 0 is before the first.
        callback: evaluates the model, on its current weights.
        restore: put the original weights back at the end, as an attack that only measures does.
        progress: whether to show a progress bar.

    Raises:
        ConfigError: the objective does not fit the model or the data; no gradient reaches a trained tensor; the loss is
            not finite; a trained tensor has not moved.
    """
    config = config or UnlearnConfig()
    started = time.perf_counter()
    trained = trained_tensors(model, config)
    reference = Reference(trained)
    try:
        with _training(model.hf, trained):
            run = _Run.prepared(model, objective, data, config, trained, reference)
            history: list[Logs] = []
            curve: list[dict[str, object]] = []
            steps = tqdm(range(config.steps + 1), desc=objective.name, disable=not progress)
            for step in steps:
                if callback is not None and step in checkpoints:
                    model.mark_changed()
                    with torch.no_grad():
                        curve.append({"step": step, **(callback(step, model) or {})})
                if step < config.steps:
                    history.append(run.step(step))
        changed = reference.changed()
        check_moved(changed, objective.name, config)
    except BaseException:
        reference.restore()
        model.mark_changed()
        raise
    if restore:
        reference.restore()
    model.mark_changed()

    import pandas as pd

    seconds = time.perf_counter() - started
    return UnlearnResult(objective.name, config, pd.DataFrame(history), changed, pd.DataFrame(curve), seconds)


@dataclass(frozen=True, eq=False)
class _Run:
    """What stays the same from step to step."""

    model: "HookedModel"
    objective: Objective
    config: UnlearnConfig
    corpora: Corpora
    retention: Retention | None
    adversary: AdversaryConfig | None
    trained: Mapping[str, nn.Parameter]
    reference: Reference
    optimizer: torch.optim.Optimizer

    @classmethod
    def prepared(
        cls,
        model: "HookedModel",
        objective: Objective,
        data: UnlearnData,
        config: UnlearnConfig,
        trained: Mapping[str, nn.Parameter],
        reference: Reference,
    ) -> "_Run":
        corpora = Corpora.from_data(model.tokenizer, data, config.max_length)
        if config.forget_on == "completion" and not objective.corpus(corpora).has_completions:
            raise ConfigError(
                f"forget_on is completion and the {objective.source} texts have none; "
                f"give UnlearnData({objective.source}_completions=...)"
            )
        retention = Retention(objective.layers, config.retain_weight, config.kl_weight, objective.relative)
        if objective.retains and retention.active:
            corpora.require("retain", objective.name)
        else:
            retention = None
        adversary = config.adversary or (AdversaryConfig() if objective.meta else None)
        objective.prepare(model, corpora, config)
        optimizer = _OPTIMIZERS[config.optimizer](
            list(trained.values()), lr=config.learning_rate, weight_decay=config.weight_decay
        )
        return cls(model, objective, config, corpora, retention, adversary, trained, reference, optimizer)

    def step(self, step: int) -> Logs:
        """One update; the row of the history."""
        batch = self.objective.batch(self.model, self.corpora, self.config, step)
        held = None if self.retention is None else self._retained_rows(step)
        with self._frozen(self.retention is not None):  # before the student's forward: a swap would spoil its graph
            targets = self.objective.targets(self.model, batch)
            before = self.retention.run(self.model, held) if self.retention is not None and held is not None else None

        self.optimizer.zero_grad(set_to_none=True)
        loss, logs = self.objective.loss(self.model, batch, forget_mask(batch, self.config), targets)
        check_finite(loss, step, self.objective.name)
        loss.backward()
        row = {"step": step, "forget": loss.item(), "retain": 0.0}
        if self.adversary is not None:
            logs |= self._add_attacked_gradient(self.adversary, step)
        if self.retention is not None and held is not None and before is not None:
            after = self.retention.run(self.model, held)
            retained, retain_logs = self.retention.loss(before, after, held, retain_mask(held, self.config))
            check_finite(retained, step, self.objective.name)
            retained.backward()
            row["retain"] = retained.item()
            logs |= retain_logs
        if step == 0:
            check_reached(self.trained, self.objective.name, self.config)
        limit = float("inf") if self.config.clip is None else self.config.clip
        row["grad_norm"] = float(torch.nn.utils.clip_grad_norm_(self.trained.values(), limit))
        self.optimizer.step()
        return row | logs

    def _frozen(self, also: bool = False) -> AbstractContextManager[None]:
        """The original weights where anything needs them; without gradients either way."""
        return self.reference.original() if also or self.objective.needs_original else torch.no_grad()

    def _retained_rows(self, step: int) -> TokenBatch:
        corpus = self.corpora.require("retain", self.objective.name)
        rows = scheduled_rows(len(corpus), self.config.batch_size, step, self.config.seed, "retain")
        return corpus.batch(rows, self.model.device)

    def _add_attacked_gradient(self, adversary: AdversaryConfig, step: int) -> Logs:
        corpus = self.objective.corpus(self.corpora)
        attack = draw_attack(corpus, adversary, self.config.seed, step, self.model.device)
        with self._frozen():
            targets = self.objective.targets(self.model, attack.outer)
        mask = forget_mask(attack.outer, self.config)

        def outer_loss() -> Tensor:
            return self.objective.loss(self.model, attack.outer, mask, targets)[0]

        own = [parameter.grad for parameter in self.trained.values() if parameter.grad is not None]
        extra = attacked_gradient(self.model, self.trained, attack, outer_loss, norm_of(own), adversary, self.config)
        for parameter, part in zip(self.trained.values(), extra, strict=True):
            parameter.grad = part if parameter.grad is None else parameter.grad + part
        return {"attack_learning_rate": attack.learning_rate}


@contextmanager
def _training(hf: nn.Module, trained: Mapping[str, nn.Parameter]) -> Generator[None]:
    """Only the trained tensors require gradients, every module is in eval mode; both are put back."""
    parameters = list(hf.parameters())
    flags = [(p, p.requires_grad, p.grad) for p in parameters]
    chosen = {id(parameter) for parameter in trained.values()}
    try:
        for parameter in parameters:
            parameter.requires_grad_(id(parameter) in chosen)
        with eval_mode(hf), torch.enable_grad():
            yield
    finally:
        for parameter, required, grad in flags:
            parameter.requires_grad_(required)
            parameter.grad = grad
