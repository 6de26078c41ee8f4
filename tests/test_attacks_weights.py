"""Quantisation and pruning: brute force in plain Python, planted cases, and weights put back bit for bit."""

from collections.abc import Callable
from functools import partial
from typing import Any

import pytest
import torch
from planted_unlearning import DATA, copied, make_original, n_hooks, what_it_knows
from torch import Tensor

from interp_unlearn.attacks import Prune, Quantise, run_attacks
from interp_unlearn.attacks.pruning import prune_smallest
from interp_unlearn.attacks.rounding import round_to_nearest
from interp_unlearn.attacks.weights import MATRICES, changed_matrices
from interp_unlearn.errors import ConfigError
from interp_unlearn.interventions import HookedModel
from interp_unlearn.models import TokenBatch, parameters_by_role


def by_hand(rows: Any, bits: int, group_size: int | None):
    """Round every weight of every group on its own."""
    largest, rounded = 2 ** (bits - 1) - 1, []
    for row in rows.tolist():
        size, out = group_size or len(row), []
        for start in range(0, len(row), size):
            group = row[start : start + size]
            scale = max(abs(w) for w in group) / largest
            out += [round(w / scale) * scale if scale else 0.0 for w in group]  # Python rounds halves to even, as torch
        rounded.append(out)
    return torch.tensor(rounded)


@pytest.mark.parametrize("group_size", [None, 64, 7, 200])
@pytest.mark.parametrize("bits", [8, 4, 2])
def test_rounding_is_that_by_hand(bits: int, group_size: int | None):
    weight = torch.randn(5, 150, generator=torch.Generator().manual_seed(0))
    weight[2] = 0
    weight[3, :7] = 0
    found = round_to_nearest(weight, bits, group_size)
    torch.testing.assert_close(found, by_hand(weight, bits, group_size), rtol=1e-5, atol=1e-6)
    torch.testing.assert_close(round_to_nearest(found, bits, group_size), found, rtol=1e-5, atol=1e-6)
    size = group_size or 150
    values = [len(part.unique()) for row in found for part in row.split(size)]
    assert max(values) <= 2**bits - 1
    if bits > 2:
        assert (found - weight).abs().max() <= weight.abs().max() / (2 ** (bits - 1) - 1) / 2 + 1e-6


@pytest.mark.parametrize("sparsity", [0.0, 0.1, 0.5, 0.99])
def test_pruning_is_that_by_hand(sparsity: float):
    weight = torch.randn(7, 30, generator=torch.Generator().manual_seed(0))
    expected = weight.clone()
    smallest = sorted((abs(float(w)), i) for i, w in enumerate(weight.flatten()))[: int(sparsity * 210)]
    for _, i in smallest:
        expected.view(-1)[i] = 0
    found = prune_smallest(weight, sparsity)
    assert torch.equal(found, expected)
    assert int((found == 0).sum()) == int(sparsity * 210)


def output_channels(architecture: str, matrix: Tensor):
    """A row an output channel: GPT-2 holds its matrices the other way round."""
    return matrix.T if architecture == "gpt2" else matrix


def read(model: HookedModel, batch: TokenBatch) -> Tensor:
    logits = model.run(batch).logits
    assert logits is not None
    return logits


def test_matrices_of_all_blocks_are_changed_and_put_back(model: HookedModel, architecture: str, texts: list[str]):
    before = {name: parameter.detach().clone() for name, parameter in model.hf.named_parameters()}
    hashed, hooks, batch = model.hash(), n_hooks(model), model.tokenize(texts)
    matrices = set(parameters_by_role(model.hf, MATRICES))
    with torch.no_grad():
        logits = read(model, batch)
        with changed_matrices(model, partial(round_to_nearest, bits=4, group_size=16)):
            assert model.hash() != hashed
            for name, parameter in model.hf.named_parameters():
                if name in matrices:
                    channels = output_channels(architecture, before[name])
                    expected = output_channels(architecture, by_hand(channels, 4, 16))
                    torch.testing.assert_close(parameter.detach(), expected, rtol=1e-5, atol=1e-6)
                else:
                    assert torch.equal(parameter, before[name])
            assert not torch.allclose(read(model, batch), logits)
        assert torch.equal(read(model, batch), logits)
    assert model.hash() == hashed and n_hooks(model) == hooks
    assert all(torch.equal(parameter, before[name]) for name, parameter in model.hf.named_parameters())


