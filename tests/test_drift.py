"""Displacement of activations, against a loop over tokens and a planted rotation."""

import copy

import pytest
import torch

from interp_unlearn.drift import measure_drift
from interp_unlearn.errors import DataError
from interp_unlearn.interventions import HookedModel, Scale
from interp_unlearn.models import parameters_by_role
from interp_unlearn.sites import Site
from interp_unlearn.unlearning import Reference

SITES = [Site.embed, *(Site(layer, "resid_post") for layer in range(3))]


@pytest.fixture
def changed(model):
    """A model whose last two MLPs have moved, the model from before, and the reference that remembers it."""
    before = HookedModel(copy.deepcopy(model.hf), model.tokenizer)
    trained = parameters_by_role(model.hf, ["mlp.down"], [1, 2])
    reference = Reference(trained)
    with torch.no_grad():
        for parameter in trained.values():
            parameter.add_(0.2 * torch.randn_like(parameter))
    return model, before, reference


def by_loop(model, before, texts, site):
    sums = torch.zeros(3, dtype=torch.float64)
    count = 0
    for text in texts:
        batch = model.tokenize([text])
        with torch.no_grad():
            after_states, before_states = (m.run(batch, reads=[site])[site][0].double() for m in (model, before))
        for t in range(1, batch.input_ids.shape[1]):  # position 0 is the BOS
            h, h0 = after_states[t], before_states[t]
            sums += torch.stack([(h - h0).norm() / h0.norm(), h @ h0 / (h.norm() * h0.norm()), h.norm() / h0.norm()])
            count += 1
    return (sums / count).tolist(), count


def test_drift_is_the_token_mean(changed, texts):
    model, before, _ = changed
    table = measure_drift(model, before, {"forget": texts[:3], "retain": texts[2:]}, SITES, batch_size=2)
    assert len(table) == 2 * len(SITES)
    for corpus, members in (("forget", texts[:3]), ("retain", texts[2:])):
        for site in SITES:
            row = table[(table["corpus"] == corpus) & (table["site"] == str(site))].iloc[0]
            means, count = by_loop(model, before, members, site)
            found = [row["relative_displacement"], row["cosine"], row["norm_ratio"]]
            assert found == pytest.approx(means, abs=1e-4)
            assert row["n_tokens"] == count


def test_layers_below_the_first_change_drift_by_exactly_zero(changed, texts):
    model, before, _ = changed
    table = measure_drift(model, before, {"forget": texts}, SITES).set_index("site")["relative_displacement"]
    assert table["embed"] == 0.0
    assert table["0.resid_post"] == 0.0
    assert table["1.resid_post"] > 0.01


def test_a_kept_reference_is_as_good_as_a_second_model(changed, texts):
    import pandas as pd

    model, before, reference = changed
    after = model.hash()
    by_reference = measure_drift(model, reference, {"forget": texts}, SITES)
    pd.testing.assert_frame_equal(by_reference, measure_drift(model, before, {"forget": texts}, SITES))
    assert model.hash() == after


def test_a_scaled_stream_has_a_known_drift(llama, texts):
    before = HookedModel(copy.deepcopy(llama.hf), llama.tokenizer)
    with llama.edited({Site(1, "resid_post"): Scale(3.0)}):
        row = measure_drift(llama, before, {"forget": texts}, [Site(1, "resid_post")]).iloc[0]
    assert row["relative_displacement"] == pytest.approx(2.0, abs=1e-5)
    assert row["cosine"] == pytest.approx(1.0, abs=1e-6)
    assert row["norm_ratio"] == pytest.approx(3.0, abs=1e-5)


def test_the_embedding_has_no_layer(llama, texts):
    table = measure_drift(llama, llama, {"forget": texts}, SITES)
    assert table["layer"].isna().tolist() == [True, False, False, False]
    assert table["layer"].iloc[3] == 2


@pytest.mark.parametrize("spoiled", ["changed model", "original"])
def test_what_is_not_finite_is_named(llama, texts, spoiled):
    other = HookedModel(copy.deepcopy(llama.hf), llama.tokenizer)
    token = llama.tokenize([texts[1]]).input_ids[0, -1]
    with torch.no_grad():
        other.hf.get_input_embeddings().weight[token, 3] = float("inf")
    holding = [n for n, text in enumerate(texts) if token in llama.tokenize([text]).input_ids]
    models = (other, llama) if spoiled == "changed model" else (llama, other)
    with pytest.raises(DataError, match=f"activations of the {spoiled} at 1.resid_post hold infinite values") as raised:
        measure_drift(*models, {"told": texts}, [Site(1, "resid_post")])
    assert any(f"told: text {n}: " in str(raised.value) for n in holding) and len(holding) < len(texts)


def test_no_texts_are_refused(llama):
    with pytest.raises(DataError):
        measure_drift(llama, llama, {}, SITES)
    with pytest.raises(DataError):
        measure_drift(llama, llama, {"forget": []}, SITES)
