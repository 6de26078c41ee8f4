"""What drift and probes refuse at the last moment, each by a message of its own, and their rarer ways."""

import json
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
import torch
from conftest import COMMON, TEXTS, make_hf, make_tokenizer
from probe_stores import make_store
from safetensors.torch import load_file, save_file
from test_drift_paired import EARLY, LATE, gaussian, token_store
from transformers import LlamaConfig, LlamaForCausalLM

from interp_unlearn.activations import ActivationStore, collect
from interp_unlearn.directions.readout import Readout
from interp_unlearn.drift import (
    answer_lens,
    check_determinism,
    debiased_cka,
    displacement_spectrum,
    position_classes,
    representation_similarity,
    retrained_probes,
    unlearning_depth,
    weight_delta,
)
from interp_unlearn.drift.paired import token_chunks
from interp_unlearn.drift.readings import read_model
from interp_unlearn.drift.setup import Answers, DriftSetup, DriftTexts
from interp_unlearn.drift.spectrum import leading
from interp_unlearn.drift.weights import open_weights
from interp_unlearn.errors import CheckpointError, ConfigError, DataError
from interp_unlearn.interventions import HookedModel
from interp_unlearn.probes import fit_leace, fit_probes
from interp_unlearn.probes.linear import fit_mean_difference
from interp_unlearn.probes.reading import collect_as_fitted
from interp_unlearn.sites import Site

ANSWERS = [" cat", " sat", " yes", " hill"]


def pooled(seed: int, **columns: Any) -> ActivationStore:
    labels = np.arange(40) % 2 == 0
    vectors = np.random.default_rng(seed).normal(size=(40, 4)) + 2 * labels[:, None]
    return make_store({LATE: vectors}, labels, **columns)


def test_a_lens_reads_a_place_of_each_text_in_streams_of_its_width(llama: HookedModel) -> None:
    tokens = collect(llama, TEXTS, [LATE], "none", progress=False)
    with pytest.raises(ConfigError, match=rf"position: expected one number, or one a text \(4\), got {2}"):
        answer_lens(llama, tokens, ANSWERS, position=[0, 0])
    counts = tokens.rows["n_tokens"].tolist()
    answer_lens(llama, tokens, ANSWERS, position=[n - 1 for n in counts])
    answer_lens(llama, tokens, ANSWERS, position=[-n for n in counts])
    for place in (counts[1], -counts[1] - 1):
        with pytest.raises(ConfigError, match=f"position {place} lies outside text 1, which has {counts[1]} tokens"):
            answer_lens(llama, tokens, ANSWERS, position=[0, place, 0, 0])
    narrow = ActivationStore({LATE: tokens[LATE][:, :-1]}, tokens.rows, tokens.metadata)
    with pytest.raises(ConfigError, match=f"vectors are {llama.d_model - 1} wide, the model's {llama.d_model}"):
        answer_lens(llama, narrow, ANSWERS)


def test_a_mask_has_an_entry_for_each_token_of_a_store_of_tokens() -> None:
    one, other = (token_store({LATE: gaussian(seed, 10, 4)}, (6, 4)) for seed in (0, 1))
    assert len(next(token_chunks(one, LATE, np.arange(10) < 7))) == 7
    wrong = np.ones(9, dtype=bool)
    with pytest.raises(ConfigError, match=r"an entry for each of 10 tokens, got shape \(9,\)"):
        list(token_chunks(one, LATE, wrong))
    with pytest.raises(ConfigError, match=r"an entry for each of 10 tokens, got shape \(9,\)"):
        representation_similarity(one, other, keep=wrong, n_null=0)
    with pytest.raises(ConfigError, match="one vector per text"):
        list(token_chunks(pooled(0), LATE))
    assert representation_similarity(one, other, keep=np.arange(10) < 4, n_null=0)["n_tokens"].tolist() == [4]
    with pytest.raises(DataError, match="needs at least 4, got 3"):
        representation_similarity(one, other, keep=np.arange(10) < 3, n_null=0)


def test_cka_needs_four_tokens_of_both() -> None:
    debiased_cka(gaussian(0, 4, 3), gaussian(1, 4, 5))
    with pytest.raises(DataError, match="needs at least 4, got 3"):
        debiased_cka(gaussian(0, 3, 3), gaussian(1, 3, 5))
    with pytest.raises(ConfigError, match=r"of the same tokens, got \(4, 3\) and \(5, 3\)"):
        debiased_cka(gaussian(0, 4, 3), gaussian(1, 5, 3))
    with pytest.raises(ConfigError, match=r"got \(4,\) and \(4, 1\)"):
        debiased_cka(gaussian(0, 4), gaussian(1, 4, 1))


