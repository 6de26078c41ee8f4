"""Where the parts of a decoder are, found from the module tree instead of a list of model names."""

from collections import deque
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import torch
from torch import nn

from interp_unlearn.errors import CheckpointError, SiteError
from interp_unlearn.sites import Site

INPUT_COMPONENTS = ("resid_pre", "z", "mlp_post")
"""Components that are the input of their module; the others are its output."""
ATTENTION_NAMES = ("self_attn", "attn", "attention", "self_attention")
MLP_NAMES = ("mlp", "feed_forward", "ffn")
ATTENTION_OUTPUT_NAMES = ("o_proj", "out_proj", "c_proj", "dense")
MLP_OUTPUT_NAMES = ("down_proj", "c_proj", "dense_4h_to_h", "fc_out", "fc2")
BLOCK_NORM_NAMES = ("input_layernorm", "ln_1")
FINAL_NORM_NAMES = ("norm", "ln_f", "norm_f", "final_layer_norm", "final_layernorm", "embedding_norm", "layer_norm")


@dataclass(frozen=True, eq=False)
class Architecture:
    """The parts of one causal language model.

    Attributes:
        model: the model itself, whose output carries the logits; with adapters of peft, the model they wrap.
        blocks: the decoder stack.
        embed: token embedding.
        final_norm: norm between the last block and the head; None if there is none.
        unembed: the head; None if there is none.
        d_model: width of the residual stream.
        n_heads: query heads of a block, which `z` is split by.
        context_length: tokens of the longest text the model was made for; None if its config does not say.
        parallel: attention and MLP read the same input, so that there is no resid_mid.
        post_norms: attention and MLP outputs are normalised before they are added (Gemma2, OLMo2).
    """

    model: nn.Module
    blocks: nn.ModuleList
    embed: nn.Module
    final_norm: nn.Module | None
    unembed: nn.Module | None
    d_model: int
    n_heads: int
    context_length: int | None
    parallel: bool
    post_norms: bool

    @property
    def n_layers(self) -> int:
        return len(self.blocks)

    @property
    def device(self) -> torch.device:
        """Where token ids go: of a model that is spread over several devices, the embedding's."""
        # accelerate keeps weights elsewhere that do not fit, on "meta" if on disk, and says where they are needed.
        device = getattr(getattr(self.embed, "_hf_hook", None), "execution_device", None)
        return next(self.embed.parameters()).device if device is None else torch.device(device)

    def attention(self, block: nn.Module) -> nn.Module:
        """The attention module of a block."""
        return _named_child(block, ATTENTION_NAMES, "attention")

    def mlp(self, block: nn.Module) -> nn.Module:
        """The MLP of a block."""
        return _named_child(block, MLP_NAMES, "MLP")

    def block_norm(self, block: nn.Module) -> nn.Module | None:
        """The norm inside a block that is given the block's input; None where there is none (OLMo2)."""
        return next((child for name, child in block.named_children() if name in BLOCK_NORM_NAMES), None)

    def module_at(self, site: Site) -> nn.Module:
        """The module whose output is the activation at a site; for resid_pre, z and mlp_post, whose input.

        resid_mid has no module of its own: it is `resid_pre + attn_out`, so its module is that of attn_out.

        Raises:
            SiteError: the layer is out of range, or the architecture has no such site.
        """
        site.check(self.n_layers)
        if site.layer is None:
            return self.embed if site.component == "embed" else self.model
        block = self.blocks[site.layer]
        if site.component in ("resid_pre", "resid_post"):
            return block
        if site.component == "resid_mid" and self.parallel:
            raise SiteError(f"{site}: attention and MLP run in parallel in this model, so there is no resid_mid")
        if site.component in ("attn_out", "resid_mid"):
            return _named_child(block, ("post_attention_layernorm",)) if self.post_norms else self.attention(block)
        if site.component == "mlp_out":
            return _named_child(block, ("post_feedforward_layernorm",)) if self.post_norms else self.mlp(block)
        if site.component == "z":
            return _named_child(self.attention(block), ATTENTION_OUTPUT_NAMES, "output projection, so no z,")
        mlp = self.mlp(block)
        if hasattr(mlp, "experts"):
            raise SiteError(f"{site}: a mixture of experts has no one layer of neurons; use mlp_out")
        return _named_child(mlp, MLP_OUTPUT_NAMES, "output projection, so no mlp_post,")

    def width_at(self, site: Site) -> int:
        """Numbers a token has at a site; at z, those of all heads.

        Raises:
            SiteError: there is no such site.
        """
        module = self.module_at(site)
        if site == Site.logits:
            return int(self.model.config.get_text_config().vocab_size)  # pyright: ignore[reportCallIssue, reportAttributeAccessIssue, reportArgumentType]
        if site.component not in ("z", "mlp_post"):
            return self.d_model
        features: int | None = getattr(module, "in_features", None)
        # GPT-2's Conv1D has no in_features, and holds its matrix the other way round.
        return features or module.get_parameter("weight").shape[0]

    def path_of(self, module: nn.Module) -> str:
        """Dotted name of a module inside the model; empty for the model itself."""
        return next(name for name, candidate in self.model.named_modules() if candidate is module)


