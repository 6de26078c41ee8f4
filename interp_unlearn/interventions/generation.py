"""Free generation: always Hugging Face's `generate` under the torch hooks, whatever the backend."""

from collections.abc import Generator, Sequence
from contextlib import contextmanager
from dataclasses import replace
from typing import TYPE_CHECKING

import torch
from jaxtyping import Int
from torch import Tensor

from interp_unlearn.errors import ConfigError, ScoreError
from interp_unlearn.interventions.contexts import EditContext
from interp_unlearn.models.batches import TokenBatch

if TYPE_CHECKING:
    from transformers import PreTrainedModel


class GenerationProgress:
    """What the passes of one cached generation are about: the prompt first, then a token a pass.

    Args:
        prompts: the prompts as the user gave them, padded on either side.
        stop_ids: ids that end a row, once they were fed back to the model.
        n_continuations: continuations of each prompt, which stand in consecutive rows.
    """

    def __init__(self, prompts: TokenBatch, stop_ids: Sequence[int], n_continuations: int) -> None:
        device = prompts.device
        left = prompts.padded("left")
        self._columns = prompts.order("left").repeat_interleave(n_continuations, dim=0)
        self._lengths = left.lengths.repeat_interleave(n_continuations)
        self._rows = torch.arange(len(prompts), device=device).repeat_interleave(n_continuations)
        completion = torch.zeros_like(left.mask) if left.completion_mask is None else left.completion_mask
        self._completion = completion.repeat_interleave(n_continuations, dim=0)
        self._stop_ids = torch.tensor(stop_ids, device=device)
        self._finished: Tensor | None = None

    def place(self, context: EditContext, input_ids: Int[Tensor, "batch pos"]) -> EditContext:
        """The context of the next pass, completed by what only the whole generation knows."""
        known = replace(context, rows=self._rows, lengths=self._lengths)
        if self._finished is None:  # the prompt itself, in which a stop token ends nothing
            self._finished = torch.zeros_like(self._rows, dtype=torch.bool)
            return replace(known, columns=self._columns, completion=self._completion)
        self._finished = self._finished | torch.isin(input_ids[:, -1], self._stop_ids)
        going = ~self._finished[:, None]
        generated = torch.ones_like(context.mask)
        return replace(known, mask=context.mask & going, content=context.content & going, completion=generated)


def generate_tokens(
    hf: "PreTrainedModel",
    batch: TokenBatch,
    max_new_tokens: int,
    *,
    do_sample: bool,
    temperature: float,
    top_p: float,
    seed: int | None,
    stop_ids: list[int],
    pad_id: int,
    n_continuations: int,
) -> Int[Tensor, "batch*n_continuations new"]:
    """Continue each row; rows that have finished are filled with `pad_id`.

    Only the settings given here count: what the checkpoint's generation_config.json says (top-k, penalties) would
    otherwise slip into the samples.

    Raises:
        ConfigError: a setting is out of range, or sampling was asked for without a seed.
        ScoreError: the logits are not numbers.
    """
    from transformers import GenerationConfig, LogitsProcessorList

    if max_new_tokens < 1:
        raise ConfigError(f"max_new_tokens must be at least 1, got {max_new_tokens}")
    if n_continuations < 1 or (n_continuations > 1 and not do_sample):
        raise ConfigError(
            f"n_continuations: expected 1, or more with do_sample=True, got {n_continuations}; greedy ones are alike"
        )
    if do_sample and (seed is None or temperature <= 0 or not 0 < top_p <= 1):
        raise ConfigError(
            f"sampling needs a seed, temperature > 0 and 0 < top_p <= 1, got {seed=}, {temperature=}, {top_p=}"
        )
    sampling = {"temperature": temperature, "top_p": top_p, "top_k": 0} if do_sample else {}
    config = GenerationConfig(
        max_new_tokens=max_new_tokens,
        do_sample=do_sample,
        num_beams=1,
        num_return_sequences=n_continuations,
        use_cache=True,
        eos_token_id=stop_ids or None,
        pad_token_id=pad_id,
        **sampling,
    )
    batch = batch.padded("left")
    with torch.no_grad(), _default_generation_config(hf), _seeded(seed, batch.device):
        tokens = hf.generate(  # pyright: ignore[reportCallIssue]
            input_ids=batch.input_ids,
            attention_mask=batch.attention_mask,
            generation_config=config,
            logits_processor=LogitsProcessorList([_check_logits]),
        )
    return tokens[:, batch.input_ids.shape[1] :]


def _check_logits(input_ids: Tensor, logits: Tensor) -> Tensor:
    """Refuse logits from which nothing can be drawn; -inf, which rules a token out, is none of them.

    Raises:
        ScoreError: there are such.
    """
    broken = logits.isnan().any(-1) | (logits == float("inf")).any(-1)
    if bool(broken.any()):
        raise ScoreError(
            f"the logits of row {int(broken.nonzero()[0])} hold infinite values or NaN after {input_ids.shape[1]} "
            "tokens; check the model's weights, or use a wider dtype"
        )
    return logits


@contextmanager
def _default_generation_config(hf: "PreTrainedModel") -> Generator[None]:
    from transformers import GenerationConfig

    original = hf.generation_config
    hf.generation_config = GenerationConfig()
    try:
        yield
    finally:
        hf.generation_config = original


@contextmanager
def _seeded(seed: int | None, device: torch.device) -> Generator[None]:
    """Seed this block's random numbers and leave the caller's generators as they were."""
    if seed is None:
        yield
        return
    with torch.random.fork_rng(devices=[device] if device.type == "cuda" else []):
        torch.manual_seed(seed)
        yield
