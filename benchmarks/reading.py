"""One pass with reads, beside the bare body of the model and beside the other libraries doing the same.

The baseline is the model's body without the unembedding, which nothing that reads the residual stream needs.
"""

from collections.abc import Callable
from typing import Any

import pandas as pd
import torch
from transformers import PreTrainedModel

from benchmarks.shapes import make_model, make_tokenizer
from benchmarks.timing import Timed, interleave, summarize
from interp_unlearn import HookedModel, Site
from interp_unlearn.models import TokenBatch

BODY = "the model's body"


def measure(
    shape: str, rows: int, width: int, rounds: int, *, calls: int = 1, device: str = "cpu", dtype: str = "float32"
) -> pd.DataFrame:
    """All resid_post, through each backend and natively, and passes to a quarter, a half and three quarters.

    Returns:
        As `timing.summarize`, with shape, batch, dtype, tokens_per_second and, for early exits, share of the layers.
    """
    hf = make_model(shape, device, getattr(torch, dtype))
    generator = torch.Generator().manual_seed(0)
    ids = torch.randint(3, hf.config.vocab_size, (rows, width), generator=generator)
    batch = TokenBatch.from_rows(ids.tolist()).to(device)
    n = hf.config.num_hidden_layers
    every = [Site(layer, "resid_post") for layer in range(n)]
    backends = {"torch": HookedModel(hf, make_tokenizer())}
    for name in ("transformer_lens", "nnsight"):
        if _installed(name):
            backends[name] = HookedModel(hf, make_tokenizer(), name)

    functions: dict[str, Timed] = {BODY: _body(hf, batch)}
    for name, model in backends.items():
        functions[f"all resid_post, backend {name}"] = lambda model=model: model.run(batch, every)
    functions |= {f"all resid_post, {name}": run for name, run in _natively(hf, backends, batch).items()}
    shares: dict[str, float] = {}
    for quarters in (1, 2, 3):
        deep = max(1, round(n * quarters / 4))
        name = f"to layer {deep} of {n}"
        shares[name] = deep / n
        site = Site(deep - 1, "resid_post")
        functions[name] = lambda site=site: backends["torch"].run(batch, [site])
    with torch.no_grad():
        times = interleave(functions, rounds, calls=calls, label=f"reading {shape}")
    table = summarize(times, BODY)
    table["share_of_layers"] = table["what"].map(shares)
    table["tokens_per_second"] = rows * width / (table["ms"] / 1000)
    return table.assign(shape=shape, batch=f"{rows} x {width}", dtype=dtype, device=device)


def _body(hf: PreTrainedModel, batch: TokenBatch) -> Timed:
    body = hf.base_model
    return lambda: body(
        input_ids=batch.input_ids,
        attention_mask=batch.attention_mask,
        position_ids=batch.position_ids,
        use_cache=False,
    )


def _natively(hf: PreTrainedModel, backends: dict[str, HookedModel], batch: TokenBatch) -> dict[str, Callable[[], Any]]:
    """The libraries' own ways to the same tensors; `run_with_cache` cannot be ended before the logits."""
    found: dict[str, Callable[[], Any]] = {}
    n = hf.config.num_hidden_layers
    if "transformer_lens" in backends:
        bridge = backends["transformer_lens"]._backend.bridge  # the very bridge that the backend uses
        names = [f"blocks.{layer}.hook_resid_post" for layer in range(n)]

        def cached() -> Any:
            return bridge.run_with_cache(
                batch.input_ids,
                names_filter=names,
                attention_mask=batch.attention_mask,
                position_ids=batch.position_ids,
            )

        found["run_with_cache of TransformerLens"] = cached
    if "nnsight" in backends:
        import nnsight

        wrapped = nnsight.NNsight(hf.base_model)
        blocks = wrapped.h if hasattr(hf.base_model, "h") else wrapped.layers
        inputs = {
            "input_ids": batch.input_ids,
            "attention_mask": batch.attention_mask,
            "position_ids": batch.position_ids,
            "use_cache": False,
        }

        def traced() -> Any:
            with wrapped.trace(**inputs):
                kept = nnsight.save([block.output for block in blocks])
            return kept

        found["trace of nnsight"] = traced
    return found


def _installed(name: str) -> bool:
    from importlib.util import find_spec

    return find_spec(name) is not None
