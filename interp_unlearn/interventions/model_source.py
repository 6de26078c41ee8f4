"""Where a model comes from: so that of several that are compared, one is in memory at a time."""

import gc
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import torch

from interp_unlearn.interventions.hooked_model import HookedModel


@dataclass(frozen=True)
class Checkpoint:
    """A checkpoint and how it is to be loaded; calling it loads it.

    Attributes:
        path: a directory in Hugging Face layout, or a hub id.
        device: where its weights go.
        dtype: of its weights; None for what config.json states.
    """

    path: str | Path
    device: str = "cpu"
    dtype: torch.dtype | None = None

    def __call__(self) -> HookedModel:
        return HookedModel.from_pretrained(self.path, dtype=self.dtype, device=self.device)


ModelSource = HookedModel | Checkpoint | str | Path | Callable[[], HookedModel]
"""A model, where it is, or what loads it; only a model that is given itself stays in memory."""


def load_source(source: ModelSource) -> HookedModel:
    """The model; one that is given is not copied."""
    if isinstance(source, HookedModel):
        return source
    return HookedModel.from_pretrained(source) if isinstance(source, str | Path) else source()


def release(source: ModelSource) -> None:
    """Free what `load_source` has loaded, once no name holds it any more; a model that was given is left alone."""
    if not isinstance(source, HookedModel):  # modules and their hooks refer to each other
        gc.collect()
        if torch.cuda.is_available():
            torch.cuda.empty_cache()


def weights_of(source: ModelSource) -> HookedModel | str | Path | None:
    """The model or its checkpoint, whose tensors can be read one at a time; None for any other function."""
    if isinstance(source, HookedModel | str | Path):
        return source
    return source.path if isinstance(source, Checkpoint) else None
