"""Unlearning depth: against patching by hand, with donors whose depth is known, and behind its gate."""

from typing import Any

import numpy as np
import pytest
import torch
from conftest import make_hf

from interp_unlearn.activations import ActivationStore, collect
from interp_unlearn.drift import unlearning_depth
from interp_unlearn.errors import ConfigError, DataError
from interp_unlearn.interventions import HookedModel, Replace, Span
from interp_unlearn.sites import Site

PROMPTS = ["the cat sat on a", "who said it was", "yes", "a big red dog ran and then it"]
SITES = [Site(layer, "resid_post") for layer in range(3)]


def donor_store(model: HookedModel, answers: list[str], **options: Any) -> ActivationStore:
    return collect(
        model, PROMPTS, SITES, "none", completions=answers, tokens="all", progress=False, batch_tokens=24, **options
    )


def own_answers(model: HookedModel) -> list[str]:
    """What the model itself would say, two tokens: so that other models are worse at it."""
    answers: list[str] = []
    for prompt in PROMPTS:
        ids = model.generate(model.tokenize([prompt]), 2)[0].tolist()
        words = model.tokenizer.convert_ids_to_tokens(ids)
        answers.append("".join(f" {word if not word.startswith('<') else 'cat'}" for word in words))
    return answers


@pytest.fixture
def twin(model: HookedModel, architecture: str) -> HookedModel:
    """A model that shares nothing with the original."""
    return HookedModel(make_hf(architecture, seed=5), model.tokenizer, name="twin")


def by_hand(model: HookedModel, donor: HookedModel, prompt: str, answer: str, site: Site, answer_only: bool) -> float:
    """What the original loses of an answer, in nats per token, to a donor's stream; one text without padding."""
    batch = model.tokenize([prompt], completions=[answer])
    mask = batch.completion_mask
    assert mask is not None
    start = int(mask[0].long().argmax())
    with torch.no_grad():
        stream = donor.run(batch, reads=[site])[site]
        edit = Replace(stream, tokens=Span(start - 1, batch.input_ids.shape[1] - 1)) if answer_only else Replace(stream)
        scores: list[float] = []
        for edits in ({}, {site: edit}):
            logits = model.run(batch, edits=edits, logits=True).logits
            assert logits is not None
            log_p = logits[0, start - 1 : -1].log_softmax(-1)
            scores.append(float(log_p.gather(1, batch.input_ids[0, start:, None]).mean()))
    return scores[0] - scores[1]


@pytest.mark.parametrize("patched", ["all", "answer"])
def test_as_patched_by_hand(model: HookedModel, twin: HookedModel, architecture: str, patched: Any) -> None:
    third = HookedModel(make_hf(architecture, seed=9), model.tokenizer)
    answers = own_answers(model)
    found = unlearning_depth(
        model,
        PROMPTS,
        answers,
        donor_store(twin, answers),
        donor_store(third, answers),
        patched=patched,
        batch_size=3,
        progress=False,
    )
    drops = np.array(
        [
            [
                [by_hand(model, d, p, a, s, patched == "answer") for p, a in zip(PROMPTS, answers, strict=True)]
                for s in SITES
            ]
            for d in (twin, third)
        ]
    )
    assert found.layers["drop_never_knew"].tolist() == pytest.approx(drops[0].mean(1).tolist(), abs=2e-3)
    assert found.layers["drop_unlearned"].tolist() == pytest.approx(drops[1].mean(1).tolist(), abs=2e-3)
    depths: list[float] = []
    for first, second in zip(drops[0].T, drops[1].T, strict=True):
        layers = [layer for layer in range(3) if first[layer] > 0.05]
        kept = sum(first[layer] * min(max(second[layer] / first[layer], 0), 1) for layer in layers)
        depths.append(kept / sum(first[layer] for layer in layers) if layers else float("nan"))
    assert found.texts["depth"].tolist() == pytest.approx(depths, abs=5e-3, nan_ok=True)
    assert found.score == pytest.approx(np.nanmean(depths), abs=5e-3) and found.n == int(np.isfinite(depths).sum())
    assert found.score is not None and found.low <= found.score <= found.high


