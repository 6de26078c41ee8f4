"""No hook survives what it was put on for, and nothing is left behind by pass after pass."""

import gc
from collections.abc import Callable
from itertools import permutations

import pytest
import torch
from backend_matrix import BACKENDS
from conftest import TEXTS, make_hf
from torch import Tensor
from transformers import PreTrainedTokenizerBase

from interp_unlearn import Add, HookedModel, ProjectOut, Scale, Site
from interp_unlearn.interventions import Edit, EditContext
from interp_unlearn.models import TokenBatch
from interp_unlearn.sites import BLOCK_COMPONENTS

VECTOR = torch.linspace(-1, 2, 32)
HOOKS = ("_forward_hooks", "_forward_pre_hooks", "_backward_hooks", "_backward_pre_hooks")


class Raising(Edit):
    def __init__(self, error: type[BaseException]) -> None:
        super().__init__()
        object.__setattr__(self, "error", error)

    def transform(self, activation: Tensor, context: EditContext) -> Tensor:
        raise self.error("planted")


@pytest.fixture(params=BACKENDS)
def model(request: pytest.FixtureRequest, tokenizer: PreTrainedTokenizerBase) -> HookedModel:
    return HookedModel(make_hf("llama"), tokenizer, request.param)


def n_hooks(model: HookedModel) -> int:
    """On all modules of the model, and of TransformerLens's mirror of it with its own hook points."""
    roots = [model.hf]
    if model.backend == "transformer_lens":
        roots += [model._backend.mirror, model._backend.bridge]
    return sum(len(getattr(module, kind)) for root in roots for module in root.modules() for kind in HOOKS)


def ways_to_run(model: HookedModel, batch: TokenBatch) -> dict[str, Callable[[dict[Site, Edit]], object]]:
    def inside(action: Callable[[], object]) -> Callable[[dict[Site, Edit]], object]:
        def run(edits: dict[Site, Edit]) -> object:
            with model.edited(edits):
                return action()

        return run

    last = Site(2, "mlp_out")
    return {
        "whole pass": lambda edits: model.run(batch, edits=edits),
        "early exit": lambda edits: model.run(batch, [last], edits),
        "edited": inside(lambda: model.run(batch, [last])),
        "plain forward": inside(lambda: model.hf(batch.input_ids, attention_mask=batch.attention_mask)),
        "generate": inside(lambda: model.generate(batch, 3)),
    }


@pytest.mark.parametrize("error", [RuntimeError, KeyboardInterrupt])
def test_no_hook_survives_what_is_raised_inside_an_edit(model: HookedModel, error: type[BaseException]) -> None:
    batch, site = model.tokenize(TEXTS), Site(2, "resid_post")
    base = model.run(batch, [site], logits=True)
    foreign = model.hf.model.layers[0].register_forward_hook(lambda *_: None)
    before, outer = n_hooks(model), {Site(0, "mlp_out"): Scale(2.0)}
    for run in ways_to_run(model, batch).values():
        for component in BLOCK_COMPONENTS:
            edits = {Site(0, "resid_mid"): Scale(1.0), Site(1, component): Raising(error)}
            with pytest.raises(error, match="planted"):
                run(edits)
            assert n_hooks(model) == before
        with model.edited(outer):
            within = n_hooks(model)
            with pytest.raises(error, match="planted"):
                run({Site(1, "z"): Raising(error)})
            assert n_hooks(model) == within > before
        assert n_hooks(model) == before
    foreign.remove()
    again = model.run(batch, [site], logits=True)
    assert torch.equal(again.logits, base.logits) and torch.equal(again[site], base[site])


@torch.no_grad()
@pytest.mark.parametrize("order", list(permutations(range(3))))
def test_blocks_of_edits_may_end_in_any_order(model: HookedModel, order: tuple[int, ...]) -> None:
    batch, read = model.tokenize(TEXTS), Site(2, "resid_post")
    sites = [Site(0, "resid_post"), Site(1, "z"), Site(1, "resid_mid")]
    remaining = [[sites[number] for number in sorted(order[left:])] for left in (1, 2, 3)]
    expected = [model.run(batch, [read], {site: Scale(1.5) for site in left})[read] for left in remaining]
    assert not torch.equal(expected[0], expected[1]) and not torch.equal(expected[1], expected[2])
    before = n_hooks(model)
    managers = [model.edited({site: Scale(1.5)}) for site in sites]
    for manager in managers:
        manager.__enter__()
    for number, left, value in zip(order, remaining, expected, strict=True):
        managers[number].__exit__(None, None, None)
        assert torch.equal(model.run(batch, [read])[read], value)
        assert (n_hooks(model) > before) == bool(left)


def live() -> tuple[int, int]:
    gc.collect()
    tensors = [thing for thing in gc.get_objects() if issubclass(type(thing), Tensor)]
    return len(tensors), sum(tensor.numel() for tensor in tensors)


@pytest.mark.parametrize("gradients", [False, True], ids=["no gradients", "gradients"])
def test_nothing_grows_over_two_hundred_passes(model: HookedModel, gradients: bool) -> None:
    batch = model.tokenize(TEXTS)
    read, last = Site(1, "resid_mid"), Site(2, "z")

    def passes(n: int) -> None:
        for index in range(n):
            edits = {read: [ProjectOut(VECTOR), Add(VECTOR)], Site(1, "mlp_post"): Scale(0.5, tokens="last")}
            with torch.set_grad_enabled(gradients):
                if index % 2:
                    model.run(batch, [read, last], edits)
                else:
                    with model.edited(edits):
                        model.run(batch, [read], {last: Scale(2.0, heads=[1])}, logits=True)

    passes(20)
    before, hooks = live(), n_hooks(model)
    passes(200)
    assert live() == before
    assert n_hooks(model) == hooks
    kept = model.run(batch, [read])
    assert live() != before and kept.sites == (read,)
