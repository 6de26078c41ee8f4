"""`HookedModel` on the torch backend, against the plain model and against a pass written out by hand."""

from pathlib import Path

import pytest
import torch
from conftest import TEXTS, make_hf
from explicit_forward import all_sites, explicit_forward
from torch import Tensor, nn

from interp_unlearn import Add, HookedModel, ProjectOut, Replace, Scale, Site
from interp_unlearn.errors import BackendError, ConfigError, SiteError
from interp_unlearn.models import TokenBatch

VECTOR = torch.linspace(-1, 2, 32)


def n_hooks(hf: nn.Module) -> int:
    return sum(len(m._forward_hooks) + len(m._forward_pre_hooks) for m in hf.modules())


def plain(model: HookedModel, batch: TokenBatch) -> Tensor:
    return model.hf(batch.input_ids, attention_mask=batch.attention_mask, position_ids=batch.position_ids).logits


@torch.no_grad()
def test_logits_are_those_of_the_plain_model(model: HookedModel, batch: TokenBatch) -> None:
    assert torch.equal(model.run(batch).logits, plain(model, batch))


@torch.no_grad()
def test_reads_are_the_plain_hidden_states(model: HookedModel, batch: TokenBatch) -> None:
    sites = [Site(layer, "resid_pre") for layer in range(3)]
    trace = model.run(batch, sites)
    states = model.hf(
        batch.input_ids,
        attention_mask=batch.attention_mask,
        position_ids=batch.position_ids,
        output_hidden_states=True,
    ).hidden_states
    for site, state in zip(sites, states[:3], strict=True):
        assert torch.equal(trace[site], state)


@torch.no_grad()
def test_early_exit_computes_nothing_above(llama: HookedModel) -> None:
    batch = llama.tokenize(TEXTS)
    reached: list[str] = []
    handles = [
        module.register_forward_hook(lambda *_, name=name: reached.append(name))
        for name, module in llama.hf.named_modules()
    ]
    trace = llama.run(batch, [Site(1, "attn_out")])
    llama.run(batch, [Site(1, "attn_out")])  # the first run also checked the architecture
    for handle in handles:
        handle.remove()
    reached = reached[len(reached) - reached[::-1].index("model.embed_tokens") - 1 :]
    assert "model.layers.1.self_attn.o_proj" in reached
    assert not any(name.startswith(("model.layers.1.mlp", "model.layers.2", "lm_head")) for name in reached)
    assert trace.logits is None


@torch.no_grad()
def test_stop_after_and_logits(llama: HookedModel) -> None:
    batch = llama.tokenize(TEXTS)
    site = Site(0, "resid_post")
    assert llama.run(batch, [site], stop_after=1).logits is None
    assert llama.run(batch, stop_after=0).sites == ()
    both = llama.run(batch, [site], logits=True)
    assert torch.equal(both.logits, llama.run(batch).logits)
    assert torch.equal(both[site], llama.run(batch, [site])[site])
    assert torch.equal(llama.run(batch, [Site.logits])[Site.logits], both.logits)
    assert both.sites == (site,)
    with pytest.raises(SiteError, match=r"1\.resid_post was not read"):
        both[Site(1, "resid_post")]


def test_contradictions_are_refused(llama: HookedModel) -> None:
    batch = llama.tokenize(TEXTS)
    with pytest.raises(SiteError, match="0 to 2"):
        llama.run(batch, [Site(3, "resid_post")])
    with pytest.raises(SiteError, match="0 to 2"):
        llama.run(batch, edits={Site(3, "resid_post"): Scale(2.0)})
    with pytest.raises(SiteError, match="0 to 2"):
        llama.run(batch, stop_after=3)
    with pytest.raises(SiteError, match="beyond"):
        llama.run(batch, [Site(2, "resid_pre")], stop_after=1)
    with pytest.raises(ConfigError, match="logits"):
        llama.run(batch, stop_after=1, logits=True)
    with pytest.raises(ConfigError, match="logits"):
        llama.run(batch, [Site.logits], stop_after=1)
    with pytest.raises(ConfigError, match="nothing to compute"):
        llama.run(batch, logits=False)
    with pytest.raises(SiteError, match="0 to 2"), llama.edited({Site(3, "resid_post"): Scale(2.0)}):
        pass
    with pytest.raises(BackendError, match="unknown backend"):
        HookedModel(llama.hf, llama.tokenizer, backend="jax")
    with pytest.raises(BackendError, match="unknown backend"):
        HookedModel.from_pretrained("no/such/path", backend="jax")


@torch.no_grad()
def test_resid_mid_edit_reaches_both_branches(model: HookedModel, batch: TokenBatch) -> None:
    """The obvious hook, on the input of the MLP's norm, would leave the old value in the stream."""
    mid, mlp, post = (Site(1, part) for part in ("resid_mid", "mlp_out", "resid_post"))
    trace = model.run(batch, [mid, mlp, post], {mid: ProjectOut(VECTOR)})
    torch.testing.assert_close(trace[post], trace[mid] + trace[mlp], atol=1e-5, rtol=1e-5)
    component = (trace[mid] @ VECTOR)[batch.content_mask]
    torch.testing.assert_close(component, torch.zeros_like(component), atol=1e-3, rtol=0)


@torch.no_grad()
def test_patching_one_models_read_into_another(llama: HookedModel, batch: TokenBatch) -> None:
    other = HookedModel(make_hf("llama", seed=1), llama.tokenizer)
    site = Site(2, "resid_post")
    donor = other.run(batch, [site], logits=True)
    other.hf.lm_head, other.hf.model.norm = llama.hf.lm_head, llama.hf.model.norm
    patched = llama.run(batch, edits={site: Replace(donor[site], include_bos=True)})
    torch.testing.assert_close(patched.logits[batch.mask], other.run(batch).logits[batch.mask])


