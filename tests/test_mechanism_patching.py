"""Patching between two models: exact identities, planted differences, and a hook made by hand."""

import math
from collections.abc import Callable, Sequence

import numpy as np
import pytest
import torch
from conftest import make_hf, make_tokenizer
from planted_deltas import copied, disturbed, hook_count
from torch import Tensor
from transformers import PreTrainedTokenizerBase

from interp_unlearn.errors import ConfigError, DataError
from interp_unlearn.interventions import HookedModel
from interp_unlearn.mechanism import (
    PatchConfig,
    Patching,
    PatchTexts,
    Resampling,
    collect_states,
    patch,
    patch_both_ways,
)
from interp_unlearn.models import TokenBatch

PROMPTS = ["the cat sat on a", "then a big red dog", "it was the cat who said", "a dog and the dog ran"]
ANSWERS = [" mat", " ran", " no", " and then"]
SUBJECTS = ["cat", "big red dog", "the cat", "dog"]
CONFIG = PatchConfig(batch_size=3, resampling=Resampling(n=100))


@pytest.fixture
def texts(tokenizer: PreTrainedTokenizerBase) -> PatchTexts:
    return PatchTexts.of_subjects(tokenizer, PROMPTS, ANSWERS, SUBJECTS)


def patched(
    recipient: HookedModel, donor: HookedModel, texts: PatchTexts, floor: HookedModel | None = None
) -> Patching:
    beside = None if floor is None else collect_states(floor, texts, CONFIG)
    return patch(recipient, collect_states(donor, texts, CONFIG), texts, CONFIG, floor=beside)


def test_classes_of_tokens(texts: PatchTexts) -> None:
    found = {name: [mask.int().tolist() for mask in masks] for name, masks in texts.positions.items()}
    assert found["subject"] == [
        [0, 0, 1, 0, 0, 0],
        [0, 0, 0, 1, 1, 0],
        [0, 0, 0, 1, 1, 0, 0],
        [0, 0, 1, 0, 0, 1, 0],
    ]
    assert found["last"] == [[0] * 5 + [1], [0] * 5 + [1], [0] * 6 + [1], [0] * 6 + [1]]
    for subject, last, other, every in zip(*texts.positions.values(), strict=True):
        assert torch.equal(subject.int() + last.int() + other.int(), every.int())
        assert not every[0] and every[1:].all()


def test_a_donor_equal_to_the_recipient_changes_nothing(model: HookedModel, texts: PatchTexts) -> None:
    own = model.hash()
    found = patched(model, copied(model), texts, floor=copied(model))
    for scores in (*found.patched.values(), *(found.floor or {}).values()):
        assert (scores == found.recipient).all()
    table = found.to_frame()
    assert (table[["effect", "floor", "beyond_floor"]] == 0).to_numpy().all()
    assert table["share"].isna().tolist() == [True] * len(table)  # of no difference
    assert len(table) == 3 * 4
    assert model.hash() == own
    assert hook_count(model) == 0


def test_all_positions_at_the_last_layer_are_the_donor_where_the_head_is_shared(
    model: HookedModel, texts: PatchTexts
) -> None:
    """Predictions of the first answer token, which is the only one from patched positions."""

    def first_token(logits: Tensor, batch: TokenBatch, chosen: Sequence[int]) -> Tensor:
        assert batch.completion_mask is not None
        starts = batch.completion_mask.int().argmax(1)
        at = torch.arange(len(batch))
        kept.append(logits[at, starts - 1])
        return logits[at, starts - 1, batch.input_ids[at, starts]]

    blocks = {id(parameter) for parameter in model.architecture.blocks.parameters()}
    inside = {name for name, parameter in model.hf.named_parameters() if id(parameter) in blocks}
    donor = disturbed(model, lambda name: name in inside)
    config = PatchConfig(layers=(2,), score=first_token, batch_size=3)
    everywhere = PatchTexts(PROMPTS, ANSWERS, {"all": texts.positions["all"]})
    kept: list[Tensor] = []
    states = collect_states(donor, everywhere, config)
    theirs = list(kept)
    kept.clear()
    found = patch(model, states, everywhere, config)
    own, mixed = kept[::2], kept[1::2]
    assert all(torch.equal(a, b) for a, b in zip(mixed, theirs, strict=True))
    assert not any(torch.equal(a, b) for a, b in zip(own, theirs, strict=True))
    assert (found.patched[2, "all"] == found.donor).all()


