"""The training loop: what it changes, what it leaves alone, and what it refuses."""

import copy
import json

import pandas as pd
import pytest
import torch

from interp_unlearn.errors import ConfigError
from interp_unlearn.interventions import HookedModel
from interp_unlearn.models import parameters_by_role
from interp_unlearn.objectives import kl, relative_mse
from interp_unlearn.sites import Site
from interp_unlearn.unlearning import FineTuning, Misdirection, Objective, UnlearnConfig, UnlearnData, unlearn

FORGET = ["the cat sat on a mat", "a cat ran on a hill", "the small cat said yes", "it was the cat and not a dog"]
RETAIN = ["who said no", "the big red hill", "a blue dog ran and sat", "yes it was small then"]
DATA = UnlearnData(forget=FORGET, retain=RETAIN, groups=list("aabb"))
THREE = UnlearnConfig(steps=3, batch_size=2, roles=("mlp.down",), layers=(1,))


def values(model):
    return {name: parameter.detach().clone() for name, parameter in model.hf.named_parameters()}


@pytest.mark.parametrize("meta", [False, True])
def test_only_the_targeted_tensors_change(model, meta):
    before = values(model)
    result = unlearn(model, Misdirection(1, meta=meta), DATA, THREE, progress=False)
    after = values(model)
    targeted = set(parameters_by_role(model.hf, ["mlp.down"], [1]))
    assert {name for name in before if not torch.equal(before[name], after[name])} == targeted
    assert set(result.changed["tensor"]) == targeted
    assert (result.changed["relative_change"] > 0).all()


def test_layers_below_the_first_trained_one_drift_by_exactly_zero(model, texts):
    batch, sites = model.tokenize(texts), [Site(layer, "resid_post") for layer in range(3)]
    before = model.run(batch, reads=sites)
    unlearn(model, Misdirection(2), DATA, UnlearnConfig(steps=3, batch_size=2, layers=(2,)), progress=False)
    after = model.run(batch, reads=sites)
    assert torch.equal(before[sites[0]], after[sites[0]])
    assert torch.equal(before[sites[1]], after[sites[1]])
    assert not torch.equal(before[sites[2]], after[sites[2]])


def test_one_step_is_plain_adamw_on_the_written_losses(llama):
    """The whole step against a second model and plain autograd."""
    copied = HookedModel(copy.deepcopy(llama.hf), llama.tokenizer)
    config = UnlearnConfig(
        steps=2, batch_size=4, roles=("mlp.down",), layers=(0, 1), retain_weight=3.0, kl_weight=2.0, clip=0.7
    )
    unlearn(llama, Misdirection((0, 1)), DATA, config, progress=False)

    frozen = copy.deepcopy(copied.hf)
    trained = list(parameters_by_role(copied.hf, ["mlp.down"], [0, 1]).values())
    optimizer = torch.optim.AdamW(trained, lr=config.learning_rate, weight_decay=0.0)
    forget, retain = (llama.tokenize(texts) for texts in (FORGET, RETAIN))  # all rows, in whatever order

    def states(hf, batch):
        out = hf(batch.input_ids, attention_mask=batch.attention_mask, output_hidden_states=True)
        return out.hidden_states[1], out.hidden_states[2], out.logits

    from interp_unlearn.objectives import random_directions

    u = random_directions(llama.d_model, [0, 1], seed=0)
    for _ in range(2):
        h = states(copied.hf, forget)
        cosines = [torch.cosine_similarity(h[i], u[i], dim=-1)[forget.content_mask] for i in (0, 1)]
        loss = sum((1 - c).mean() for c in cosines) / 2
        after, before = states(copied.hf, retain), states(frozen, retain)
        loss = loss + 3.0 * sum(relative_mse(after[i], before[i].detach(), retain.content_mask) for i in (0, 1)) / 2
        loss = loss + 2.0 * kl(before[2].detach(), after[2], retain.content_mask)
        optimizer.zero_grad()
        loss.backward()
        torch.nn.utils.clip_grad_norm_(trained, 0.7)
        optimizer.step()
    for name, parameter in parameters_by_role(llama.hf, ["mlp.down"], [0, 1]).items():
        torch.testing.assert_close(parameter, dict(copied.hf.named_parameters())[name], rtol=0, atol=2e-5)


