"""DPO in the loop: rows side by side, the frozen reference, one step against plain autograd, what it learns."""

import copy
import math
from dataclasses import replace

import pytest
import torch

from interp_unlearn.errors import ConfigError, DataError
from interp_unlearn.evaluation import token_nll
from interp_unlearn.interventions import HookedModel
from interp_unlearn.models import parameters_by_role
from interp_unlearn.unlearning import DPO, AdversaryConfig, Reference, UnlearnConfig, UnlearnData, load_recipe, unlearn
from interp_unlearn.unlearning.corpora import Corpora

PROMPTS = ["the cat", "a big dog", "who said", "it was the hill and"]
TOXIC = [" sat on a mat", " ran", " no and yes", " small"]
CIVIL = [" ran then", " sat on a blue mat", " yes", " not red"]
DATA = UnlearnData(forget=PROMPTS, forget_completions=TOXIC, counterparts=CIVIL, retain=["the mat", "a red hill"])
FREE = UnlearnConfig(steps=3, batch_size=4, retain_weight=0, kl_weight=0)


def log_probability(hf, tokenizer, prompt, completion):
    """log p(completion | prompt) under a plain model, one token at a time."""
    head, tail = ([1, *tokenizer(prompt)["input_ids"]], tokenizer(completion)["input_ids"])
    logits = hf(torch.tensor([head + tail])).logits[0].log_softmax(-1)
    return sum(logits[len(head) - 1 + i, token] for i, token in enumerate(tail))


def loss_by_hand(hf, frozen, tokenizer, beta):
    terms = []
    for prompt, toxic, civil in zip(PROMPTS, TOXIC, CIVIL, strict=True):
        margin = 0
        for completion, sign in ((civil, 1), (toxic, -1)):
            with torch.no_grad():
                reference = log_probability(frozen, tokenizer, prompt, completion)
            margin = margin + sign * (log_probability(hf, tokenizer, prompt, completion) - reference)
        terms.append(-torch.nn.functional.logsigmoid(beta * margin))
    return torch.stack(terms).mean()


def test_a_batch_holds_each_row_and_its_counterpart(llama):
    corpora = Corpora.from_data(llama.tokenizer, DATA)
    batch = DPO().batch(llama, corpora, UnlearnConfig(batch_size=3), 0)
    decoded = [
        llama.tokenizer.decode(ids[mask & (ids > 3)].tolist())
        for ids, mask in zip(batch.input_ids, batch.mask, strict=True)
    ]
    said = {prompt + toxic: prompt + civil for prompt, toxic, civil in zip(PROMPTS, TOXIC, CIVIL, strict=True)}
    assert len(decoded) == 6
    assert [said[toxic] for toxic in decoded[:3]] == decoded[3:]
    ends = [
        " ".join(llama.tokenizer.convert_ids_to_tokens(ids[mask].tolist()))
        for ids, mask in zip(batch.input_ids, batch.completion_mask, strict=True)
    ]
    assert set(ends[:3]) <= {text.strip() for text in TOXIC} and set(ends[3:]) <= {text.strip() for text in CIVIL}


@pytest.mark.parametrize("forget_on", ["content", "completion"])
def test_two_steps_are_plain_sgd_on_the_written_loss(model, forget_on):
    tuned, frozen = copy.deepcopy(model.hf), copy.deepcopy(model.hf)
    config = UnlearnConfig(
        steps=2, batch_size=4, layers=(0, 1), retain_weight=0, kl_weight=0, optimizer="sgd", learning_rate=0.3,
        clip=None, forget_on=forget_on,
    )  # fmt: skip
    history = unlearn(model, DPO(beta=0.5), DATA, config, progress=False).history
    trained = parameters_by_role(tuned, ["mlp.down"], [0, 1])
    losses = []
    for _ in range(2):
        loss = loss_by_hand(tuned, frozen, model.tokenizer, 0.5)
        losses.append(loss.item())
        gradients = torch.autograd.grad(loss, list(trained.values()))
        with torch.no_grad():
            for parameter, gradient in zip(trained.values(), gradients, strict=True):
                parameter.sub_(0.3 * gradient)
    assert history["forget"].tolist() == pytest.approx(losses, rel=1e-4)
    assert losses[0] == pytest.approx(math.log(2), abs=1e-6) and losses[1] < losses[0] - 1e-4
    for name, parameter in parameters_by_role(model.hf, ["mlp.down"], [0, 1]).items():
        torch.testing.assert_close(parameter, trained[name], rtol=0, atol=1e-5)


