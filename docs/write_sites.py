"""Writes sites.md beside this file: what a site is called in each architecture and library, as tiny random models say.

With --check nothing is written: exit code 1 says that sites.md is not what the code makes.
"""

import argparse
import re
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from torch import Tensor
from transformers import (
    AutoModelForCausalLM,
    Gemma2Config,
    GPT2Config,
    GPTNeoXConfig,
    LlamaConfig,
    MistralConfig,
    PreTrainedModel,
    Qwen2Config,
    Qwen3Config,
)

from interp_unlearn.errors import SiteError
from interp_unlearn.interventions.backends.torch_hooks import TorchBackend
from interp_unlearn.interventions.backends.transformer_lens import hook_name
from interp_unlearn.interventions.contexts import context_of_batch
from interp_unlearn.interventions.forward_pass import ForwardPass
from interp_unlearn.models import TokenBatch
from interp_unlearn.models.architecture import INPUT_COMPONENTS, Architecture, resolve_architecture
from interp_unlearn.sites import BLOCK_COMPONENTS, Site

PAGE = Path(__file__).with_name("sites.md")
SITES = (Site.embed, *(Site(0, component) for component in BLOCK_COMPONENTS), Site.logits)

AXES = {5: "batch", 7: "pos", 32: "d_model", 4: "head", 8: "d_head", 48: "d_mlp", 40: "d_vocab"}
"""What each length of a shape stands for; no two are the same."""
VOCABULARY: dict[str, Any] = {"vocab_size": 40, "pad_token_id": 0, "bos_token_id": 1, "eos_token_id": 2}
COMMON: dict[str, Any] = {
    **VOCABULARY,
    "hidden_size": 32,
    "intermediate_size": 48,
    "num_hidden_layers": 1,
    "num_attention_heads": 4,
}
GROUPED: dict[str, Any] = {**COMMON, "num_key_value_heads": 2}
CONFIGS = {
    "Llama": LlamaConfig(**GROUPED),
    "Mistral": MistralConfig(**GROUPED),
    "Qwen2": Qwen2Config(**GROUPED),
    "Qwen3": Qwen3Config(**GROUPED, head_dim=8),
    "Gemma2": Gemma2Config(**GROUPED, head_dim=8),
    "GPT-2": GPT2Config(**VOCABULARY, n_embd=32, n_inner=48, n_layer=1, n_head=4),
    "GPT-NeoX": GPTNeoXConfig(**COMMON),
}

HEADER = """\
| site | Hugging Face module | its | nnsight | TransformerLens | shape |
|---|---|---|---|---|---|
"""
INTRODUCTION = """\
<!-- Made by `python docs/write_sites.py`; change that, not this. -->
# Sites

A `Site` is a place in the forward pass where an activation is read or edited: a layer and a component, written
`5.resid_post`, or one of the two places outside the blocks, `embed` and `logits`. It means the same on every
architecture and every backend. The tables say what it is called elsewhere; `{i}` is the layer, counted from 0.

- **`attn_out` and `mlp_out` are what is added to the residual stream**: `resid_mid = resid_pre + attn_out` and
  `resid_post = resid_mid + mlp_out`. On Gemma2 that is after the norms behind attention and MLP. Where the two run in
  parallel, `resid_post = resid_pre + attn_out + mlp_out`.
- **A read sees the value after the edits** at its site and at all earlier ones. One layer's `resid_post` and the next
  one's `resid_pre` are the same tensor at two moments: what is edited at the second does not show in a read at the
  first.
- **`resid_mid` has no module of its own**: it is computed from `resid_pre` and `attn_out`. From there the stream takes
  two ways, into the MLP's norm and past it. A change of the norm's input would reach the first alone, so an edit at
  `resid_mid` is made as a change of `attn_out` by the same amount.
- **`z` is split by query heads**, also where several share keys and values (grouped-query attention): each head's sum
  of values, before the output projection. The module itself, and so nnsight, has the heads side by side in one axis.
  `mlp_post` is what the MLP's output projection is given.
- **`embed`** is the output of the token embedding: on Gemma2 scaled by the square root of `d_model`, on GPT-2 without
  the positions. **`logits`** is what the model returns: on Gemma2 after the soft cap, which TransformerLens's last hook
  point lies before.
- **Some do not exist**, and asking for them raises a `SiteError`: `resid_mid` where attention and MLP run in parallel
  (GPT-NeoX and others), and `mlp_post` of a mixture of experts, which has no one layer of neurons.

The names of nnsight are those inside `NNsight(model)`, the names of TransformerLens those of its `TransformerBridge`,
all with the versions in `constraints.txt`.
"""


