"""One run of the training loop: what stays the same from step to step, and the step."""

import logging
from collections.abc import Mapping, Sequence
from contextlib import AbstractContextManager, ExitStack
from dataclasses import asdict, dataclass, field
from functools import cached_property
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, nn

from interp_unlearn.artifacts import as_read_back, environment, environments_since
from interp_unlearn.artifacts.fingerprint import fingerprint
from interp_unlearn.errors import ConfigError
from interp_unlearn.interventions.prefix import PrefixCache, SharedPrefix, first_trained_block
from interp_unlearn.models import TokenBatch
from interp_unlearn.models.processes import ALONE, Processes, sharded_like, whole_tensors
from interp_unlearn.unlearning.attacked import AttackedGradients
from interp_unlearn.unlearning.checkpoints import Checkpoints
from interp_unlearn.unlearning.checks import check_finite, check_gradient, check_reached
from interp_unlearn.unlearning.config import UnlearnConfig
from interp_unlearn.unlearning.corpora import Corpora, UnlearnData, forget_mask, retain_mask
from interp_unlearn.unlearning.distributed import check_distributed, parts_of, summed, summed_logs
from interp_unlearn.unlearning.gradients import Gradients, added, cosine_of, norm_of, shares_of, with_zeros
from interp_unlearn.unlearning.guard import Guard
from interp_unlearn.unlearning.objective import Logs, Objective
from interp_unlearn.unlearning.optimizer import Optimizer
from interp_unlearn.unlearning.reference import Reference
from interp_unlearn.unlearning.retention import Retention
from interp_unlearn.unlearning.trade_off import TradeOff
from interp_unlearn.unlearning.update_rules import UpdateRule

if TYPE_CHECKING:
    from interp_unlearn.interventions import HookedModel

logger = logging.getLogger(__name__)
VALIDATION = 1_000_003
"""Added to the seed for the draw of rows that a look-ahead is judged on."""