def test_scores_are_those_of_a_hook_made_by_hand(model: HookedModel, texts: PatchTexts) -> None:
    donor = disturbed(model)
    found = patched(model, donor, texts)
    for layer, position in ((0, "subject"), (1, "other"), (1, "last")):
        for index, (prompt, answer) in enumerate(zip(PROMPTS, ANSWERS, strict=True)):
            batch = model.tokenize([prompt], completions=[answer])
            mask = torch.zeros(batch.input_ids.shape, dtype=torch.bool)
            mask[0, : len(texts.positions[position][index])] = texts.positions[position][index]
            seen: list[Tensor] = []

            def read(module: object, inputs: object, output: object, seen: list[Tensor] = seen) -> None:
                seen.append(output[0] if isinstance(output, tuple) else output)  # pyright: ignore[reportArgumentType]

            def write(
                module: object, inputs: object, output: object, seen: list[Tensor] = seen, mask: Tensor = mask
            ) -> object:
                mine = output[0] if isinstance(output, tuple) else output
                assert isinstance(mine, Tensor)
                mixed = torch.where(mask[..., None], seen[0], mine)
                return (mixed, *output[1:]) if isinstance(output, tuple) else mixed

            arguments = {"input_ids": batch.input_ids, "attention_mask": batch.attention_mask}
            with torch.no_grad():
                handle = donor.architecture.blocks[layer].register_forward_hook(read)
                donor.hf(**arguments)
                handle.remove()
                handle = model.architecture.blocks[layer].register_forward_hook(write)
                logits = model.hf(**arguments).logits[0].log_softmax(-1)
                handle.remove()
            start = len(texts.positions[position][index])
            expected = sum(float(logits[t - 1, batch.input_ids[0, t]]) for t in range(start, batch.input_ids.shape[1]))
            assert found.patched[layer, position][index] == pytest.approx(expected, abs=1e-4)


def test_a_difference_at_the_last_token_is_found_there_alone(
    model: HookedModel, tokenizer: PreTrainedTokenizerBase
) -> None:
    """Donor and recipient differ in how they embed one word, which stands last in every prompt and nowhere before."""
    prompts = ["the cat sat on", "a big dog ran on", "it was not on"]
    texts = PatchTexts.of_subjects(tokenizer, prompts, [" mat", " hill", " a"], ["cat", "big dog", "it"])
    head = model.hf.get_output_embeddings()
    assert head is not None
    head.weight = torch.nn.Parameter(head.weight.detach().clone())  # untied, where it was tied
    donor = copied(model)
    word = tokenizer("on", add_special_tokens=False)["input_ids"][0]  # pyright: ignore[reportIndexIssue]
    with torch.no_grad():
        next(donor.architecture.embed.parameters())[word] += torch.linspace(-1, 1, 32)
    found = patched(model, donor, texts)
    for (_, position), scores in found.patched.items():
        expected = found.donor if position in ("last", "all") else found.recipient
        assert scores == pytest.approx(expected, abs=1e-5)
    assert np.abs(found.donor - found.recipient).min() > 1e-3


def test_the_floor_is_the_third_model_as_donor(llama: HookedModel, texts: PatchTexts) -> None:
    donor = disturbed(llama)
    reseeded = HookedModel(make_hf("llama", seed=5), llama.tokenizer)
    table = patched(llama, donor, texts, floor=reseeded).to_frame().set_index(["layer", "position"])
    alone = patched(llama, donor, texts).to_frame().set_index(["layer", "position"])
    third = patched(llama, reseeded, texts).to_frame().set_index(["layer", "position"])
    assert table["effect"].tolist() == alone["effect"].tolist()
    for part in ("", "_low", "_high"):
        assert table[f"floor{part}"].tolist() == pytest.approx(third[f"effect{part}"].tolist())
    assert table["beyond_floor"].tolist() == pytest.approx((table["effect"] - table["floor"]).tolist())
    assert alone[["floor", "beyond_floor", "beyond_floor_low"]].isna().to_numpy().all()
    assert set(table["n_present"]) == {4}


