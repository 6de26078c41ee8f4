"""Stores with a vector for every token, selections of tokens, and reading some rows of what is on disk."""

from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
import torch
from conftest import make_hf
from transformers import PreTrainedTokenizerBase

from interp_unlearn.activations import ActivationStore, collect, plan, plan_collection, store
from interp_unlearn.errors import ConfigError, DataError
from interp_unlearn.interventions import HookedModel, Span, Where
from interp_unlearn.sites import Site

SITES = (Site(1, "resid_post"), Site(0, "z"), Site(2, "mlp_post"))
TEXTS = ["yes", "the cat sat on a mat and then the dog ran", "no no", "a big red dog ran", "the dog", "it was red"]


@pytest.fixture
def small_shards(monkeypatch: pytest.MonkeyPatch) -> None:
    for module in (plan, store):
        monkeypatch.setattr(module, "SHARD_ROWS", 4)


@pytest.fixture
def token_level(llama: HookedModel, tmp_path: Path, small_shards: None) -> ActivationStore:
    return collect(llama, TEXTS, SITES, "none", out=tmp_path / "tokens", batch_tokens=20, progress=False)


def single(model: HookedModel, text: str, site: Site) -> torch.Tensor:
    """A site on one text alone, without BOS, heads side by side."""
    with torch.no_grad():
        return model.run(model.tokenize([text]), [site])[site][0, 1:].flatten(1)


def test_every_token_of_every_text_in_the_order_of_the_texts(llama: HookedModel, token_level: ActivationStore) -> None:
    assert token_level.rows["n_tokens"].tolist() == [len(text.split()) for text in TEXTS]
    for site in SITES:
        expected = torch.cat([single(llama, text, site) for text in TEXTS])
        torch.testing.assert_close(token_level[site], expected, atol=2e-5, rtol=1e-4)
    frame = token_level.token_frame()
    ids = [llama.tokenizer(text, add_special_tokens=False)["input_ids"] for text in TEXTS]
    assert frame["token_id"].tolist() == [token for row in ids for token in row]
    assert frame["place"].tolist() == [place for row in ids for place in range(len(row))]
    assert frame["row"].tolist() == [index for index, row in enumerate(ids) for _ in row]


def test_rows_of_the_disk_and_of_memory_are_the_same(
    llama: HookedModel, token_level: ActivationStore, tmp_path: Path
) -> None:
    in_memory = collect(llama, TEXTS, SITES, "none", batch_tokens=20, progress=False)
    in_memory.save(tmp_path / "saved")
    for rows in (slice(1, 5), [5, 0, 3], np.array([True, False] * 3), slice(0, 0), [4]):
        picked = np.arange(6)[rows]
        expected = torch.cat([torch.zeros(0, 32), *(single(llama, TEXTS[row], SITES[0]) for row in picked)])
        for found in (token_level, in_memory, ActivationStore.open(tmp_path / "saved")):
            torch.testing.assert_close(found.read(SITES[0], rows), expected, atol=2e-5, rtol=1e-4)
            assert len(found.token_frame(rows) if len(picked) else ()) == len(expected)
    chosen = token_level.select([5, 0])
    assert chosen.texts == ["it was red", "yes"]
    pd.testing.assert_frame_equal(
        chosen.token_frame()[["place", "token_id"]], token_level.token_frame([5, 0])[["place", "token_id"]]
    )
    assert chosen.to_frame(SITES[1]).shape == (4, 3 + 32)


def test_only_the_rows_asked_for_are_read(token_level: ActivationStore, monkeypatch: pytest.MonkeyPatch) -> None:
    """A run of rows in one shard is a view of the mapped file; the other shard is not even opened."""
    from interp_unlearn.activations.shards import ShardedVectors

    opened: list[int] = []
    mapped = ShardedVectors._mapped

    def counted(self: ShardedVectors, shard: int, name: str) -> torch.Tensor:
        opened.append(shard)
        return mapped(self, shard, name)

    monkeypatch.setattr(ShardedVectors, "_mapped", counted)
    found = token_level.read(SITES[0], slice(1, 3))
    assert opened == [0]
    assert found.storage_offset() == 32, "a view of the file, which begins with the one token of the first text"
    token_level.read(SITES[0], [5])
    assert opened == [0, 1]


def test_pooled_in_float32_and_tokens_in_the_models_precision(tokenizer: PreTrainedTokenizerBase) -> None:
    model = HookedModel(make_hf("llama").to(torch.bfloat16), tokenizer)
    tokens = collect(model, TEXTS, SITES, "none", progress=False)
    assert {tokens[site].dtype for site in SITES} == {torch.bfloat16}
    assert tokens.array(SITES[0]).dtype == np.float32
    pooled = collect(model, TEXTS, SITES, "mean", progress=False)
    assert {pooled[site].dtype for site in SITES} == {torch.float32}
    expected = torch.stack([tokens.read(SITES[0], [row]).float().mean(0) for row in range(6)])
    torch.testing.assert_close(pooled[SITES[0]], expected, atol=1e-6, rtol=1e-6)


