"""Edits and reads together with activation checkpointing, where backward recomputes each block."""

from collections.abc import Sequence

import pytest
import torch
from backend_matrix import BACKENDS, FOREIGN
from conftest import ALL_ARCHITECTURES, COMMON, TEXTS, make_hf
from explicit_forward import every_site
from torch import Tensor, nn
from transformers import Olmo2Config, Olmo2ForCausalLM, PreTrainedModel, PreTrainedTokenizerBase

from interp_unlearn import Add, HookedModel, Scale, Site
from interp_unlearn.errors import BackendError
from interp_unlearn.interventions import Edit
from interp_unlearn.models import TokenBatch

VECTOR = torch.linspace(-1, 2, 32)
FACTORS = {Site(0, "resid_pre"): 0.7, Site(0, "resid_post"): 1.4, Site(2, "resid_post"): 0.5}
INNER = ("z", "attn_out", "resid_mid", "mlp_post", "mlp_out")
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


def in_training(hf: PreTrainedModel, tokenizer: PreTrainedTokenizerBase, backend: str = "torch") -> HookedModel:
    """In training, but without dropout."""
    hf.train().set_attn_implementation("eager")
    for module in hf.modules():
        if isinstance(module, nn.Dropout):
            module.p = 0.0
    return HookedModel(hf, tokenizer, backend)


def saves_memory(hf: PreTrainedModel, reentrant: bool) -> None:
    hf.activation_checkpointing_enable({"use_reentrant": reentrant})


def gradients(
    model: HookedModel, edits: dict[Site, Edit | list[Edit]], reads: Sequence[Site] = ()
) -> dict[str, Tensor]:
    """Of a loss of logits and reads, with edits that are on for both passes."""
    batch = model.tokenize(TEXTS, padding_side="left")
    model.hf.zero_grad()
    with model.edited(edits):
        trace = model.run(batch, reads, logits=True)
        loss = trace.logits[batch.content_mask].logsumexp(-1).mean()
        for site in reads:
            loss = loss + (trace[site][batch.content_mask] ** 2).mean()
        loss.backward()
    return {name: p.grad.clone() for name, p in model.hf.named_parameters() if p.grad is not None}


def furthest(first: dict[str, Tensor], second: dict[str, Tensor]) -> float:
    assert first.keys() == second.keys()
    return max(float((first[n] - second[n]).abs().max() / first[n].pow(2).mean().sqrt()) for n in first)


def some_edits(site: Site) -> list[Edit]:
    if site.component == "z":
        return [Scale(-1.5, heads=[0, 2], tokens="last")]
    # A scale alone would be undone by Gemma2's post-norms.
    return [Scale(1.5), Add(torch.linspace(-1, 1, 48 if site.component == "mlp_post" else 32))]


@pytest.mark.parametrize("reentrant", [False, True], ids=["saved tensors", "reentrant"])
@pytest.mark.parametrize("architecture", ALL_ARCHITECTURES)
def test_edits_inside_blocks_have_their_gradients(
    architecture: str, reentrant: bool, tokenizer: PreTrainedTokenizerBase
) -> None:
    inside = [site for site in every_site(architecture) if site.component in INNER]
    plain, saving = (in_training(make_hf(architecture), tokenizer) for _ in range(2))
    saves_memory(saving.hf, reentrant)
    for sites in (*([site] for site in inside if site.layer == 1), inside):
        edits = {site: some_edits(site) for site in sites}
        expected = gradients(plain, edits)
        assert furthest(expected, gradients(plain, {})) > 1e-2, sites
        assert furthest(expected, gradients(saving, edits)) <= 1e-5, sites


@pytest.mark.parametrize("enabled", ["before", "after"])
@pytest.mark.parametrize("reentrant", [False, True], ids=["saved tensors", "reentrant"])
@pytest.mark.parametrize("backend", FOREIGN)
def test_the_other_backends_have_them_too(
    backend: str, reentrant: bool, enabled: str, tokenizer: PreTrainedTokenizerBase
) -> None:
    edits = {site: some_edits(site) for site in every_site("llama") if site != Site.logits}
    expected = gradients(in_training(make_hf("llama"), tokenizer), edits)
    hf = make_hf("llama")
    if enabled == "before":  # TransformerLens copies the modules with what is enabled on them
        saves_memory(hf, reentrant)
    model = in_training(hf, tokenizer, backend)
    if enabled == "after":
        saves_memory(hf, reentrant)
    assert furthest(expected, gradients(model, edits)) <= 1e-5


@pytest.mark.parametrize("backend", BACKENDS)
def test_reads_whose_gradients_would_be_lost_are_refused(backend: str, tokenizer: PreTrainedTokenizerBase) -> None:
    plain, saving = (in_training(make_hf("llama"), tokenizer, backend) for _ in range(2))
    batch, site, border = plain.tokenize(TEXTS), Site(1, "attn_out"), Site(1, "resid_post")
    saves_memory(saving.hf, reentrant=True)
    with pytest.raises(BackendError, match=r"read at 1\.attn_out .* use_reentrant=False"):
        saving.run(batch, [site])
    with torch.no_grad():
        assert torch.equal(saving.run(batch, [site])[site], plain.run(batch, [site])[site])
    assert furthest(gradients(plain, {}, [border]), gradients(saving, {}, [border])) <= 1e-5
    saves_memory(saving.hf, reentrant=False)
    assert furthest(gradients(plain, {}, [border, site]), gradients(saving, {}, [border, site])) <= 1e-5


def test_resid_mid_is_refused_where_no_norm_is_recomputed(tokenizer: PreTrainedTokenizerBase) -> None:
    model = in_training(Olmo2ForCausalLM(Olmo2Config(**COMMON)), tokenizer)
    edits = {Site(1, "resid_mid"): Scale(2.0)}
    assert furthest(gradients(model, edits), gradients(model, {})) > 1e-2
    saves_memory(model.hf, reentrant=False)
    with pytest.raises(BackendError, match="resid_mid of a block without a norm at its start"):
        gradients(model, edits)
