"""Models that torch.compile was applied to: hooks come and go unnoticed by it, so it is out of use meanwhile."""

from collections.abc import Callable, Iterator

import pytest
import torch
from backend_matrix import BACKENDS, distance
from conftest import TEXTS, make_hf
from explicit_forward import every_site
from torch import Tensor, nn
from transformers import PreTrainedTokenizerBase

from interp_unlearn import Add, HookedModel, Scale, Site
from interp_unlearn.models import TokenBatch

EDITS = {
    Site(0, "mlp_post"): Scale(2.0),
    Site(1, "z"): Scale(3.0, tokens="last"),
    Site(1, "resid_mid"): Add(torch.linspace(-1, 2, 32)),
}
GraphCounter = Callable[[], int]


@pytest.fixture(autouse=True)
def no_gradients() -> Iterator[None]:
    torch._dynamo.reset()
    with torch.no_grad():
        yield
    torch._dynamo.reset()


class Compiled:
    """A model compiled one way or the other, which counts how often the compiled code runs."""

    def __init__(self, how: str) -> None:
        self.n_graphs = 0
        self.hf = make_hf("llama")
        self.callable: nn.Module = self.hf
        if how == "torch.compile":
            self.callable = torch.compile(self.hf, backend=self._backend)
        else:
            self.hf.compile(backend=self._backend)

    def _backend(self, graph: torch.fx.GraphModule, inputs: object) -> Callable[..., object]:
        def run(*args: object) -> object:
            self.n_graphs += 1
            return graph.forward(*args)

        return run

    def logits(self, batch: TokenBatch) -> tuple[Tensor, bool]:
        """What a plain call gives, and whether the compiled code gave it."""
        before = self.n_graphs
        tokens = {"attention_mask": batch.attention_mask, "position_ids": batch.position_ids, "use_cache": False}
        return self.callable(input_ids=batch.input_ids, **tokens).logits, self.n_graphs > before


@pytest.fixture(params=["torch.compile", "hf.compile"])
def compiled(request: pytest.FixtureRequest) -> Compiled:
    return Compiled(request.param)


@pytest.mark.parametrize("backend", BACKENDS)
def test_reads_and_edits_are_those_of_the_model_itself(
    compiled: Compiled, backend: str, tokenizer: PreTrainedTokenizerBase
) -> None:
    reference = HookedModel(make_hf("llama"), tokenizer, backend)
    batch, sites = reference.tokenize(TEXTS, padding_side="left"), every_site("llama")
    plain, ran = compiled.logits(batch)
    assert ran  # compiled before the hooks are known
    model = HookedModel(compiled.callable, tokenizer, backend)
    assert model.hf is compiled.hf
    for edits in ({}, EDITS):
        found, expected = (each.run(batch, sites, edits) for each in (model, reference))
        assert all(torch.equal(found[site], expected[site]) for site in sites)
        with model.edited(edits), reference.edited(edits):
            assert torch.equal(model.run(batch, sites[:9])[sites[8]], expected[sites[8]])
            assert torch.equal(model.generate(batch, 3), reference.generate(batch, 3))
            inside, ran = compiled.logits(batch)
            assert ran == (not edits)
        assert distance(expected.logits, inside, batch.mask) <= 1e-5
        again, ran = compiled.logits(batch)
        assert ran and torch.equal(again, plain)
    assert distance(plain, expected.logits, batch.content_mask) > 0.1


def test_a_first_call_under_edits_does_not_keep_them(compiled: Compiled, tokenizer: PreTrainedTokenizerBase) -> None:
    model, reference = HookedModel(compiled.callable, tokenizer), HookedModel(make_hf("llama"), tokenizer)
    batch = model.tokenize(TEXTS)
    expected = reference.run(batch, edits=EDITS).logits
    with model.edited(EDITS):
        inside, ran = compiled.logits(batch)
    assert not ran and torch.equal(inside, expected)
    after, ran = compiled.logits(batch)
    assert ran and torch.equal(after, reference.run(batch).logits)
    with model.edited(EDITS):
        assert torch.equal(compiled.logits(batch)[0], expected)


@pytest.mark.parametrize("first_off", [0, 1])
def test_edits_on_two_models_may_end_in_any_order(first_off: int, tokenizer: PreTrainedTokenizerBase) -> None:
    pair = [Compiled("torch.compile"), Compiled("hf.compile")]
    models = [HookedModel(each.callable, tokenizer) for each in pair]
    batch = models[0].tokenize(TEXTS)
    plain = [each.logits(batch)[0] for each in pair]
    edited = models[0].run(batch, edits=EDITS).logits
    managers = [model.edited(EDITS) for model in models]
    for manager in managers:
        manager.__enter__()
    managers[first_off].__exit__(None, None, None)
    still = 1 - first_off
    assert torch.equal(pair[still].logits(batch)[0], edited)
    assert torch.equal(pair[first_off].logits(batch)[0], plain[first_off])
    managers[still].__exit__(None, None, None)
    for each, logits in zip(pair, plain, strict=True):
        again, ran = each.logits(batch)
        assert ran and torch.equal(again, logits)


def test_compiled_code_is_in_use_again_after_an_exception(
    compiled: Compiled, tokenizer: PreTrainedTokenizerBase
) -> None:
    class Failing(Scale):
        def transform(self, activation: Tensor, context: object) -> Tensor:
            raise RuntimeError("planted")

    model = HookedModel(compiled.callable, tokenizer)
    batch = model.tokenize(TEXTS)
    plain = compiled.logits(batch)[0]
    with pytest.raises(RuntimeError, match="planted"):
        model.run(batch, edits={Site(1, "z"): Failing(1.0)})
    with pytest.raises(RuntimeError, match="planted"), model.edited({Site(1, "z"): Failing(1.0)}):
        compiled.logits(batch)
    again, ran = compiled.logits(batch)
    assert ran and torch.equal(again, plain)
