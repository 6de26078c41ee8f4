"""The shared prefix changes what is computed, never what comes out."""

from dataclasses import replace

import pytest
import torch
from conftest import make_hf
from planted_classes import DATA, FORGET, RETAIN

from interp_unlearn.errors import ConfigError
from interp_unlearn.interventions import HookedModel, ProjectOut
from interp_unlearn.interventions.prefix import PrefixCache, SharedPrefix, first_trained_block
from interp_unlearn.models import parameters_by_role
from interp_unlearn.sites import Site
from interp_unlearn.unlearning import Misdirection, UnlearnConfig, unlearn

READS = [Site(1, "resid_pre"), Site(1, "resid_mid"), Site(2, "resid_post")]


def calls_of(model, block):
    """A list that grows by one with each pass through a block's attention."""
    calls = []
    model.architecture.attention(model.architecture.blocks[block]).register_forward_hook(lambda *_: calls.append(1))
    return calls


def outputs(model, batch, **options):
    with torch.no_grad():
        reads = [site for site in READS if not (model.architecture.parallel and site.component == "resid_mid")]
        trace = model.run(batch, reads=reads, logits=True, **options)
    return [trace[site] for site in reads] + [trace.logits]


def test_a_second_pass_is_the_same_and_skips_the_blocks_below(model):
    batch = model.tokenize(FORGET)
    expected = outputs(model, batch)
    below, above = calls_of(model, 0), calls_of(model, 1)
    with model.sharing(SharedPrefix(model.architecture, 1)):
        first, second = outputs(model, batch), outputs(model, batch)
        other = outputs(model, model.tokenize(RETAIN))
    assert len(below) == 2 and len(above) == 3
    for found in (first, second):
        assert all(torch.equal(a, b) for a, b in zip(found, expected, strict=True))
    assert not torch.equal(other[0], expected[0])
    again = outputs(model, batch)
    assert len(below) == 3 and all(torch.equal(a, b) for a, b in zip(again, expected, strict=True))
    assert all("forward" not in vars(block) for block in model.architecture.blocks)


def test_passes_that_look_below_run_whole(llama):
    batch = llama.tokenize(FORGET)
    direction = torch.randn(llama.d_model, generator=torch.Generator().manual_seed(0))
    edits = {Site(0, "resid_post"): ProjectOut(direction)}
    expected = outputs(llama, batch, edits=edits)
    below = calls_of(llama, 0)
    with llama.sharing(SharedPrefix(llama.architecture, 1)):
        plain = outputs(llama, batch)
        edited = outputs(llama, batch, edits=edits)
        with llama.edited(edits):
            ambient = outputs(llama, batch)
        with torch.no_grad():
            read = llama.run(batch, reads=[Site(0, "resid_post")])[Site(0, "resid_post")]
    assert len(below) == 4
    for found in (edited, ambient):
        assert all(torch.equal(a, b) for a, b in zip(found, expected, strict=True))
    assert torch.equal(read, plain[0])


def test_gradients_above_are_those_of_a_whole_pass(llama):
    batch = llama.tokenize(FORGET)
    trained = list(parameters_by_role(llama.hf, ["mlp", "attn"], [1]).values())

    def gradients():
        loss = llama.run(batch, reads=[Site(1, "resid_post")])[Site(1, "resid_post")].square().mean()
        return torch.autograd.grad(loss, trained)

    expected = gradients()
    with llama.sharing(SharedPrefix(llama.architecture, 1)):
        gradients()
        assert all(torch.equal(a, b) for a, b in zip(gradients(), expected, strict=True))


def test_an_interrupted_pass_gives_the_blocks_back(llama):
    batch = llama.tokenize(FORGET)
    expected = outputs(llama, batch)

    def fail(*_):
        raise KeyboardInterrupt

    with llama.sharing(SharedPrefix(llama.architecture, 2)):
        outputs_before = [llama.run(batch, logits=True).logits.detach()]
        handle = llama.architecture.blocks[2].register_forward_hook(fail)
        with pytest.raises(KeyboardInterrupt):
            llama.run(batch, logits=True)
        handle.remove()
    assert torch.equal(outputs_before[0], expected[-1])
    assert all(torch.equal(a, b) for a, b in zip(outputs(llama, batch), expected, strict=True))


def test_a_cache_serves_rows_in_any_batch_and_padding(model):
    cache = PrefixCache()
    prefix = SharedPrefix(model.architecture, 1, cache)
    for texts in (FORGET, RETAIN):
        with model.sharing(prefix):
            outputs(model, model.tokenize(texts))
    below = calls_of(model, 0)
    mixed = model.tokenize([RETAIN[1], FORGET[3], RETAIN[0]])
    with model.sharing(prefix):
        found = outputs(model, mixed)
    assert not below and len(cache.streams) == 8
    for a, b in zip(found, outputs(model, mixed), strict=True):
        torch.testing.assert_close(a[mixed.mask], b[mixed.mask], rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("backend", ["transformer_lens", "nnsight"])
def test_other_backends_run_whole(llama, backend):
    other = HookedModel(llama.hf, llama.tokenizer, backend=backend)
    batch = llama.tokenize(FORGET)
    expected = outputs(llama, batch)
    with other.sharing(SharedPrefix(other.architecture, 1)):
        outputs(other, batch)
        for a, b in zip(outputs(other, batch), expected, strict=True):
            torch.testing.assert_close(a[batch.mask], b[batch.mask], rtol=1e-4, atol=1e-5)


def test_the_first_trained_block(llama):
    architecture = llama.architecture
    for layer in (0, 2):
        assert (
            first_trained_block(architecture, list(parameters_by_role(llama.hf, ["mlp"], [layer, 2]).values())) == layer
        )
    assert first_trained_block(architecture, list(llama.hf.parameters())) == 0
    head = next(llama.hf.get_output_embeddings().parameters())
    assert first_trained_block(architecture, [head, *parameters_by_role(llama.hf, ["mlp"], [2]).values()]) == 0
    with pytest.raises(ConfigError, match="n_blocks"):
        SharedPrefix(architecture, 9)


def test_training_with_a_cache_is_training(llama):
    config = UnlearnConfig(steps=5, batch_size=3, layers=(1, 2), learning_rate=3e-3)
    ends = []
    for cached in (False, True):
        model = HookedModel(make_hf("llama"), llama.tokenizer)
        history = unlearn(model, Misdirection(2), DATA, replace(config, cache_prefix=cached), progress=False).history
        ends.append((model, history))
    assert ends[1][1]["grad_norm"].tolist() == pytest.approx(ends[0][1]["grad_norm"].tolist(), rel=1e-3)
    for (name, value), other in zip(ends[0][0].hf.named_parameters(), ends[1][0].hf.parameters(), strict=True):
        torch.testing.assert_close(other, value, rtol=0, atol=2e-4, msg=name)
