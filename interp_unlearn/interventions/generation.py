"""Free generation: always Hugging Face's `generate` under the torch hooks, whatever the backend."""

from collections.abc import Generator
from contextlib import contextmanager
from typing import TYPE_CHECKING

import torch
from jaxtyping import Int
from torch import Tensor

from interp_unlearn.errors import ConfigError
from interp_unlearn.models.batches import TokenBatch

if TYPE_CHECKING:
    from transformers import PreTrainedModel


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
) -> Int[Tensor, "batch new"]:
    """Continue each row; rows that have finished are filled with `pad_id`.

    Only the settings given here count: what the checkpoint's generation_config.json says (top-k, penalties) would
    otherwise slip into the samples.

    Raises:
        ConfigError: a setting is out of range, or sampling was asked for without a seed.
    """
    from transformers import GenerationConfig

    if max_new_tokens < 1:
        raise ConfigError(f"max_new_tokens must be at least 1, got {max_new_tokens}")
    if do_sample and (seed is None or temperature <= 0 or not 0 < top_p <= 1):
        raise ConfigError(
            f"sampling needs a seed, temperature > 0 and 0 < top_p <= 1, got {seed=}, {temperature=}, {top_p=}"
        )
    sampling = {"temperature": temperature, "top_p": top_p, "top_k": 0} if do_sample else {}
    config = GenerationConfig(
        max_new_tokens=max_new_tokens,
        do_sample=do_sample,
        num_beams=1,
        use_cache=True,
        eos_token_id=stop_ids or None,
        pad_token_id=pad_id,
        **sampling,
    )
    batch = batch.padded("left")
    with torch.no_grad(), _default_generation_config(hf), _seeded(seed, batch.device):
        tokens = hf.generate(  # pyright: ignore[reportCallIssue]
            input_ids=batch.input_ids, attention_mask=batch.attention_mask, generation_config=config
        )
    return tokens[:, batch.input_ids.shape[1] :]


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
