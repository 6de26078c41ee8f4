"""Hardening: a model kept as it is at weights that an attacker has begun to relearn, and the texts it retains."""

import copy
from collections import Counter

import pytest
import torch
from conftest import make_hf, make_tokenizer
from torch import Tensor

from interp_unlearn import HookedModel
from interp_unlearn.attacks import RelearnConfig, relearn
from interp_unlearn.errors import ConfigError
from interp_unlearn.evaluation import sample_documents, token_nll
from interp_unlearn.models import TokenBatch
from interp_unlearn.objectives import kl
from interp_unlearn.unlearning import AdversaryConfig, UnlearnConfig, UnlearnData, build_objective, unlearn
from interp_unlearn.unlearning.adversary import attacked_gradient, draw_attack
from interp_unlearn.unlearning.corpora import TokenCorpus, forget_mask

FORGET = ["the cat sat on a mat", "a cat ran on a hill", "dog said yes and no", "a dog was not red"]
GROUPS = ["cat", "cat", "dog", "dog"]
DATA = UnlearnData(forget=FORGET, groups=GROUPS, retain=["the hill was blue", "yes and no"])


# Texts that the model writes from nothing


def test_documents_are_drawn_from_the_models_own_distribution(llama: HookedModel):
    n = 4000
    drawn = sample_documents(llama, n, 1, seed=3, progress=False)
    with torch.no_grad():
        logits = llama.hf(torch.tensor([[llama.tokenizer.bos_token_id]])).logits[0, -1]
    expected = logits.softmax(-1)
    counts = Counter(text.strip() for text in drawn)
    special = set(llama.tokenizer.all_special_ids)
    for token in range(len(expected)):
        p = float(expected[token])
        word = str(llama.tokenizer.decode([token])).strip()
        found = 0 if token in special else counts[word]
        wanted = 0.0 if token in special else p
        assert abs(found / n - wanted) <= 5 * (p * (1 - p) / n) ** 0.5 + 1e-9, word


def test_equal_seeds_give_equal_documents_and_others_others(llama: HookedModel):
    first = sample_documents(llama, 12, 6, seed=0, batch_size=5, progress=False)
    assert sample_documents(llama, 12, 6, seed=0, batch_size=5, progress=False) == first
    assert sample_documents(llama, 12, 6, seed=1, batch_size=5, progress=False) != first
    assert len(set(first)) > 6, "batches must not repeat each other"
    assert not any(token in text for text in first for token in llama.tokenizer.all_special_tokens)
    assert sample_documents(llama, 0, 6, progress=False) == []


def test_a_document_ends_where_the_model_ends_it_and_empty_ones_are_left_out():
    hf = make_hf("llama")
    model = HookedModel(hf, make_tokenizer())
    with torch.no_grad():
        hf.lm_head.weight.zero_()
    hf.lm_head.register_forward_hook(lambda module, inputs, out: out + 3.0 * (torch.arange(out.shape[-1]) == 2))
    lengths = [len(text.split()) for text in sample_documents(model, 300, 12, progress=False)]
    assert 0 < len(lengths) < 300 and min(lengths) >= 1
    assert sum(lengths) / len(lengths) < 4, "twenty to twenty-five: the end is nearly as likely as all words together"


def test_without_a_bos_texts_begin_with_the_end_of_the_last_and_without_either_there_are_none(llama: HookedModel):
    tokenizer = make_tokenizer()
    tokenizer.bos_token = None
    model = HookedModel(make_hf("llama"), tokenizer)
    assert sample_documents(model, 4, 3, progress=False)
    tokenizer.eos_token = None
    with pytest.raises(ConfigError, match="no BOS and no end-of-sequence"):
        sample_documents(model, 4, 3, progress=False)


# The objective


def logits_of(model: HookedModel, batch: TokenBatch) -> Tensor:
    logits = model.run(batch).logits
    assert logits is not None
    return logits


def mean_nll(model: HookedModel) -> float:
    """Of the forget texts, in nats per token."""
    table = token_nll(model, FORGET)
    return sum(table["nll"].tolist()) / sum(table["tokens"].tolist())