def test_a_text_that_was_cut_before_its_subject_is_named(llama: HookedModel) -> None:
    texts = ["the small cat sat", "yes the big dog ran"]
    whole = collect(llama, texts, [LATE], "none", tokens="all", progress=False)
    assert len(position_classes(whole, llama.tokenizer, ["cat", "dog"])) == whole.rows["n_tokens"].sum()
    cut = collect(llama, texts, [LATE], "none", tokens="all", max_length=3, progress=False)
    with pytest.raises(DataError, match="text 1 was cut before its subject; collect with a larger max_length"):
        position_classes(cut, llama.tokenizer, ["the", "dog"], texts)


@pytest.mark.parametrize("who", ["changed", "never_knew", "both"])
def test_probes_are_trained_again_on_labels(who: str) -> None:
    labelled, probes = pooled(0), fit_probes(pooled(1), folds=2, bootstrap=0, progress=False)
    without = ActivationStore(labelled.vectors, labelled.rows.drop(columns="label"), labelled.metadata)
    changed = labelled if who == "never_knew" else without
    floor = labelled if who == "changed" else without
    with pytest.raises(ConfigError, match="the stores hold no labels; collect them with labels"):
        retrained_probes(probes, changed, never_knew=floor, folds=2, bootstrap=0)


def test_texts_and_prompts_are_matched_by_number() -> None:
    with pytest.raises(DataError, match=r"no texts; expected for example \{"):
        DriftTexts([], [])
    with pytest.raises(ConfigError, match=r"corpora: expected one a text \(2\), got 1"):
        DriftTexts(["a", "b"], ["forget"])
    with pytest.raises(ConfigError, match=r"groups: expected one a text \(1\), got 2"):
        DriftTexts(["a"], ["forget"], ["x", "y"])
    with pytest.raises(DataError, match="0 prompts and 0 answers; expected one a prompt"):
        Answers([], [])
    with pytest.raises(DataError, match="2 prompts and 1 answers"):
        Answers(["a", "b"], [" c"])
    assert DriftTexts.of({"retain": ["a"], "forget": ["b"], "other": ["c"]}).names == ("forget", "retain", "other")
    assert DriftTexts(["a", "b"], ["x", "y"], target="y").labels == [0, 1]


def test_what_is_to_be_read_must_be_given(llama: HookedModel, tmp_path: Path) -> None:
    setup = DriftSetup(DriftTexts(["the cat"], ["forget"]), progress=False)
    for reading in ("prompts", "answered"):
        with pytest.raises(ConfigError, match="no prompts with their answers are given"):
            read_model(llama, [reading], setup, tmp_path)
    with pytest.raises(ConfigError, match="no probes of the original are given"):
        read_model(llama, ["pooled"], setup, tmp_path)
    assert read_model(llama, [], setup, tmp_path).stream is None and not list(tmp_path.iterdir())


def test_prompts_are_read_whole_whatever_the_length_of_texts(llama: HookedModel, tmp_path: Path) -> None:
    answers = Answers(TEXTS, ANSWERS)
    texts = DriftTexts(TEXTS, ["forget"] * 4)
    whole, cut = (
        read_model(llama, ["stream", "prompts", "answered"], replace_length(texts, answers, length), tmp_path / name)
        for name, length in (("whole", None), ("cut", 2))
    )
    assert cut.stream is not None and cut.stream.rows["n_tokens"].max() == 1  # with BOS two
    pd.testing.assert_frame_equal(whole.lens, cut.lens)
    assert whole.answered is not None and cut.answered is not None
    assert whole.answered.rows["n_tokens"].tolist() == cut.answered.rows["n_tokens"].tolist()
    long = Answers([" ".join(["cat"] * (llama.context_length or 0))], [" sat"])
    for reading in ("prompts", "answered"):
        with pytest.raises(DataError, match=f"longer than the {llama.context_length} tokens of the context"):
            read_model(llama, [reading], replace_length(texts, long, None), tmp_path / "long")


def replace_length(texts: DriftTexts, answers: Answers, max_length: int | None) -> DriftSetup:
    return DriftSetup(texts, answers=answers, max_length=max_length, progress=False)


def test_draws_of_a_null_are_each_measures_own_unless_they_are_given() -> None:
    texts = DriftTexts(["a"], ["forget"])
    assert DriftSetup(texts, seed=3).null_draws == {"seed": 3}
    assert DriftSetup(texts, seed=3, n_null=7).null_draws == {"seed": 3, "n_null": 7}


def test_a_readout_is_as_near_to_the_model_as_its_precision_allows() -> None:
    """Logits that are scaled by a per cent are another step in float32, and within the rounding of bfloat16."""

    def scaled(dtype: torch.dtype, factor: float) -> HookedModel:
        hf: Any = make_hf("llama").to(dtype)
        hf.register_forward_hook(partial(_scale_logits, factor))
        return HookedModel(hf, make_tokenizer(), name="scaled")

    Readout(scaled(torch.float32, 1.0))
    Readout(scaled(torch.bfloat16, 1.01))
    for dtype, factor in ((torch.float32, 1.01), (torch.bfloat16, 1.2)):
        with pytest.raises(CheckpointError, match=r"do not give its logits \(off by \d+\.\d%\)"):
            Readout(scaled(dtype, factor))


