"""What a run will take, against what the same run did take on models that can be loaded."""

from dataclasses import replace

import pytest
import torch
from conftest import make_hf
from planted_classes import DATA

from interp_unlearn.errors import CheckpointError
from interp_unlearn.models import parameters_by_role
from interp_unlearn.unlearning import Counterfactual, GradientAscent, LoraConfig, Misdirection, UnlearnConfig
from interp_unlearn.unlearning.corpora import Corpora
from interp_unlearn.unlearning.estimate import Products, estimate_run, measured_speed

CONFIG = UnlearnConfig(steps=10, batch_size=2, layers=(1,), kl_weight=0)


@pytest.fixture
def checkpoint(tokenizer, tmp_path):
    make_hf("llama").save_pretrained(tmp_path)
    tokenizer.save_pretrained(tmp_path)
    return tmp_path


def test_sizes_are_those_of_the_tensors(checkpoint, tokenizer):
    corpora = Corpora.from_data(tokenizer, DATA)
    hf = make_hf("llama")
    found = estimate_run(checkpoint, Misdirection(1), corpora, CONFIG)
    trained = parameters_by_role(hf, ["mlp.down"], [1])
    numbers = sum(parameter.numel() for parameter in trained.values())
    assert found.trained == tuple(trained) and found.trained_numbers == numbers
    assert found.weights == 4 * sum(parameter.numel() for parameter in hf.parameters())
    assert found.reference == 4 * numbers and found.optimizer == 8 * numbers  # float32: the weights are the masters
    assert found.disk == sum(file.stat().st_size for file in checkpoint.glob("*.safetensors"))
    assert found.attacker == found.prefix_cache == 0
    half = estimate_run(checkpoint, Misdirection(1), corpora, CONFIG, dtype=torch.bfloat16)
    assert half.weights == found.weights // 2 and half.optimizer == 12 * numbers
    assert found.to_frame()["gigabytes"].iloc[:-1].sum() == pytest.approx(found.memory / 1e9)
    assert found.seconds == pytest.approx(10 * found.step_seconds)


def test_what_is_asked_for_costs_more(checkpoint, tokenizer):
    from interp_unlearn.unlearning import AdversaryConfig

    corpora = Corpora.from_data(tokenizer, DATA)

    def estimate(objective=None, **changes):
        return estimate_run(checkpoint, objective or Misdirection(1), corpora, replace(CONFIG, **changes))

    plain = estimate()
    assert estimate(adversary=AdversaryConfig()).memory > plain.memory
    assert estimate(cache_prefix=True).prefix_cache > 0
    assert estimate(GradientAscent(retains=True)).activations > plain.activations
    assert estimate(lora=LoraConfig(rank=1)).trained_numbers < plain.trained_numbers
    part = estimate_run(checkpoint, Misdirection(1), corpora, CONFIG, first_blocks=2)
    assert part.weights < plain.weights and part.trained_numbers == plain.trained_numbers


def test_rows_are_counted_as_the_run_has_them(checkpoint, tokenizer):
    """Cut at the model's context, and with their counterparts where a batch holds both."""
    long = [" ".join(["the cat sat"] * 400)] * 8
    context = make_hf("llama").config.max_position_embeddings
    assert len(tokenizer(long[0])["input_ids"]) > context
    data = replace(DATA, forget=long, counterparts=long, groups=None)
    corpora = Corpora.from_data(tokenizer, data)
    cut = Corpora.from_data(tokenizer, data, context)
    found, expected = (estimate_run(checkpoint, Misdirection(1), part, CONFIG) for part in (corpora, cut))
    assert found.activations == expected.activations
    pairs = estimate_run(checkpoint, Counterfactual((1,)), cut, CONFIG)
    assert pairs.activations == pytest.approx(2 * expected.activations, rel=0.01)


def test_a_speed_is_measured_and_a_missing_model_named(tokenizer, tmp_path):
    speed = measured_speed(64, torch.float32, torch.device("cpu"), least=0.01)
    assert all(1e6 < value < 1e16 for value in (speed.forward, speed.inputs, speed.weights))
    assert Products(2.0, 6.0, 0.0).times(2).plus(Products(0.0, 0.0, 5.0)).seconds_at(Products(1.0, 3.0, 5.0)) == 9
    with pytest.raises(CheckpointError, match="no such directory"):
        estimate_run(tmp_path / "nothing", Misdirection(1), Corpora.from_data(tokenizer, DATA), CONFIG)
