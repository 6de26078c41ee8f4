"""The inner adversary against the formula written out on a second copy of the model."""

import copy

import pytest
import torch

from interp_unlearn.interventions import HookedModel
from interp_unlearn.models import parameters_by_role
from interp_unlearn.unlearning import AdversaryConfig, UnlearnConfig
from interp_unlearn.unlearning.adversary import Attack, attacked_gradient, draw_attack, gradient
from interp_unlearn.unlearning.corpora import TokenCorpus
from interp_unlearn.unlearning.gradients import norm_of

TEXTS = ["the cat sat on a mat", "a cat ran on a hill", "dog said yes and no", "a dog was not red"]
CONFIG = UnlearnConfig(learning_rate=1e-3)
ADVERSARY = AdversaryConfig(steps=4, gradient_steps=(1, 4), batch_size=2)


@pytest.fixture
def attack(tokenizer):
    corpus = TokenCorpus.from_texts(tokenizer, TEXTS, groups=["cat", "cat", "dog", "dog"])
    return draw_attack(corpus, ADVERSARY, seed=0, step=0, device="cpu")


def outer_loss_of(hf, batch):
    logits = hf(batch.input_ids, attention_mask=batch.attention_mask).logits
    return logits[batch.content_mask].square().mean()


def by_hand(hf, attack, names, base_norm, adversary):
    """`sum_k min(max_scale, max(min_norm, |g0|) / |g_k|) g_k` on a copy that is really trained."""
    hf = copy.deepcopy(hf)
    optimizer = torch.optim.AdamW(hf.parameters(), lr=attack.learning_rate, weight_decay=0.0)
    total = dict.fromkeys(names, 0.0)
    scales = []
    for k in range(1, adversary.steps + 1):
        batch = attack.inner[k - 1]
        logits = hf(batch.input_ids, attention_mask=batch.attention_mask).logits[:, :-1]
        mask = batch.content_mask[:, 1:]
        optimizer.zero_grad()
        torch.nn.functional.cross_entropy(logits[mask], batch.input_ids[:, 1:][mask]).backward()
        optimizer.step()
        if k in adversary.gradient_steps:
            parameters = dict(hf.named_parameters())
            found = torch.autograd.grad(outer_loss_of(hf, attack.outer), [parameters[name] for name in names])
            norm = torch.cat([g.flatten() for g in found]).norm().item()
            scales.append(min(adversary.max_scale, max(adversary.min_norm, base_norm) / norm))
            total = {name: total[name] + scales[-1] * g for name, g in zip(names, found, strict=True)}
    return total, scales


@pytest.mark.parametrize("architecture", ["llama", "gpt2"], indirect=True)
@pytest.mark.parametrize(
    ("base_norm", "adversary"),
    [
        (1.0, ADVERSARY),
        (0.0, ADVERSARY),  # the floor min_norm sets the scale
        (1e9, ADVERSARY),  # max_scale does
    ],
)
def test_the_gradient_is_the_written_sum(model, attack, base_norm, adversary):
    trained = parameters_by_role(model.hf, ["mlp.down"], [1])
    expected, scales = by_hand(model.hf, attack, list(trained), base_norm, adversary)
    found = attacked_gradient(
        model, trained, attack, lambda: outer_loss_of(model.hf, attack.outer), base_norm, adversary, CONFIG
    )
    assert len(scales) == 2
    assert (scales == [10.0, 10.0]) == (base_norm == 1e9)
    for name, part in zip(trained, found, strict=True):
        torch.testing.assert_close(part, expected[name], rtol=1e-3, atol=1e-4 * float(expected[name].abs().max()))


def test_the_weights_come_back_bit_for_bit(model, attack):
    trained = parameters_by_role(model.hf, ["mlp.down"], [1])
    for index, parameter in enumerate(model.hf.parameters()):
        parameter.requires_grad_(index % 2 == 0)
        parameter.grad = torch.full_like(parameter, index) if index % 2 == 0 else None
    before = model.hash()
    kept = [(p.requires_grad, p.grad) for p in model.hf.parameters()]
    moved = []

    def outer_loss():
        moved.append(model.hash() != before)
        return outer_loss_of(model.hf, attack.outer)

    attacked_gradient(model, trained, attack, outer_loss, 1.0, ADVERSARY, CONFIG)
    assert moved == [True, True]
    assert model.hash() == before
    assert all(p.requires_grad == r and p.grad is g for p, (r, g) in zip(model.hf.parameters(), kept, strict=True))


def test_the_weights_come_back_after_an_exception(llama, attack):
    before = llama.hash()

    def outer_loss():
        raise KeyError

    with pytest.raises(KeyError):
        attacked_gradient(llama, parameters_by_role(llama.hf, ["mlp.down"]), attack, outer_loss, 1.0, ADVERSARY, CONFIG)
    assert llama.hash() == before


def test_the_attacker_relearns_its_subjects(llama, attack):
    """After the inner steps the attacked rows are more probable: the attack is real."""
    losses = []

    def outer_loss():
        logits = llama.run(attack.inner[0], logits=True).logits
        mask = attack.inner[0].content_mask[:, 1:]
        losses.append(torch.nn.functional.cross_entropy(logits[:, :-1][mask], attack.inner[0].input_ids[:, 1:][mask]))
        return losses[-1]

    strong = Attack(attack.inner, attack.outer, learning_rate=1e-2)
    every = AdversaryConfig(steps=4, gradient_steps=(1, 2, 3, 4), batch_size=2)
    attacked_gradient(llama, parameters_by_role(llama.hf, ["mlp.down"]), strong, outer_loss, 1.0, every, CONFIG)
    assert losses[-1] < 0.8 * losses[0]


def test_gradients_of_unused_tensors_are_zero_and_norms_are_joint():
    a, b = torch.tensor([3.0], requires_grad=True), torch.tensor([1.0, 2.0], requires_grad=True)
    grads = gradient((a * 2).sum(), [a, b])
    assert grads[0].tolist() == [2.0]
    assert grads[1].tolist() == [0.0, 0.0]
    assert norm_of([torch.tensor([3.0]), torch.tensor([0.0, 4.0])]) == pytest.approx(5.0)


def test_training_against_the_adversary_differs_from_training_without(tokenizer):
    from conftest import make_hf

    from interp_unlearn.unlearning import Misdirection, UnlearnData, unlearn

    data = UnlearnData(forget=TEXTS, retain=["who said no"], groups=["cat", "cat", "dog", "dog"])
    hashes, rates = [], []
    for adversary in (None, ADVERSARY):
        model = HookedModel(make_hf("llama"), tokenizer)
        config = UnlearnConfig(steps=2, batch_size=2, layers=(1,), adversary=adversary)
        history = unlearn(model, Misdirection(1), data, config, progress=False).history
        rates.append(history.get("attack_learning_rate"))
        hashes.append(model.hash())
    assert hashes[0] != hashes[1]
    assert rates[0] is None
    assert set(rates[1]) <= set(ADVERSARY.learning_rates)