@dataclass(eq=False)
class TrainingRun:
    """The state of one run.

    Attributes:
        told: what the objective was told.
        processes: that share each update.
        steps_taken: updates so far.
        history: one row an update.
        curve: one row a checkpoint, kept here so that an interrupted run does not lose them.
    """

    model: "HookedModel"
    objective: Objective
    config: UnlearnConfig
    corpora: Corpora
    retention: Retention | None
    attacked: AttackedGradients | None
    trained: Mapping[str, nn.Parameter]
    reference: Reference
    optimizer: Optimizer
    rules: Sequence[UpdateRule]
    prefix: SharedPrefix
    told: dict[str, Any]
    trade_off: TradeOff | None = None
    guard: Guard | None = None
    processes: Processes = ALONE
    steps_taken: int = 0
    history: list[Logs] = field(default_factory=list[Logs])
    curve: list[dict[str, object]] = field(default_factory=list[dict[str, object]])
    environments: dict[str, Any] = field(default_factory=lambda: {"environment": environment()})

    @classmethod
    def prepared(
        cls,
        model: "HookedModel",
        objective: Objective,
        data: UnlearnData,
        config: UnlearnConfig,
        trained: Mapping[str, nn.Parameter],
        reference: Reference,
        rules: Sequence[UpdateRule],
        processes: Processes = ALONE,
    ) -> "TrainingRun":
        """Tokenise, check that everything fits together, and prepare the objective.

        Raises:
            ConfigError: it does not fit.
        """
        check_distributed(model, objective, config, rules, processes)
        corpora = Corpora.from_data(model.tokenizer, data, config.max_length or model.context_length)
        if config.forget_on == "completion" and not objective.corpus(corpora).has_completions:
            raise ConfigError(
                f"forget_on is completion and the {objective.source} texts have none; "
                f"give UnlearnData({objective.source}_completions=...)"
            )
        retention = Retention(
            objective.layers, config.retain_weight, config.kl_weight, objective.hidden, config.nll_weight
        )
        if objective.retains and retention.active:
            corpora.require("retain", objective.name)
        else:
            retention = None
        _check_reach(model, objective, retention, config)
        if config.trade_off is not None and (
            retention is None or (config.trade_off.kind == "dual" and not config.kl_weight > 0)
        ):
            raise ConfigError(
                "trade_off weighs the retain terms, `dual` by their KL: give retain texts and kl_weight > 0"
            )
        # What begins with an underscore it draws or measures itself.
        told = fingerprint({name: value for name, value in vars(objective).items() if not name.startswith("_")})
        logger.info("training %d tensors: %s", len(trained), ", ".join(trained))
        objective.prepare(model, corpora, config)
        for rule in rules:
            rule.reset()
        adversary = objective.adversary(config)
        first = first_trained_block(model.architecture, list(trained.values()))
        return cls(
            model,
            objective,
            config,
            corpora,
            retention,
            None if adversary is None else AttackedGradients(model, objective, corpora, config, adversary, trained),
            trained,
            reference,
            Optimizer(trained, config),
            rules,
            SharedPrefix(model.architecture, first, PrefixCache() if config.cache_prefix else None),
            told,
            None if config.trade_off is None else TradeOff(config.trade_off),
            None if config.guard is None else Guard(config.guard, corpora.require("retain", objective.name)),
            processes,
        )

    def step(self) -> None:
        """One update, and its row of the history."""
        step = self.steps_taken
        forget_weight, retain_weight = self.objective.schedule(step / self.config.steps)
        forget, logs = self._forget_gradient(step, forget_weight)
        row: Logs = {"step": step, "forget": logs.pop("forget"), "retain": 0.0}
        retain: Gradients | None = None
        if self.retention is not None:
            factor = 1.0 if self.trade_off is None else self.trade_off.factor
            retain, found = self._retain_gradient(self.retention, self.config.seed, step, retain_weight * factor)
            row["retain"] = found.pop("retain")
            logs |= found
        if step == 0:
            check_reached(self.trained, forget.keys() | (retain or {}).keys(), self.objective.name, self.config)
        logs |= _compared(forget, retain)
        held = None if retain is None or not self.rules else with_zeros(retain, self.trained)
        for rule in self.rules:
            forget = rule.apply(with_zeros(forget, self.trained), held)
        row["grad_norm"] = self.optimizer.step(added(forget, retain or {}), self.config.clip)
        check_gradient(row["grad_norm"], step, self.objective.name)
        self.steps_taken += 1
        if self.trade_off is not None and self.retention is not None and retain is not None:
            self._learn_trade_off(self.trade_off, self.retention, retain, logs)
        self.history.append(row | logs)

    def objection(self) -> str | None:
        """What the guard has against going on, or against the end."""
        if self.guard is None:
            return None
        ends = self.steps_taken == self.config.steps
        objection = self.processes.of_first(
            self.guard.objection(self.steps_taken, self.model, self.reference, last=ends)
        )
        if objection is not None:
            logger.warning("objective %s: %s", self.objective.name, objection)
        return objection

    def keep(self, checkpoints: Checkpoints) -> None:
        """Write the state."""
        tensors = {f"trained.{name}": parameter.detach() for name, parameter in self.trained.items()}
        tensors |= {f"optimizer.{name}": value for name, value in self.optimizer.state().items()}
        for index, rule in enumerate(self.rules):
            tensors |= {f"rule{index}.{name}": value for name, value in rule.state().items()}
        if self.attacked is not None:
            tensors |= {f"attacker.{name}": value for name, value in self.attacked.state().items()}
        record = {
            "step": self.steps_taken,
            "history": self.history,
            "curve": self.curve,
            "objective": self.objective.state(),
            "trade_off": None if self.trade_off is None else self.trade_off.factor,
            **self.environments,
        }
        gathered, identity = whole_tensors(tensors.items(), self.processes), self._identity
        if self.processes.is_first:
            checkpoints.save(identity, gathered, record)

    def resume(self, checkpoints: Checkpoints) -> None:
        """Go on from a kept state, if there is one."""
        found = checkpoints.load(self._identity)
        if found is None:
            return
        tensors, record = found
        with torch.no_grad():
            for name, parameter in self.trained.items():
                parameter.copy_(sharded_like(tensors[f"trained.{name}"], parameter))
        self.optimizer.load_state(_under("optimizer.", tensors))
        for index, rule in enumerate(self.rules):
            rule.load_state(_under(f"rule{index}.", tensors))
        if self.attacked is not None:
            self.attacked.load_state(_under("attacker.", tensors))
        if self.trade_off is not None:
            self.trade_off.factor = record["trade_off"]
        self.objective.load_state(record["objective"])
        self.steps_taken, self.history, self.curve = record["step"], record["history"], record["curve"]
        self.environments = environments_since(record, checkpoints.folder)
        self.model.mark_changed()

    @cached_property
    def _identity(self) -> dict[str, Any]:
        """What makes this run this run, beside the code."""
        with self.reference.original():
            model = self.model.hash()
        return as_read_back(
            {
                "objective": self.told,
                "model": model,
                "config": asdict(self.config),
                "data": self.corpora.hash(),
                "rules": [[rule.name, rule.settings()] for rule in self.rules],
            }
        )

    def _forget_gradient(self, step: int, weight: float) -> tuple[Gradients, Logs]:
        """The objective's gradient, then what the adversary makes of it."""
        config = self.config
        indices = range(step * config.accumulation, (step + 1) * config.accumulation)
        batches = [self.objective.batch(self.model, self.corpora, config, index) for index in indices]
        gradients, logs = self._objective_gradient(batches, weight)
        if self.attacked is not None:
            with self._frozen(self.attacked.needs_original):
                self.attacked.draw(step, batches)
            gradients, found = self.attacked.add_to(gradients, step, batches, weight)
            logs |= found
        return gradients, logs

    def _objective_gradient(self, batches: list[TokenBatch], weight: float) -> tuple[Gradients, Logs]:
        objective = self.objective
        batches = parts_of(batches, objective.stacks, self.processes)
        masks = [forget_mask(batch, self.config) for batch in batches]
        shares = shares_of([objective.weight(batch, mask) for batch, mask in zip(batches, masks, strict=True)])
        logs: Logs = {"forget": 0.0}
        with ExitStack() as stack:
            for rule in self.rules:
                stack.enter_context(rule.watching(self.model.hf, self.trained))
            for batch, mask, share in self.processes.own(list(zip(batches, masks, shares, strict=True))):
                with self.model.sharing(self.prefix):
                    with self._frozen(objective.needs_original):  # before the student's pass: a swap spoils its graph
                        targets = objective.targets(self.model, batch)
                    loss, found = objective.loss(self.model, batch, mask, targets)
                    (weight * share * loss).backward()
                _add_logs(logs, {"forget": loss.item(), **found}, share)
        return self._taken(), self._summed_logs(logs, "forget")

    def _retain_gradient(self, retention: Retention, seed: int, step: int, weight: float) -> tuple[Gradients, Logs]:
        config, corpus = self.config, self.corpora.require("retain", self.objective.name)
        indices = range(step * config.accumulation, (step + 1) * config.accumulation)
        rows = [corpus.scheduled(config.batch_size, index, seed, "retain") for index in indices]
        batches = parts_of([corpus.batch(chosen, self.model.device) for chosen in rows], 1, self.processes)
        masks = [retain_mask(batch, config) for batch in batches]
        hidden = shares_of([float(mask.sum()) for mask in masks])
        predicted = shares_of([float(batch.content_mask[:, 1:].sum()) for batch in batches])
        logs: Logs = {"retain": 0.0}
        parts = list(zip(batches, masks, hidden, predicted, strict=True))
        for batch, mask, *shares in self.processes.own(parts):
            with self.model.sharing(self.prefix):
                with self._frozen(retention.needs_original):
                    before = retention.run(self.model, batch) if retention.needs_original else None
                after = retention.run(self.model, batch)
                loss, found = retention.loss(before, after, batch, mask, (shares[0], shares[1]))
                (weight * loss).backward()
            _add_logs(logs, {"retain": weight * loss.item(), **found}, 1.0)
        return self._taken(), self._summed_logs(logs, "retain")

    def _learn_trade_off(self, trade_off: TradeOff, retention: Retention, retain: Gradients, logs: Logs) -> None:
        """Move the factor after an update; `retain` is the retain gradient from before it."""
        logs["retain_factor"] = trade_off.factor
        if trade_off.config.kind == "dual":
            trade_off.follow_divergence(logs["retain_kl"])
            return
        # Judged at the new weights, at the config's own weights, on rows of another draw.
        step, seed, source = self.steps_taken, self.config.seed + VALIDATION, self.objective.source
        rows = self.objective.corpus(self.corpora).scheduled(self.config.batch_size, step, seed, source)
        forget, _ = self._objective_gradient([self.objective.rows(self.model, self.corpora, rows)], 1.0)
        held, _ = self._retain_gradient(retention, seed, step, 1.0)
        # Before the first update the retain gradient is rounding alone: its angle must not count like any other.
        size = min(1.0, logs["retain_grad_norm"] / max(logs["forget_grad_norm"], 1e-30))
        trade_off.follow_cosine(size * cosine_of(added(forget, held), retain))

    def _frozen(self, original: bool) -> AbstractContextManager[None]:
        """The original weights where they are needed; without gradients either way."""
        return self.reference.original() if original else torch.no_grad()

    def _taken(self) -> Gradients:
        """The gradients that backward passes left, of all processes, taken off the parameters."""
        found: Gradients = {}
        for name, parameter in self.trained.items():
            if parameter.grad is not None:
                found[name], parameter.grad = parameter.grad, None
        return summed(found, self.trained, self.processes)

    def _summed_logs(self, logs: Logs, loss: str) -> Logs:
        """The numbers of all processes, with a loss that every one of them then finds to be finite, or not."""
        logs = summed_logs(logs, self.processes)
        check_finite(logs[loss], self.steps_taken, self.objective.name)
        return logs


