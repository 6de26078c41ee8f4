"""What each backend owes the model it runs: gradients, weights that change, and to be left alone."""

import copy
import gc
import logging
import weakref
from pathlib import Path

import pytest
import torch
from conftest import TEXTS, make_hf
from torch import Tensor
from transformers import GPTNeoXConfig, GPTNeoXForCausalLM, PreTrainedTokenizerBase

from interp_unlearn import Add, HookedModel, Scale, Site
from interp_unlearn.errors import BackendError, ConfigError
from interp_unlearn.interventions.backends import make_backend, register
from interp_unlearn.models import TokenBatch, resolve_architecture

BACKENDS = ("torch", "transformer_lens", "nnsight")
FOREIGN = BACKENDS[1:]
VECTOR = torch.linspace(-1, 2, 32)


@pytest.fixture(params=BACKENDS)
def backend(request: pytest.FixtureRequest) -> str:
    return request.param


def eager(architecture: str, tokenizer: PreTrainedTokenizerBase, backend: str) -> HookedModel:
    hf = make_hf(architecture)
    hf.set_attn_implementation("eager")
    return HookedModel(hf, tokenizer, backend)


@torch.no_grad()
@pytest.mark.parametrize("backend", FOREIGN, indirect=True)
def test_early_exit_runs_no_block_above(backend: str, tokenizer: PreTrainedTokenizerBase) -> None:
    model = eager("llama", tokenizer, backend)
    batch, site = model.tokenize(TEXTS), Site(0, "resid_post")
    model.run(batch, [site])
    inside = model.hf if backend == "nnsight" else model._backend.mirror
    reached: list[str] = []
    for name, module in inside.named_modules():
        module.register_forward_hook(lambda *_, name=name: reached.append(name))
    model.run(batch, [site])
    assert any("layers.0" in name for name in reached)
    assert not any("layers.1" in name or "lm_head" in name for name in reached)


@torch.no_grad()
def test_edited_applies_once_on_every_backend(
    backend: str, batch: TokenBatch, tokenizer: PreTrainedTokenizerBase
) -> None:
    model = eager("llama", tokenizer, backend)
    site = Site(1, "resid_post")
    base = model.run(batch, [site])[site][batch.content_mask]
    with model.edited({site: Scale(2.0)}):
        torch.testing.assert_close(model.run(batch, [site])[site][batch.content_mask], 2 * base)
        both = model.run(batch, [site], {site: Add(VECTOR)})[site][batch.content_mask]
        torch.testing.assert_close(both, 2 * base + VECTOR)
        plain = model.hf(batch.input_ids, attention_mask=batch.attention_mask, position_ids=batch.position_ids)
        torch.testing.assert_close(plain.logits[batch.mask], model.run(batch).logits[batch.mask], atol=1e-5, rtol=1e-4)
        edited = model.generate(batch, 4)
    assert torch.equal(model.run(batch, [site])[site][batch.content_mask], base)
    reference = HookedModel(model.hf, tokenizer)
    with reference.edited({site: Scale(2.0)}):
        assert torch.equal(reference.generate(batch, 4), edited)


def gradients(model: HookedModel, batch: TokenBatch) -> dict[str, Tensor]:
    model.hf.zero_grad()
    site = Site(1, "mlp_out")
    trace = model.run(batch, [site], {Site(0, "resid_mid"): Scale(1.5), Site(1, "attn_out"): Add(VECTOR)}, logits=True)
    loss = trace.logits[batch.content_mask].logsumexp(-1).mean() + (trace[site][batch.content_mask] ** 2).mean()
    loss.backward()
    return {name: p.grad.clone() for name, p in model.hf.named_parameters() if p.grad is not None}


@pytest.mark.parametrize("backend", FOREIGN, indirect=True)
def test_gradients_reach_the_models_own_parameters(
    architecture: str, backend: str, tokenizer: PreTrainedTokenizerBase
) -> None:
    model = eager(architecture, tokenizer, backend)
    batch = model.tokenize(TEXTS)
    reference = HookedModel(model.hf, tokenizer)
    if (architecture, backend) == ("gpt2", "transformer_lens"):
        with pytest.raises(BackendError, match="gradients"):
            gradients(model, batch)
        with torch.no_grad():
            model.run(batch)
        for name, parameter in model.hf.named_parameters():
            parameter.requires_grad_("c_attn" not in name)
    expected, found = gradients(reference, batch), gradients(model, batch)
    assert expected.keys() == found.keys()
    for name in expected:
        torch.testing.assert_close(found[name], expected[name], atol=1e-5, rtol=1e-3, msg=name)


@torch.no_grad()
@pytest.mark.parametrize("backend", FOREIGN, indirect=True)
def test_weights_changed_in_place_show_at_once(
    architecture: str, backend: str, tokenizer: PreTrainedTokenizerBase
) -> None:
    model = eager(architecture, tokenizer, backend)
    batch = model.tokenize(TEXTS)
    before = model.run(batch).logits
    for parameter in model.hf.parameters():
        parameter.add_(0.1 * torch.randn_like(parameter))
    model.mark_changed()
    expected = HookedModel(model.hf, tokenizer).run(batch).logits
    found = model.run(batch).logits
    assert not torch.allclose(before, expected, atol=0.1)
    torch.testing.assert_close(found[batch.mask], expected[batch.mask], atol=5e-5, rtol=1e-4)


