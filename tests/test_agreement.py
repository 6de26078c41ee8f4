"""A backend whose reads or edits are wrong anywhere is refused, and so is an architecture the names do not fit."""

import pytest
import torch
from conftest import TEXTS, make_hf
from transformers import GraniteConfig, GraniteForCausalLM, PreTrainedTokenizerBase

from interp_unlearn import HookedModel, Scale, Site
from interp_unlearn.errors import BackendError
from interp_unlearn.interventions import backends
from interp_unlearn.interventions.backends.torch_hooks import TorchBackend
from interp_unlearn.interventions.forward_pass import ForwardPass
from interp_unlearn.models import TokenBatch

SITE = Site(1, "resid_post")


class Planted:
    """The torch backend with one fault; delegates, as a subclass would be taken for the reference."""

    def __init__(self, fault: str, *made_of: object) -> None:
        self.fault = fault
        self.inner = TorchBackend(made_of[0], made_of[2])
        self.check_site, self.mark_changed = self.inner.check_site, self.inner.mark_changed
        self.passes = 0

    def without_gradient(self) -> tuple[()]:
        return ()

    def run(self, batch: TokenBatch, forward_pass: ForwardPass) -> None:
        self.passes += 1
        if self.fault == "padding":
            batch = TokenBatch(batch.input_ids, torch.ones_like(batch.attention_mask), batch.position_ids)
        if self.fault == "edit ignored":
            forward_pass.edits = {}
        self.inner.run(batch, forward_pass)
        if self.fault == "read" and SITE in forward_pass.values:
            forward_pass.values[SITE] = forward_pass.values[SITE] * 1.001
        if self.fault == "logits" and Site.logits in forward_pass.values:
            forward_pass.values[Site.logits] = forward_pass.values[Site.logits] + 0.01
        if self.fault == "nan" and SITE in forward_pass.values:
            forward_pass.values[SITE] = forward_pass.values[SITE] * float("nan")
        if self.fault == "unread":
            forward_pass.values.pop(SITE, None)


@pytest.fixture
def planted(tokenizer: PreTrainedTokenizerBase, monkeypatch: pytest.MonkeyPatch):
    def make(fault: str) -> HookedModel:
        monkeypatch.setitem(backends._factories, "planted", lambda *made_of: Planted(fault, *made_of))
        return HookedModel(make_hf("llama"), tokenizer, "planted")

    return make


@pytest.mark.parametrize("fault", ["padding", "edit ignored", "read", "logits", "nan", "unread"])
def test_a_planted_fault_is_refused(planted, fault: str) -> None:
    model = planted(fault)
    with pytest.raises(BackendError, match="disagrees with the torch backend"):
        model.run(model.tokenize(TEXTS), [SITE])


def test_an_edit_that_reaches_one_branch_only_is_refused(planted) -> None:
    """An edit at resid_mid that only the MLP sees reads back right at its own site; the logits give it away."""
    model = planted("none")
    inner = model._backend.inner

    class OneBranch(TorchBackend):
        def run(self, batch: TokenBatch, forward_pass: ForwardPass) -> None:
            edits, forward_pass.edits = forward_pass.edits, {}
            mid = Site(1, "resid_mid")

            def hook(module: object, args: tuple) -> tuple:
                forward_pass.edits = edits
                changed = forward_pass.visit(mid, args[0])
                forward_pass.edits = {}
                return (changed,)

            norm = self.hf.model.layers[1].post_attention_layernorm
            handle = norm.register_forward_pre_hook(hook)
            try:
                super().run(batch, forward_pass)
            finally:
                handle.remove()

    model._backend.inner = OneBranch(inner.hf, inner.architecture)
    with pytest.raises(BackendError, match=r"after an edit at 1\.resid_mid"):
        model.run(model.tokenize(TEXTS), edits={Site(1, "resid_mid"): Scale(2.0)})


def test_checked_once_per_site_and_again_after_a_change(planted) -> None:
    model = planted("none")
    batch = model.tokenize(TEXTS)

    def passes(site: Site) -> int:
        before = model._backend.passes
        model.run(batch, [site])
        return model._backend.passes - before

    assert passes(SITE) > 1
    assert passes(SITE) == 1
    assert passes(Site(0, "mlp_out")) > 1
    model.mark_changed()
    assert passes(SITE) > 1
    model._backend.fault = "read"
    assert passes(SITE) == 1
    model.mark_changed()
    with pytest.raises(BackendError):
        passes(SITE)


def test_the_check_leaves_modes_attention_and_random_numbers_alone(planted) -> None:
    model = planted("none")
    model.hf.train()
    model.hf.model.layers[0].eval()
    state = torch.get_rng_state()
    model.run(model.tokenize(TEXTS), [SITE])
    assert model.hf.training and not model.hf.model.layers[0].training and model.hf.model.layers[1].training
    assert model.hf.config._attn_implementation == "sdpa"
    assert torch.equal(torch.get_rng_state(), state)


def test_blocks_that_scale_what_they_add_are_refused_inside_only(tokenizer: PreTrainedTokenizerBase) -> None:
    sizes = {"hidden_size": 16, "intermediate_size": 24, "num_hidden_layers": 2, "num_attention_heads": 2}
    hf = GraniteForCausalLM(GraniteConfig(vocab_size=26, residual_multiplier=0.5, **sizes)).eval()
    model = HookedModel(hf, tokenizer)
    batch = model.tokenize(TEXTS)
    with pytest.raises(BackendError, match="use resid_pre and resid_post"):
        model.run(batch, [Site(0, "attn_out")])
    with pytest.raises(BackendError, match="use resid_pre and resid_post"):
        model.run(batch, edits={Site(0, "mlp_out"): Scale(2.0)})
    model.run(batch, [SITE], {Site(0, "resid_post"): Scale(2.0)})