@torch.no_grad()
def test_edits_apply_in_order_and_nest(llama: HookedModel, batch: TokenBatch) -> None:
    site = Site(1, "resid_post")
    add, double = Add(VECTOR), Scale(2.0)
    base = llama.run(batch, [site])[site]
    real = batch.content_mask
    in_order = (base + VECTOR)[real] * 2
    torch.testing.assert_close(llama.run(batch, [site], {site: [add, double]})[site][real], in_order)
    with llama.edited({site: add}), llama.edited({site: double}):
        torch.testing.assert_close(llama.run(batch, [site])[site][real], in_order)
        triple = llama.run(batch, [site], {site: Scale(3.0)})[site][real]
        torch.testing.assert_close(triple, 3 * in_order)
    with llama.edited({site: double}):
        with llama.edited({site: add}):
            reverse = llama.run(batch, [site])[site][real]
        torch.testing.assert_close(reverse, base[real] * 2 + VECTOR)
        torch.testing.assert_close(llama.run(batch, [site])[site][real], base[real] * 2)
    assert torch.equal(llama.run(batch, [site])[site], base)


@torch.no_grad()
def test_edited_reaches_plain_forwards(model: HookedModel, batch: TokenBatch) -> None:
    edits = {site: Scale(1.2) for site in all_sites() if site != Site.embed}
    inside = model.run(batch, edits=edits).logits
    before = plain(model, batch)
    with model.edited(edits):
        assert torch.equal(plain(model, batch), inside)
        assert torch.equal(model.run(batch).logits, inside)
        no_positions = model.hf(input_ids=batch.input_ids, attention_mask=batch.attention_mask).logits
    assert not torch.allclose(before, inside)
    assert no_positions.shape == inside.shape
    assert torch.equal(plain(model, batch), before)


@torch.no_grad()
def test_managers_may_end_in_any_order(llama: HookedModel, batch: TokenBatch) -> None:
    site = Site(1, "resid_post")
    base = llama.run(batch, [site])[site]
    edits = {site: Scale(2.0)}  # the same for both, so that only identity tells them apart
    first, second = llama.edited(edits), llama.edited(edits)
    first.__enter__()
    second.__enter__()
    first.__exit__(None, None, None)
    torch.testing.assert_close(llama.run(batch, [site])[site][batch.content_mask], 2 * base[batch.content_mask])
    second.__exit__(None, None, None)
    assert torch.equal(llama.run(batch, [site])[site], base)
    assert n_hooks(llama.hf) == 0


def test_a_part_called_by_itself_under_edits_is_refused(llama: HookedModel) -> None:
    with llama.edited({Site(0, "mlp_out"): Scale(2.0)}), pytest.raises(BackendError, match="whole model"):
        llama.hf.model.layers[0].mlp(torch.zeros(1, 1, 32))


def test_gradients_of_reads_are_those_of_the_hand_written_pass(model: HookedModel, batch: TokenBatch) -> None:
    model.hf.set_attn_implementation("eager")
    edits = {Site(0, "resid_mid"): 1.5, Site(1, "attn_out"): 0.5, Site(1, "resid_post"): 2.0}
    probe = torch.linspace(-1, 1, 32)

    def gradients(read: Tensor) -> list[Tensor]:
        loss = ((read @ probe)[batch.content_mask] ** 2).mean()
        grads = torch.autograd.grad(loss, list(model.hf.parameters()), allow_unused=True)
        return [torch.zeros(()) if grad is None else grad for grad in grads]

    site = Site(2, "mlp_out")
    found = gradients(model.run(batch, [site], {s: Scale(f, include_bos=True) for s, f in edits.items()})[site])
    real = batch.mask[..., None]
    changes = {s: (lambda x, f=f: torch.where(real, f * x, x)) for s, f in edits.items()}
    expected = gradients(explicit_forward(model.hf, batch, changes)[site])
    assert sum(bool(grad.abs().max() > 0) for grad in expected) > 20
    for one, other in zip(found, expected, strict=True):
        torch.testing.assert_close(one, other, atol=1e-4, rtol=1e-3)


def test_the_ambient_grad_mode_is_kept(llama: HookedModel) -> None:
    batch, site = llama.tokenize(TEXTS), Site(1, "resid_post")
    assert llama.run(batch, [site])[site].requires_grad
    with torch.no_grad():
        assert not llama.run(batch, [site])[site].requires_grad
    with torch.inference_mode():
        assert llama.run(batch, [site])[site].is_inference()


def test_hash_follows_changes(llama: HookedModel) -> None:
    before, original = llama.hash(), llama.hf.lm_head.weight[0, 0].item()
    assert llama.hash() == before
    with torch.no_grad():
        llama.hf.lm_head.weight[0, 0] += 1
    changed = llama.hash()
    assert changed != before
    llama.hf.lm_head.weight.data[0, 0] = original  # .data hides a change from autograd, hence from us
    assert llama.hash() == changed
    llama.mark_changed()
    assert llama.hash() == before


def test_save_and_load(llama: HookedModel, tmp_path: Path) -> None:
    batch = llama.tokenize(TEXTS)
    with llama.edited({Site(0, "resid_post"): Scale(2.0)}):
        llama.save_pretrained(tmp_path / "saved")
    again = HookedModel.from_pretrained(tmp_path / "saved")
    assert again.hash() == llama.hash()
    assert again.name == str(tmp_path / "saved")
    assert (again.n_layers, again.d_model, again.device.type) == (3, 32, "cpu")
    with torch.no_grad():
        assert torch.equal(again.run(batch).logits, llama.run(batch).logits)
