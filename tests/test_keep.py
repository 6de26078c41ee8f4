"""`run(keep=)`: what is kept of a read is decided inside the hook, after the edits there."""

import gc
import weakref

import pytest
import torch
from backend_matrix import BACKENDS, shared_model
from conftest import TEXTS
from explicit_forward import every_site
from torch import Tensor

from interp_unlearn import HookedModel, Scale, Site
from interp_unlearn.interventions import Edit, EditContext

SITES = [Site(0, "resid_mid"), Site(1, "z"), Site(1, "mlp_post"), Site(2, "resid_post")]
EDITS: dict[Site, list[Edit]] = {Site(0, "resid_mid"): [Scale(2.0), Scale(1.5)], Site(1, "z"): [Scale(-1.0, heads=[2])]}


@pytest.fixture(params=BACKENDS)
def model(request: pytest.FixtureRequest) -> HookedModel:
    return shared_model("llama", request.param)


def mean_over_tokens(site: Site, activation: Tensor, context: EditContext) -> Tensor:
    weight = context.content.float().reshape(*context.content.shape, *[1] * (activation.ndim - 2))
    return (activation * weight).sum(1) / weight.sum(1)


@torch.no_grad()
@pytest.mark.parametrize("surrounding", [False, True])
def test_what_is_kept_is_made_from_the_edited_read(model: HookedModel, surrounding: bool) -> None:
    batch = model.tokenize(TEXTS, padding_side="left")
    whole = model.run(batch, SITES, EDITS)
    unedited = model.run(batch, SITES)
    if surrounding:
        with model.edited(EDITS):
            kept = model.run(batch, SITES, keep=mean_over_tokens)
    else:
        kept = model.run(batch, SITES, EDITS, keep=mean_over_tokens)
    assert kept.sites == whole.sites and kept.logits is None
    for site in SITES:
        rows = [whole[site][row][batch.content_mask[row]].mean(0) for row in range(len(batch))]
        torch.testing.assert_close(kept[site], torch.stack(rows), atol=1e-5, rtol=1e-5)
        plain = torch.stack([unedited[site][row][batch.content_mask[row]].mean(0) for row in range(len(batch))])
        assert not torch.allclose(kept[site], plain, atol=1e-2)


@torch.no_grad()
def test_it_is_called_once_for_each_read_in_the_order_of_the_pass(model: HookedModel) -> None:
    batch, sites = model.tokenize(TEXTS, padding_side="left"), every_site("llama")
    called: list[Site] = []

    def keep(site: Site, activation: Tensor, context: EditContext) -> Tensor:
        called.append(site)
        assert torch.equal(context.mask, batch.mask) and torch.equal(context.content, batch.content_mask)
        assert torch.equal(context.positions, batch.position_ids) and context.rows.tolist() == [0, 1, 2, 3]
        return activation.sum()

    model.run(batch, sites)  # the backend is checked on first use, which is nothing to keep
    trace = model.run(batch, sites[::-1], keep=keep)
    # attn_out is visited together with resid_mid, and so in its place
    assert called == sites
    assert all(trace[site].ndim == 0 for site in sites)
    called.clear()
    model.run(batch, [Site(1, "z")], {Site(0, "mlp_out"): Scale(2.0)}, keep=keep)
    assert called == [Site(1, "z")]


@torch.no_grad()
def test_logits_that_were_not_read_stay_whole(model: HookedModel) -> None:
    batch, site = model.tokenize(TEXTS), Site(1, "z")
    expected = model.run(batch).logits
    trace = model.run(batch, [site], keep=lambda *_: torch.zeros(()), logits=True)
    assert torch.equal(trace.logits, expected) and trace[site].ndim == 0
    read = model.run(batch, [site, Site.logits], keep=lambda *_: torch.zeros(()))
    assert read[Site.logits].ndim == 0


@torch.no_grad()
def test_no_activation_outlives_its_hook(model: HookedModel) -> None:
    batch = model.tokenize(TEXTS)
    seen: list[weakref.ref[Tensor]] = []

    def keep(site: Site, activation: Tensor, context: EditContext) -> Tensor:
        seen.append(weakref.ref(activation))
        return activation.mean()

    trace = model.run(batch, SITES, EDITS, keep=keep)
    gc.collect()
    assert len(seen) == len(SITES) and not any(reference() is not None for reference in seen)
    assert trace.sites == tuple(SITES)


def test_gradients_flow_through_what_is_kept(model: HookedModel) -> None:
    batch, site = model.tokenize(TEXTS), SITES[1]
    parameters = [parameter for name, parameter in model.hf.named_parameters() if "layers.0" in name]

    def gradients(value: Tensor) -> tuple[Tensor, ...]:
        return torch.autograd.grad((value**2).sum(), parameters)

    found = gradients(model.run(batch, [site], EDITS, keep=lambda site, x, context: x.sum(1))[site])
    expected = gradients(model.run(batch, [site], EDITS)[site].sum(1))
    assert all(torch.equal(one, other) for one, other in zip(found, expected, strict=True))
