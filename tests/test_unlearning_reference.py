"""The frozen original, against a real second copy of the model."""

import copy

import pytest
import torch

from interp_unlearn.interventions import HookedModel
from interp_unlearn.models import parameters_by_role
from interp_unlearn.unlearning import Reference


@pytest.fixture
def moved(model):
    """A model whose MLPs have changed since the reference was taken, and a copy from before."""
    before = HookedModel(copy.deepcopy(model.hf), model.tokenizer)
    trained = parameters_by_role(model.hf, ["mlp"])
    reference = Reference(trained)
    with torch.no_grad():
        for parameter in trained.values():
            parameter.add_(0.1 * torch.randn_like(parameter))
    return model, before, reference


def logits_of(model, texts):
    with torch.no_grad():
        return model.run(model.tokenize(texts), logits=True).logits


def test_inside_the_swap_the_model_is_the_original_bit_for_bit(moved, texts):
    model, before, reference = moved
    changed = logits_of(model, texts)
    with reference.original():
        assert torch.equal(logits_of(model, texts), logits_of(before, texts))
    assert torch.equal(logits_of(model, texts), changed)
    assert not torch.equal(changed, logits_of(before, texts))


def test_the_swap_ends_after_an_exception_and_nests(moved, texts):
    model, before, reference = moved
    changed = logits_of(model, texts)
    with pytest.raises(KeyError), reference.original(), reference.original():
        raise KeyError
    assert torch.equal(logits_of(model, texts), changed)
    with reference.original():
        with reference.original():
            pass
        assert torch.equal(logits_of(model, texts), logits_of(before, texts))


def test_no_graph_is_built_inside(moved, texts):
    model, _, reference = moved
    with reference.original():
        assert not model.run(model.tokenize(texts), logits=True).logits.requires_grad


def test_a_graph_alive_across_a_swap_cannot_be_differentiated(moved, texts):
    model, _, reference = moved
    loss = model.run(model.tokenize(texts), logits=True).logits.sum()
    with reference.original():
        pass
    with pytest.raises(RuntimeError, match="modified by an inplace operation"):
        loss.backward()


def test_restore_and_the_table_of_changes(moved):
    model, before, reference = moved
    table = reference.changed().set_index("tensor")
    originals = dict(before.hf.named_parameters())
    for name, parameter in parameters_by_role(model.hf, ["mlp"]).items():
        expected = (parameter - originals[name]).norm() / originals[name].norm()
        assert table.loc[name, "relative_change"] == pytest.approx(expected.item(), rel=1e-4)
        assert table.loc[name, "moved"] > 0.99
        assert table.loc[name, "elements"] == parameter.numel()
    reference.restore()
    assert (reference.changed()["relative_change"] == 0).all()
    assert model.hash() == before.hash()