@torch.no_grad()
@pytest.mark.parametrize("backend", FOREIGN, indirect=True)
def test_the_model_is_left_alone(
    architecture: str, backend: str, tokenizer: PreTrainedTokenizerBase, tmp_path: Path
) -> None:
    hf = make_hf(architecture)
    names, attention = [name for name, _ in hf.named_modules()], hf.config._attn_implementation
    specials = copy.deepcopy(tokenizer.special_tokens_map)
    model = HookedModel(hf, tokenizer, backend)
    batch = model.tokenize(TEXTS)
    model.run(batch, [Site(1, "attn_out")])
    assert [name for name, _ in hf.named_modules()] == names
    assert hf.config._attn_implementation == attention
    assert tokenizer.special_tokens_map == specials
    model.save_pretrained(tmp_path)
    again = HookedModel.from_pretrained(tmp_path)
    assert again.hash() == model.hash()
    assert torch.equal(again.run(batch).logits, HookedModel(hf, tokenizer).run(batch).logits)


@torch.no_grad()
def test_rebound_parameters_and_train_mode_reach_the_mirror(tokenizer: PreTrainedTokenizerBase) -> None:
    model = eager("gpt2", tokenizer, "transformer_lens")
    batch = model.tokenize(TEXTS)
    model.run(batch)
    model.hf.transformer.ln_f.weight = torch.nn.Parameter(2 * model.hf.transformer.ln_f.weight)
    model.mark_changed()
    expected = HookedModel(model.hf, tokenizer).run(batch).logits
    torch.testing.assert_close(model.run(batch).logits, expected, atol=1e-4, rtol=1e-4)
    model.hf.train()  # dropout is 0.1 in this config
    model.hf.requires_grad_(False)
    with torch.enable_grad():  # without gradients a model that drops activations is refused
        assert not torch.equal(model.run(batch).logits, model.run(batch).logits)
    with pytest.raises(ConfigError, match="training mode"):
        model.run(batch)
    model.hf.eval()
    assert torch.equal(model.run(batch).logits, model.run(batch).logits)


@torch.no_grad()
def test_neox_is_refused_by_transformer_lens_once_weights_changed(tokenizer: PreTrainedTokenizerBase) -> None:
    torch.manual_seed(0)
    sizes = {"hidden_size": 16, "intermediate_size": 24, "num_hidden_layers": 2, "num_attention_heads": 2}
    hf = GPTNeoXForCausalLM(GPTNeoXConfig(vocab_size=26, **sizes)).eval()
    model = HookedModel(hf, tokenizer, "transformer_lens")
    batch, sites = model.tokenize(TEXTS), [Site(1, "attn_out"), Site(1, "mlp_out"), Site(1, "resid_post")]
    found, expected = model.run(batch, sites), HookedModel(hf, tokenizer).run(batch, sites)
    for site in sites:
        torch.testing.assert_close(found[site][batch.mask], expected[site][batch.mask], atol=1e-4, rtol=1e-4)
    hf.gpt_neox.layers[0].attention.query_key_value.weight.add_(1.0)
    with pytest.raises(BackendError, match="cannot follow"):
        model.mark_changed()


@torch.no_grad()
def test_stopped_nnsight_passes_do_not_pile_up(tokenizer: PreTrainedTokenizerBase) -> None:
    model = eager("llama", tokenizer, "nnsight")
    batch, site = model.tokenize(TEXTS), Site(1, "resid_post")
    gc.disable()
    try:
        kept = [weakref.ref(model.run(batch, [site])[site]) for _ in range(5)]
        assert not any(reference() is not None for reference in kept)
    finally:
        gc.enable()


def test_transformers_keeps_its_logging_level(tokenizer: PreTrainedTokenizerBase) -> None:
    from transformers.utils import logging as transformers_logging

    transformers_logging.set_verbosity(logging.INFO)
    try:
        eager("llama", tokenizer, "transformer_lens")
        assert transformers_logging.get_verbosity() == logging.INFO
    finally:
        transformers_logging.set_verbosity_warning()


def test_a_backend_of_ones_own(tokenizer: PreTrainedTokenizerBase, monkeypatch: pytest.MonkeyPatch) -> None:
    from interp_unlearn.interventions import backends

    monkeypatch.setattr(backends, "_factories", dict(backends._factories))
    register("mine", lambda hf, tokenizer, architecture: make_backend("torch", hf, tokenizer, architecture))
    model = eager("llama", tokenizer, "mine")
    assert model.backend == "mine"
    assert model.run(model.tokenize(TEXTS), stop_after=0).logits is None
    with pytest.raises(BackendError, match="registered already"):
        register("torch", lambda hf, tokenizer, architecture: None)
    with pytest.raises(BackendError, match="expected one of torch, transformer_lens, nnsight"):
        make_backend("no", model.hf, tokenizer, resolve_architecture(model.hf))


@pytest.mark.parametrize(("backend", "library"), [("transformer_lens", "transformer-lens"), ("nnsight", "nnsight")])
def test_a_library_that_is_not_installed_is_named_with_its_extra(
    backend: str, library: str, tokenizer: PreTrainedTokenizerBase, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("interp_unlearn.interventions.backends.find_spec", lambda name: None)
    with pytest.raises(BackendError, match=rf"needs {library}.*interp-unlearn\[backends\]"):
        eager("llama", tokenizer, backend)
