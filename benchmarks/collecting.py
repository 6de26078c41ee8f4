"""`collect`, pooled and written to disk, beside bare passes over the same tokens; and ragged text in two orders."""

import os
import tempfile
from pathlib import Path
from typing import Any

import pandas as pd
import torch

from benchmarks.shapes import make_model, make_tokenizer
from benchmarks.timing import interleave, summarize
from interp_unlearn import HookedModel, Site, collect
from interp_unlearn.activations import plan_collection, pool_tokens
from interp_unlearn.data import read_pairs
from interp_unlearn.models import TokenBatch, tokenize

FILE_ORDER = 32
"""Texts of a batch in file order, each batch padded to its longest text."""


def measure_writing(
    shape: str, n_texts: int, rounds: int, device: str = "cpu", dtype: str = "float32", batch_tokens: int = 4096
) -> pd.DataFrame:
    """`collect` of all resid_post into a new folder each time, beside bare passes over the same batches.

    The texts are of random words and of equal length, so that both compute the same tokens.
    """
    hf = make_model(shape, device, getattr(torch, dtype))
    tokenizer = make_tokenizer()  # a token a letter
    generator = torch.Generator().manual_seed(0)
    letters = torch.randint(ord("a"), ord("z") + 1, (n_texts, 63), generator=generator)
    texts = ["".join(map(chr, row)) for row in letters.tolist()]
    model = HookedModel(hf, tokenizer)
    sites = [Site(layer, "resid_post") for layer in range(model.n_layers)]
    plan = plan_collection(model, texts, sites, batch_tokens=batch_tokens)
    batches = [model.tokenize([texts[i] for i in chosen]) for shard in plan.passes for chosen in shard]
    model.hash()  # once for all collections from a model

    def plain() -> None:
        for batch in batches:
            _body(model, batch)

    def collected() -> None:
        with tempfile.TemporaryDirectory() as folder:
            collect(model, texts, sites, out=Path(folder) / "store", batch_tokens=batch_tokens, progress=False)

    def in_memory() -> None:
        collect(model, texts, sites, batch_tokens=batch_tokens, progress=False)

    with torch.no_grad():
        times = interleave(
            {"bare passes": plain, "collect, in memory": in_memory, "collect, to disk": collected},
            rounds,
            label=f"writing {shape}",
        )
    table = summarize(times, "bare passes")
    table["tokens_per_second"] = plan.n_padded_tokens / (table["ms"] / 1000)
    return table.assign(shape=shape, batch=f"{n_texts} texts x 64", dtype=dtype, device=device)


def measure_ragged(shape: str, n_texts: int, rounds: int) -> pd.DataFrame | None:
    """ParaDetox's sentences through `collect`, beside the same reads in file order; None without the data."""
    if "INTERP_UNLEARN_DATA" not in os.environ:
        return None
    pairs = read_pairs(Path(os.environ["INTERP_UNLEARN_DATA"]) / "data" / "paradetox" / "paradetox.tsv")
    every = [pair.toxic for pair in pairs]
    texts = every[:n_texts]
    model = HookedModel(make_model(shape), make_tokenizer(every))
    sites = [Site(layer, "resid_post") for layer in range(model.n_layers)]
    batches = [tokenize(model.tokenizer, texts[i : i + FILE_ORDER]) for i in range(0, len(texts), FILE_ORDER)]
    plan = plan_collection(model, texts, sites)
    model.hash()

    def in_file_order() -> None:
        for batch in batches:
            model.run(batch, sites, keep=lambda site, h, context: pool_tokens(h, context.content, "mean"))

    def collected() -> None:
        collect(model, texts, sites, progress=False)

    with torch.no_grad():
        times = interleave({"file order, 32 a batch": in_file_order, "collect": collected}, rounds, label="ragged text")
    table = summarize(times, "collect")
    computed = {"collect": plan.n_padded_tokens, "file order, 32 a batch": sum(b.input_ids.numel() for b in batches)}
    table["padding"] = 1 - plan.n_tokens / table["what"].map(computed)
    return table.assign(shape=shape, batch=f"{n_texts} sentences of ParaDetox", dtype="float32", device="cpu")


def _body(model: HookedModel, batch: TokenBatch) -> Any:
    return model.hf.base_model(
        input_ids=batch.input_ids,
        attention_mask=batch.attention_mask,
        position_ids=batch.position_ids,
        use_cache=False,
    )
