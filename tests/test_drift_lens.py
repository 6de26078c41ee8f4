"""Lenses: the model's own prediction at the last layer, planted streams, and translators of a known map."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from conftest import ALL_ARCHITECTURES, TEXTS, WORDS, make_hf, make_tokenizer
from test_drift_paired import token_store
from torch import Tensor

from interp_unlearn.activations import ActivationStore, collect
from interp_unlearn.drift import TunedLens, TunedLensConfig, answer_lens, fit_tuned_lens
from interp_unlearn.errors import ArtifactError, CheckpointError, ConfigError, DataError, SiteError
from interp_unlearn.interventions import HookedModel
from interp_unlearn.sites import Site, residual_stream

SITES = residual_stream(3)
FIRST, LAST = Site(0, "resid_post"), Site(2, "resid_post")
ANSWERS = [" cat", " sat", " yes", " hill"]
MANY = [" ".join(WORDS[(7 * i + 3 * j) % len(WORDS)] for j in range(3 + i % 5)) for i in range(60)]
QUICK = TunedLensConfig(steps=80, batch_texts=16, learning_rate=2e-2)


def own_predictions(model: HookedModel, texts: list[str]) -> Tensor:
    """Next-token log-probabilities after each whole text."""
    rows: list[Tensor] = []
    with torch.no_grad():
        for text in texts:
            logits = model.run(model.tokenize([text]), logits=True).logits
            assert logits is not None
            rows.append(logits[0, -1].float().log_softmax(-1))
    return torch.stack(rows)


@pytest.mark.parametrize("name", ALL_ARCHITECTURES)
def test_at_the_last_layer_it_is_the_models_own_prediction(name: str) -> None:
    model = HookedModel(make_hf(name), make_tokenizer())
    table: Any = answer_lens(model, collect(model, TEXTS, SITES, "last", progress=False), ANSWERS)
    assert len(table) == 4 * 4 and table["lens"].unique().tolist() == ["logit"]
    assert table.index.tolist() == list(range(16))
    rows = table[table["site"] == str(LAST)]
    expected = own_predictions(model, TEXTS)
    ids: Any = model.tokenizer.convert_tokens_to_ids([answer.strip() for answer in ANSWERS])
    assert rows["token_id"].tolist() == ids
    assert rows["log_probability"].tolist() == pytest.approx(expected[range(4), ids].tolist(), abs=1e-4)
    assert rows["probability"].tolist() == pytest.approx(np.exp(rows["log_probability"]).tolist())
    ranks = [1 + int((row > row[token]).sum()) for row, token in zip(expected, ids, strict=True)]
    assert rows["rank"].tolist() == ranks


def test_positions_of_a_token_level_store(llama: HookedModel) -> None:
    tokens = collect(llama, TEXTS, SITES, "none", progress=False)
    last = answer_lens(llama, collect(llama, TEXTS, SITES, "last", progress=False), ANSWERS)
    np.testing.assert_allclose(
        answer_lens(llama, tokens, ANSWERS)["log_probability"], last["log_probability"], atol=1e-4
    )
    cut = ["the cat", "a big", "who said", "yes"]
    chosen: Any = answer_lens(llama, tokens, ANSWERS, position=[1, 1, 1, 0])
    expected = answer_lens(llama, collect(llama, cut, SITES, "last", progress=False), ANSWERS)
    np.testing.assert_allclose(chosen["log_probability"], expected["log_probability"], atol=1e-4)
    with pytest.raises(ConfigError, match="position 1 lies outside text 3, which has 1 tokens"):
        answer_lens(llama, tokens, ANSWERS, position=1)


def test_a_stream_along_a_tokens_own_direction_is_read_as_that_token(llama: HookedModel) -> None:
    head: Any = llama.architecture.unembed
    norm: Any = llama.architecture.final_norm
    ids = llama.tokenizer(ANSWERS, add_special_tokens=False)["input_ids"]
    towards = 50 * head.weight[torch.tensor(ids)[:, 0]].detach() * norm.weight.detach().sign()
    store = token_store({FIRST: towards, LAST: -towards}, [1] * 4)
    ranks: Any = answer_lens(llama, store, ANSWERS).set_index("site")["rank"]
    assert ranks[str(FIRST)].mean() < 3 and ranks[str(LAST)].mean() > len(llama.tokenizer) - 3


def test_answers_that_have_nothing_to_do_with_the_stream_rank_in_the_middle(llama: HookedModel) -> None:
    n = 1000
    generator = torch.Generator().manual_seed(0)
    store = token_store({LAST: torch.randn(n, 32, generator=generator)}, [1] * n)
    words = [f" {WORDS[int(i)]}" for i in torch.randint(len(WORDS), (n,), generator=generator)]
    vocabulary = len(llama.tokenizer)
    ranks: Any = answer_lens(llama, store, words)["rank"]
    assert ranks.mean() == pytest.approx((vocabulary + 1) / 2, rel=0.1)


def test_a_readout_that_is_not_the_models_own_is_refused(llama: HookedModel) -> None:
    store = collect(llama, TEXTS, SITES, "last", progress=False)
    config: Any = llama.hf.config
    config.final_logit_softcapping = 0.5  # which a Llama does not look at
    with pytest.raises(CheckpointError, match="a step between them that a lens does not know"):
        answer_lens(llama, store, ANSWERS)


def test_what_a_lens_cannot_read_is_refused(llama: HookedModel) -> None:
    store = collect(llama, TEXTS, SITES, "last", progress=False)
    with pytest.raises(ConfigError, match="expected one a text"):
        answer_lens(llama, store, ANSWERS[:2])
    with pytest.raises(DataError, match="answer 2 has no tokens"):
        answer_lens(llama, store, [*ANSWERS[:2], "", " cat"])
    with pytest.raises(ConfigError, match='pool="none", or "last"'):
        answer_lens(llama, collect(llama, TEXTS, SITES, "mean", progress=False), ANSWERS)
    with pytest.raises(ConfigError, match=r"the store holds 1\.mlp_post"):
        answer_lens(llama, collect(llama, TEXTS, [Site(1, "mlp_post")], "last", progress=False), ANSWERS)


class TestTunedLens:
    @pytest.fixture
    def store(self, llama: HookedModel) -> ActivationStore:
        return collect(llama, MANY, SITES, "none", progress=False)

    def test_it_starts_as_the_logit_lens(self, llama: HookedModel, store: ActivationStore) -> None:
        lens = fit_tuned_lens(llama, store, TunedLensConfig(steps=0), progress=False)
        assert lens.table["kl_tuned"].tolist() == lens.table["kl_logit"].tolist()
        answers = [" cat"] * len(MANY)
        tuned, plain = (answer_lens(llama, store, answers, lens=one) for one in (lens, None))
        assert tuned["lens"].unique().tolist() == ["tuned"]
        assert tuned["log_probability"].tolist() == plain["log_probability"].tolist()

    def test_fitted_on_held_out_texts_it_beats_the_logit_lens_and_leaves_the_model_alone(
        self, model: HookedModel
    ) -> None:
        store = collect(model, MANY, SITES, "none", progress=False)
        before = model.hash()
        lens = fit_tuned_lens(model, store, QUICK, progress=False)
        assert lens.table["site"].tolist() == ["embed", "0.resid_post", "1.resid_post"]
        tuned, plain = (lens.table[column].to_numpy() for column in ("kl_tuned", "kl_logit"))
        assert (tuned < 0.8 * plain).all() and (tuned >= 0).all()
        assert model.hash() == before
        assert all(parameter.grad is None for parameter in model.hf.parameters())

    def test_a_planted_affine_map_is_undone(self, llama: HookedModel, store: ActivationStore) -> None:
        rng = np.random.default_rng(0)
        inverse = torch.eye(32) + 0.3 * torch.tensor(rng.normal(size=(32, 32)) / 32**0.5).float()
        shift = torch.tensor(rng.normal(size=32)).float()
        early = torch.linalg.solve(inverse, (store[LAST] - shift).T).T
        assert store.token_ids is not None
        planted = ActivationStore({FIRST: early, LAST: store[LAST]}, store.rows, store.metadata, store.token_ids)
        config = TunedLensConfig(steps=300, batch_texts=16, learning_rate=1e-2, weight_decay=0.0)
        lens = fit_tuned_lens(llama, planted, config, progress=False)
        assert lens.table["kl_logit"].tolist()[0] > 0.1
        assert lens.table["kl_tuned"].tolist()[0] < 0.05 * lens.table["kl_logit"].tolist()[0]

    def test_it_finds_nothing_in_a_stream_that_knows_nothing(self, llama: HookedModel, store: ActivationStore) -> None:
        noise = torch.randn(len(store[LAST]), 32, generator=torch.Generator().manual_seed(0))
        assert store.token_ids is not None
        blind = ActivationStore({FIRST: noise, LAST: store[LAST]}, store.rows, store.metadata, store.token_ids)
        lens = fit_tuned_lens(llama, blind, QUICK, progress=False)
        own = collect(llama, MANY, [LAST], "none", progress=False)[LAST]
        head: Any = llama.architecture.unembed
        norm: Any = llama.architecture.final_norm
        predicted = head(norm(own)).detach().log_softmax(-1)
        constant = predicted.exp().mean(0).log()
        best_guess = float((predicted.exp() * (predicted - constant)).sum(-1).mean())
        assert lens.table["kl_tuned"].tolist()[0] > 0.8 * best_guess

    def test_another_models_stream_is_read_through_it(
        self, llama: HookedModel, store: ActivationStore, tmp_path: Path
    ) -> None:
        lens = fit_tuned_lens(llama, store, TunedLensConfig(steps=20), progress=False)
        other = HookedModel(make_hf("llama", seed=1), llama.tokenizer)
        theirs = collect(other, TEXTS, SITES, "last", progress=False)
        lens.save(tmp_path / "lens.safetensors")
        loaded = TunedLens.load(tmp_path / "lens.safetensors")
        assert loaded.last == LAST and loaded.metadata == lens.metadata
        assert loaded.table.to_dict("list") == lens.table.to_dict("list")
        read = [answer_lens(llama, theirs, ANSWERS, lens=one)["log_probability"].tolist() for one in (lens, loaded)]
        assert read[0] == read[1] != answer_lens(llama, theirs, ANSWERS)["log_probability"].tolist()
        translated = lens.translate(theirs[FIRST], FIRST)
        expected = theirs[FIRST] + theirs[FIRST] @ lens.weights[FIRST].T + lens.biases[FIRST]
        torch.testing.assert_close(translated, expected)
        torch.testing.assert_close(lens.translate(theirs[LAST], LAST), theirs[LAST])
        with pytest.raises(SiteError, match=r"no translator at 1\.resid_mid"):
            lens.translate(theirs[FIRST], Site(1, "resid_mid"))
        with pytest.raises(ArtifactError, match="belongs to"):
            fit_tuned_lens(llama, theirs, progress=False)

    def test_what_it_cannot_be_fitted_on_is_refused(self, llama: HookedModel) -> None:
        with pytest.raises(ConfigError, match=r'pool="none" at 2\.resid_post'):
            fit_tuned_lens(llama, collect(llama, MANY, SITES[:2], "none", progress=False), progress=False)
        with pytest.raises(ConfigError, match="too few to hold"):
            fit_tuned_lens(llama, collect(llama, MANY[:1], SITES, "none", progress=False), progress=False)
        with pytest.raises(ConfigError, match="held_out"):
            TunedLensConfig(held_out=1.0)
        with pytest.raises(ConfigError, match="a learning_rate above 0"):
            TunedLensConfig(learning_rate=0.0)