def resolve_architecture(model: nn.Module) -> Architecture:
    """Find the parts of a Hugging Face causal language model.

    Raises:
        CheckpointError: it is no decoder-only model, or has no stack of the length its config states.
    """
    if hasattr(model, "peft_config") and hasattr(model, "get_base_model"):
        model = model.get_base_model()  # pyright: ignore[reportCallIssue] generation calls this one, past the wrapper
    config = model.config.get_text_config()  # pyright: ignore[reportCallIssue, reportAttributeAccessIssue]
    if getattr(config, "is_encoder_decoder", False):
        raise CheckpointError(f"{type(model).__name__} is an encoder-decoder; expected a decoder-only model")
    blocks, parent = _decoder_stack(model, config.num_hidden_layers)
    norms = _norm_names(blocks[0])
    return Architecture(
        model=model,
        blocks=blocks,
        embed=model.get_input_embeddings(),  # pyright: ignore[reportCallIssue, reportArgumentType]
        final_norm=next((child for name, child in parent.named_children() if name in FINAL_NORM_NAMES), None),
        unembed=model.get_output_embeddings(),  # pyright: ignore[reportCallIssue, reportArgumentType]
        d_model=config.hidden_size,
        n_heads=config.num_attention_heads,
        context_length=getattr(config, "max_position_embeddings", None),  # GPT-2's n_positions answers to it too
        # One norm a block (Phi, GPT-J, Cohere), or two with a flag that says so (GPT-NeoX, Falcon).
        parallel=len(norms) == 1
        or bool(getattr(config, "use_parallel_residual", False) or getattr(config, "parallel_attn", False)),
        # Llama's post_attention_layernorm normalises the MLP's input: only the second post-norm tells them apart.
        post_norms="post_feedforward_layernorm" in norms and "post_attention_layernorm" in norms,
    )


def _decoder_stack(model: nn.Module, n_layers: int) -> tuple[nn.ModuleList, nn.Module]:
    for parent in _breadth_first(model):
        for child in parent.children():
            if isinstance(child, nn.ModuleList) and len(child) == n_layers > 0:
                return child, parent
    raise CheckpointError(
        f"{type(model).__name__} has no list of {n_layers} blocks, as its config states; expected a decoder-only model"
    )


def _breadth_first(model: nn.Module) -> Iterator[nn.Module]:
    queue = deque([model])
    while queue:
        module = queue.popleft()
        yield module
        queue.extend(module.children())


def _norm_names(block: nn.Module) -> list[str]:
    return [name for name, child in block.named_children() if "norm" in type(child).__name__.lower()]


def _named_child(block: nn.Module, names: Sequence[str], what: str = "norm") -> nn.Module:
    for name in names:
        child = getattr(block, name, None)
        if isinstance(child, nn.Module):
            return child
    found = ", ".join(name for name, _ in block.named_children())
    raise SiteError(f"no {what} found in {type(block).__name__}: expected one of {', '.join(names)}, got {found}")