def test_modes_flags_and_gradients_are_left_as_found(llama):
    llama.hf.train()
    frozen = llama.hf.get_input_embeddings().weight.requires_grad_(False)
    kept = next(iter(parameters_by_role(llama.hf, ["mlp.down"], [1]).values()))
    kept.grad = torch.ones_like(kept)
    with torch.no_grad():  # training switches gradients on by itself
        unlearn(llama, Misdirection(1), DATA, THREE, progress=False)
    assert all(module.training for module in llama.hf.modules())
    assert not frozen.requires_grad
    assert all(p.requires_grad for p in llama.hf.parameters() if p is not frozen)
    assert torch.equal(kept.grad, torch.ones_like(kept))


def test_dropout_is_off_during_training(tokenizer):
    from conftest import make_hf

    runs = []
    for mode in (True, False):
        hf = make_hf("gpt2")  # has dropout 0.1
        hf.train(mode)
        model = HookedModel(hf, tokenizer)
        unlearn(model, Misdirection(1), DATA, THREE, progress=False)
        runs.append(model.hash())
    assert runs[0] == runs[1]


@pytest.mark.parametrize("meta", [False, True])
def test_equal_seeds_give_equal_weights_bit_for_bit(tokenizer, meta):
    from conftest import make_hf

    hashes = []
    for seed, noise in ((0, 1), (0, 2), (1, 1)):
        model = HookedModel(make_hf("llama"), tokenizer)
        torch.manual_seed(noise)
        config = UnlearnConfig(steps=2, batch_size=2, layers=(1,), seed=seed)
        unlearn(model, Misdirection(1, meta=meta), DATA, config, progress=False)
        hashes.append(model.hash())
    assert hashes[0] == hashes[1] != hashes[2]


@pytest.mark.parametrize("backend", ["transformer_lens", "nnsight"])
def test_every_backend_trains_the_same_weights(tokenizer, backend):
    from conftest import make_hf

    path = f"interp_unlearn.interventions.backends.{backend}"
    pytest.importorskip(path, reason="the backend is not there yet")
    trained = []
    for name in ("torch", backend):
        model = HookedModel(make_hf("llama"), tokenizer, backend=name)
        unlearn(model, Misdirection((0, 1)), DATA, THREE, progress=False)
        trained.append(values(model))
    start = values(HookedModel(make_hf("llama"), tokenizer))
    for name, value in trained[0].items():
        torch.testing.assert_close(trained[1][name], value, rtol=0, atol=1e-5)
        assert ("1.mlp.down_proj" in name) == bool((value - start[name]).abs().max() > 1e-4)


class Broken(Objective):
    """A loss that is not a number from a given step on."""

    def __init__(self, at):
        super().__init__("broken", retains=False)
        self.at = at
        self.calls = 0

    def loss(self, model, batch, mask, targets):
        self.calls += 1
        loss = model.run(batch, logits=True).logits[mask].square().mean()
        return (loss * torch.nan if self.calls > self.at else loss), {}


@pytest.mark.parametrize("needed", [True, False])
def test_targets_are_taken_on_the_original_where_needed(llama, needed):
    original, hashes = llama.hash(), []

    class Watched(FineTuning):
        def targets(self, model, batch):
            assert not torch.is_grad_enabled()
            hashes.append(model.hash())

    objective = Watched("forget", retains=False)
    objective.needs_original = needed
    unlearn(llama, objective, DATA, THREE, progress=False)
    assert len(set(hashes)) == (1 if needed else 3)
    assert hashes[0] == original


def test_a_loss_that_is_not_finite_raises_and_the_original_comes_back(llama):
    before = llama.hash()
    with pytest.raises(ConfigError, match="nan at step 2"):
        unlearn(llama, Broken(at=2), DATA, UnlearnConfig(steps=5, batch_size=2), progress=False)
    assert llama.hash() == before
    assert all(parameter.requires_grad for parameter in llama.hf.parameters())


def test_tensors_that_no_loss_reaches_are_refused_at_the_first_step(llama):
    before = llama.hash()
    config = UnlearnConfig(steps=3, batch_size=2, layers=(0, 2), kl_weight=0.0)
    with pytest.raises(ConfigError, match=r"no gradient reaches 1 of 2.*layers\.2\.mlp\.down_proj"):
        unlearn(llama, Misdirection(1), DATA, config, progress=False)
    assert llama.hash() == before


def test_a_learning_rate_too_small_to_move_anything_is_refused(llama):
    config = UnlearnConfig(steps=1, batch_size=2, layers=(1,), learning_rate=1e-30)
    with pytest.raises(ConfigError, match="have not moved"):
        unlearn(llama, Misdirection(1), DATA, config, progress=False)


