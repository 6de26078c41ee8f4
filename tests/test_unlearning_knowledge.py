"""Objectives and edits for knowledge: their targets, their terms and what they refuse."""

import math

import pytest
import torch
from conftest import make_hf
from planted_classes import DATA, FORGET, RETAIN

from interp_unlearn.errors import ConfigError
from interp_unlearn.interventions import HookedModel
from interp_unlearn.objectives import cross_entropy, kl, rmu_forget
from interp_unlearn.sites import Site
from interp_unlearn.unlearning import (
    Counterfactual,
    Flatten,
    GradientAscent,
    LatentRMU,
    Misdirection,
    NegativePreference,
    Rerouting,
    ShrinkPerturb,
    UnlearnConfig,
    UnlearnData,
    unlearn,
)
from interp_unlearn.unlearning.corpora import Corpora, forget_mask

CONFIG = UnlearnConfig(batch_size=4, layers=(0, 1))
FREE = UnlearnConfig(steps=30, batch_size=4, roles=None, learning_rate=3e-3, retain_weight=0, kl_weight=0)


def loss_of(model, objective, config=CONFIG):
    """At the model's own weights, which are the original's."""
    corpora = Corpora.from_data(model.tokenizer, DATA)
    objective.prepare(model, corpora, config)
    batch = objective.batch(model, corpora, config, 0)
    with torch.no_grad():
        targets = objective.targets(model, batch)
        return objective.loss(model, batch, forget_mask(batch, config), targets), batch


def logits_of(model, texts):
    batch = model.tokenize(texts)
    with torch.no_grad():
        return model.run(batch, logits=True).logits, batch


@pytest.mark.parametrize("architecture", ["llama", "gpt2"], indirect=True)
def test_counterfactual_predictions_are_the_originals_on_the_counterparts(model):
    (loss, _), batch = loss_of(model, Counterfactual(by="predictions"))
    own, other = batch.select(slice(0, 4)), batch.select(slice(4, None))
    with torch.no_grad():
        p, q = (model.run(part, logits=True).logits for part in (other, own))
    torch.testing.assert_close(loss, kl(p, q, own.content_mask))
    assert loss > 1e-4


def test_a_counterfactual_model_says_of_the_subject_what_the_original_says_of_the_other(llama):
    start = HookedModel(make_hf("llama"), llama.tokenizer)
    unlearn(llama, Counterfactual(by="predictions"), DATA, FREE, progress=False)
    texts = [text.replace("cat", "dog") for text in FORGET]
    wanted, _ = logits_of(start, texts)
    before, batch = logits_of(start, FORGET)
    after, _ = logits_of(llama, FORGET)
    assert kl(wanted, after, batch.content_mask) < 0.2 * kl(wanted, before, batch.content_mask)


def test_counterfactual_activations_move_to_the_counterparts(llama):
    for by in ("cosine", "relative_mse"):
        result = unlearn(llama, Counterfactual(1, by=by), DATA, FREE, restore=True, progress=False)
        assert result.history["forget"].iloc[-1] < 0.3 * result.history["forget"].iloc[0]


def test_a_counterpart_of_another_length_is_refused(llama):
    data = UnlearnData(forget=["the cat sat", "a cat ran"], counterparts=["the dog sat", "a big dog ran"])
    with pytest.raises(ConfigError, match="forget row 1 has 4 tokens, its counterpart 5"):
        unlearn(llama, Counterfactual(1), data, FREE, progress=False)
    with pytest.raises(ConfigError, match="counterparts"):
        unlearn(llama, Counterfactual(1), UnlearnData(forget=FORGET), FREE, progress=False)
    with pytest.raises(ConfigError, match="by must be one of"):
        Counterfactual(1, by="sine")
    with pytest.raises(ConfigError, match="empty"):
        Counterfactual(by="cosine")


def test_gradient_ascent_is_minus_the_cross_entropy(llama):
    (loss, _), batch = loss_of(llama, GradientAscent())
    logits, _ = logits_of(llama, FORGET)
    full = llama.tokenize(FORGET)
    torch.testing.assert_close(loss, -cross_entropy(logits, full.input_ids, full.content_mask))
    assert len(batch) == 4


def test_npo_begins_at_its_symmetric_value_and_simnpo_needs_no_original(llama):
    (loss, logs), _ = loss_of(llama, NegativePreference(0.1))
    assert loss.item() == pytest.approx(20 * math.log(2), rel=1e-5)
    assert logs["log_probability"] < 0
    assert NegativePreference(1.0, simple=True).needs_original is False
    with pytest.raises(ConfigError, match="beta"):
        NegativePreference(0.0)


