"""The forward pass of each tiny model written out by hand, as the oracle for reads and edits at every site.

It calls the model's own norms, attention and MLP modules, but adds up the residual stream itself, with masks and
positions built here, so it shares nothing with the hooks under test.
"""

from collections.abc import Callable

import torch
from torch import Tensor
from transformers import PreTrainedModel

from interp_unlearn.models import TokenBatch
from interp_unlearn.sites import Site

Change = Callable[[Tensor], Tensor]
COMPONENTS = ("resid_pre", "attn_out", "resid_mid", "mlp_out", "resid_post")


def all_sites(n_layers: int = 3) -> list[Site]:
    return [Site.embed, *(Site(layer, part) for layer in range(n_layers) for part in COMPONENTS), Site.logits]


def explicit_forward(hf: PreTrainedModel, batch: TokenBatch, changes: dict[Site, Change] | None = None) -> dict:
    """Activations at all sites, each after the change at it. The model must use eager attention."""
    changes = changes or {}
    values: dict[Site, Tensor] = {}

    def at(site: Site, value: Tensor) -> Tensor:
        values[site] = changes.get(site, lambda x: x)(value)
        return values[site]

    kind = hf.config.model_type
    inner = hf.transformer if kind == "gpt2" else hf.model
    ids, positions = batch.input_ids, batch.position_ids
    stream = at(Site.embed, (inner.wte if kind == "gpt2" else inner.embed_tokens)(ids))
    if kind == "gpt2":
        stream = stream + inner.wpe(positions)
    rotary = {} if kind == "gpt2" else {"position_embeddings": inner.rotary_emb(stream, positions)}
    for layer, block in enumerate(inner.h if kind == "gpt2" else inner.layers):
        stream = at(Site(layer, "resid_pre"), stream)
        window = 4 if kind == "gemma2" and hf.config.layer_types[layer] == "sliding_attention" else None
        mask = _mask(batch, window, stream.dtype)
        if kind == "gpt2":
            attention = block.attn(block.ln_1(stream), attention_mask=mask)[0]
        else:
            attention = block.self_attn(block.input_layernorm(stream), attention_mask=mask, **rotary)[0]
        if kind == "gemma2":
            attention = block.post_attention_layernorm(attention)
        middle = at(Site(layer, "resid_mid"), stream + at(Site(layer, "attn_out"), attention))
        if kind == "gemma2":
            mlp = block.post_feedforward_layernorm(block.mlp(block.pre_feedforward_layernorm(middle)))
        else:
            mlp = block.mlp((block.ln_2 if kind == "gpt2" else block.post_attention_layernorm)(middle))
        stream = at(Site(layer, "resid_post"), middle + at(Site(layer, "mlp_out"), mlp))
    logits = hf.lm_head((inner.ln_f if kind == "gpt2" else inner.norm)(stream))
    if kind == "gemma2":
        cap = hf.config.final_logit_softcapping
        logits = cap * torch.tanh(logits / cap)
    at(Site.logits, logits)
    return values


def _mask(batch: TokenBatch, window: int | None, dtype: torch.dtype) -> Tensor:
    """Additive mask [batch, 1, query, key]: earlier real tokens, within the window if there is one."""
    index = torch.arange(batch.input_ids.shape[1])
    distance = index[:, None] - index[None, :]
    allowed = (distance >= 0) & (distance < (window or len(index)))
    allowed = allowed & batch.mask[:, None, None, :]
    return torch.zeros(allowed.shape, dtype=dtype).masked_fill(~allowed, torch.finfo(dtype).min)
