"""The same seed twice gives the same bytes of every artifact, on each backend."""

import shutil
from pathlib import Path
from typing import Any

import pytest
import torch
from conftest import TEXTS, make_hf, make_tokenizer

from interp_unlearn.activations import collect
from interp_unlearn.artifacts import write_parquet
from interp_unlearn.drift import measure_drift
from interp_unlearn.evaluation import generate_texts, token_nll
from interp_unlearn.interventions import HookedModel
from interp_unlearn.probes import fit_probes
from interp_unlearn.sites import residual_stream
from interp_unlearn.unlearning import UnlearnConfig, UnlearnData, build_objective, unlearn

FORGET = [f"the {a} {b} sat on blue hill" for a in ("big", "small", "red") for b in ("cat", "dog", "mat", "hill")]
RETAIN = [f"the {a} {b} ran and it was not" for a in ("big", "small", "red") for b in ("cat", "dog", "mat", "hill")]


def run(backend: str, folder: Path, seed: int, noise: int) -> dict[str, bytes]:
    """Collect, probe, unlearn and evaluate; every file of numbers that is left, and the texts."""
    torch.manual_seed(noise)  # of the global state nothing may depend
    model = HookedModel(make_hf("llama"), make_tokenizer(), backend, name="tiny")
    torch.manual_seed(noise)
    labels = [1] * len(FORGET) + [0] * len(RETAIN)
    told: dict[str, Any] = {"labels": labels, "out": folder / "store", "progress": False}
    store = collect(model, [*FORGET, *RETAIN], residual_stream(3), **told)
    probes = fit_probes(store, folds=3, bootstrap=20, seed=seed, n_jobs=1, progress=False)
    probes.save(folder / "probes")
    config = UnlearnConfig(steps=3, batch_size=4, seed=seed)
    data = UnlearnData(forget=FORGET, retain=RETAIN)
    original = HookedModel(make_hf("llama"), make_tokenizer(), backend, name="tiny")
    result = unlearn(model, build_objective("cosine_rmu", layers=1, seed=seed), data, config, progress=False)
    result.save(folder / "unlearned")
    model.save_pretrained(folder / "unlearned")
    write_parquet(folder / "nll.parquet", token_nll(model, TEXTS))
    write_parquet(folder / "drift.parquet", measure_drift(model, original, {"all": TEXTS}, residual_stream(3)))
    texts = generate_texts(model, TEXTS, 5, seed=seed, progress=False)
    numbers = [file for file in folder.rglob("*") if file.suffix in (".safetensors", ".parquet", ".npz")]
    found = {str(file.relative_to(folder)): file.read_bytes() for file in sorted(numbers)}
    shutil.rmtree(folder)
    return found | {"texts": "\n".join(texts).encode()}


@pytest.mark.parametrize("backend", ["torch", "transformer_lens", "nnsight"])
def test_the_same_bytes_again(backend: str, tmp_path: Path) -> None:
    pytest.importorskip(f"interp_unlearn.interventions.backends.{'torch_hooks' if backend == 'torch' else backend}")
    first, again = (run(backend, tmp_path / name, 0, noise) for name, noise in (("a", 1), ("b", 2)))
    assert len(first) > 6 and set(first) == set(again)
    assert [name for name in first if first[name] != again[name]] == []
    if backend == "torch":
        other = run(backend, tmp_path / "c", 1, 1)
        assert first["unlearned/model.safetensors"] != other["unlearned/model.safetensors"]