def _compared(forget: Gradients, retain: Gradients | None) -> Logs:
    logs = {"forget_grad_norm": norm_of(forget.values())}
    if retain is not None:
        logs |= {"retain_grad_norm": norm_of(retain.values()), "gradient_cosine": cosine_of(forget, retain)}
    return logs


def _check_reach(
    model: "HookedModel", objective: Objective, retention: Retention | None, config: UnlearnConfig
) -> None:
    """Refuse what needs logits of a model that has none, before anything is computed."""
    if not model.is_partial:
        return
    adversary = objective.adversary(config)
    needs = {
        "the objective": objective.needs_logits,
        "the retain terms (set kl_weight and nll_weight to 0)": retention is not None and retention.needs_logits,
        "the guard": config.guard is not None,
        'the adversary (relearns="activations" needs none, and is weaker)': adversary is not None
        and getattr(adversary, "relearns", "text") == "text",
    }
    asking = [what for what, needed in needs.items() if needed]
    if asking:
        raise ConfigError(
            f"objective {objective.name}: only the first {model.n_layers} blocks are loaded, and logits are needed by "
            f"{', '.join(asking)}; load the whole model or drop these"
        )


def _add_logs(logs: Logs, found: Logs, share: float) -> None:
    for name, value in found.items():
        logs[name] = logs.get(name, 0.0) + share * value


def _under(prefix: str, tensors: Mapping[str, Tensor]) -> dict[str, Tensor]:
    return {name.removeprefix(prefix): value for name, value in tensors.items() if name.startswith(prefix)}
