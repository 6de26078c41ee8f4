"""Training through each backend, with reads and edits in the loss, against the same training written out by hand."""

from collections.abc import Callable
from functools import cache

import pytest
import torch
from backend_matrix import BACKENDS, FOREIGN
from conftest import ALL_ARCHITECTURES, TEXTS, make_hf, make_tokenizer
from explicit_forward import Change, explicit_forward
from torch import Tensor
from transformers import PreTrainedModel, PreTrainedTokenizerBase

from interp_unlearn import Add, HookedModel, ProjectOut, Scale, Site
from interp_unlearn.errors import BackendError
from interp_unlearn.interventions import Edit
from interp_unlearn.models import TokenBatch, tokenize, weights_hash

VECTOR = torch.linspace(-1, 2, 32)
UNIT = VECTOR / VECTOR.norm()
READ = Site(1, "mlp_out")
FUSED = ("gpt2", "gpt_neox")
N_STEPS = 3


def edits(architecture: str) -> dict[Site, Edit | list[Edit]]:
    stream = "resid_post" if architecture == "gpt_neox" else "resid_mid"
    return {
        Site(0, stream): [ProjectOut(VECTOR), Add(VECTOR, 0.2)],
        Site(1, "z"): Scale(-0.5, heads=[0, 2]),
        Site(1, "mlp_post"): Scale(1.5, tokens="last"),
    }


def changes(architecture: str, batch: TokenBatch) -> dict[Site, Change]:
    """The same edits by hand."""
    stream = "resid_post" if architecture == "gpt_neox" else "resid_mid"
    content = batch.content_mask[..., None]
    last = content & (batch.position_ids == batch.lengths[:, None] - 1)[..., None]
    head = torch.tensor([True, False, True, False])[:, None]
    return {
        Site(0, stream): lambda x: torch.where(content, x - (x @ UNIT)[..., None] * UNIT + 0.2 * VECTOR, x),
        Site(1, "z"): lambda x: torch.where(content[..., None] & head, -0.5 * x, x),
        Site(1, "mlp_post"): lambda x: torch.where(last, 1.5 * x, x),
    }


def loss_of(read: Tensor, logits: Tensor, batch: TokenBatch) -> Tensor:
    predicted = logits[:, :-1][batch.mask[:, 1:]].log_softmax(-1)
    targets = batch.input_ids[:, 1:][batch.mask[:, 1:]]
    return -predicted.gather(1, targets[:, None]).mean() + 0.1 * (read[batch.content_mask] ** 2).mean()


def sgd(
    hf: PreTrainedModel, loss: Callable[[], Tensor], changed: Callable[[], None] = lambda: None
) -> dict[str, Tensor]:
    """The weights after a few steps."""
    optimizer = torch.optim.SGD([p for p in hf.parameters() if p.requires_grad], lr=0.05, momentum=0.5)
    for _ in range(N_STEPS):
        optimizer.zero_grad()
        loss().backward()
        optimizer.step()
        changed()
    return {name: parameter.detach().clone() for name, parameter in hf.named_parameters()}


def fresh(architecture: str) -> PreTrainedModel:
    hf = make_hf(architecture)
    hf.set_attn_implementation("eager")
    return hf


def trained_by_hand(architecture: str, batch: TokenBatch) -> dict[str, Tensor]:
    hf = fresh(architecture)

    def loss() -> Tensor:
        values = explicit_forward(hf, batch, changes(architecture, batch))
        return loss_of(values[READ], values[Site.logits], batch)

    return sgd(hf, loss)


def trained(model: HookedModel, architecture: str, batch: TokenBatch, surrounding: bool = False) -> dict[str, Tensor]:
    def loss() -> Tensor:
        if surrounding:
            with model.edited(edits(architecture)):
                trace = model.run(batch, [READ], logits=True)
        else:
            trace = model.run(batch, [READ], edits(architecture), logits=True)
        return loss_of(trace[READ], trace.logits, batch)

    return sgd(model.hf, loss, model.mark_changed)


def largest_difference(first: dict[str, Tensor], second: dict[str, Tensor]) -> float:
    assert first.keys() == second.keys()
    return max(float((first[name] - second[name]).abs().max() / first[name].pow(2).mean().sqrt()) for name in first)


@cache
def reference(architecture: str) -> dict[str, Tensor]:
    """What training through the torch backend gives."""
    batch = tokenize(make_tokenizer(), TEXTS, padding_side="left")
    return trained(HookedModel(fresh(architecture), make_tokenizer()), architecture, batch)


@pytest.fixture
def batch(tokenizer: PreTrainedTokenizerBase) -> TokenBatch:
    return tokenize(tokenizer, TEXTS, padding_side="left")


@pytest.mark.parametrize("architecture", ALL_ARCHITECTURES)
def test_three_steps_are_those_of_plain_pytorch(architecture: str, batch: TokenBatch) -> None:
    by_hand = trained_by_hand(architecture, batch)
    assert largest_difference(by_hand, reference(architecture)) <= 1e-5
    start = {name: parameter.detach() for name, parameter in fresh(architecture).named_parameters()}
    assert largest_difference(start, by_hand) > 0.1
    assert all(not torch.equal(start[name], by_hand[name]) for name in start)


@pytest.mark.parametrize("architecture", ALL_ARCHITECTURES)
@pytest.mark.parametrize("backend", FOREIGN)
def test_three_steps_through_another_backend(
    architecture: str, backend: str, batch: TokenBatch, tokenizer: PreTrainedTokenizerBase
) -> None:
    model = HookedModel(fresh(architecture), tokenizer, backend)
    if backend == "transformer_lens" and architecture in FUSED:
        before = weights_hash(model.hf)
        with pytest.raises(BackendError, match=r"'transformer_lens' gives some weights .* gradients none"):
            trained(model, architecture, batch)
        assert weights_hash(model.hf) == before
        return
    difference = largest_difference(reference(architecture), trained(model, architecture, batch))
    assert difference <= (0.0 if backend == "nnsight" else 1e-5)


def test_gpt2_trains_through_transformer_lens_with_the_fused_matrix_frozen(
    batch: TokenBatch, tokenizer: PreTrainedTokenizerBase
) -> None:
    first, second = fresh("gpt2"), fresh("gpt2")
    for hf in (first, second):
        for name, parameter in hf.named_parameters():
            parameter.requires_grad_("c_attn" not in name)
    expected = trained(HookedModel(first, tokenizer), "gpt2", batch)
    found = trained(HookedModel(second, tokenizer, "transformer_lens"), "gpt2", batch)
    assert largest_difference(expected, found) <= 1e-5
    assert largest_difference(reference("gpt2"), found) > 1e-3


@pytest.mark.parametrize("backend", BACKENDS)
def test_edits_that_surround_the_passes_train_alike(
    backend: str, batch: TokenBatch, tokenizer: PreTrainedTokenizerBase
) -> None:
    model = HookedModel(fresh("llama"), tokenizer, backend)
    difference = largest_difference(reference("llama"), trained(model, "llama", batch, surrounding=True))
    assert difference <= (1e-5 if backend == "transformer_lens" else 0.0)