def page() -> str:
    """The whole page, architectures with the same names under one heading."""
    families: dict[str, list[str]] = {}
    for name, config in CONFIGS.items():
        families.setdefault(table(AutoModelForCausalLM.from_config(config).eval()), []).append(name)
    sections = [f"\n## {', '.join(names)}\n\n{HEADER}{rows}" for rows, names in families.items()]
    return INTRODUCTION + "".join(sections)


def table(model: PreTrainedModel) -> str:
    """The rows of one architecture."""
    architecture = resolve_architecture(model)
    shapes, outputs = _run(architecture)
    rows: list[str] = []
    for site in SITES:
        label = f"`{str(site).replace('0.', '{i}.')}`"
        if site not in shapes:
            rows.append(f"| {label} | does not exist | | | | |\n")
            continue
        module = _module(architecture, site, outputs)
        lens = "what the bridge returns" if site == Site.logits else f"`{_any_layer(hook_name(site))}`"
        rows.append(f"| {label} | {module} | {lens} | `[{', '.join(AXES[n] for n in shapes[site])}]` |\n")
    return "".join(rows)


def _module(architecture: Architecture, site: Site, outputs: Mapping[Site, Any]) -> str:
    """Three cells: module, whether its input or its output, and the expression in nnsight."""
    if site.component == "resid_mid":
        return "none: `resid_pre + attn_out` | | computed"
    path = architecture.path_of(architecture.module_at(site))
    is_input = site.component in INPUT_COMPONENTS
    side = "input" if is_input else "output"
    # Attention returns a tuple, the model an object.
    part = "" if is_input or isinstance(outputs[site], Tensor) else ".logits" if site == Site.logits else "[0]"
    envoy = _any_layer(path).replace(".{i}", "[{i}]")
    expression = ".".join(filter(None, [envoy, side])) + part
    return f"{f'`{_any_layer(path)}`' if path else 'the model'} | {side} | `{expression}`"


def _run(architecture: Architecture) -> tuple[dict[Site, torch.Size], dict[Site, Any]]:
    """One pass: the shape at every site there is, and what its module returned."""
    outputs: dict[Site, Any] = {}
    sites: list[Site] = []
    for site in SITES:
        try:
            module = architecture.module_at(site)
        except SiteError:
            continue
        sites.append(site)
        module.register_forward_hook(lambda _module, _inputs, output, site=site: outputs.update({site: output}))
    batch = TokenBatch.from_rows([[1] * 7] * 5)
    forward_pass = ForwardPass(context_of_batch(batch), sites, stop=None)
    with torch.no_grad():
        TorchBackend(architecture.model, architecture).run(batch, forward_pass)  # pyright: ignore[reportArgumentType]
    return {site: value.shape for site, value in forward_pass.values.items()}, outputs


def _any_layer(name: str) -> str:
    return re.sub(r"\.0(?=\.|$)", ".{i}", name)


def main() -> None:
    """Writes the page, or checks it."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--check", action="store_true")
    if not parser.parse_args().check:
        PAGE.write_text(page(), encoding="utf-8")
    elif not PAGE.exists() or PAGE.read_text(encoding="utf-8") != page():
        sys.exit(f"{PAGE} is not what the code makes; run python docs/write_sites.py")


if __name__ == "__main__":
    main()