def test_both_ways_with_one_model_in_memory(llama: HookedModel, texts: PatchTexts) -> None:
    donor = disturbed(llama)
    opened: list[str] = []

    def opener(name: str, model: HookedModel) -> Callable[[], HookedModel]:
        def open_model() -> HookedModel:
            opened.append(name)
            return model

        return open_model

    into_second, into_first = patch_both_ways(opener("a", llama), opener("b", donor), texts, CONFIG, floor=llama)
    assert opened == ["a", "b", "b", "a"]
    assert (into_first.recipient == into_second.donor).all()
    direct = patched(donor, llama, texts)
    assert all((into_second.patched[place] == scores).all() for place, scores in direct.patched.items())
    direct = patched(llama, donor, texts)
    assert all((into_first.patched[place] == scores).all() for place, scores in direct.patched.items())


def test_an_error_inside_leaves_no_hook(llama: HookedModel, texts: PatchTexts) -> None:
    own = llama.hash()
    states = collect_states(llama, texts, CONFIG)

    def failing(logits: Tensor, batch: TokenBatch, chosen: Sequence[int]) -> Tensor:
        raise KeyError

    with pytest.raises(KeyError):
        patch(llama, states, texts, PatchConfig(score=failing, batch_size=3))
    assert llama.hash() == own
    assert hook_count(llama) == 0
    with pytest.raises(ConfigError, match="finite number"):
        patch(
            llama,
            states,
            texts,
            PatchConfig(score=lambda logits, batch, rows: logits[:, 0, 0] * math.nan, batch_size=3),
        )


def test_states_and_texts_that_do_not_fit_are_refused(llama: HookedModel, texts: PatchTexts) -> None:
    states = collect_states(llama, texts, CONFIG)
    with pytest.raises(ConfigError, match="other batches"):
        patch(llama, states, texts, PatchConfig(batch_size=2))
    with pytest.raises(ConfigError, match="lack layers"):
        patch(llama, collect_states(llama, texts, PatchConfig((0,), batch_size=3)), texts, CONFIG)
    with pytest.raises(ConfigError, match="layers"):
        collect_states(llama, texts, PatchConfig((7,)))
    fewer = PatchTexts.of_subjects(llama.tokenizer, PROMPTS[:3], ANSWERS[:3], SUBJECTS[:3])
    with pytest.raises(ConfigError, match="other texts"):
        patch(llama, states, fewer, CONFIG)
    with pytest.raises(DataError, match="does not occur"):
        PatchTexts.of_subjects(llama.tokenizer, PROMPTS, ANSWERS, ["cat", "cat", "cat", "cat"])
    with pytest.raises(DataError, match="one each"):
        PatchTexts(PROMPTS, ANSWERS[:2], {"all": []})
    with pytest.raises(ConfigError, match="masks for"):
        PatchTexts(PROMPTS, ANSWERS, {"all": [torch.ones(3, dtype=torch.bool)]})
    with pytest.raises(ConfigError, match="boolean"):
        PatchTexts(PROMPTS[:1], ANSWERS[:1], {"all": [torch.ones(3)]})
    with pytest.raises(ConfigError, match="BOS included"):
        collect_states(llama, PatchTexts(PROMPTS[:1], ANSWERS[:1], {"all": [torch.ones(3, dtype=torch.bool)]}))


def test_a_subject_at_the_end_is_the_last_token() -> None:
    texts = PatchTexts.of_subjects(make_tokenizer(), ["the red dog"], [" ran"], ["red dog"])
    assert texts.positions["subject"][0].tolist() == [False, False, True, False]
    assert texts.positions["last"][0].tolist() == [False, False, False, True]
    assert texts.positions["other"][0].tolist() == [False, True, False, False]
