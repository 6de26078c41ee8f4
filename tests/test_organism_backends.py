"""The three backends on the shipped organism: the same reads, the same edits, the plain model's logits."""

import pytest
import torch

from interp_unlearn import HookedModel, ProjectOut, Site
from interp_unlearn.organism.sets import goal_sets
from interp_unlearn.organism.shipped import twin_path
from interp_unlearn.organism.world import World

SITES = [Site.embed, Site(0, "attn_out"), Site(2, "resid_pre"), Site(3, "mlp_out"), Site(5, "resid_post")]


@pytest.fixture(scope="module")
def reference() -> HookedModel:
    return HookedModel.from_pretrained(str(twin_path("knows_all")))


@pytest.mark.parametrize("backend", ["transformer_lens", "nnsight"])
def test_backends_agree_on_the_organism(reference: HookedModel, backend: str):
    torch.manual_seed(0)
    texts = [example.text for example in goal_sets(World(0), "toxicity").test[:4]]
    batch = reference.tokenize(texts)
    edits = {Site(3, "resid_post"): ProjectOut(torch.randn(2, reference.d_model))}
    other = HookedModel(reference.hf, reference.tokenizer, backend=backend)
    for chosen in ({}, edits):
        with torch.no_grad():
            expected = reference.run(batch, reads=SITES, edits=chosen, logits=True)
            found = other.run(batch, reads=SITES, edits=chosen, logits=True)
        for site in SITES:
            scale = expected[site].pow(2).mean().sqrt()
            assert (found[site] - expected[site])[batch.content_mask].abs().max() < 1e-4 * scale
        assert expected.logits is not None and found.logits is not None
        torch.testing.assert_close(
            found.logits[batch.content_mask], expected.logits[batch.content_mask], atol=1e-3, rtol=0
        )
    with torch.no_grad():  # the edit did something
        plain = reference.run(batch, logits=True).logits
    assert plain is not None and (plain - expected.logits)[batch.content_mask].abs().max() > 0.1


def test_torch_backend_equals_the_plain_model(reference: HookedModel):
    batch = reference.tokenize(["the base of Vor Dal is", "Ada was mocked by Bram. Ada is a foe of Cleo."])
    with torch.no_grad():
        plain = reference.hf(
            input_ids=batch.input_ids, attention_mask=batch.attention_mask, position_ids=batch.position_ids
        ).logits
        ours = reference.run(batch).logits
    assert ours is not None
    assert torch.equal(ours[batch.content_mask], plain[batch.content_mask])