def test_rerouting_trades_its_weights_over_time(llama):
    objective = Rerouting(1)
    assert [objective.schedule(share) for share in (0.0, 0.5)] == [(1.0, 0.0), (0.75, 0.25)]
    (loss, _), _ = loss_of(llama, objective)
    assert loss.item() == pytest.approx(1.0, abs=1e-5)  # everything still points where it did
    config = UnlearnConfig(steps=4, batch_size=4, layers=(0, 1), retain_weight=1.0, kl_weight=0)
    history = unlearn(llama, objective, DATA, config, progress=False).history
    assert history["retain"].iloc[0] == 0.0  # its weight is 0 at the start
    assert history["retain"].iloc[3] == pytest.approx(0.375 * history["retain_hidden"].iloc[3], rel=1e-5)


def test_the_latent_adversary_raises_the_loss_within_its_ball(llama):
    plain, attacked = Misdirection(1, kind="mse", coefficient=3.0), LatentRMU(1, 3.0, radius=0.5, ascent_steps=8)
    (loss, _), batch = loss_of(llama, plain)
    (worse, logs), _ = loss_of(llama, attacked)
    assert logs["unshifted"] == pytest.approx(loss.item(), rel=1e-5)
    assert worse > 1.05 * loss
    # A random shift of the same radius does less harm.
    site = Site(1, "resid_pre")
    from interp_unlearn.unlearning.latent import Shift

    noise = torch.randn(*batch.input_ids.shape, llama.d_model, generator=torch.Generator().manual_seed(0))
    with llama.edited({site: Shift(0.5 * noise / noise.norm(dim=-1, keepdim=True))}), torch.no_grad():
        random = plain.loss(llama, batch, batch.content_mask, None)[0]
    assert worse > random
    with torch.no_grad():
        h = llama.run(batch, reads=[Site(1, "resid_post")])[Site(1, "resid_post")]
    u = 3.0 * attacked._directions[1]
    torch.testing.assert_close(loss, rmu_forget(h, batch.content_mask, u))
    with pytest.raises(ConfigError, match="radius"):
        LatentRMU(1, 3.0, radius=0)


def test_flattening_shares_a_pools_probability_and_leaves_the_others(llama):
    batch = llama.tokenize(RETAIN)
    pool, rest = [4, 7, 9], [5, 6, 8]
    with torch.no_grad():
        before = llama.run(batch, logits=True).logits.softmax(-1)
        after = llama.run(batch, edits={Site.logits: Flatten([pool])}, logits=True).logits.softmax(-1)
    tokens = batch.content_mask
    mean = before[..., pool].mean(-1, keepdim=True).expand(-1, -1, 3)
    torch.testing.assert_close(after[..., pool][tokens], mean[tokens], rtol=1e-4, atol=1e-7)
    torch.testing.assert_close(after[..., rest][tokens], before[..., rest][tokens], rtol=1e-4, atol=1e-7)
    assert (before[..., pool][tokens] - mean[tokens]).abs().max() > 1e-4
    for pools in ([], [[]], [[1, 2], [2]]):
        with pytest.raises(ConfigError, match="pools"):
            Flatten(pools)


def test_shrinking_leaves_the_stated_share_and_adds_noise_of_the_stated_size(llama):
    start = {name: tensor.clone() for name, tensor in llama.hf.named_parameters()}
    config = UnlearnConfig(roles=("mlp",))
    result = ShrinkPerturb(0.3, beta=0.5, seed=1).apply(llama, DATA, config, progress=False)
    for name, tensor in llama.hf.named_parameters():
        if ".mlp." not in name:
            assert torch.equal(tensor, start[name])
            continue
        noise = tensor.detach() - 0.7 * start[name]
        expected = 0.15 * math.sqrt(2 / sum(tensor.shape))  # Xavier's standard deviation
        assert noise.std().item() == pytest.approx(expected, rel=0.15)
    assert (result.history["noise_norm"] > 0).all()
    first = llama.hash()
    llama.hf.load_state_dict(start)
    ShrinkPerturb(0.3, beta=0.5, seed=1).apply(llama, DATA, config, progress=False)
    assert llama.hash() == first
    for alpha, beta in ((0.0, 1.0), (1.1, 1.0), (0.5, -1.0)):
        with pytest.raises(ConfigError, match="alpha"):
            ShrinkPerturb(alpha, beta)
