"""Edits and reads together with activation checkpointing, where backward recomputes each block."""

import pytest
import torch
from conftest import TEXTS, make_hf

from interp_unlearn import Add, HookedModel, Scale, Site
from interp_unlearn.errors import BackendError
from interp_unlearn.models import TokenBatch

VECTOR = torch.linspace(-1, 2, 32)
FACTORS = {Site(0, "resid_pre"): 0.7, Site(0, "resid_post"): 1.4, Site(2, "resid_post"): 0.5}
INSIDE = {Site(0, "attn_out"): Scale(1.5), Site(1, "mlp_out"): [Scale(0.5), Add(VECTOR)]}


@pytest.fixture
def pair(tokenizer) -> tuple[HookedModel, HookedModel]:
    """The same model in training, without and with checkpointing."""
    plain, saving = (HookedModel(make_hf("llama"), tokenizer) for _ in range(2))
    plain.hf.train()
    saving.hf.train()
    saving.hf.activation_checkpointing_enable()
    assert saving.hf.is_activation_checkpointing
    return plain, saving


def backward(model: HookedModel, batch: TokenBatch, *args: object, site: Site | None = None) -> list[torch.Tensor]:
    trace = model.run(batch, [site] if site else [], *args)
    value = trace[site] if site else trace.logits
    model.hf.zero_grad()
    (value[batch.content_mask] ** 2).mean().backward()
    return [p.grad.clone() for p in model.hf.parameters() if p.grad is not None]


def assert_same(first: list[torch.Tensor], second: list[torch.Tensor]) -> None:
    assert len(first) == len(second) > 5
    for one, other in zip(first, second, strict=True):
        torch.testing.assert_close(one, other, atol=1e-6, rtol=1e-4)


def test_edits_at_block_borders_are_safe(pair: tuple[HookedModel, HookedModel]) -> None:
    plain, saving = pair
    edits = {site: Scale(factor) for site, factor in FACTORS.items()}
    batch = plain.tokenize(TEXTS)
    assert_same(backward(plain, batch, edits), backward(saving, batch, edits))


@pytest.mark.parametrize("site", [Site(1, "attn_out"), Site(1, "mlp_out"), Site(1, "resid_post"), Site(2, "resid_mid")])
def test_reads_keep_their_gradients(pair: tuple[HookedModel, HookedModel], site: Site) -> None:
    plain, saving = pair
    batch = plain.tokenize(TEXTS)
    assert_same(backward(plain, batch, site=site), backward(saving, batch, site=site))


def test_edits_inside_a_block_need_edited(pair: tuple[HookedModel, HookedModel]) -> None:
    plain, saving = pair
    batch = plain.tokenize(TEXTS)
    with pytest.raises(BackendError, match=r"model\.edited"):
        saving.run(batch, edits=INSIDE)
    with torch.no_grad():
        saving.run(batch, edits=INSIDE)
    expected = backward(plain, batch, INSIDE)
    with saving.edited(INSIDE):
        assert_same(expected, backward(saving, batch))
        assert_same(expected, backward(saving, batch))


def test_two_passes_before_one_backward_are_refused(pair: tuple[HookedModel, HookedModel]) -> None:
    saving = pair[1]
    batch = saving.tokenize(TEXTS)
    with saving.edited(INSIDE):
        saving.run(batch)
        with pytest.raises(BackendError, match="one pass at a time"):
            saving.run(batch)
    saving.run(batch)
    with saving.edited(INSIDE):
        with torch.no_grad():
            saving.run(batch)
        saving.hf(input_ids=batch.input_ids, attention_mask=batch.attention_mask).logits.sum().backward()
        saving.hf(input_ids=batch.input_ids, attention_mask=batch.attention_mask).logits.sum().backward()


def test_resid_mid_is_refused_in_backward(pair: tuple[HookedModel, HookedModel]) -> None:
    saving = pair[1]
    batch = saving.tokenize(TEXTS)
    with saving.edited({Site(1, "resid_mid"): Scale(2.0)}):
        loss = saving.run(batch).logits.sum()
        with pytest.raises(BackendError, match="resid_mid"):
            loss.backward()
