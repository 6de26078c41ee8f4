"""What a backend is: something that can run one forward pass with reads and edits on a Hugging Face model."""

from collections.abc import Callable, Collection
from typing import TYPE_CHECKING, Protocol

from torch import nn

from interp_unlearn.interventions.forward_pass import ForwardPass
from interp_unlearn.models.architecture import Architecture
from interp_unlearn.models.batches import TokenBatch
from interp_unlearn.sites import Site

if TYPE_CHECKING:
    from transformers import PreTrainedModel, PreTrainedTokenizerBase


class Backend(Protocol):
    """One way to reach inside a model. It shares the model's parameters and never changes them."""

    def check_site(self, site: Site) -> None:
        """Raise SiteError if this backend cannot read and edit at a site of this model."""
        ...

    def run(self, batch: TokenBatch, forward_pass: ForwardPass) -> None:
        """Run one pass in the ambient grad mode, visiting `forward_pass.sites` and ending after its `stop`.

        Args:
            batch: ids, mask and positions, on the model's device.
            forward_pass: takes each activation and returns what to go on with.
        """
        ...

    def without_gradient(self) -> Collection[nn.Parameter]:
        """Parameters of the Hugging Face model that get no gradient through this backend."""
        ...

    def mark_changed(self) -> None:
        """Called after weights were changed in place; raise BackendError if they cannot be followed."""
        ...


BackendFactory = Callable[["PreTrainedModel", "PreTrainedTokenizerBase", Architecture], Backend]
