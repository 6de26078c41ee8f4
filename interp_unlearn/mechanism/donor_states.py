"""What a model computes on the texts of activation patching, kept so that the model itself can be let go."""

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor

from interp_unlearn.errors import ConfigError
from interp_unlearn.interventions import HookedModel
from interp_unlearn.interventions.buckets import TokenRow, length_buckets
from interp_unlearn.mechanism.outcome import Resampling
from interp_unlearn.mechanism.patch_texts import PatchTexts
from interp_unlearn.models import TokenBatch
from interp_unlearn.objectives import sequence_log_probability
from interp_unlearn.sites import Site

Score = Callable[[Float[Tensor, "batch pos vocab"], TokenBatch, Sequence[int]], Float[Tensor, " batch"]]
"""From logits, the batch (its completions are the answers) and the texts' numbers to one value a text."""


def answer_log_probability(
    logits: Float[Tensor, "batch pos vocab"], batch: TokenBatch, texts: Sequence[int]
) -> Float[Tensor, " batch"]:
    """Log-probability of each answer after its prompt, summed over its tokens, in nats."""
    assert batch.completion_mask is not None
    return sequence_log_probability(logits, batch.input_ids, batch.completion_mask)


@dataclass(frozen=True)
class PatchConfig:
    """How patching is done.

    Attributes:
        layers: blocks at whose output states are put in; None for all.
        score: of each text.
        batch_size: texts in a pass.
        resampling: the bootstrap over texts or groups.
    """

    layers: tuple[int, ...] | None = None
    score: Score = answer_log_probability
    batch_size: int = 64
    resampling: Resampling = field(default_factory=Resampling)

    def layers_of(self, model: HookedModel) -> tuple[int, ...]:
        """The layers, of this model.

        Raises:
            ConfigError: there are none, or one is out of range.
        """
        layers = tuple(range(model.n_layers)) if self.layers is None else self.layers
        if not layers or not all(0 <= layer < model.n_layers for layer in layers):
            raise ConfigError(f"layers {list(layers)}: expected some of 0 to {model.n_layers - 1}")
        return layers


@dataclass(frozen=True, eq=False)
class DonorStates:
    """States and scores of one model, on the CPU.

    Attributes:
        rows: the token ids of the texts.
        batches: for each pass the texts in it and, by layer, the stream after that block.
        scores: of each text.
    """

    rows: Sequence[TokenRow]
    batches: Sequence[tuple[Sequence[int], Mapping[int, Float[Tensor, "batch pos d_model"]]]]
    scores: Float[np.ndarray, " text"]

    def check(
        self, name: str, rows: Sequence[TokenRow], passes: Sequence[Sequence[int]], layers: Sequence[int]
    ) -> None:
        """Refuse states of other tokens, or in other places than a recipient's passes have them.

        Raises:
            ConfigError: texts, tokens, batches or layers are others.
        """
        if list(self.rows) != list(rows):
            raise ConfigError(
                f"the {name}'s states are of other texts or tokens; patching needs models of one tokenizer"
            )
        if [list(chosen) for chosen, _ in self.batches] != [list(chosen) for chosen in passes]:
            raise ConfigError(f"the {name}'s states were collected in other batches; use the same batch_size")
        missing = [layer for layer in layers if layer not in self.batches[0][1]]
        if missing:
            raise ConfigError(f"the {name}'s states lack layers {missing}; collect them with the same config")


@torch.no_grad()
def collect_states(model: HookedModel, texts: PatchTexts, config: PatchConfig | None = None) -> DonorStates:
    """Keep a model's states on the texts, and its scores; the model can then be let go.

    Memory: texts x their tokens x layers x d_model numbers of the model's dtype.

    Raises:
        ConfigError: a layer is out of range, a mask does not fit its prompt, or a score is not finite.
    """
    config = config or PatchConfig()
    rows, _ = texts.rows(model.tokenizer)
    sites = {layer: Site(layer, "resid_post") for layer in config.layers_of(model)}
    scores = np.full(len(rows), np.nan)
    batches: list[tuple[Sequence[int], Mapping[int, Tensor]]] = []
    for chosen, batch in patch_batches(model, texts, config):
        trace = model.run(batch, reads=list(sites.values()), logits=True)
        scores[chosen] = scores_of(trace.logits, batch, chosen, config)
        batches.append((chosen, {layer: trace[site].cpu() for layer, site in sites.items()}))
    return DonorStates(rows, batches, scores)


def patch_batches(model: HookedModel, texts: PatchTexts, config: PatchConfig) -> Iterator[tuple[list[int], TokenBatch]]:
    """The texts in passes, the same for every model with the same tokenizer."""
    rows, starts = texts.rows(model.tokenizer)
    return length_buckets(model, rows, config.batch_size, completion_starts=starts)


def scores_of(
    logits: Tensor | None, batch: TokenBatch, chosen: Sequence[int], config: PatchConfig
) -> Float[np.ndarray, " batch"]:
    """The scores of a pass.

    Raises:
        ConfigError: there is not a finite number for each text.
    """
    assert logits is not None
    scores = config.score(logits, batch, chosen)
    if scores.shape != (len(chosen),) or not bool(torch.isfinite(scores).all()):
        raise ConfigError(f"score: expected a finite number for each of {len(chosen)} texts, got {scores}")
    return scores.double().cpu().numpy()