def test_its_first_step_is_the_attacked_gradient_alone(llama: HookedModel):
    """At the start the model is its own teacher, so only weights that were attacked differ from it."""
    adversary = AdversaryConfig(steps=2, gradient_steps=(1, 2), batch_size=2)
    config = UnlearnConfig(
        steps=1, optimizer="sgd", learning_rate=1.0, clip=None, roles=None, adversary=adversary, retain_weight=0.0
    )
    start = copy.deepcopy(llama.hf.state_dict())
    other = HookedModel(make_hf("llama"), llama.tokenizer)
    trained = dict(other.hf.named_parameters())
    attack = draw_attack(TokenCorpus.from_texts(llama.tokenizer, FORGET, groups=GROUPS), adversary, 0, 0, "cpu")
    with torch.no_grad():
        teacher = logits_of(other, attack.outer)
    mask = forget_mask(attack.outer, config)
    expected = attacked_gradient(
        other, trained, attack, lambda: kl(teacher, logits_of(other, attack.outer), mask), 0.0, adversary, config
    )

    result = unlearn(llama, build_objective("hardened", contexts=0.0), DATA, config, progress=False)
    assert result.history["forget"].iloc[0] == pytest.approx(0, abs=1e-7)
    assert result.history["retain"].iloc[0] == pytest.approx(0, abs=1e-7)
    norm = torch.cat([part.flatten() for part in expected]).norm()
    assert norm > 0.01
    for (name, parameter), part in zip(llama.hf.named_parameters(), expected, strict=True):
        torch.testing.assert_close(start[name] - parameter, part, atol=1e-5 * float(norm) + 1e-6, rtol=1e-3)


def test_the_teacher_stays_the_model_of_the_start(llama: HookedModel):
    start = HookedModel(copy.deepcopy(llama.hf), llama.tokenizer)
    config = UnlearnConfig(steps=8, batch_size=4, learning_rate=3e-3, roles=None, retain_weight=0.0)
    objective = build_objective("hardened", contexts=0.0)
    seen = []

    def follow(step: int, model: HookedModel) -> None:
        batch = model.tokenize(FORGET)
        with torch.no_grad():
            own, before = logits_of(model, batch), logits_of(start, batch)
        seen.append(float(kl(before, own, batch.content_mask)))

    unlearn(llama, objective, DATA, config, checkpoints=(0, 8), callback=follow, progress=False)
    assert seen[0] == pytest.approx(0, abs=1e-7) and 1e-6 < seen[1] < 0.5


def test_a_hardened_model_behaves_as_before_and_relearns_more_slowly():
    tokenizer = make_tokenizer()

    def attacked(hardened: bool) -> list[float]:
        model = HookedModel(make_hf("llama"), tokenizer)
        if hardened:
            config = UnlearnConfig(
                steps=60, batch_size=4, learning_rate=3e-3, roles=None, retain_weight=0.0, kl_weight=1.0
            )
            unlearn(model, build_objective("hardened", contexts=0.0), DATA, config, progress=False)
        result = relearn(
            model,
            FORGET,
            config=RelearnConfig(learning_rate=1e-3),
            checkpoints=(0, 8),
            callback=lambda step, attacked_model: {"nll": mean_nll(attacked_model)},
            progress=False,
        )
        return result.curve["nll"].tolist()

    (before, after), (plain_before, plain_after) = attacked(True), attacked(False)
    assert before == pytest.approx(plain_before, abs=0.02)
    assert after - plain_after > 0.3 * (plain_before - plain_after), "8 steps must win clearly less back"


def test_it_needs_subjects_for_its_adversary(llama: HookedModel):
    data = UnlearnData(forget=FORGET, retain=["yes and no"])
    with pytest.raises(ConfigError, match="the adversary relearns some subjects"):
        unlearn(llama, build_objective("hardened", contexts=0.0), data, UnlearnConfig(steps=1), progress=False)


def test_a_model_that_has_not_unlearned_is_refused_where_one_can_tell(llama: HookedModel):
    objective = build_objective("hardened", contexts=0.0, clean_share=lambda model: 0.2)
    with pytest.raises(ConfigError, match=r"own clean share is 0\.20"):
        unlearn(llama, objective, DATA, UnlearnConfig(steps=1), progress=False)