def test_the_reference_is_the_original_bit_for_bit(llama):
    objective, corpora = DPO(), Corpora.from_data(llama.tokenizer, DATA)
    batch = objective.batch(llama, corpora, FREE, 0)
    reference = Reference(dict(llama.hf.named_parameters()))
    with torch.no_grad():
        expected = objective.targets(llama, batch)
        for parameter in llama.hf.parameters():
            parameter.add_(0.1 * torch.randn_like(parameter))
        assert not torch.equal(objective.targets(llama, batch), expected)
    with reference.original():
        assert torch.equal(objective.targets(llama, batch), expected)
    assert objective.needs_original


def test_the_loop_asks_the_original_at_every_step(llama):
    seen = []

    class Watched(DPO):
        def targets(self, model, batch):
            seen.append((model.hash(), super().targets(model, batch)))
            return seen[-1][1]

    original = llama.hash()
    unlearn(llama, Watched(), DATA, FREE, progress=False)
    assert [weights for weights, _ in seen] == [original] * 3
    assert llama.hash() != original


def test_the_civil_completion_becomes_the_likelier_one(llama):
    def gap():
        toxic, civil = (token_nll(llama, PROMPTS, ends)["nll"] for ends in (TOXIC, CIVIL))
        return (toxic - civil).tolist()

    before = gap()
    config = UnlearnConfig(steps=30, batch_size=4, learning_rate=3e-3)
    history = unlearn(llama, DPO(beta=0.5, layers=(1,)), DATA, config, progress=False).history
    assert all(after > start + 1 for after, start in zip(gap(), before, strict=True))
    assert history["accuracy"].iloc[[0, -1]].tolist() == [0.0, 1.0]  # equal at first, so none is above
    last = history.iloc[-1]
    assert last["chosen"] - last["rejected"] > 1
    assert {"retain_hidden", "retain_kl"} <= set(history)  # the same retain terms as every other objective's


def test_whole_texts_are_pairs_too(llama):
    """Rewrites without a prompt: every token but the BOS counts."""
    texts, rewrites = ["the cat sat on a mat", "a dog ran"], ["the cat ran", "a dog sat on a red mat"]
    data = UnlearnData(forget=texts, counterparts=rewrites)
    objective, corpora = DPO(), Corpora.from_data(llama.tokenizer, data)
    config = UnlearnConfig(steps=2, batch_size=2, retain_weight=0, kl_weight=0)
    objective.prepare(llama, corpora, config)
    with torch.no_grad():
        found = objective.targets(llama, objective.batch(llama, corpora, config, 0))
    nll = token_nll(llama, [*texts, *rewrites])["nll"]
    assert sorted(found.tolist()) == pytest.approx(sorted((-nll).tolist()), rel=1e-4)
    unlearn(llama, objective, data, config, progress=False)


@pytest.mark.parametrize(
    ("data", "config", "match"),
    [
        (UnlearnData(forget=PROMPTS, forget_completions=TOXIC), FREE, "counterparts"),
        (DATA, UnlearnConfig(retain_weight=0, kl_weight=0, adversary=AdversaryConfig()), "some subjects"),
    ],
)
def test_what_does_not_fit_is_refused(llama, data, config, match):
    before = llama.hash()
    with pytest.raises(ConfigError, match=match):
        unlearn(llama, DPO(), data, config, progress=False)
    assert llama.hash() == before


def test_counterparts_are_one_for_each_forget_row():
    with pytest.raises(DataError, match="3 counterparts for 4 forget texts"):
        UnlearnData(forget=PROMPTS, counterparts=CIVIL[:3])
    with pytest.raises(DataError, match="list of texts"):
        UnlearnData(forget=["yes"], counterparts="no")
    with pytest.raises(ConfigError, match="beta"):
        DPO(beta=0)


def test_the_published_optimiser_is_rmsprop(llama):
    config = load_recipe("dpo_gpt2_medium").config
    assert config.optimizer == "rmsprop" and config.roles is None
    other = HookedModel(copy.deepcopy(llama.hf), llama.tokenizer)
    step = UnlearnConfig(steps=1, batch_size=4, layers=(1,), retain_weight=0, kl_weight=0, clip=None)
    name, parameter = next(iter(parameters_by_role(llama.hf, ["mlp.down"], [1]).items()))
    before = parameter.detach().clone()
    unlearn(llama, DPO(), DATA, replace(step, optimizer="rmsprop"), progress=False)
    moved = parameter.detach() - before
    # Of RMSprop's first step (smoothing 0.99) every element is learning_rate / sqrt(1 - 0.99), but for tiny gradients.
    assert moved.abs().median().item() == pytest.approx(1e-3 * 10, rel=0.05)
    unlearn(other, DPO(), DATA, step, progress=False)
    adam = dict(other.hf.named_parameters())[name].detach() - before
    assert adam.abs().median().item() == pytest.approx(1e-3, rel=0.05)
