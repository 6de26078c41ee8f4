"""Perplexity, divergence and generation against the plain Hugging Face model."""

import copy
import math

import numpy as np
import pytest
import torch

from interp_unlearn.errors import ConfigError, DataError
from interp_unlearn.evaluation import generate_texts, perplexity, retain_kl, sample_rows, text_kl, token_nll
from interp_unlearn.interventions import Add, HookedModel
from interp_unlearn.models import TokenBatch
from interp_unlearn.sites import Site


def plain_logits(model, ids):
    with torch.no_grad():
        return model.hf(torch.tensor([ids])).logits[0]


def ids_of(model, text):
    return [1, *model.tokenizer(text)["input_ids"]]


def test_nll_is_that_of_the_plain_model(model, texts):
    frame = token_nll(model, texts, batch_size=3)
    for row, text in enumerate(texts):
        ids = torch.tensor([ids_of(model, text)])
        with torch.no_grad():
            mean = model.hf(ids, labels=ids).loss.item()
        assert frame.loc[row, "tokens"] == ids.shape[1] - 1
        assert frame.loc[row, "nll"] == pytest.approx(mean * (ids.shape[1] - 1), rel=1e-4)


def test_nll_of_completions_counts_them_alone(llama):
    frame = token_nll(llama, ["the cat sat", "yes"], [" on a mat", " no"])
    assert frame["tokens"].tolist() == [3, 1]
    ids = ids_of(llama, "the cat sat on a mat")
    log_p = plain_logits(llama, ids).log_softmax(-1)
    assert frame.loc[0, "nll"] == pytest.approx(-sum(log_p[t - 1, ids[t]].item() for t in (4, 5, 6)), rel=1e-4)


def test_the_mask_of_a_batch_decides_wherever_it_lies(llama):
    """As in chats: several turns in a row, and what follows them is not counted."""
    rows = [ids_of(llama, "the cat sat on a mat"), ids_of(llama, "yes it was")]
    marks = [[False, True, True, False, False, True, False], [False, False, True, False]]
    batch = TokenBatch.from_rows(rows, bos_token_id=1, completions=marks)
    frame = token_nll(llama, batch)
    for row, (ids, mark) in enumerate(zip(rows, marks, strict=True)):
        log_p = plain_logits(llama, ids).log_softmax(-1)
        counted = [t for t, counts in enumerate(mark) if counts]
        assert frame.loc[row, "tokens"] == len(counted)
        assert frame.loc[row, "nll"] == pytest.approx(-sum(log_p[t - 1, ids[t]].item() for t in counted), rel=1e-4)


def test_perplexity_weighs_tokens_not_texts(llama, texts):
    frame = token_nll(llama, texts)
    assert perplexity(llama, texts) == pytest.approx(math.exp(frame["nll"].sum() / frame["tokens"].sum()), rel=1e-6)
    assert perplexity(llama, texts, batch_size=1) == pytest.approx(perplexity(llama, texts), rel=1e-4)


def test_a_batch_is_scored_as_its_texts(llama, texts):
    left = llama.tokenize(texts, padding_side="left")
    np.testing.assert_allclose(token_nll(llama, left)["nll"], token_nll(llama, texts)["nll"], rtol=1e-4)


def test_a_uniform_model_has_the_vocabulary_as_perplexity(llama, texts):
    with torch.no_grad():
        llama.hf.get_output_embeddings().weight.zero_()
    assert perplexity(llama, texts) == pytest.approx(llama.hf.config.vocab_size, rel=1e-4)


@pytest.fixture
def other(tokenizer):
    from conftest import make_hf

    return HookedModel(make_hf("llama", seed=1), tokenizer)


def test_kl_of_texts_by_loop(llama, other, texts):
    frame = text_kl(llama, other, texts, batch_size=3)
    for row, text in enumerate(texts):
        ids = ids_of(llama, text)
        p, q = (plain_logits(m, ids).log_softmax(-1)[:-1] for m in (llama, other))
        expected = (p.exp() * (p - q)).sum().item()
        assert frame.loc[row, "kl"] == pytest.approx(expected, rel=1e-3)
    assert retain_kl(llama, other, texts) == pytest.approx(frame["kl"].sum() / frame["tokens"].sum())


def test_kl_of_a_model_with_itself_is_zero_until_it_is_edited(llama, texts):
    before = HookedModel(copy.deepcopy(llama.hf), llama.tokenizer)

    def as_function(batch):
        return before.run(batch, logits=True).logits

    assert retain_kl(before, llama, texts) == pytest.approx(0, abs=1e-6)
    with llama.edited({Site(0, "resid_post"): Add(torch.ones(llama.d_model))}):
        edited = retain_kl(before, llama, texts)
        assert retain_kl(as_function, llama, texts) == pytest.approx(edited)
    assert edited > 0.01


def test_texts_without_predictable_tokens_are_refused(tokenizer):
    from conftest import make_hf, make_tokenizer

    bare = make_tokenizer()
    bare.bos_token = None
    model = HookedModel(make_hf("llama"), bare)
    assert token_nll(model, ["yes", "the cat"])["tokens"].tolist() == [0, 1]
    with pytest.raises(DataError):
        perplexity(model, ["yes", "no"])


def greedy_by_hand(model, prompt, steps):
    ids = ids_of(model, prompt)
    new = []
    for _ in range(steps):
        token = int(plain_logits(model, ids + new)[-1].argmax())
        new.append(token)
        if token == model.tokenizer.eos_token_id:
            break
    return new


def test_greedy_generation_is_argmax_step_by_step(model, texts):
    rows = sample_rows(model, texts, 6, do_sample=False, batch_size=3, progress=False)
    for text, (prompt, new) in zip(texts, rows, strict=True):
        assert list(prompt) == ids_of(model, text)
        assert list(new) == greedy_by_hand(model, text, 6)
    decoded = [model.tokenizer.decode(list(new), skip_special_tokens=True) for _, new in rows]
    assert generate_texts(model, texts, 6, do_sample=False, batch_size=3, progress=False) == decoded


def test_stop_is_kept_and_ends_the_text(llama, texts):
    free = greedy_by_hand(llama, texts[0], 8)
    stop = llama.tokenizer.convert_ids_to_tokens(free[2])
    new = sample_rows(llama, texts[:1], 8, do_sample=False, stop=stop, progress=False)[0][1]
    assert list(new) == free[: free.index(free[2]) + 1]
    assert len(new) < len(free)
    text = generate_texts(llama, texts[:1], 8, do_sample=False, stop=[stop], progress=False)[0]
    assert text.split()[-1] == stop


def test_sampling_is_seeded_and_leaves_the_global_state_alone(llama, texts):
    before = torch.get_rng_state()
    first = generate_texts(llama, texts * 3, 8, seed=0, progress=False)
    assert torch.equal(torch.get_rng_state(), before)
    assert generate_texts(llama, texts * 3, 8, seed=0, progress=False) == first
    assert generate_texts(llama, texts * 3, 8, seed=1, progress=False) != first
    assert len(set(first[::4])) > 1  # repeats of one prompt are different samples


def test_edits_reach_generation(llama, texts):
    plain = generate_texts(llama, texts, 6, do_sample=False, progress=False)
    with llama.edited({Site(1, "resid_post"): Add(torch.randn(llama.d_model), coefficient=20.0)}):
        assert generate_texts(llama, texts, 6, do_sample=False, progress=False) != plain


def test_a_stop_of_several_tokens_is_refused(llama):
    with pytest.raises(ConfigError, match="exactly one"):
        generate_texts(llama, ["the cat"], 4, stop="the cat", progress=False)