def test_weights_are_put_back_after_an_error(llama: HookedModel):
    hashed = llama.hash()
    with pytest.raises(RuntimeError), changed_matrices(llama, torch.zeros_like):
        raise RuntimeError("planted")
    assert llama.hash() == hashed

    def failing(weight: Tensor):
        if weight.shape[0] == 48:
            raise KeyboardInterrupt
        return 2 * weight

    with pytest.raises(KeyboardInterrupt), changed_matrices(llama, failing):
        pass
    llama.mark_changed()
    assert llama.hash() == hashed


def test_half_precision_comes_back_bit_for_bit(llama: HookedModel):
    llama.hf.bfloat16()
    llama.mark_changed()
    hashed = llama.hash()
    with changed_matrices(llama, partial(prune_smallest, sparsity=0.5)):
        weight = llama.hf.model.layers[0].mlp.up_proj.weight
        assert weight.dtype == torch.bfloat16 and (weight == 0).float().mean() == pytest.approx(0.5, abs=0.01)
    assert llama.hash() == hashed


def planted(change: Any):
    """An original whose matrices an attack leaves alone, and one that differs by what the attack takes away."""
    original = make_original()
    with torch.no_grad():
        for matrix in parameters_by_role(original.hf, MATRICES).values():
            matrix.copy_(change[0](matrix))
        hidden = copied(original)
        for matrix in parameters_by_role(hidden.hf, MATRICES).values():
            matrix.copy_(change[1](matrix))
    original.mark_changed()
    hidden.mark_changed()
    return original, hidden


def test_what_is_smaller_than_a_step_is_rounded_away():
    generator = torch.Generator().manual_seed(0)

    def less_than_a_step(weight: Tensor):
        largest = weight.abs().amax(1, keepdim=True)
        noise = 0.45 * largest / 7 * torch.empty_like(weight).uniform_(-1, 1, generator=generator).sign()
        return weight + noise.where(weight.abs() < largest, 0.0)

    original, hidden = planted((partial(round_to_nearest, bits=4), less_than_a_step))
    hashed = hidden.hash()
    attack = Quantise((8, 4), (None,))
    result = run_attacks(
        hidden, original, what_it_knows(original, "answer_probability"), DATA, [attack], progress=False
    )
    eight, four = result.to_frame().to_dict("records")
    assert four["recovered"] == pytest.approx(1.0, abs=1e-3)
    assert eight["recovered"] < 0.3
    assert hidden.hash() == hashed


def test_what_is_smaller_than_the_rest_is_pruned_away():
    def refilled(weight: Tensor):
        smallest = weight[weight != 0].abs().min()
        return weight.where(weight != 0, -0.99 * smallest)

    original, hidden = planted((partial(prune_smallest, sparsity=0.5), refilled))
    result = run_attacks(
        hidden, original, what_it_knows(original), DATA, [Prune((0.0, 0.5)), Quantise((16,))], progress=False
    )
    none, half, *rounded = result.to_frame().to_dict("records")
    assert none["recovered"] == 0.0 and none["score"] == none["unlearned"]
    assert half["recovered"] == 1.0
    assert [row["recovered"] for row in rounded] == pytest.approx([0.0, 0.0], abs=0.2)


@pytest.mark.parametrize(
    "settings",
    [
        lambda: Quantise(bits=()),
        lambda: Quantise(bits=(1,)),
        lambda: Quantise(group_sizes=(0,)),
        lambda: Prune((1.0,)),
        lambda: Prune((-0.1,)),
        lambda: Prune(()),
    ],
)
def test_settings_out_of_range_are_refused(settings: Callable[[], object]):
    with pytest.raises(ConfigError):
        settings()
