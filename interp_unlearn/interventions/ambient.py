"""Edits that stay on for a while: what `with model.edited(...)` installs, for any forward of the model inside it.

`HookedModel.run` takes these hooks off while it works and hands the same edits to its backend, so that no backend
applies them twice.
"""

from collections.abc import Generator, Iterable, Sequence
from contextlib import ExitStack, contextmanager
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, nn
from torch.utils.hooks import RemovableHandle

from interp_unlearn.errors import BackendError
from interp_unlearn.interventions.backends.torch_hooks import install_hooks
from interp_unlearn.interventions.contexts import EditContext, context_of_call
from interp_unlearn.interventions.edits import EditMap, merge_edits
from interp_unlearn.interventions.forward_pass import ForwardPass
from interp_unlearn.interventions.generation import GenerationProgress
from interp_unlearn.models.architecture import Architecture
from interp_unlearn.models.batches import TokenBatch
from interp_unlearn.sites import Site

if TYPE_CHECKING:
    from transformers import PreTrainedModel


class AmbientEdits(ForwardPass):
    """The edits that are on, seen as a forward pass that is repeated: each call of the model brings its own tokens."""

    def __init__(self, hf: "PreTrainedModel", architecture: Architecture, bos_token_id: int | None) -> None:
        super().__init__(None, stop=None)
        self.hf = hf
        self.architecture = architecture
        self.bos_token_id = bos_token_id
        self._stack: list[EditMap] = []
        self._handles: list[RemovableHandle] = []
        self._eager = ExitStack()
        self._running = False
        self._awaits_backward = False
        self._generation: GenerationProgress | None = None

    @contextmanager
    def applied(self, edits: EditMap) -> Generator[None]:
        """Put edits on; on leaving, by whatever way, exactly these come off."""
        self._stack.append(edits)
        try:
            self._refresh()
            yield
        finally:
            # By identity: two equal maps may be on at once, and managers may end in any order.
            self._stack = [layer for layer in self._stack if layer is not edits]
            self._refresh()

    @contextmanager
    def handed_over(self, context: EditContext | None) -> Generator[None]:
        """Take the hooks off while a backend runs a pass that has these edits among its own."""
        if not self._handles:
            yield
            return
        self._begin(context)
        self._remove()
        try:
            yield
        finally:
            self._install()
            self._running = False

    @contextmanager
    def generating(self, prompts: TokenBatch, stop_ids: Sequence[int], n_continuations: int) -> Generator[None]:
        """During cached generation from these prompts, say of each token which prompt it belongs to and continues.

        A row counts as padding once one of the stop ids was fed back to the model.
        """
        self._generation = GenerationProgress(prompts, stop_ids, n_continuations)
        try:
            yield
        finally:
            self._generation = None

    def visit(self, site: Site, activation: Tensor) -> Tensor:
        if not self._running:
            self._awaits_backward = False  # a checkpointed block is being recomputed, so backward has come
        if self.context is None:
            raise BackendError("edits are on, but a part of the model was called by itself; call the whole model")
        return super().visit(site, activation)

    def _refresh(self) -> None:
        self._remove()
        self.edits = merge_edits(*self._stack)
        self.sites = tuple(sorted(self.edits))
        if not self.edits:
            self.context, self._awaits_backward = None, False
        self._install()

    def _install(self) -> None:
        if self.edits:
            # What torch.compile made of the model earlier would ignore these hooks, what it made of it now keep them.
            self._eager.enter_context(compiled_code_unused())
            self._handles.append(self.architecture.model.register_forward_pre_hook(self._before_call, with_kwargs=True))
            self._handles += install_hooks(self.architecture, self)
            self._handles.append(self.architecture.model.register_forward_hook(self._after_call, always_call=True))

    def _remove(self) -> None:
        for handle in self._handles:
            handle.remove()
        self._handles = []
        self._eager.close()

    def _before_call(self, module: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any]) -> None:
        context = context_of_call(self.architecture.model, args, kwargs, self.bos_token_id)
        if self._generation is not None:
            context = self._generation.place(context, kwargs["input_ids"])
        self._begin(context)

    def _after_call(self, module: nn.Module, args: tuple[Any, ...], output: Any) -> None:
        self._running = False
        if output is None:  # the pass raised, and no backward pass will follow
            self._awaits_backward = False
        if not self._awaits_backward:
            self.context = None

    def _begin(self, context: EditContext | None) -> None:
        if torch.is_grad_enabled() and recomputes_blocks(self.hf) and inside_blocks(self.edits):
            if self._awaits_backward:
                raise BackendError(
                    "with activation checkpointing, edits inside a block serve one pass at a time: call backward "
                    "before the next pass, or use torch.no_grad() for passes without one"
                )
            self._awaits_backward = True
        self._running = True
        self.context = context


_stance = ExitStack()
_holders: list[object] = []


@contextmanager
def compiled_code_unused() -> Generator[None]:
    """Run eagerly what torch.compile has compiled; such blocks, those of several models too, may end in any order."""
    if not _holders:
        _stance.enter_context(torch.compiler.set_stance("force_eager"))
    holder = object()
    _holders.append(holder)
    try:
        yield
    finally:
        _holders.remove(holder)
        if not _holders:
            _stance.close()


def recomputes_blocks(hf: "PreTrainedModel") -> bool:
    """Whether backward recomputes the inside of each block (activation checkpointing)."""
    # Renamed in transformers 5.23; the old name warns there.
    name = "is_activation_checkpointing" if hasattr(hf, "is_activation_checkpointing") else "is_gradient_checkpointing"
    return hf.training and bool(getattr(hf, name, False))


def hides_gradients(hf: "PreTrainedModel") -> bool:
    """Whether what is computed inside a block is cut off from gradients, as in re-entrant checkpointing."""
    functions = [
        getattr(module, "_gradient_checkpointing_func", None)
        for module in hf.modules()
        if getattr(module, "gradient_checkpointing", False)
    ]
    # PyTorch's default is re-entrant, transformers' is not and always says so.
    return recomputes_blocks(hf) and any(getattr(f, "keywords", {}).get("use_reentrant", True) for f in functions)


def inside_blocks(sites: Iterable[Site]) -> list[Site]:
    """Sites whose activation is recomputed then; block inputs and outputs are kept."""
    return [site for site in sites if site.component not in ("resid_pre", "resid_post", "embed", "logits")]
