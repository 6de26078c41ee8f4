"""A limit on what retained text may cost: training stops there and says so."""

from typing import TYPE_CHECKING

import torch

from interp_unlearn.evaluation import retain_kl
from interp_unlearn.models import TokenBatch
from interp_unlearn.unlearning.config import GuardConfig
from interp_unlearn.unlearning.corpora import TokenCorpus
from interp_unlearn.unlearning.reference import Reference

if TYPE_CHECKING:
    from interp_unlearn.interventions import HookedModel


class Guard:
    """Watches one run.

    Args:
        config: the limit.
        retain: where the rows come from.
    """

    def __init__(self, config: GuardConfig, retain: TokenCorpus) -> None:
        self.config = config
        self._rows = retain.chosen(range(max(0, len(retain) - config.rows), len(retain)))

    def objection(self, step: int, model: "HookedModel", reference: Reference, last: bool = False) -> str | None:
        """Why training should stop after `step` updates; None where it may go on, or nothing was checked.

        Args:
            step: updates made.
            model: as it is now.
            reference: the original weights.
            last: whether it ends here anyway, and is checked in any case.
        """
        if step == 0 or (step % self.config.every and not last):
            return None
        model.mark_changed()
        batch = self._rows.batch(range(len(self._rows)), model.device)

        def original(part: TokenBatch) -> torch.Tensor:
            with reference.original():
                logits = model.run(part, logits=True).logits
            assert logits is not None
            return logits

        with torch.no_grad():
            found = retain_kl(original, model, batch)
        if found <= self.config.max_kl:
            return None
        verb = "ended" if last else "stopped"
        return (
            f"{verb} after {step} steps: KL on {len(self._rows)} retain rows is {found:.3g} nats per token, and "
            f"the guard allows {self.config.max_kl:.3g}; lower the learning rate or raise the retain weights"
        )
