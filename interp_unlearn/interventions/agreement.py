"""A backend is compared with the torch backend before its numbers are believed.

On the first use of a site, a read there and an edit there are made through both, and again after weights have changed.
Attention is switched to eager meanwhile, because attention kernels alone differ by more than backends do. Of the torch
backend, the reference, it is checked that what its sites call the parts of a block add up to the block.
"""

from collections.abc import Generator, Sequence
from contextlib import contextmanager
from typing import TYPE_CHECKING

import torch
from torch import Tensor

from interp_unlearn.errors import BackendError
from interp_unlearn.interventions.backends.protocol import Backend
from interp_unlearn.interventions.backends.torch_hooks import TorchBackend
from interp_unlearn.interventions.contexts import context_of_batch
from interp_unlearn.interventions.edits import Edit, EditContext
from interp_unlearn.interventions.forward_pass import ForwardPass
from interp_unlearn.models.architecture import Architecture
from interp_unlearn.models.batches import TokenBatch
from interp_unlearn.sites import Site

if TYPE_CHECKING:
    from transformers import PreTrainedModel

TOLERANCE = 1e-4
"""Largest difference accepted in float32, relative to the largest absolute value of the reference."""
HALF_TOLERANCE = 5e-2
"""The same in half precision, where one rounding in another order already shows."""


class _Disturb(Edit):
    """Something no site could undo by accident: scales, and shifts each coordinate differently."""

    def transform(self, activation: Tensor, context: EditContext) -> Tensor:
        size = activation.detach().abs().mean()
        shift = torch.linspace(-1, 1, activation.shape[-1], device=activation.device).to(activation.dtype)
        return 0.5 * activation + size * shift


class AgreementCheck:
    """Remembers at which sites a backend has been found to agree with the torch backend."""

    def __init__(self, backend: Backend, hf: "PreTrainedModel", architecture: Architecture) -> None:
        self._backend = backend
        self._hf = hf
        self._reference = TorchBackend(hf, architecture)
        self._agreed: set[Site] = set()
        self._sums_checked = False

    def forget(self) -> None:
        """Check again from now on: the weights have changed."""
        self._agreed.clear()

    def ensure(self, sites: Sequence[Site]) -> None:
        """Check the sites that were not checked before.

        Raises:
            BackendError: a read or the effect of an edit differs from the torch backend.
        """
        new = [site for site in sites if site not in self._agreed]
        if not new:
            return
        with torch.no_grad(), _eager_attention(self._hf), _evaluation_mode(self._hf):
            batch = _two_prompts(self._hf).to(self._reference.architecture.device)
            if not self._sums_checked and any(site.component in ("attn_out", "resid_mid", "mlp_out") for site in new):
                self._check_block_sums(batch)
            if not isinstance(self._backend, TorchBackend):
                self._compare(batch, new, None)
                for site in new:
                    self._compare(batch, [site], site)
        self._agreed.update(new)

    def _check_block_sums(self, batch: TokenBatch) -> None:
        """Each block must add attn_out and mlp_out, and nothing else, to the stream.

        This is what the names promise, and it guards the reference itself: on an architecture that scales what it adds
        (Granite) or adds it inside the attention module (BLOOM), the hooks would read something else.
        """
        layers = range(self._reference.architecture.n_layers)
        parts = ("resid_pre", "attn_out", "mlp_out", "resid_post")
        reads = [Site(layer, part) for layer in layers for part in parts]
        forward_pass = ForwardPass(context_of_batch(batch), reads, stop=reads[-1])
        self._reference.run(batch, forward_pass)
        for layer in layers:
            before, attention, mlp, after = (forward_pass.values[Site(layer, part)] for part in parts)
            difference = _difference(after, before + attention + mlp, batch.mask)
            if not difference <= _tolerance(after):
                raise BackendError(
                    f"{type(self._hf).__name__} does not add attn_out and mlp_out to the stream as they are (block "
                    f"{layer} is off by {difference:.1e}); use resid_pre and resid_post on this architecture"
                )
        self._sums_checked = True

    def _compare(self, batch: TokenBatch, reads: Sequence[Site], edited: Site | None) -> None:
        """Read some sites and the logits on both backends, with an edit at one site or none."""
        edits = {} if edited is None else {edited: (_Disturb(),)}
        passes: list[ForwardPass] = []
        for backend in (self._reference, self._backend):
            # A whole pass: an edit may read back right and yet reach only one branch of what follows.
            forward_pass = ForwardPass(context_of_batch(batch), (*reads, Site.logits), edits, stop=None)
            backend.run(batch, forward_pass)
            passes.append(forward_pass)
        expected, found = (forward_pass.values for forward_pass in passes)
        for site in (*reads, Site.logits):
            difference = _difference(expected[site], found.get(site), batch.mask)
            tolerance = _tolerance(expected[site])
            if not difference <= tolerance:  # also catches NaN
                what = "" if edited is None else f" after an edit at {edited}"
                raise BackendError(
                    f"{type(self._backend).__name__} disagrees with the torch backend at {site}{what}: relative "
                    f"difference {difference:.1e}, tolerance {tolerance:.0e}; use backend 'torch'"
                )


def _difference(expected: Tensor, found: Tensor | None, mask: Tensor) -> float:
    """Largest difference over real tokens, relative to the largest value there; infinite if the shapes differ."""
    if found is None or found.shape != expected.shape:
        return float("inf")
    mask, found = mask.to(expected.device), found.to(expected.device)
    expected, found = expected[mask].float(), found[mask].float()
    return ((found - expected).abs().max() / expected.abs().max().clamp(min=1e-30)).item()


def _tolerance(reference: Tensor) -> float:
    return TOLERANCE if reference.dtype in (torch.float32, torch.float64) else HALF_TOLERANCE


def _two_prompts(hf: "PreTrainedModel") -> TokenBatch:
    """Two rows of ids spread over the vocabulary, the shorter one padded on the left, where most goes wrong."""
    vocabulary = hf.config.get_text_config().vocab_size
    ids = [(7919 * i + 5) % vocabulary for i in range(8)]
    return TokenBatch.from_rows([ids, ids[3:]], padding_side="left")


@contextmanager
def _eager_attention(hf: "PreTrainedModel") -> Generator[None]:
    original = hf.config._attn_implementation  # pyright: ignore[reportPrivateUsage]
    if original is None or original == "eager":
        yield
        return
    hf.set_attn_implementation("eager")
    try:
        yield
    finally:
        hf.set_attn_implementation(original)


@contextmanager
def _evaluation_mode(hf: "PreTrainedModel") -> Generator[None]:
    """Dropout off; TransformerLens's mirror follows."""
    training = [module for module in hf.modules() if module.training]
    hf.eval()
    try:
        yield
    finally:
        for module in training:  # one by one: a model may be in training with parts of it frozen in evaluation
            module.training = True
