# pyright: basic
"""The TransformerLens backend: a bridge over a *mirror* of the model that shares every parameter.

Booting a bridge rewires the modules it is given for good. The mirror is a structural copy whose parameters are the
original's own objects, so the original keeps its names, its attention kernel and `save_pretrained`, weights changed in
place show at once, and gradients land on the original. Raw weights only: nothing is folded or centred.
"""

import copy
from collections.abc import Callable, Collection
from typing import TYPE_CHECKING, Any

from torch import Tensor, nn

from interp_unlearn.errors import BackendError
from interp_unlearn.interventions.forward_pass import ForwardPass
from interp_unlearn.models.architecture import Architecture
from interp_unlearn.models.batches import TokenBatch
from interp_unlearn.models.parameters import ATTENTION_ROLES
from interp_unlearn.sites import Site

if TYPE_CHECKING:
    from transformers import PreTrainedModel, PreTrainedTokenizerBase


class _PassEnded(Exception):
    """Ends a forward pass early; never leaves this module."""


class TransformerLensBackend:
    """Reads and edits through a TransformerBridge; see `Backend`.

    Limits: a matrix that holds q, k and v together gets no gradient; on GPT-NeoX the mirror holds copies of q, k and v,
    so the backend is refused there once weights have changed; adapters are refused.
    """

    def __init__(self, hf: "PreTrainedModel", tokenizer: "PreTrainedTokenizerBase", architecture: Architecture) -> None:
        if hasattr(hf, "peft_config"):
            raise BackendError(
                "the transformer_lens backend does not follow adapters; merge them, or use backend 'torch' or 'nnsight'"
            )
        self.hf = hf
        self.tokenizer = tokenizer
        self.architecture = architecture
        self._boot()

    def check_site(self, site: Site) -> None:
        self.architecture.module_at(site)

    def without_gradient(self) -> Collection[nn.Parameter]:
        fused = [name for name, role in ATTENTION_ROLES.items() if role == "attn.qkv"]
        return [p for name, p in self.hf.named_parameters() if any(part in fused for part in name.split("."))]

    def mark_changed(self) -> None:
        """Raise if the mirror holds copies: it cannot follow the change."""
        self._follow()
        own = {parameter.untyped_storage().data_ptr() for parameter in self.hf.parameters()}
        copies = [n for n, p in self.mirror.named_parameters() if p.untyped_storage().data_ptr() not in own]
        if copies:
            raise BackendError(
                f"TransformerLens copied {len(copies)} weights of {type(self.hf).__name__} and cannot follow a change "
                "of them; use backend 'torch' or 'nnsight', or make a new HookedModel"
            )

    def run(self, batch: TokenBatch, forward_pass: ForwardPass) -> None:
        self._follow()
        hooks = [hook for site in forward_pass.sites for hook in self._hooks(site, forward_pass)]
        try:
            logits = self.bridge.run_with_hooks(
                batch.input_ids,
                fwd_hooks=hooks,
                attention_mask=batch.attention_mask,
                position_ids=batch.position_ids,
            )
        except _PassEnded:
            return
        # The bridge's own last hook point lies before the soft cap of Gemma2.
        forward_pass.visit(Site.logits, logits)

    def _hooks(self, site: Site, forward_pass: ForwardPass) -> list[tuple[Any, Callable[..., Any]]]:
        last = site == forward_pass.stop
        if site == Site.logits:
            return []
        if site == Site.embed:
            return [(hook_name(site), _hook(lambda x: forward_pass.visit(site, x), last))]
        layer, component = site.layer, site.component
        assert layer is not None
        if component in ("attn_out", "resid_mid") and forward_pass.needs_mid(layer):
            if component == "attn_out":
                return []  # visited together with resid_mid, which comes next
            kept: list[Tensor] = []

            def keep_input(activation: Tensor, hook: Any) -> None:
                kept[:] = [activation]

            visit = _hook(lambda x: forward_pass.visit_attn_out(layer, kept.pop(), x), last)
            return [(f"blocks.{layer}.hook_resid_pre", keep_input), (f"blocks.{layer}.hook_attn_out", visit)]
        return [(hook_name(site), _hook(lambda x: forward_pass.visit(site, x), last))]

    def _boot(self) -> None:
        from transformers.utils import logging as transformers_logging

        verbosity = transformers_logging.get_verbosity()
        try:
            from transformer_lens.model_bridge import TransformerBridge
        finally:  # importing it silences transformers for the whole process
            transformers_logging.set_verbosity(verbosity)
        self.parameters, self.device = list(self.hf.parameters()), self.architecture.device
        self.mirror = copy.deepcopy(self.hf, memo={id(p): p for p in self.parameters})
        for module in self.mirror.modules():  # backward would recompute blocks when the bridge's hooks are off again
            if getattr(module, "gradient_checkpointing", False):
                module.gradient_checkpointing = False  # pyright: ignore[reportArgumentType]
        # The bridge insists on a tokenizer and changes it. It only ever gets ids here: any copy without BOS will do,
        # as the bridge would load one with a BOS again from disk.
        tokenizer = copy.deepcopy(self.tokenizer)
        tokenizer.bos_token = None
        try:
            self.bridge = TransformerBridge.boot_transformers(
                type(self.hf).__name__,
                hf_model=self.mirror,
                tokenizer=tokenizer,
                device=self.device,
                dtype=self.hf.dtype,
            )
        except (ValueError, NotImplementedError, AttributeError, KeyError) as error:
            reason = " ".join(str(error).split())[:200]
            raise BackendError(f"TransformerLens does not take {type(self.hf).__name__}: {reason}") from error

    def _follow(self) -> None:
        """Carry over what the mirror does not share: rebound parameters, the device, and the train/eval switch."""
        same = [id(p) for p in self.hf.parameters()] == [id(p) for p in self.parameters]
        if not same or self.architecture.device != self.device:
            self._boot()
        if self.bridge.training != self.hf.training:
            self.bridge.train(self.hf.training)


def hook_name(site: Site) -> str:
    """TransformerLens's name of the hook point at a site inside the model."""
    if site == Site.embed:
        return "embed.hook_out"
    part = {"z": "attn.hook_z", "mlp_post": "mlp.hook_post"}.get(site.component, f"hook_{site.component}")
    return f"blocks.{site.layer}.{part}"


def _hook(visit: Callable[[Tensor], Tensor], last: bool) -> Callable[..., Any]:
    def hook(activation: Tensor, hook: Any) -> Tensor | None:
        changed = visit(activation)
        if last:
            raise _PassEnded
        return None if changed is activation else changed

    return hook
