"""Forget texts are read as the original reads the same texts about a subject it does not know."""

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any, Literal, get_args

import torch
from jaxtyping import Bool, Float
from torch import Tensor

from interp_unlearn.errors import ConfigError
from interp_unlearn.models import TokenBatch
from interp_unlearn.objectives import counterfactual_forget, kl, relative_mse
from interp_unlearn.sites import Site
from interp_unlearn.unlearning.config import UnlearnConfig
from interp_unlearn.unlearning.corpora import Corpora
from interp_unlearn.unlearning.objective import Logs, Objective, as_layers

if TYPE_CHECKING:
    from interp_unlearn.interventions import HookedModel

By = Literal["cosine", "relative_mse", "predictions"]


class Counterfactual(Objective):
    """What the model computes on a forget row is led to what the original computes on the row's counterpart.

    The counterpart is the same text about an unknown subject, token by token of equal length, so that the target is a
    well-formed state of the model itself: the facts are unknown, not corrupted. By "cosine" at the output of blocks it
    is our reading (a') of Atil et al. 2026, arXiv 2605.26454 (abstract only; not the authors' code); by "relative_mse"
    the norm is led there as well; by "predictions" it is `KL(p0(. | x') || p(. | x))` in nats per token, which trains
    toward what the model would say of somebody it never heard of. Several counterparts of a fact (rows given again with
    another unknown name) average the accidents of each name away.

    Caveat: after an unknown name a model may still prefer some answers; whatever it says there counts as forgotten.

    Args:
        layers: blocks at whose output activations are led there, and retained; of "predictions" retained alone.
        by: what is compared.
        meta: train against the inner adversary unless the config brings its own.
        name: for tables.
    """

    stacks = 2

    def __init__(
        self, layers: int | Sequence[int] = (), *, by: By = "cosine", meta: bool = False, name: str = "counterfactual"
    ) -> None:
        if by not in get_args(By):
            raise ConfigError(f"by must be one of {', '.join(get_args(By))}, got {by!r}")
        chosen = () if by == "predictions" and layers == () else as_layers(layers)
        super().__init__(name, layers=chosen, meta=meta, needs_original=True, needs_logits=by == "predictions")
        self.by: By = by
        self._sites = [Site(layer, "resid_post") for layer in chosen]

    def prepare(self, model: "HookedModel", corpora: Corpora, config: UnlearnConfig) -> None:
        """Check that every row has a counterpart of its length.

        Raises:
            ConfigError: there are no counterparts, or one is longer or shorter than its row.
        """
        super().prepare(model, corpora, config)
        others = corpora.require("counterparts", self.name)
        for index, (row, other) in enumerate(zip(corpora.forget.rows, others.rows, strict=True)):
            if len(row) != len(other):
                raise ConfigError(
                    f"objective {self.name}: forget row {index} has {len(row)} tokens, its counterpart {len(other)}; "
                    "give each row the same text about an unknown subject whose name has as many tokens"
                )

    def rows(self, model: "HookedModel", corpora: Corpora, rows: Sequence[int]) -> TokenBatch:
        """The forget rows, then their counterparts in the same order."""
        return corpora.pairs(rows, self.name, model.device)

    def targets(self, model: "HookedModel", batch: TokenBatch) -> Any:
        """The original's activations, or logits, on the counterparts."""
        others = batch.select(slice(len(batch) // 2, None))
        if self.by == "predictions":
            return model.run(others, logits=True).logits
        return model.run(others, reads=self._sites)

    def loss(
        self, model: "HookedModel", batch: TokenBatch, mask: Bool[Tensor, "batch pos"], targets: Any
    ) -> tuple[Float[Tensor, ""], Logs]:
        """The mean over layers and masked tokens; the mask's first half is that of the forget rows."""
        half = len(batch) // 2
        forget, mask = batch.select(slice(0, half)), mask[:half]
        if self.by == "predictions":
            logits = model.run(forget, logits=True).logits
            assert logits is not None
            return kl(targets.to(logits.device), logits, mask), {}
        trace = model.run(forget, reads=self._sites)
        compare = counterfactual_forget if self.by == "cosine" else relative_mse
        return torch.stack([compare(trace[site], targets[site], mask) for site in self._sites]).mean(), {}