def _scale_logits(factor: float, module: Any, given: Any, found: Any) -> None:
    found.logits = found.logits * factor


@pytest.mark.parametrize("shown", [True, False])
def test_a_bar_is_shown_where_it_is_asked_for(llama: HookedModel, capsys: Any, shown: bool) -> None:
    layers = [Site(layer, "resid_post") for layer in range(3)]
    store = collect(llama, TEXTS, layers, "none", completions=ANSWERS, tokens="all", progress=False)
    stores, told = (store, store), {"progress": shown}
    capsys.readouterr()
    displacement_spectrum(*stores, n_null=0, **told)
    representation_similarity(*stores, n_null=0, **told)
    unlearning_depth(llama, TEXTS, ANSWERS, *stores, **told)
    weight_delta(llama, llama, **told)
    shown_bars = capsys.readouterr().err
    for name in ("spectrum", "similarity", "depth", "weights"):
        assert (f"{name}:" in shown_bars) == shown, name


def test_a_model_without_a_head_reads_nothing_out() -> None:
    body: Any = make_hf("llama").get_decoder()
    model = HookedModel(body, make_tokenizer(), name="body")
    with pytest.raises(CheckpointError, match="body has no head that turns the stream into logits"):
        Readout(model)


def test_vectors_along_one_line_have_one_direction() -> None:
    line = torch.zeros(5, 5, dtype=torch.float64)
    line[2, 2] = 9.0
    squares, directions = leading(line, 3)
    assert squares.tolist() == [9.0, 0.0, 0.0, 0.0, 0.0] and directions.abs().tolist() == [[0.0, 0.0, 1.0, 0.0, 0.0]]
    assert leading(torch.zeros(5, 5, dtype=torch.float64), 3)[1].shape == (0, 5)


def test_of_a_spectrum_the_first_directions_are_taken() -> None:
    stores = [token_store({LATE: gaussian(seed, 10, 4)}, (6, 4)) for seed in (0, 1)]
    spectrum = displacement_spectrum(*stores, n_directions=3, n_null=0)
    assert spectrum.to_subspaces(2)[LATE].shape == (4, 2) and spectrum.to_subspaces(1)[LATE].shape == (4, 1)
    torch.testing.assert_close(spectrum.to_subspaces(3)[LATE][:, :1], spectrum.to_subspaces(1)[LATE])
    with pytest.raises(ConfigError, match="k must be at least 1, got 0"):
        spectrum.to_subspaces(0)
    far = token_store({LATE: stores[0][LATE] + 1e-3 * (stores[1][LATE] - stores[0][LATE])}, (6, 4))
    near = displacement_spectrum(stores[0], far, n_directions=3, n_null=0)
    for column in ("share", "effective_rank"):
        np.testing.assert_allclose(near.table[column], spectrum.table[column], rtol=1e-6, err_msg=column)
    values = [found.components["singular_value"].to_numpy() for found in (near, spectrum)]
    np.testing.assert_allclose(values[0], 1e-3 * values[1], rtol=1e-6)
    frame = spectrum.to_frame()
    frame["d"] = -1
    assert spectrum.table["d"].tolist() == [4] * len(frame), "a table that is handed out is a copy"


def test_the_table_of_determinism_is_a_copy(llama: HookedModel) -> None:
    changed = HookedModel(make_hf("llama"), make_tokenizer(), name="changed")
    with torch.no_grad():
        changed.hf.model.layers[1].mlp.down_proj.weight.add_(0.1)  # pyright: ignore[reportAttributeAccessIssue]
    stores = [collect(each, TEXTS, [EARLY, LATE], "none", progress=False) for each in (llama, changed)]
    found = check_determinism(stores[0], stores[1], weight_delta(llama, changed))
    assert found.passed and found.first_layer == 1 and found.largest_below == 0
    frame = found.to_frame()
    assert frame["below"].tolist() == [True, False]
    assert frame["largest"].tolist()[1] > 0
    frame["below"] = False
    assert found.table["below"].tolist() == [True, False]


@pytest.mark.parametrize(("name", "stored"), [("gpt2", "mlp.c_proj"), ("llama", "mlp.down_proj")])
def test_a_matrix_is_told_from_its_transpose_and_from_a_stranger(name: str, stored: str) -> None:
    model = HookedModel(make_hf(name), make_tokenizer())
    weights, _ = open_weights(model, model)
    matrix = next(key for key in weights if stored in key and key.endswith("weight"))
    assert weights.place(matrix).transposed == (name == "gpt2")
    assert weights.place(matrix).writes and weights.place(matrix).layer == 0
    stranger = weights.place(matrix.replace(stored, "adapter"))
    assert stranger.kind == "block" and stranger.role is None and not stranger.transposed and not stranger.writes
    assert len(weights) == len(list(weights)) == len(dict(model.hf.named_parameters()))


