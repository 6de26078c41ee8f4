# pyright: basic
"""Reading a model that somebody hosts, through nnsight's remote execution (NDIF); only activations come here."""

import copy
from typing import TYPE_CHECKING, Any

from torch import Tensor, nn

from interp_unlearn.errors import BackendError
from interp_unlearn.interventions.backends.torch_hooks import visit_of
from interp_unlearn.interventions.forward_pass import ForwardPass
from interp_unlearn.models.architecture import INPUT_COMPONENTS, Architecture
from interp_unlearn.models.batches import TokenBatch
from interp_unlearn.sites import Site

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase

Place = tuple[str, str]
"""Path of a module in the model, and whether its input or its output is wanted."""


class HostedBackend:
    """Reads by traces that run elsewhere; see `Backend`.

    The pass itself, up to the deepest site, runs where the model is hosted; what is kept of an activation (a mean over
    tokens, for one) is worked out here, so that whole activations travel. There is no torch backend to compare with:
    that the sites are the right ones is known from smaller models of the architecture.

    Args:
        name: hub id of the hosted model.
        tokenizer: of the model; a copy is given to nnsight, which changes its padding.
        architecture: of the model without weights.
        where: True for NDIF, "local" for nnsight's simulation of it on weights that it loads here, or a server's URL.

    Raises:
        BackendError: nnsight does not take the model.
    """

    def __init__(
        self, name: str, tokenizer: "PreTrainedTokenizerBase", architecture: Architecture, where: bool | str
    ) -> None:
        from nnsight import TransformersModel

        self.architecture = architecture
        self.where = where
        try:
            self.hosted = TransformersModel(name, task="text-generation", tokenizer=copy.deepcopy(tokenizer))
        except (OSError, ValueError, RuntimeError) as error:
            raise BackendError(f"nnsight does not take {name}: {' '.join(str(error).split())[:200]}") from error

    def check_site(self, site: Site) -> None:
        self.architecture.module_at(site)

    def without_gradient(self) -> list[nn.Parameter]:
        return list(self.architecture.model.parameters())

    def mark_changed(self) -> None:
        raise BackendError("the weights of a hosted model are not here and cannot change; load the model to train it")

    def run(self, batch: TokenBatch, forward_pass: ForwardPass) -> None:
        if forward_pass.edits:
            raise BackendError(
                f"a hosted model can be read and not edited, at {next(iter(forward_pass.edits))} or else"
            )
        wanted: dict[Place, None] = {}
        for site in forward_pass.sites:
            wanted |= dict.fromkeys(self._places(site))
        tokens = {
            "input_ids": batch.input_ids,
            "attention_mask": batch.attention_mask,
            "position_ids": batch.position_ids,
            "use_cache": False,
        }
        found = self._read(tokens, list(wanted), forward_pass.stop is not None)
        values = dict(zip(wanted, found, strict=True))
        for site in forward_pass.sites:
            places = self._places(site)
            activation = values[places[-1]]
            if site.component == "resid_mid":
                activation = values[places[0]] + activation
            visit_of(self.architecture, forward_pass, site)(activation)

    def _places(self, site: Site) -> list[Place]:
        """Where an activation is found, in the order of the pass; that at resid_mid is the sum of two."""
        side = "input" if site.component in INPUT_COMPONENTS else "output"
        place = (self.architecture.path_of(self.architecture.module_at(site)), side)
        if site.component != "resid_mid" or site.layer is None:
            return [place]
        return [(self.architecture.path_of(self.architecture.blocks[site.layer]), "input"), place]

    def _read(self, tokens: dict[str, Any], places: list[Place], stops: bool) -> list[Tensor]:
        from nnsight.intervention.backends.remote import RemoteError

        try:
            return _traced(self.hosted, self.where, tokens, places, stops)
        except (RemoteError, OSError, ValueError) as error:
            raise BackendError(
                f"the hosted model cannot be read: {' '.join(str(error).split())[:300]}; see `nnsight.ndif.status()` "
                "for what is hosted, and `nnsight.ndif.login()` for the key"
            ) from error


def _traced(hosted: Any, where: bool | str, tokens: dict[str, Any], places: list[Place], stops: bool) -> list[Tensor]:
    """What modules get or return. The body travels by its source, so it names nothing that a server does not have."""
    import nnsight
    import torch

    with hosted.trace(remote=where, **tokens) as tracer:
        found = nnsight.save([])
        for path, side in places:
            envoy = hosted.get(path) if path else hosted
            value = envoy.input if side == "input" else envoy.output
            if not isinstance(value, torch.Tensor):
                value = value.logits if hasattr(value, "logits") else value[0]
            found.append(value.detach().cpu())
        if stops:
            tracer.stop()
    return found
