"""Edits that stay on for a while: what `with model.edited(...)` installs, for any forward of the model inside it.

`HookedModel.run` takes these hooks off while it works and hands the same edits to its backend, so that no backend
applies them twice.
"""

from collections.abc import Generator, Sequence
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, nn
from torch.utils.hooks import RemovableHandle

from interp_unlearn.interventions.backends.torch_hooks import install_hooks
from interp_unlearn.interventions.contexts import EditContext, context_of_call
from interp_unlearn.interventions.edits import EditMap, merge_edits
from interp_unlearn.interventions.forward_pass import ForwardPass
from interp_unlearn.models.architecture import Architecture

if TYPE_CHECKING:
    from transformers import PreTrainedModel


class AmbientEdits:
    """The stack of edits that are on, and the hooks that carry them.

    Attributes:
        forward_pass: all edits that are on, outermost first, and the tokens of the latest pass.
    """

    def __init__(self, hf: "PreTrainedModel", architecture: Architecture, bos_token_id: int | None) -> None:
        self.hf = hf
        self.architecture = architecture
        self.bos_token_id = bos_token_id
        self.forward_pass = ForwardPass(None, stop=None)
        self._stack: list[EditMap] = []
        self._handles: list[RemovableHandle] = []
        self._stop_ids: Tensor | None = None
        self._finished: Tensor | None = None

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
    def suspended(self) -> Generator[None]:
        """Take the hooks off for a while; the edits stay listed in `edits`."""
        if not self._handles:
            yield
            return
        self._remove()
        try:
            yield
        finally:
            self._refresh()

    @contextmanager
    def generating(self, stop_ids: Sequence[int]) -> Generator[None]:
        """During cached generation, count a row as padding once one of these ids was fed back to the model."""
        self._stop_ids = torch.tensor(stop_ids, device=self.hf.device)
        self._finished = None
        try:
            yield
        finally:
            self._stop_ids = self._finished = None

    @property
    def edits(self) -> EditMap:
        """All edits that are on."""
        return self.forward_pass.edits

    def _refresh(self) -> None:
        self._remove()
        # The tokens are kept: a backward pass with activation checkpointing asks for them after the forward pass.
        self.forward_pass = ForwardPass(self.forward_pass.context, edits=merge_edits(*self._stack), stop=None)
        if self.edits:
            self._handles.append(self.hf.register_forward_pre_hook(self._note_tokens, with_kwargs=True))
            self._handles += install_hooks(self.architecture, self.forward_pass)

    def _remove(self) -> None:
        for handle in self._handles:
            handle.remove()
        self._handles = []

    def _note_tokens(self, module: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any]) -> None:
        context = context_of_call(self.hf, args, kwargs, self.bos_token_id)
        if self._stop_ids is not None:
            context = self._without_finished(context, kwargs["input_ids"], self._stop_ids)
        self.forward_pass.context = context

    def _without_finished(self, context: EditContext, input_ids: Tensor, stop_ids: Tensor) -> EditContext:
        if self._finished is None:  # the prompt itself, in which a stop token ends nothing
            self._finished = torch.zeros(len(input_ids), dtype=torch.bool, device=input_ids.device)
            return context
        finished = self._finished | torch.isin(input_ids[:, -1], stop_ids)
        self._finished = finished
        going = ~finished[:, None]
        return EditContext(context.mask & going, context.content & going, context.positions, context.rows)
