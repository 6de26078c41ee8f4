"""The forward pass of each tiny model written out by hand, as the oracle for reads and edits at every site.

It calls the model's own norms, attention and MLP modules, but adds up the residual stream itself, with masks and
positions built here, and takes z and mlp_post with the output projection set aside, so it shares nothing with the
hooks under test.
"""

from collections.abc import Callable, Generator
from contextlib import contextmanager
from types import SimpleNamespace

import torch
from torch import Tensor, nn
from transformers import PreTrainedModel

from interp_unlearn.models import TokenBatch
from interp_unlearn.sites import BLOCK_COMPONENTS, Site

Change = Callable[[Tensor], Tensor]
COMPONENTS = ("resid_pre", "attn_out", "resid_mid", "mlp_out", "resid_post")

_LLAMA = {
    "inner": "model",
    "embed": "embed_tokens",
    "blocks": "layers",
    "attention": "self_attn",
    "attention_norm": "input_layernorm",
    "attention_projection": "o_proj",
    "mlp_norm": "post_attention_layernorm",
    "mlp_projection": "down_proj",
    "final_norm": "norm",
    "head": "lm_head",
}
_NAMES = {
    "gemma2": _LLAMA | {"mlp_norm": "pre_feedforward_layernorm"},
    "gpt2": {
        "inner": "transformer",
        "embed": "wte",
        "blocks": "h",
        "attention": "attn",
        "attention_norm": "ln_1",
        "attention_projection": "c_proj",
        "mlp_norm": "ln_2",
        "mlp_projection": "c_proj",
        "final_norm": "ln_f",
        "head": "lm_head",
    },
    "gpt_neox": _LLAMA
    | {
        "inner": "gpt_neox",
        "embed": "embed_in",
        "attention": "attention",
        "attention_projection": "dense",
        "mlp_projection": "dense_4h_to_h",
        "final_norm": "final_layer_norm",
        "head": "lm_head",
    },
}


def all_sites(n_layers: int = 3) -> list[Site]:
    """The sites whose width is that of the residual stream, and the logits."""
    return [Site.embed, *(Site(layer, part) for layer in range(n_layers) for part in COMPONENTS), Site.logits]


def every_site(architecture: str, n_layers: int = 3) -> list[Site]:
    """All sites that an architecture has, in the order of the pass."""
    parts = [part for part in BLOCK_COMPONENTS if (architecture, part) != ("gpt_neox", "resid_mid")]
    return [Site.embed, *(Site(layer, part) for layer in range(n_layers) for part in parts), Site.logits]


def explicit_forward(hf: PreTrainedModel, batch: TokenBatch, changes: dict[Site, Change] | None = None) -> dict:
    """Activations at all sites, each after the change at it. The model must use eager attention, in eval mode."""
    changes = changes or {}
    values: dict[Site, Tensor] = {}

    def at(site: Site, value: Tensor) -> Tensor:
        values[site] = changes.get(site, lambda x: x)(value)
        return values[site]

    kind = hf.config.model_type
    names = SimpleNamespace(**_NAMES.get(kind, _LLAMA))
    inner = getattr(hf, names.inner)
    stream = at(Site.embed, getattr(inner, names.embed)(batch.input_ids))
    if kind == "gpt2":
        stream = stream + inner.wpe(batch.position_ids)
    rotary = {} if kind == "gpt2" else {"position_embeddings": inner.rotary_emb(stream, batch.position_ids)}
    for layer, block in enumerate(getattr(inner, names.blocks)):
        before = at(Site(layer, "resid_pre"), stream)
        mask = _mask(batch, _window(hf, layer), stream.dtype)
        attention = getattr(block, names.attention)
        with _set_aside(attention, names.attention_projection) as project:
            z = attention(getattr(block, names.attention_norm)(before), attention_mask=mask, **rotary)[0]
        z = at(Site(layer, "z"), z.unflatten(-1, (hf.config.num_attention_heads, -1)))
        added = project(z.flatten(-2))
        if kind == "gemma2":
            added = block.post_attention_layernorm(added)
        added = at(Site(layer, "attn_out"), added)
        middle = before if kind == "gpt_neox" else at(Site(layer, "resid_mid"), before + added)
        normed = getattr(block, names.mlp_norm)(middle)
        if hasattr(block.mlp, "experts"):
            mlp = block.mlp(normed)
        else:
            with _set_aside(block.mlp, names.mlp_projection) as project:
                neurons = block.mlp(normed)
            mlp = project(at(Site(layer, "mlp_post"), neurons))
        if kind == "gemma2":
            mlp = block.post_feedforward_layernorm(mlp)
        mlp = at(Site(layer, "mlp_out"), mlp)
        stream = at(Site(layer, "resid_post"), mlp + added + before if kind == "gpt_neox" else middle + mlp)
    logits = getattr(hf, names.head)(getattr(inner, names.final_norm)(stream))
    if kind == "gemma2":
        cap = hf.config.final_logit_softcapping
        logits = cap * torch.tanh(logits / cap)
    at(Site.logits, logits)
    return values


@contextmanager
def _set_aside(parent: nn.Module, name: str) -> Generator[nn.Module]:
    """Let a module return what it would have given to one of its parts."""
    part = getattr(parent, name)
    setattr(parent, name, nn.Identity())
    try:
        yield part
    finally:
        setattr(parent, name, part)


def _window(hf: PreTrainedModel, layer: int) -> int | None:
    kind = hf.config.model_type
    slides = kind == "mistral" or (kind == "gemma2" and hf.config.layer_types[layer] == "sliding_attention")
    return 4 if slides else None


def _mask(batch: TokenBatch, window: int | None, dtype: torch.dtype) -> Tensor:
    """Additive mask [batch, 1, query, key]: earlier real tokens, within the window if there is one."""
    index = torch.arange(batch.input_ids.shape[1])
    distance = index[:, None] - index[None, :]
    allowed = (distance >= 0) & (distance < (window or len(index)))
    allowed = allowed & batch.mask[:, None, None, :]
    return torch.zeros(allowed.shape, dtype=dtype).masked_fill(~allowed, torch.finfo(dtype).min)
