# pyright: basic
"""The nnsight backend: a trace on the Hugging Face model itself, which it wraps without changing it."""

import gc
from collections.abc import Callable, Collection, Iterator
from functools import partial
from operator import itemgetter
from typing import TYPE_CHECKING, Any

from torch import Tensor, nn

from interp_unlearn.errors import BackendError
from interp_unlearn.interventions.backends.torch_hooks import output_tensor, visit_of, with_tensor
from interp_unlearn.interventions.forward_pass import ForwardPass
from interp_unlearn.models.architecture import INPUT_COMPONENTS, Architecture
from interp_unlearn.models.batches import TokenBatch
from interp_unlearn.sites import Site

if TYPE_CHECKING:
    from transformers import PreTrainedModel


class NNsightBackend:
    """Reads and edits through nnsight's tracing; see `Backend`.

    Importing nnsight patches `Tensor.backward` and adds `.save` to every object of the process, which is why it is
    imported here and not at the top.
    """

    def __init__(self, hf: "PreTrainedModel", architecture: Architecture) -> None:
        from nnsight import NNsight

        if next(architecture.model.parameters()).is_meta:
            raise BackendError(
                "nnsight sends tokens to where the first weight is, and device_map has moved that off its device; keep "
                "the embedding on one, or use backend 'torch'"
            )
        self.hf = hf
        self.architecture = architecture
        self.wrapped = NNsight(architecture.model)

    def check_site(self, site: Site) -> None:
        self.architecture.module_at(site)

    def without_gradient(self) -> Collection[nn.Parameter]:
        return ()

    def mark_changed(self) -> None:
        """Nothing to follow: the model itself is traced."""

    def run(self, batch: TokenBatch, forward_pass: ForwardPass) -> None:
        tokens = {
            "input_ids": batch.input_ids,
            "attention_mask": batch.attention_mask,
            "position_ids": batch.position_ids,
            "use_cache": False,
        }
        steps = [step for _, step in sorted(self._all_steps(forward_pass), key=itemgetter(0))]
        stops = forward_pass.stop is not None
        # nnsight runs this body alongside the pass, waiting for each value: hence one step after another, in the order
        # of the pass.
        with self.wrapped.trace(**tokens) as tracer:
            for step in steps:
                step()
            if stops:
                tracer.stop()  # pyright: ignore[reportAttributeAccessIssue]
        if stops:
            # A stopped trace of nnsight 0.8 keeps its activations in a reference cycle, still young enough for this.
            gc.collect(1)

    def _all_steps(self, forward_pass: ForwardPass) -> Iterator[tuple[Site, Callable[[], None]]]:
        """What to do, and at which site, so that it can be put in the order of the pass."""
        for site in forward_pass.sites:
            module, layer = self.architecture.module_at(site), site.layer
            envoy = self._envoy(module)
            if site.component in ("attn_out", "resid_mid") and forward_pass.needs_mid(layer):
                if site.component == "attn_out":
                    continue  # visited together with resid_mid, which comes next
                assert layer is not None
                yield from self._mid_steps(layer, envoy, forward_pass)
                continue
            visit = visit_of(self.architecture, forward_pass, site)
            change = _visit_input if site.component in INPUT_COMPONENTS else _visit_output
            yield site, partial(change, envoy, visit)

    def _mid_steps(
        self, layer: int, attention: Any, forward_pass: ForwardPass
    ) -> Iterator[tuple[Site, Callable[[], None]]]:
        block = self._envoy(self.architecture.blocks[layer])
        kept: list[Tensor] = []
        yield Site(layer, "resid_pre"), lambda: kept.append(block.input)
        yield (
            Site(layer, "attn_out"),
            lambda: _visit_output(attention, lambda x: forward_pass.visit_attn_out(layer, kept.pop(), x)),
        )

    def _envoy(self, module: nn.Module) -> Any:
        path = self.architecture.path_of(module)
        return self.wrapped.get(path) if path else self.wrapped


def _visit_input(envoy: Any, visit: Callable[[Tensor], Tensor]) -> None:
    activation = envoy.input
    changed = visit(activation)
    if changed is not activation:
        envoy.input = changed


def _visit_output(envoy: Any, visit: Callable[[Tensor], Tensor]) -> None:
    output = envoy.output
    activation = output_tensor(output)
    changed = visit(activation)
    if changed is not activation:
        envoy.output = with_tensor(output, changed)
