"""Writing another model's behaviour into the weights: an edited reference's, or a twin's that never learned it."""

import logging
import math
from collections.abc import Callable, Mapping, Sequence
from contextlib import ExitStack
from typing import TYPE_CHECKING, Any

import torch
from jaxtyping import Bool, Float
from torch import Tensor

from interp_unlearn.errors import ConfigError
from interp_unlearn.evaluation.generations import sample_rows
from interp_unlearn.models import TokenBatch
from interp_unlearn.objectives import kl
from interp_unlearn.unlearning.config import UnlearnConfig
from interp_unlearn.unlearning.corpora import Corpora, TokenCorpus, scheduled_rows
from interp_unlearn.unlearning.objective import Logs, Objective

if TYPE_CHECKING:
    from interp_unlearn.interventions import Edit, HookedModel
    from interp_unlearn.sites import Site

logger = logging.getLogger(__name__)


class Distillation(Objective):
    """`KL(teacher || model)` in nats per token on forget texts and on contexts sampled from the current student.

    With edits, the teacher is the frozen original under them, and the retain terms hold the rest: the distilled
    intervention, our reading. With no edits at all, the model as it is at the start is its own teacher, and what is
    left to train for is the adversary: hardening, ours. With a model as teacher, that model is followed on the retain
    texts as well and there are no other retain terms: with a twin that never learned the target this is the oracle, an
    upper bound that needs what nobody has. Source of the loss: Hinton et al. 2015, arXiv 1503.02531, at temperature 1.

    Args:
        teacher: edits by site, or a model with the same tokenizer.
        clean_share: share of clean generations of the teacher, between 0 and 1; called on the edited original, or on
            the teacher. None skips the check, with a warning.
        least_clean: a teacher below it is refused: a student does not become better than its teacher.
        contexts: share of a batch's rows that are contexts sampled from the student.
        refresh: updates between samplings.
        n_contexts: contexts a sampling draws.
        max_new_tokens: tokens sampled after a prompt.
        layers: blocks at whose output retained activations are compared; for edits alone.
        meta: whether an inner adversary is trained against by default.
        name: for tables.
    """

    def __init__(
        self,
        teacher: "Mapping[Site, Edit | Sequence[Edit]] | HookedModel",
        *,
        clean_share: "Callable[[HookedModel], float] | None" = None,
        least_clean: float = 0.90,
        contexts: float = 0.5,
        refresh: int = 25,
        n_contexts: int = 64,
        max_new_tokens: int = 24,
        layers: Sequence[int] = (),
        meta: bool = False,
        name: str = "distillation",
    ) -> None:
        edits = teacher if isinstance(teacher, Mapping) else None
        super().__init__(
            name,
            layers=tuple(layers),
            retains=edits is not None,
            meta=meta,
            needs_original=edits is not None,
            needs_logits=True,
        )
        if not 0 <= contexts <= 1:
            raise ConfigError(f"contexts is a share of the rows, between 0 and 1, got {contexts}")
        if min(refresh, n_contexts, max_new_tokens) < 1:
            raise ConfigError("refresh, n_contexts and max_new_tokens must be at least 1")
        self.edits = edits
        self.teacher = None if isinstance(teacher, Mapping) else teacher
        self.clean_share = clean_share
        self.least_clean = least_clean
        self.contexts = contexts
        self.refresh = refresh
        self.n_contexts = n_contexts
        self.max_new_tokens = max_new_tokens
        self._sampled: TokenCorpus | None = None
        self._draw = -1

    def prepare(self, model: "HookedModel", corpora: Corpora, config: UnlearnConfig) -> None:
        """Check the teacher.

        Raises:
            ConfigError: the teacher's clean share is too low, its tokenizer is another, or there are no prompts.
        """
        super().prepare(model, corpora, config)
        self._sampled = None
        if self.contexts > 0 and not corpora.prompts:
            raise ConfigError(
                f"objective {self.name} samples contexts and there are no prompts; "
                "give UnlearnData(prompts=...), forget_completions, or contexts=0"
            )
        if self.teacher is not None and self.teacher.tokenizer.get_vocab() != model.tokenizer.get_vocab():
            raise ConfigError(f"objective {self.name}: the teacher has another tokenizer; their logits do not compare")
        if self.clean_share is None:
            logger.warning("objective %s: no clean_share was given, so the teacher goes unchecked", self.name)
            return
        with ExitStack() as stack, torch.no_grad():
            if self.edits is not None:
                stack.enter_context(model.edited(self.edits))
            share = self.clean_share(model if self.teacher is None else self.teacher)
        if not share >= self.least_clean:
            raise ConfigError(
                f"objective {self.name}: the teacher's own clean share is {share:.2f}, and at least "
                f"{self.least_clean:.2f} is needed; strengthen its edits before distilling them"
            )

    def batch(self, model: "HookedModel", corpora: Corpora, config: UnlearnConfig, step: int) -> TokenBatch:
        """Forget rows, contexts in the wanted share, and for a model as teacher as many retain rows again.

        Where the batch's share of contexts is no whole number, batches have one more or less in turn.
        """
        forget = corpora.forget
        # How many there were before and after this batch: small batches have one now and then.
        before, after = (math.floor(self.contexts * config.batch_size * n + 1e-9) for n in (step, step + 1))
        rows = forget.scheduled(config.batch_size, step, config.seed, "forget")
        parts = [forget.chosen(rows[after - before :])]
        if after > before:
            draw = step // config.accumulation // self.refresh
            if self._sampled is None or draw != self._draw:
                self._sampled, self._draw = self._sample(model, corpora, config, draw), draw
            places = range(before, after)
            chosen = [scheduled_rows(len(self._sampled), 1, place, config.seed, "contexts")[0] for place in places]
            parts.append(self._sampled.chosen(chosen))
        if not self.retains and corpora.retain is not None:
            chosen = scheduled_rows(len(corpora.retain), config.batch_size, step, config.seed, "retain")
            parts.append(corpora.retain.chosen(chosen))
        joined = parts[0]
        for part in parts[1:]:
            joined = joined.joined(part)
        return joined.batch(range(len(joined)), model.device)

    def targets(self, model: "HookedModel", batch: TokenBatch) -> Any:
        """The teacher's logits."""
        if self.teacher is not None:
            return self.teacher.run(batch.to(self.teacher.device), logits=True).logits
        return model.run(batch, edits=self.edits, logits=True).logits

    def loss(
        self, model: "HookedModel", batch: TokenBatch, mask: Bool[Tensor, "batch pos"], targets: Any
    ) -> tuple[Float[Tensor, ""], Logs]:
        """The mean over the masked tokens."""
        logits = model.run(batch, logits=True).logits
        assert logits is not None
        return kl(targets.to(logits.device), logits, mask), {}

    def state(self) -> dict[str, Any]:
        """The contexts sampled last."""
        sampled = self._sampled
        if sampled is None:
            return {}
        return {"rows": sampled.rows, "starts": sampled.starts, "bos": sampled.bos_token_id, "draw": self._draw}

    def load_state(self, state: dict[str, Any]) -> None:
        """Go on with the contexts sampled last."""
        if state:
            rows, self._draw = tuple(tuple(row) for row in state["rows"]), state["draw"]
            self._sampled = TokenCorpus(rows, tuple(state["starts"]), state["bos"], has_completions=True)

    def _sample(self, model: "HookedModel", corpora: Corpora, config: UnlearnConfig, draw: int) -> TokenCorpus:
        chosen = scheduled_rows(len(corpora.prompts), self.n_contexts, draw, config.seed, "prompts")
        prompts = [corpora.prompts[i] for i in chosen]
        seed = config.seed * 1_000_003 + draw
        sampled = sample_rows(model, prompts, self.max_new_tokens, top_p=1.0, seed=seed, progress=False)
        rows = tuple((*prompt, *new) for prompt, new in sampled)
        starts = tuple(len(prompt) for prompt, _ in sampled)
        return TokenCorpus(rows, starts, corpora.forget.bos_token_id, has_completions=True)
