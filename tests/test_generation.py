"""Generation under edits, against a greedy loop without a cache."""

import pytest
import torch
from conftest import TEXTS
from torch import Tensor
from transformers import LlamaConfig, LlamaForCausalLM, PreTrainedTokenizerBase

from interp_unlearn import Add, HookedModel, ProjectOut, Scale, Site
from interp_unlearn.errors import ConfigError
from interp_unlearn.interventions.edits import Edit, EditContext
from interp_unlearn.models import TokenBatch

VECTOR = torch.linspace(-1, 2, 32)
EDITS = {
    Site(0, "attn_out"): Add(VECTOR),
    Site(1, "resid_mid"): ProjectOut(VECTOR),
    Site(2, "resid_pre"): Scale(1.3),
    Site.logits: Add(torch.linspace(0, 1, 26), include_bos=True),
}


@torch.no_grad()
def greedy(model: HookedModel, text: str, n: int, edits: dict[Site, Edit]) -> list[int]:
    """Continue one text by whole passes over all its tokens, until the end-of-sequence token."""
    ids: list[int] = model.tokenize([text]).input_ids[0].tolist()
    new: list[int] = []
    while len(new) < n and 2 not in new:
        batch = TokenBatch.from_rows([[*ids, *new]], bos_token_id=1)
        new.append(int(model.run(batch, edits=edits).logits[0, -1].argmax()))
    return new


@pytest.mark.parametrize("edits", [{}, EDITS], ids=["plain", "edited"])
def test_greedy_equals_the_uncached_loop(model: HookedModel, batch: TokenBatch, edits: dict[Site, Edit]) -> None:
    with model.edited(edits):
        new = model.generate(batch, 6)
    assert new.dtype == torch.int64
    for row, text in enumerate(TEXTS):
        expected = greedy(model, text, 6, edits)
        assert new[row].tolist() == (expected + [0] * 6)[: new.shape[1]]


def test_edits_change_what_is_generated(model: HookedModel) -> None:
    batch = model.tokenize(TEXTS)
    plain = model.generate(batch, 6)
    with model.edited(EDITS):
        assert not torch.equal(model.generate(batch, 6), plain)
    assert torch.equal(model.generate(batch, 6), plain)


class Recording(Edit):
    """Changes nothing and keeps the masks it was given."""

    def __init__(self) -> None:
        super().__init__()
        object.__setattr__(self, "masks", [])
        object.__setattr__(self, "positions", [])

    def transform(self, activation: Tensor, context: EditContext) -> Tensor:
        self.masks.append(context.content)
        self.positions.append(context.positions)
        return activation


def test_finished_rows_count_as_padding(llama: HookedModel) -> None:
    batch = llama.tokenize(TEXTS)
    free = llama.generate(batch, 8)
    stop = int(free[0, 1])  # ends row 0 after two tokens; the others when they come to it
    recording = Recording()
    with llama.edited({Site(0, "resid_post"): recording}):
        new = llama.generate(batch, 8, stop_token_ids=[stop])
    for row in range(4):
        line = free[row].tolist()
        end = line.index(stop) + 1 if stop in line else len(line)
        assert new[row].tolist() == (line[:end] + [0] * 8)[: new.shape[1]]
        # Step s feeds token s-1 back: a row counts up to the token before its stop token.
        going = [bool(mask[row, -1]) for mask in recording.masks[1:]]
        assert going == [step < end - 1 for step in range(len(going))]
    assert len({len(set(row.tolist())) for row in new}) > 1
    lengths = batch.lengths
    for step, positions in enumerate(recording.positions[1:]):
        assert torch.equal(positions[:, -1], lengths + step)


def test_a_stop_token_in_the_prompt_ends_nothing(llama: HookedModel) -> None:
    batch = llama.tokenize(["the cat"])
    the = int(batch.input_ids[0, 1])
    recording = Recording()
    with llama.edited({Site(0, "resid_post"): recording}):
        llama.generate(batch, 3, stop_token_ids=[the])
    assert recording.masks[0].tolist() == [[False, True, True]]


def test_sampling_is_seeded_and_leaves_the_global_state(llama: HookedModel) -> None:
    batch = llama.tokenize(TEXTS)
    state = torch.get_rng_state()
    first = llama.generate(batch, 8, do_sample=True, seed=1)
    assert torch.equal(torch.get_rng_state(), state)
    assert torch.equal(llama.generate(batch, 8, do_sample=True, seed=1), first)
    assert not torch.equal(llama.generate(batch, 8, do_sample=True, seed=2), first)


def test_sampling_follows_the_model_and_not_generation_config(llama: HookedModel) -> None:
    llama.hf.generation_config.top_k = 1
    llama.hf.generation_config.repetition_penalty = 5.0
    n = 4000
    row = llama.tokenize(["the cat"])
    with torch.no_grad():
        probabilities = llama.run(row).logits[0, -1].softmax(-1)
    new = llama.generate(row.select([0] * n), 1, do_sample=True, seed=0)[:, 0]
    shares = torch.bincount(new, minlength=26) / n
    torch.testing.assert_close(shares, probabilities, atol=4 * 0.5 / n**0.5, rtol=0)
    assert llama.hf.generation_config.top_k == 1


def test_no_hidden_top_k(tokenizer: PreTrainedTokenizerBase) -> None:
    """transformers keeps the 50 most probable tokens unless told otherwise."""
    torch.manual_seed(0)
    sizes = {"hidden_size": 8, "intermediate_size": 8, "num_hidden_layers": 1, "num_attention_heads": 1}
    model = HookedModel(LlamaForCausalLM(LlamaConfig(vocab_size=200, **sizes)).eval(), tokenizer)
    row = model.tokenize(["the cat"])
    new = model.generate(row.select([0] * 2000), 1, do_sample=True, seed=0)
    assert len(new.unique()) > 150


def test_nucleus_keeps_the_smallest_set_over_top_p(llama: HookedModel) -> None:
    row = llama.tokenize(["the cat"])
    with torch.no_grad():
        probabilities, order = llama.run(row).logits[0, -1].softmax(-1).sort(descending=True)
    kept = int((probabilities.cumsum(0) < 0.5).sum()) + 1
    new = llama.generate(row.select([0] * 500), 1, do_sample=True, seed=0, top_p=0.5)[:, 0]
    assert set(new.tolist()) == set(order[:kept].tolist())


def test_wrong_settings_are_refused(llama: HookedModel) -> None:
    batch = llama.tokenize(TEXTS)
    with pytest.raises(ConfigError, match="seed"):
        llama.generate(batch, 2, do_sample=True)
    with pytest.raises(ConfigError, match="temperature"):
        llama.generate(batch, 2, do_sample=True, seed=0, temperature=0.0)
    with pytest.raises(ConfigError, match="at least 1"):
        llama.generate(batch, 0)