@pytest.mark.parametrize(
    ("tokens", "pick"),
    [
        ("all", slice(None)),
        ("last", slice(-1, None)),
        (Span(0, 2), slice(0, 1)),  # position 0 is BOS, which does not count
        (Span(-2), slice(-2, None)),
    ],
)
def test_selected_tokens_only(llama: HookedModel, tokens: Any, pick: slice) -> None:
    found = collect(llama, TEXTS, SITES, tokens=tokens, progress=False)
    for site in SITES:
        expected = torch.stack([single(llama, text, site)[pick].mean(0) for text in TEXTS])
        torch.testing.assert_close(found[site], expected, atol=2e-5, rtol=1e-4)


def test_prompt_and_completion_tokens(llama: HookedModel) -> None:
    for tokens, pick in (("prompt", slice(0, 3)), ("completion", slice(3, None)), (None, slice(3, None))):
        found = collect(llama, ["the cat sat"], SITES, tokens=tokens, completions=[" on a mat"], progress=False)
        expected = single(llama, "the cat sat on a mat", SITES[0])[pick].mean(0)
        torch.testing.assert_close(found[SITES[0]][0], expected, atol=2e-5, rtol=1e-4)


def test_the_plan_tells_what_will_happen(
    llama: HookedModel, tmp_path: Path, small_shards: None, monkeypatch: pytest.MonkeyPatch
) -> None:
    told = plan_collection(llama, TEXTS, SITES, batch_tokens=12)
    widths: list[int] = []
    run = llama.run

    def counted(batch: Any, *arguments: Any, **options: Any) -> Any:
        widths.append(batch.input_ids.numel())
        return run(batch, *arguments, **options)

    monkeypatch.setattr(llama, "run", counted)
    collect(llama, TEXTS, SITES, batch_tokens=12, out=tmp_path / "s", progress=False)
    assert (told.n_passes, told.n_padded_tokens) == (len(widths), sum(widths))
    assert max(widths) == 12, "the longest text with BOS, by itself; no other pass is wider"
    assert told.n_tokens == sum(len(text.split()) + 1 for text in TEXTS)
    assert told.n_bytes == 6 * (32 + 32 + 48) * 4
    assert len(told.shard_starts) == len(list((tmp_path / "s").glob("*.safetensors"))) == 2
    sizes = sum(file.stat().st_size for file in (tmp_path / "s").glob("*.safetensors"))
    assert told.n_bytes <= sizes < told.n_bytes + 2 * 1000
    assert told.to_frame()["deepest"].tolist() == ["2.mlp_post"]
    assert "6 texts" in str(told) and "2 shards" in str(told)


def test_a_shard_ends_when_it_is_full(monkeypatch: pytest.MonkeyPatch, llama: HookedModel) -> None:
    monkeypatch.setattr(plan, "SHARD_BYTES", 10 * 32 * 4)
    told = plan_collection(llama, TEXTS, SITES[:1], "none")
    # Tokens with BOS: 2, 12, 3, 6, 3, 4; ten fit, and a text that is longer is a shard by itself.
    assert told.shard_starts == (0, 1, 2, 4)


def test_activations_that_overflow_are_named(tokenizer: PreTrainedTokenizerBase) -> None:
    hf = make_hf("llama")
    with torch.no_grad():
        hf.model.layers[1].mlp.down_proj.weight.mul_(1e6)
    model = HookedModel(hf.to(torch.float16), tokenizer)
    with pytest.raises(DataError, match=r"1\.resid_post.*wider dtype"):
        collect(model, TEXTS, SITES[:1], progress=False)


def test_a_text_without_selected_tokens_is_named(llama: HookedModel) -> None:
    with pytest.raises(DataError, match="text 0 has no token"):
        collect(llama, TEXTS, SITES, tokens=Span(3, 9), progress=False)


def test_selections_of_one_batch_only_are_refused(llama: HookedModel) -> None:
    with pytest.raises(ConfigError, match="a name or a Span"):
        collect(llama, TEXTS, SITES, tokens=Where(torch.ones(32), 0.0), progress=False)


def test_a_pooled_store_has_no_token_frame(llama: HookedModel) -> None:
    with pytest.raises(ConfigError, match="pool='none'"):
        collect(llama, TEXTS, SITES, progress=False).token_frame()
