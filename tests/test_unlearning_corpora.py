"""Which rows a step sees and which tokens of them count."""

import pytest
import torch

from interp_unlearn.errors import ConfigError, DataError
from interp_unlearn.unlearning import AdversaryConfig, UnlearnConfig, UnlearnData, scheduled_rows
from interp_unlearn.unlearning.adversary import draw_attack
from interp_unlearn.unlearning.corpora import Corpora, TokenCorpus, forget_mask


def test_every_epoch_holds_every_row_once():
    rows = [row for step in range(7) for row in scheduled_rows(10, 4, step, seed=0, stream="forget")]
    assert sorted(rows[:10]) == list(range(10))
    assert sorted(rows[10:20]) == list(range(10))
    assert rows[:10] != rows[10:20]


def test_rows_are_a_function_of_seed_step_and_stream():
    rows = scheduled_rows(100, 8, 5, seed=0, stream="forget")
    assert scheduled_rows(100, 8, 5, seed=0, stream="forget") == rows
    assert scheduled_rows(100, 8, 5, seed=1, stream="forget") != rows
    assert scheduled_rows(100, 8, 5, seed=0, stream="retain") != rows


def test_a_batch_larger_than_the_corpus_repeats_it():
    rows = scheduled_rows(3, 7, 0, seed=0, stream="forget")
    assert len(rows) == 7
    assert min(rows.count(row) for row in range(3)) == 2


def test_batches_are_padded_to_their_own_longest_row(tokenizer, texts):
    corpus = TokenCorpus.from_texts(tokenizer, texts)
    lengths = [1 + len(text.split()) for text in texts]
    batch = corpus.batch([3, 0])
    assert batch.input_ids.shape == (2, lengths[0])
    assert batch.lengths.tolist() == [lengths[3], lengths[0]]
    assert batch.content_mask.sum(1).tolist() == [lengths[3] - 1, lengths[0] - 1]


def test_masks_of_completion_content_and_bos(tokenizer):
    corpus = TokenCorpus.from_texts(tokenizer, ["the cat sat", "yes"], [" on a mat", " no"])
    batch = corpus.batch([0, 1])
    counts = {
        "completion": forget_mask(batch, UnlearnConfig(forget_on="completion")).sum(1).tolist(),
        "content": forget_mask(batch, UnlearnConfig()).sum(1).tolist(),
        "bos": forget_mask(batch, UnlearnConfig(include_bos=True)).sum(1).tolist(),
    }
    assert counts == {"completion": [3, 1], "content": [6, 2], "bos": [7, 3]}
    completed = batch.input_ids[forget_mask(batch, UnlearnConfig(forget_on="completion"))]
    assert tokenizer.convert_ids_to_tokens(completed.tolist()) == ["on", "a", "mat", "no"]


def test_rows_without_completion_count_in_full_when_joined(tokenizer):
    with_completion = TokenCorpus.from_texts(tokenizer, ["the cat"], [" sat"])
    without = TokenCorpus.from_texts(tokenizer, ["a big dog"])
    batch = with_completion.joined(without).batch([0, 1])
    assert forget_mask(batch, UnlearnConfig(forget_on="completion")).sum(1).tolist() == [1, 3]


def test_whole_texts_hold_what_completes_them():
    data = UnlearnData(forget=["a b"], forget_completions=[" c"], neutral=["d", "e"])
    assert data.whole("forget") == ["a b c"] and data.whole("neutral") == ["d", "e"] and data.whole("retain") == []


def test_prompts_default_to_those_of_the_forget_completions(tokenizer):
    data = UnlearnData(forget=["the cat"], forget_completions=[" sat"])
    assert Corpora.from_data(tokenizer, data).prompts == ("the cat",)
    assert Corpora.from_data(tokenizer, UnlearnData(forget=["the cat"])).prompts == ()


@pytest.mark.parametrize(
    "fields",
    [
        {"forget": []},
        {"forget": "the cat"},
        {"forget": ["the cat"], "forget_completions": []},
        {"forget": ["the cat"], "groups": ["a", "b"]},
        {"forget": ["the cat"], "retain": ["a", "b"], "retain_completions": ["c"]},
    ],
)
def test_data_that_does_not_fit_is_refused(fields):
    with pytest.raises(DataError):
        UnlearnData(**fields)


@pytest.mark.parametrize(
    "fields",
    [
        {"steps": 0},
        {"learning_rate": float("nan")},
        {"retain_weight": -1.0},
        {"forget_on": "all"},
        {"roles": "mlp"},
        {"layers": ()},
        {"clip": 0.0},
        {"optimizer": "lion"},
    ],
)
def test_settings_out_of_range_are_refused(fields):
    with pytest.raises(ConfigError):
        UnlearnConfig(**fields)


@pytest.mark.parametrize("fields", [{"gradient_steps": (9,)}, {"gradient_steps": ()}, {"learning_rates": (0.0,)}])
def test_adversaries_out_of_range_are_refused(fields):
    with pytest.raises(ConfigError):
        AdversaryConfig(**fields)


@pytest.fixture
def grouped(tokenizer):
    """Eight rows of four subjects; the subject is the row's first word."""
    words = ["cat", "dog", "mat", "hill"]
    texts = [f"{word} {rest}" for word in words for rest in ("sat on a", "ran and then it")]
    return TokenCorpus.from_texts(tokenizer, texts, groups=[text.split()[0] for text in texts])


def test_no_subject_is_on_both_sides_of_an_attack(grouped):
    config = AdversaryConfig(steps=3, gradient_steps=(3,), batch_size=4)
    inner_subjects = set()
    for step in range(20):
        attack = draw_attack(grouped, config, seed=0, step=step, device="cpu")
        inner = {int(first) for batch in attack.inner for first in batch.input_ids[:, 1]}
        outer = {int(first) for first in attack.outer.input_ids[:, 1]}
        assert len(inner) == len(outer) == 2
        assert not inner & outer
        assert attack.learning_rate in config.learning_rates
        assert len(attack.inner) == 3
        inner_subjects.add(frozenset(inner))
    assert len(inner_subjects) > 3  # a new split each step


def test_an_attack_is_a_function_of_seed_and_step(grouped):
    config = AdversaryConfig(batch_size=2)
    first, second, other = (draw_attack(grouped, config, seed=0, step=step, device="cpu") for step in (4, 4, 5))
    assert first.learning_rate == second.learning_rate
    assert all(torch.equal(a.input_ids, b.input_ids) for a, b in zip(first.inner, second.inner, strict=True))
    assert not all(
        a.input_ids.shape == b.input_ids.shape and torch.equal(a.input_ids, b.input_ids)
        for a, b in zip(first.inner, other.inner, strict=True)
    )


def test_an_adversary_without_subjects_is_refused(tokenizer, texts):
    corpus = TokenCorpus.from_texts(tokenizer, texts)
    with pytest.raises(ConfigError, match="groups"):
        draw_attack(corpus, AdversaryConfig(), seed=0, step=0, device="cpu")