def test_retain_texts_are_needed_exactly_where_something_is_retained(llama):
    bare = UnlearnData(forget=FORGET)
    with pytest.raises(ConfigError, match="retain"):
        unlearn(llama, Misdirection(1), bare, THREE, progress=False)
    free = UnlearnConfig(steps=1, batch_size=2, layers=(1,), retain_weight=0, kl_weight=0)
    history = unlearn(llama, Misdirection(1), bare, free, progress=False).history
    assert history["retain"].tolist() == [0.0]


def test_completions_are_needed_where_the_loss_is_on_them(llama):
    with pytest.raises(ConfigError, match="forget_completions"):
        unlearn(llama, Misdirection(1), DATA, UnlearnConfig(forget_on="completion"), progress=False)


def test_the_pass_stops_early_where_no_logits_are_needed(llama):
    calls = []
    llama.hf.get_output_embeddings().register_forward_hook(lambda *_: calls.append(1))
    config = UnlearnConfig(steps=2, batch_size=2, layers=(1,), kl_weight=0.0)
    unlearn(llama, Misdirection(1), DATA, config, progress=False)
    assert not calls
    unlearn(llama, Misdirection(1), DATA, THREE, progress=False)
    assert len(calls) == 2 * 3  # the original's and the model's pass on retain text


def test_different_objectives_see_the_same_rows(tokenizer):
    from conftest import make_hf

    seen = []

    class Watched(Misdirection):
        def loss(self, model, batch, mask, targets):
            rows.append(batch.input_ids)
            return super().loss(model, batch, mask, targets)

    for layers in (1, (0, 1)):
        rows = []
        unlearn(HookedModel(make_hf("llama"), tokenizer), Watched(layers), DATA, THREE, progress=False)
        seen.append(rows)
    assert all(torch.equal(a, b) for a, b in zip(*seen, strict=True))


def test_checkpoints_see_the_current_weights_and_make_the_curve(llama):
    hashes = []

    def callback(step, model):
        assert not torch.is_grad_enabled()
        hashes.append(model.hash())
        return {"value": 10 * step}

    result = unlearn(llama, Misdirection(1), DATA, THREE, checkpoints=(0, 2, 3), callback=callback, progress=False)
    assert result.curve["step"].tolist() == [0, 2, 3]
    assert result.curve["value"].tolist() == [0, 20, 30]
    assert len(set(hashes)) == 3
    assert hashes[-1] == llama.hash()


def test_history_and_record_are_written(llama, tmp_path):
    result = unlearn(llama, Misdirection(1), DATA, THREE, progress=False)
    assert result.history["step"].tolist() == [0, 1, 2]
    assert result.history["retain_kl"].iloc[0] == pytest.approx(0.0, abs=1e-6)  # nothing has moved yet
    assert result.history["retain_kl"].iloc[2] > 0
    assert result.history["norm_ratio"].iloc[0] == pytest.approx(1.0, abs=0.2)
    assert result.seconds > 0
    result.save(tmp_path / "run")
    pd.testing.assert_frame_equal(pd.read_parquet(tmp_path / "run" / "history.parquet"), result.history)
    pd.testing.assert_frame_equal(pd.read_parquet(tmp_path / "run" / "changed.parquet"), result.changed)
    record = json.loads((tmp_path / "run" / "unlearn.json").read_text())
    assert record["objective"] == "misdirection"
    assert UnlearnConfig(**record["config"]) == result.config


def test_the_saved_model_is_the_unlearned_one(llama, tmp_path, texts):
    unlearn(llama, FineTuning("forget", retains=False), DATA, THREE, progress=False)
    llama.save_pretrained(tmp_path)
    loaded = HookedModel.from_pretrained(tmp_path)
    with torch.no_grad():
        batch = llama.tokenize(texts)
        assert torch.equal(loaded.run(batch).logits, llama.run(batch).logits)


def test_sgd_is_sgd(llama):
    name, parameter = next(iter(parameters_by_role(llama.hf, ["mlp.down"], [1]).items()))
    before = parameter.detach().clone()
    batch = llama.tokenize(FORGET)
    loss = torch.nn.functional.cross_entropy(
        llama.hf(batch.input_ids, attention_mask=batch.attention_mask).logits[:, :-1][batch.content_mask[:, 1:]],
        batch.input_ids[:, 1:][batch.content_mask[:, 1:]],
    )
    gradient = torch.autograd.grad(loss, parameter)[0]
    config = UnlearnConfig(steps=1, batch_size=4, layers=(1,), optimizer="sgd", learning_rate=0.1, clip=None)
    result = unlearn(llama, FineTuning("forget", retains=False), DATA, config, progress=False)
    torch.testing.assert_close(parameter.detach(), before - 0.1 * gradient, rtol=1e-4, atol=1e-6)
    assert result.changed["tensor"].tolist() == [name]