def test_the_weights_that_count_are_those_that_are_loaded(llama: HookedModel, tmp_path: Path) -> None:
    """Of a tied pair whichever name is stored; of two copies in a folder the one that transformers takes."""
    config: Any = COMMON | {"tie_word_embeddings": True}
    hf: Any = LlamaForCausalLM(LlamaConfig(**config)).eval()
    original = HookedModel(hf, make_tokenizer(), name="tied")
    original.save_pretrained(tmp_path / "original")
    with torch.no_grad():
        hf.model.embed_tokens.weight[5] += 1
        hf.model.layers[1].mlp.down_proj.weight.add_(0.1)
    original.save_pretrained(tmp_path / "changed")
    expected = ("model.embed_tokens.weight", "model.layers.1.mlp.down_proj.weight")
    assert weight_delta(tmp_path / "changed", tmp_path / "original").changed == expected
    single = tmp_path / "changed" / "model.safetensors"
    tensors = load_file(single)
    renamed = {name.replace("model.embed_tokens", "lm_head"): tensor for name, tensor in tensors.items()}
    assert "lm_head.weight" in renamed and "model.embed_tokens.weight" not in renamed
    save_file(renamed, single, metadata={"format": "pt"})
    loaded: Any = HookedModel.from_pretrained(tmp_path / "changed").hf
    assert loaded.model.embed_tokens.weight.equal(hf.model.embed_tokens.weight)
    assert weight_delta(tmp_path / "changed", tmp_path / "original").changed == expected
    stale = dict.fromkeys(tensors, "stale.safetensors")
    save_file(load_file(tmp_path / "original" / "model.safetensors"), tmp_path / "changed" / "stale.safetensors")
    index = tmp_path / "changed" / "model.safetensors.index.json"
    index.write_text(json.dumps({"metadata": {}, "weight_map": stale}))
    assert weight_delta(tmp_path / "changed", tmp_path / "original").changed == expected


def test_an_eraser_of_dimensions_that_repeat_each_other_is_that_of_the_different_ones() -> None:
    rng = np.random.default_rng(0)
    labels = np.arange(200) % 2
    vectors = rng.normal(size=(200, 5)) + labels[:, None]
    repeated = np.concatenate([vectors, vectors @ rng.normal(size=(5, 3))], axis=1)
    erased = fit_leace(vectors, labels)(torch.from_numpy(vectors))
    again = fit_leace(repeated, labels)(torch.from_numpy(repeated))
    torch.testing.assert_close(again[:, :5], erased, atol=1e-8, rtol=0)
    nearly = np.concatenate([vectors, vectors[:, :1] + 1e-9 * rng.normal(size=(200, 1))], axis=1)
    torch.testing.assert_close(fit_leace(nearly, labels)(torch.from_numpy(nearly))[:, :5], erased, atol=1e-4, rtol=0)


def test_equal_means_have_no_difference() -> None:
    vectors, labels = np.ones((4, 3)), np.array([True, False, True, False])
    with pytest.raises(ConfigError, match="do not differ between the classes"):
        fit_mean_difference(vectors, labels)
    vectors[labels] += [3.0, 4.0, 0.0]
    probe = fit_mean_difference(vectors, labels)
    np.testing.assert_allclose(probe.direction, [0.6, 0.8, 0.0])
    assert probe.bias == pytest.approx(-(1.4 + 2.5))


def test_probes_that_do_not_say_what_they_read_read_nothing(llama: HookedModel) -> None:
    store = collect(llama, TEXTS, [Site(1, "resid_post")], labels=[0, 1, 0, 1], progress=False)
    probes = fit_probes(store, folds=2, bootstrap=0, progress=False)
    assert len(collect_as_fitted(probes, llama, TEXTS, progress=False)) == 4
    cut = replace(probes, metadata=probes.metadata | {"max_length": 3})
    for length, expected in ((None, 3), (5, 5)):
        assert (
            collect_as_fitted(cut, llama, TEXTS, max_length=length, progress=False).metadata["max_length"] == expected
        )
    longer = replace(probes, metadata=probes.metadata | {"max_length": 10**6})
    found = collect_as_fitted(longer, llama, TEXTS, progress=False)
    assert found.metadata["max_length"] == llama.context_length
    silent = replace(probes, metadata={k: v for k, v in probes.metadata.items() if k != "tokens"})
    with pytest.raises(ConfigError, match="do not say which tokens they were fitted on; fit them again"):
        collect_as_fitted(silent, llama, TEXTS, progress=False)
