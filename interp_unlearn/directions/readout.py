"""What a model makes of a stream after its last block: final norm, head, and a cap on the logits where there is one."""

from typing import TYPE_CHECKING, Any

import torch
from jaxtyping import Float
from torch import Tensor

from interp_unlearn.activations import ActivationStore
from interp_unlearn.errors import CheckpointError, ConfigError
from interp_unlearn.models import TokenBatch
from interp_unlearn.sites import Site

if TYPE_CHECKING:
    from interp_unlearn.interventions import HookedModel

IN_STREAM = ("embed", "resid_pre", "resid_mid", "resid_post")
"""Components that are the residual stream itself, which can be read out."""
_TOLERANCE = 1e-3
_HALF_TOLERANCE = 5e-2


class Readout:
    """Logits from a stream, as the model's own end computes them; compared once with the model before it is believed.

    Args:
        model: whose final norm and head are used.

    Attributes:
        device: of the logits.

    Raises:
        CheckpointError: the model has no head, or does something to its logits that is not known here.
    """

    def __init__(self, model: "HookedModel") -> None:
        head = model.architecture.unembed
        if head is None:
            raise CheckpointError(f"{model.name or 'the model'} has no head that turns the stream into logits")
        self._norm, self._head = model.architecture.final_norm, head
        weight = head.get_parameter("weight")
        self.device, self._dtype = weight.device, weight.dtype
        config: Any = model.hf.config.get_text_config()
        self._cap: float | None = getattr(config, "final_logit_softcapping", None)
        self._check(model)

    def __call__(self, stream: Float[Tensor, "*n d_model"]) -> Float[Tensor, "*n vocab"]:
        """Logits in float32; gradients reach the stream."""
        stream = stream.to(self._dtype)
        if self._norm is not None:
            stream = self._norm(stream.to(self._norm.get_parameter("weight").device))
        logits: Tensor = self._head(stream.to(self.device)).float()
        return logits if self._cap is None else self._cap * (logits / self._cap).tanh()

    @torch.no_grad()
    def _check(self, model: "HookedModel") -> None:
        last = Site(model.n_layers - 1, "resid_post")
        vocabulary = len(self._head.get_parameter("weight"))
        batch = TokenBatch.from_rows([[token % vocabulary for token in (5, 3, 8, 13)]])
        trace = model.run(batch, reads=[last], logits=True)
        assert trace.logits is not None
        own = trace.logits.float()
        largest = float((self(trace[last]) - own.to(self.device)).abs().max() / own.abs().max())
        if not largest <= (_TOLERANCE if self._dtype == torch.float32 else _HALF_TOLERANCE):
            raise CheckpointError(
                f"{model.name or 'the model'}: final norm and head do not give its logits (off by {largest:.1%}), so "
                "that this architecture has a step between them that a lens does not know"
            )


def stream_sites(store: ActivationStore) -> list[Site]:
    """The store's sites that are the residual stream itself, in the order of the pass.

    Raises:
        ConfigError: there are none.
    """
    sites = sorted(site for site in store.sites if site.component in IN_STREAM)
    if not sites:
        raise ConfigError(
            f"a lens reads the residual stream; the store holds {', '.join(map(str, store.sites))}; collect it at "
            "resid_post of the layers"
        )
    return sites
