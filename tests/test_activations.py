"""Collected activations against a brute-force loop over a plain Hugging Face forward, one text at a time."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pandas as pd
import pytest
import torch
from conftest import make_hf
from torch import Tensor

from interp_unlearn.activations import ActivationStore, collect, plan, pool_tokens, store
from interp_unlearn.errors import ArtifactError, ConfigError, DataError, SiteError
from interp_unlearn.interventions import HookedModel
from interp_unlearn.sites import Site

SITES = (Site(1, "resid_post"), Site(0, "resid_post"))
TEXTS = [
    "yes",
    "the cat sat on a mat and then the dog ran",
    "no no",
    "who said it was not blue and then sat on the small hill",
    "a big red dog ran",
    "the dog",
    "it was red",
    "said the cat then",
    "blue hill",
]


def hidden_states(model: HookedModel, architecture: str, text: str) -> tuple[Tensor, ...]:
    """Entry k is the output of block k - 1, from a separate copy of the model, without padding; BOS first."""
    ids = [model.tokenizer.bos_token_id, *model.tokenizer(text, add_special_tokens=False)["input_ids"]]
    with torch.no_grad():
        output = make_hf(architecture)(torch.tensor([ids]), output_hidden_states=True, use_cache=False)
    return tuple(states[0] for states in output.hidden_states)


@pytest.fixture
def small_shards(monkeypatch: pytest.MonkeyPatch) -> None:
    for module in (plan, store):
        monkeypatch.setattr(module, "SHARD_ROWS", 4)


@pytest.fixture
def collected(llama: HookedModel) -> ActivationStore:
    groups = [index // 2 for index in range(len(TEXTS))]
    return collect(llama, TEXTS, SITES, labels=[i % 2 for i in range(9)], groups=groups, progress=False)


class TestPooling:
    @pytest.mark.parametrize(
        ("pool", "include_bos", "pick"),
        [
            ("mean", False, lambda h: h[1:].mean(0)),
            ("mean", True, lambda h: h.mean(0)),
            ("last", False, lambda h: h[-1]),
        ],
    )
    def test_rows_equal_a_loop_over_single_texts(
        self, model: HookedModel, architecture: str, pool: Any, include_bos: bool, pick: Callable[[Tensor], Tensor]
    ) -> None:
        found = collect(model, TEXTS, SITES, pool, include_bos=include_bos, batch_tokens=40, progress=False)
        assert found.sites == SITES
        for row, text in enumerate(TEXTS):
            states = hidden_states(model, architecture, text)
            for site in SITES:
                torch.testing.assert_close(found[site][row], pick(states[site.layer + 1]), atol=2e-5, rtol=1e-4)
        expected = [len(text.split()) + include_bos if pool == "mean" else None for text in TEXTS]
        if pool == "mean":
            assert found.rows["n_tokens"].tolist() == expected

    def test_only_completion_tokens_are_pooled(self, llama: HookedModel) -> None:
        prompts, completions = ["the cat sat", "who"], [" on a mat", " said yes then no"]
        found = collect(llama, prompts, SITES, completions=completions, progress=False)
        for row, (prompt, completion) in enumerate(zip(prompts, completions, strict=True)):
            states = hidden_states(llama, "llama", prompt + completion)
            n = len(completion.split())
            torch.testing.assert_close(found[SITES[0]][row], states[2][-n:].mean(0), atol=2e-5, rtol=1e-4)
        assert found.rows["n_tokens"].tolist() == [3, 4]
        assert found.texts == ["the cat sat on a mat", "who said yes then no"]

    def test_max_length_cuts_texts(self, llama: HookedModel) -> None:
        found = collect(llama, ["the cat sat on a mat"], SITES, max_length=4, progress=False)
        cut = collect(llama, ["the cat sat"], SITES, progress=False)
        torch.testing.assert_close(found[SITES[0]], cut[SITES[0]])

    @pytest.mark.parametrize("architecture", ["llama", "gpt2"])
    def test_texts_beyond_the_context_are_cut_there_and_counted(
        self, model: HookedModel, caplog: pytest.LogCaptureFixture
    ) -> None:
        assert model.context_length == 64
        long, longest = ("the " * n + "cat" for n in (62, 300))  # with BOS and "cat" 64 tokens, and many more
        found = collect(model, ["yes", longest, long], SITES, progress=False)
        assert found.rows["n_tokens"].tolist() == [1, 63, 63]
        assert found.metadata["max_length"] == 64
        assert "1 of them cut at 64 tokens" in caplog.text
        caplog.clear()
        collect(model, ["yes", long], SITES, progress=False)
        assert not caplog.text

    def test_half_precision_is_pooled_in_float32(self) -> None:
        activation = torch.full((1, 3000, 1), 0.1, dtype=torch.bfloat16)
        pooled = pool_tokens(activation, torch.ones(1, 3000, dtype=torch.bool), "mean")
        assert pooled.dtype == torch.float32
        torch.testing.assert_close(pooled, activation[:, 0].float())

    @pytest.mark.parametrize("pool", ["mean", "last"])
    def test_what_is_outside_the_mask_never_counts(self, pool: Any) -> None:
        activation = torch.tensor([[[1.0], [3.0], [float("nan")]], [[float("nan")], [5.0], [7.0]]])
        mask = torch.tensor([[True, True, False], [False, True, True]])
        expected = torch.tensor([[2.0], [6.0]]) if pool == "mean" else torch.tensor([[3.0], [7.0]])
        torch.testing.assert_close(pool_tokens(activation, mask, pool), expected)

    def test_row_without_tokens(self) -> None:
        with pytest.raises(DataError, match="row 1"):
            pool_tokens(torch.zeros(2, 2, 1), torch.tensor([[True, False], [False, False]]), "mean")


class TestStreaming:
    @pytest.mark.usefixtures("small_shards")
    def test_streamed_store_equals_the_one_in_memory(
        self, llama: HookedModel, collected: ActivationStore, tmp_path: Path
    ) -> None:
        streamed = collect(
            llama, TEXTS, SITES, labels=collected.labels, groups=collected.groups, out=tmp_path / "s", progress=False
        )
        assert len(list((tmp_path / "s").glob("*.safetensors"))) == 3
        for site in SITES:
            torch.testing.assert_close(streamed[site], collected[site], atol=1e-5, rtol=1e-5)
        pd.testing.assert_frame_equal(streamed.rows, collected.rows)

    @pytest.mark.usefixtures("small_shards")
    def test_interrupted_collection_is_taken_up_again(
        self, llama: HookedModel, collected: ActivationStore, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        run, rows = llama.run, []

        def counted(batch: Any, *args: Any, **options: Any) -> Any:
            if len(rows) == 6:
                raise KeyboardInterrupt
            rows.extend([0] * len(batch))
            return run(batch, *args, **options)

        monkeypatch.setattr(llama, "run", counted)
        with pytest.raises(KeyboardInterrupt):
            collect(llama, TEXTS, SITES, out=tmp_path, batch_tokens=1, progress=False)
        with pytest.raises(ArtifactError, match="unfinished"):
            ActivationStore.open(tmp_path)
        rows.clear()
        rows.extend([0] * 7)  # past 6
        found = collect(llama, TEXTS, SITES, out=tmp_path, batch_tokens=1, progress=False)
        assert len(rows) - 7 == 5  # the first shard of four texts was kept
        torch.testing.assert_close(found[SITES[0]], collected[SITES[0]], atol=1e-5, rtol=1e-5)

    def test_finished_store_is_opened_without_a_pass(
        self, llama: HookedModel, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        collect(llama, TEXTS, SITES, out=tmp_path, labels=[0] * 9, progress=False)
        monkeypatch.setattr(llama, "run", None)
        again = collect(llama, TEXTS, SITES, out=tmp_path, labels=[0] * 9, progress=False)
        assert again.labels is not None
        assert again.labels.tolist() == [0] * 9

    @pytest.mark.parametrize(
        ("change", "word"),
        [
            ({"texts": TEXTS[:8]}, "n_rows"),
            ({"texts": [*TEXTS[:8], "no"]}, "data_hash"),
            ({"pool": "last"}, "pool"),
            ({"sites": SITES[:1]}, "sites"),
            ({"include_bos": True}, "include_bos"),
            ({"labels": [1] * 9}, "rows_hash"),
            ({"groups": ["a"] * 9}, "rows_hash"),
        ],
    )
    def test_another_collection_in_the_folder_is_refused(
        self, llama: HookedModel, tmp_path: Path, change: dict[str, Any], word: str
    ) -> None:
        settings: dict[str, Any] = {"texts": TEXTS, "sites": SITES, "out": tmp_path, "progress": False}
        collect(llama, **settings)
        with pytest.raises(ArtifactError, match=word):
            collect(llama, **settings | change)

    def test_other_weights_in_the_folder_are_refused(self, llama: HookedModel, tmp_path: Path) -> None:
        collect(llama, TEXTS, SITES, out=tmp_path, progress=False)
        change_weights(llama)
        with pytest.raises(ArtifactError, match="model_hash"):
            collect(llama, TEXTS, SITES, out=tmp_path, progress=False)

    def test_folder_with_other_files_is_refused(self, llama: HookedModel, tmp_path: Path) -> None:
        (tmp_path / "thesis.tex").write_text("")
        with pytest.raises(ArtifactError, match="not an empty folder"):
            collect(llama, TEXTS, SITES, out=tmp_path, progress=False)


def change_weights(model: HookedModel) -> None:
    with torch.no_grad():
        next(model.hf.parameters()).view(-1)[0] += 1
    model.mark_changed()


class TestStore:
    @pytest.mark.usefixtures("small_shards")
    def test_round_trip(self, collected: ActivationStore, tmp_path: Path) -> None:
        collected.save(tmp_path / "store")
        found = ActivationStore.open(tmp_path / "store")
        assert found.sites == collected.sites
        assert found.metadata == collected.metadata
        assert (found.groups, found.texts) == (collected.groups, TEXTS)
        pd.testing.assert_frame_equal(found.rows, collected.rows)
        for site in SITES:
            assert torch.equal(found[site], collected[site])
        for file, n in zip(sorted((tmp_path / "store").glob("*.safetensors")), (4, 4, 1), strict=True):
            assert 0 < file.stat().st_size - n * 2 * 32 * 4 < 1000  # the shard's own rows only
        collected.save(tmp_path / "store")  # the same store again

    def test_weights_that_changed_are_refused(
        self, llama: HookedModel, collected: ActivationStore, tmp_path: Path
    ) -> None:
        collected.save(tmp_path)
        assert len(ActivationStore.open(tmp_path, llama)) == 9
        change_weights(llama)
        with pytest.raises(ArtifactError, match="tiny-llama"):
            ActivationStore.open(tmp_path, llama)

    def test_select_keeps_rows_together_and_changes_the_identity(
        self, collected: ActivationStore, tmp_path: Path
    ) -> None:
        chosen = collected.select([7, 0, 3])
        assert chosen.texts == [TEXTS[7], TEXTS[0], TEXTS[3]]
        assert chosen.groups == ["3", "0", "1"]
        assert torch.equal(chosen[SITES[1]], collected[SITES[1]][[7, 0, 3]])
        assert collected.labels is not None
        odd = collected.select(collected.labels == 1)
        assert odd.texts == TEXTS[1::2]
        assert len({part.metadata["data_hash"] for part in (collected, chosen, odd)}) == 3
        collected.save(tmp_path)
        with pytest.raises(ArtifactError):
            chosen.save(tmp_path)

    @pytest.mark.parametrize("rows", [[], [9], [-1], torch.tensor([True, False])])
    def test_select_refuses(self, collected: ActivationStore, rows: Any) -> None:
        with pytest.raises(ConfigError, match="rows"):
            collected.select(rows)

    def test_frame_holds_rows_and_vectors(self, collected: ActivationStore) -> None:
        frame = collected.to_frame(SITES[0])
        assert frame["text"].tolist() == TEXTS
        assert frame[[str(i) for i in range(32)]].to_numpy()[4].tolist() == collected[SITES[0]][4].tolist()

    def test_site_that_is_not_there(self, collected: ActivationStore, tmp_path: Path) -> None:
        collected.save(tmp_path)
        for found in (collected, ActivationStore.open(tmp_path)):
            with pytest.raises(SiteError, match=r"1\.resid_post, 0\.resid_post"):
                found[Site(2, "resid_post")]

    @pytest.mark.parametrize("name", ["index.json", "rows.parquet", "rows-000000000.safetensors"])
    def test_missing_or_damaged_file(self, collected: ActivationStore, tmp_path: Path, name: str) -> None:
        collected.save(tmp_path)
        for damage in (lambda path: path.write_bytes(b"junk"), lambda path: path.unlink()):
            damage(tmp_path / name)
            with pytest.raises(ArtifactError):
                ActivationStore.open(tmp_path)[SITES[0]]

    def test_texts_can_be_left_out(self, llama: HookedModel, tmp_path: Path) -> None:
        found = collect(llama, TEXTS, SITES, keep_texts=False, out=tmp_path, progress=False)
        assert found.texts is None
        assert not any(b"the cat" in file.read_bytes() for file in tmp_path.iterdir())


@pytest.mark.parametrize(
    ("settings", "error"),
    [
        ({"texts": []}, DataError),
        ({"sites": []}, ConfigError),
        ({"sites": [SITES[0], SITES[0]]}, ConfigError),
        ({"sites": [Site(3, "resid_post")]}, SiteError),
        ({"pool": "max"}, ConfigError),
        ({"batch_tokens": 0}, ConfigError),
        ({"labels": [0, 1]}, ConfigError),
        ({"labels": [0.5] * 9}, ConfigError),
        ({"groups": ["a"]}, ConfigError),
        ({"completions": ["a"]}, ConfigError),
    ],
)
def test_settings_are_checked(llama: HookedModel, settings: dict[str, Any], error: type[Exception]) -> None:
    with pytest.raises(error):
        collect(llama, **{"texts": TEXTS, "sites": SITES, "progress": False} | settings)
