"""What the conformance tests share: every backend on every architecture and dtype, and how near is near enough."""

from dataclasses import dataclass
from functools import cache
from itertools import product

import torch
from conftest import ALL_ARCHITECTURES, TEXTS, make_hf, make_tokenizer
from explicit_forward import Change, explicit_forward
from torch import Tensor
from transformers import PreTrainedModel

from interp_unlearn import HookedModel, Site
from interp_unlearn.interventions import Edit
from interp_unlearn.models import TokenBatch, tokenize
from interp_unlearn.models.batches import PaddingSide

BACKENDS = ("torch", "transformer_lens", "nnsight")
FOREIGN = BACKENDS[1:]
DTYPES = (torch.float32, torch.bfloat16, torch.float16)


@cache
def eager_hf(architecture: str, dtype: torch.dtype = torch.float32) -> PreTrainedModel:
    """One model for tests that do not change it, with the attention that is the same for all backends."""
    hf = make_hf(architecture).to(dtype)
    hf.set_attn_implementation("eager")
    return hf


@cache
def shared_model(architecture: str, backend: str, dtype: torch.dtype = torch.float32) -> HookedModel:
    """A backend on that model, so that it is set up and checked once."""
    return HookedModel(eager_hf(architecture, dtype), make_tokenizer(), backend)


@cache
def batch_of(side: PaddingSide) -> TokenBatch:
    return tokenize(make_tokenizer(), TEXTS, padding_side=side)


@dataclass(frozen=True)
class Case:
    """One combination; `check` compares it with what is expected of it."""

    architecture: str
    dtype: torch.dtype
    backend: str
    side: PaddingSide

    def __str__(self) -> str:
        return f"{self.architecture}-{str(self.dtype).removeprefix('torch.')}-{self.backend}-{self.side}"

    @property
    def batch(self) -> TokenBatch:
        return batch_of(self.side)

    @property
    def model(self) -> HookedModel:
        return shared_model(self.architecture, self.backend, self.dtype)

    @property
    def tolerance(self) -> float:
        """The difference accepted, as a share of the RMS at a site; nnsight runs the very same modules."""
        if self.backend == "nnsight":
            return 0.0
        return 1e-5 if self.dtype == torch.float32 else 2e-2

    def check(self, sites: list[Site], edits: dict[Site, list[Edit]], changes: dict[Site, Change]) -> Tensor:
        """Run a pass, compare its reads and logits with what is expected, and return the logits.

        The torch backend is compared with the pass written out by hand, the others with the torch backend.

        Args:
            sites: what is read.
            edits: the edits as they are given to a model.
            changes: the same, by hand.
        """
        sites = [*sites, *([] if Site.logits in sites else [Site.logits])]
        trace = self.model.run(self.batch, sites, edits)
        if self.backend == "torch":
            expected = explicit_forward(self.model.hf, self.batch, changes)
        else:
            expected = shared_model(self.architecture, "torch", self.dtype).run(self.batch, sites, edits)
        for site in sites:
            assert trace[site].dtype == self.dtype
            if self.backend == "torch" and self.dtype != torch.float32 and any(site > edited for edited in edits):
                continue  # by hand an edit rounds elsewhere, and blocks this random make much of one rounding
            assert distance(expected[site], trace[site], self.batch.mask) <= self.tolerance, site
        return trace.logits


CASES = [
    Case(architecture, dtype, backend, side)
    for architecture, dtype, backend in product(ALL_ARCHITECTURES, DTYPES, BACKENDS)
    for side in (("left", "right") if dtype == torch.float32 else ("left",))
]
VISIBLE = 0.1
"""An effect on the logits, as a share of their RMS, next to which every tolerance here is small."""


def distance(expected: Tensor, found: Tensor, chosen: Tensor) -> float:
    """Largest difference over the tokens chosen, as a share of the RMS there; NaN if anything is not finite."""
    assert expected.shape == found.shape
    expected, found = expected[chosen].float(), found[chosen].float()
    if not (expected.isfinite().all() and found.isfinite().all()):
        return float("nan")
    return ((found - expected).abs().max() / expected.pow(2).mean().sqrt()).item()


def vector_for(activation: Tensor) -> Tensor:
    """A direction as wide as an activation, of no particular norm."""
    return torch.linspace(-1, 2, activation.shape[-1])
