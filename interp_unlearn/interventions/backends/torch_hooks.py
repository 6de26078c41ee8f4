"""The reference backend: plain PyTorch hooks on the Hugging Face model.

Early exit is a private exception raised in the hook of the deepest site wanted: the layers above and the head are
never computed.
"""

from collections.abc import Callable, Collection
from typing import TYPE_CHECKING, Any

from torch import Tensor, nn
from torch.utils.hooks import RemovableHandle

from interp_unlearn.errors import BackendError
from interp_unlearn.interventions.forward_pass import ForwardPass
from interp_unlearn.models.architecture import INPUT_COMPONENTS, Architecture
from interp_unlearn.models.batches import TokenBatch
from interp_unlearn.models.processes import is_sharded
from interp_unlearn.sites import Site

if TYPE_CHECKING:
    from transformers import PreTrainedModel


class _PassEnded(Exception):
    """Ends a forward pass early; never leaves this module."""


class TorchBackend:
    """Reads and edits through forward hooks; see `Backend`."""

    def __init__(self, hf: "PreTrainedModel", architecture: Architecture) -> None:
        self.hf = hf
        self.architecture = architecture

    def check_site(self, site: Site) -> None:
        self.architecture.module_at(site)

    def without_gradient(self) -> Collection[nn.Parameter]:
        return ()

    def mark_changed(self) -> None:
        """Nothing to follow: the hooks are on the model itself."""

    def run(self, batch: TokenBatch, forward_pass: ForwardPass) -> None:
        handles = install_hooks(self.architecture, forward_pass)
        try:
            self.hf(
                input_ids=batch.input_ids,
                attention_mask=batch.attention_mask,
                position_ids=batch.position_ids,
                use_cache=False,
            )
        except _PassEnded:
            pass
        finally:
            for handle in handles:
                handle.remove()


def install_hooks(architecture: Architecture, forward_pass: ForwardPass) -> list[RemovableHandle]:
    """Hook a model so that `forward_pass` visits its sites.

    Returns:
        The handles, all of which the caller has to remove.
    """
    handles: list[RemovableHandle] = []
    whole_pass = is_sharded(architecture.model)  # FSDP2 puts its shards back at the end of a pass, and nowhere else
    for site in forward_pass.sites:
        module = architecture.module_at(site)
        last = site == forward_pass.stop and not whole_pass
        if site.component in ("attn_out", "resid_mid") and forward_pass.needs_mid(site.layer):
            if site.component == "attn_out":
                continue  # visited together with resid_mid, which comes next
            assert site.layer is not None
            block = architecture.blocks[site.layer]
            keep_input, hook = _mid_hooks(forward_pass, site.layer, last)
            # The norm inside the block runs again when the backward pass recomputes it; the block itself does not.
            inside = architecture.block_norm(block) or block
            handles.append(inside.register_forward_pre_hook(keep_input, with_kwargs=True))
            handles.append(module.register_forward_hook(hook))
            continue
        visit = visit_of(architecture, forward_pass, site)
        if site.component in INPUT_COMPONENTS:
            handles.append(module.register_forward_pre_hook(_input_hook(visit, last), with_kwargs=True))
        else:
            handles.append(module.register_forward_hook(_output_hook(visit, last)))
    return handles


def visit_of(architecture: Architecture, forward_pass: ForwardPass, site: Site) -> Callable[[Tensor], Tensor]:
    """What to do with the tensor that a module gets or returns at a site; z is split by heads for it."""
    if site.component != "z":
        return lambda activation: forward_pass.visit(site, activation)

    def visit(flat: Tensor) -> Tensor:
        heads = flat.unflatten(-1, (architecture.n_heads, -1))
        changed = forward_pass.visit(site, heads)
        return flat if changed is heads else changed.flatten(-2)

    return visit


def _input_hook(visit: Callable[[Tensor], Tensor], last: bool) -> Callable[..., Any]:
    def hook(module: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
        activation = _input_tensor(args, kwargs)
        changed = visit(activation)
        if last:
            raise _PassEnded
        if changed is activation:
            return None
        return ((changed, *args[1:]), kwargs) if args else (args, {**kwargs, "hidden_states": changed})

    return hook


def _output_hook(visit: Callable[[Tensor], Tensor], last: bool) -> Callable[..., Any]:
    def hook(module: nn.Module, args: tuple[Any, ...], output: Any) -> Any:
        activation = output_tensor(output)
        changed = visit(activation)
        if last:
            raise _PassEnded
        return None if changed is activation else with_tensor(output, changed)

    return hook


def _mid_hooks(forward_pass: ForwardPass, layer: int, last: bool) -> tuple[Callable[..., Any], Callable[..., Any]]:
    """Two hooks: one keeps the block's input, one visits attn_out and resid_mid.

    The first is registered after that of resid_pre, which comes earlier in the pass, and so sees its edits.
    """
    kept: list[Tensor] = []

    def visit(attn_out: Tensor) -> Tensor:
        if not kept:  # the backward pass recomputes a checkpointed block from the inside
            raise BackendError("resid_mid of a block without a norm at its start does not work with checkpointing")
        return forward_pass.visit_attn_out(layer, kept.pop(), attn_out)

    def keep_input(module: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any]) -> None:
        kept[:] = [_input_tensor(args, kwargs)]

    return keep_input, _output_hook(visit, last)


def _input_tensor(args: tuple[Any, ...], kwargs: dict[str, Any]) -> Tensor:
    return args[0] if args else kwargs["hidden_states"]


def output_tensor(output: Any) -> Tensor:
    """The activation in a module's output: the tensor, the first of a tuple (attention), or a model's logits."""
    if isinstance(output, Tensor):
        return output
    return output.logits if hasattr(output, "logits") else output[0]


def with_tensor(output: Any, changed: Tensor) -> Any:
    """A module's output with another activation in it."""
    if isinstance(output, Tensor):
        return changed
    if hasattr(output, "logits"):
        return type(output)(**{**output, "logits": changed})
    return (changed, *output[1:])