def test_donors_of_known_depth(model: HookedModel, twin: HookedModel) -> None:
    answers, before = own_answers(model), model.hash()
    never_knew, itself = donor_store(twin, answers), donor_store(model, answers)

    def depth(unlearned: ActivationStore, **options: Any) -> Any:
        return unlearning_depth(model, PROMPTS, answers, never_knew, unlearned, progress=False, **options)

    knows = depth(itself)
    assert knows.score == pytest.approx(0, abs=1e-3)
    assert knows.layers["drop_unlearned"].abs().max() < 1e-3
    assert knows.layers["drop_never_knew"].max() > 0.05
    assert depth(never_knew).score == 1.0
    assert depth(never_knew).to_frame()["erasure"].dropna().tolist() == pytest.approx(
        [1.0] * int((knows.layers["encoding"] > 0).sum())
    )
    mixed = {site: (never_knew[site] if site.layer == 2 else itself[site]) for site in SITES}
    late = depth(ActivationStore(mixed, itself.rows, itself.metadata, itself.token_ids))
    erasure = late.layers["erasure"].tolist()
    assert erasure[:2] == pytest.approx([0, 0], abs=1e-3) and erasure[2] == pytest.approx(1)
    assert 0 < late.score < 1
    grouped = depth(itself, groups=["a", "a", "b", "b"])
    assert grouped.low <= grouped.score <= grouped.high
    assert model.hash() == before
    batch = model.tokenize(PROMPTS)
    with torch.no_grad():
        fresh = HookedModel(model.hf, model.tokenizer).run(batch, logits=True).logits
        again = model.run(batch, logits=True).logits
    assert fresh is not None and again is not None
    torch.testing.assert_close(again, fresh, rtol=0, atol=0)


def test_an_original_that_knows_no_more_than_the_twin_has_no_depth(llama: HookedModel) -> None:
    answers = [" cat", " red dog", " no", " sat"]
    same = donor_store(llama, answers)
    found = unlearning_depth(llama, PROMPTS, answers, same, same, progress=False)
    assert found.score is None and found.n == 0 and np.isnan(found.low)
    assert found.reason is not None and "knows no more of these answers" in found.reason
    assert found.texts["depth"].isna().tolist() == [True] * 4 and found.layers["encoding"].tolist() == [0.0] * 3


def test_stores_with_bos_patch_it_too(llama: HookedModel) -> None:
    other = HookedModel(make_hf("llama", seed=5), llama.tokenizer)
    answers = own_answers(llama)
    plain, with_bos = (donor_store(other, answers, include_bos=flag) for flag in (False, True))
    drops = [
        unlearning_depth(llama, PROMPTS, answers, store, store, progress=False).layers["drop_never_knew"].tolist()
        for store in (plain, with_bos)
    ]
    # After the last block no token looks at another one any more, so there the BOS makes no difference.
    assert drops[0][2] == pytest.approx(drops[1][2], abs=1e-4)
    assert abs(drops[0][0] - drops[1][0]) > 1e-3


def test_stores_of_other_tokens_are_refused(llama: HookedModel) -> None:
    answers = [" cat", " red dog", " no", " sat"]
    store = donor_store(llama, answers)
    with pytest.raises(DataError, match=r'completions=answers, tokens="all"'):
        unlearning_depth(llama, PROMPTS, [" dog", *answers[1:]], store, store, progress=False)
    of_answers = collect(llama, PROMPTS, SITES, "none", completions=answers, progress=False)
    with pytest.raises(DataError, match=r'completions=answers, tokens="all"'):
        unlearning_depth(llama, PROMPTS, answers, of_answers, of_answers, progress=False)
    inside = collect(llama, PROMPTS, [Site(0, "mlp_out")], "none", progress=False)
    with pytest.raises(ConfigError, match="no resid_post"):
        unlearning_depth(llama, PROMPTS, answers, inside, inside, progress=False)
    with pytest.raises(ConfigError, match="threshold"):
        unlearning_depth(llama, PROMPTS, answers, store, store, threshold=0.0, progress=False)
    with pytest.raises(ConfigError, match="groups: expected one a text"):
        unlearning_depth(llama, PROMPTS, answers, store, store, groups=["a"], progress=False)
    with pytest.raises(ConfigError, match=r"groups: expected one a text \(4\), got 5"):
        unlearning_depth(llama, PROMPTS, answers, store, store, groups=list("abcde"), progress=False)
