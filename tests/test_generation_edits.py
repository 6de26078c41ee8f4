"""Selected tokens while generating: with a cache the same as whole passes written out by hand, token after token."""

from collections.abc import Callable
from functools import cache

import pytest
import torch
from conftest import TEXTS, make_hf, make_tokenizer
from explicit_forward import explicit_forward
from torch import Tensor
from transformers import PreTrainedModel

from interp_unlearn import Add, HookedModel, Replace, Scale, Site
from interp_unlearn.errors import ConfigError
from interp_unlearn.interventions import Edit, EditContext
from interp_unlearn.interventions.selections import Span, TokenMask, Where
from interp_unlearn.models import TokenBatch, tokenize

N_NEW = 6
PLACE = Site(1, "resid_post")
HEADS = Site(2, "z")
VECTOR = 12 * torch.linspace(-1, 2, 32)
UNIT = VECTOR / VECTOR.norm()
OTHER_TEXTS = ["no dog ran on a hill", "who sat on it", "the big mat and a small mat was not red then it ran", "no"]


@cache
def hooked(architecture: str) -> HookedModel:
    hf = make_hf(architecture)
    hf.set_attn_implementation("eager")
    return HookedModel(hf, make_tokenizer())


def batch_of(side: str, texts: list[str] = TEXTS) -> TokenBatch:
    return tokenize(make_tokenizer(), texts, padding_side=side)


def mask_of(batch: TokenBatch) -> Tensor:
    """No pattern, padding and BOS included."""
    return torch.rand(batch.input_ids.shape, generator=torch.Generator().manual_seed(3)) < 0.5


@torch.no_grad()
def donor(architecture: str, side: str) -> Tensor:
    """What another batch of the same shape reads where it is put."""
    return hooked(architecture).run(batch_of(side, OTHER_TEXTS), [PLACE])[PLACE]


Rule = Callable[[int, int, int], bool]
"""Of row, position, and number of tokens of the prompt: whether a token is selected."""


def rules(batch: TokenBatch) -> dict[str, tuple[object, Rule]]:
    mask = mask_of(batch)

    def marked(row: int, position: int, n: int) -> bool:
        return position < n and bool(mask[row][batch.mask[row]][position])

    return {
        "all": ("all", lambda row, position, n: True),
        "last": ("last", lambda row, position, n: position >= n - 1),
        "prompt": ("prompt", lambda row, position, n: position < n),
        "completion": ("completion", lambda row, position, n: position >= n),
        "from": (Span(3), lambda row, position, n: position >= 3),
        "until": (Span(1, 9), lambda row, position, n: 1 <= position < 9),
        "end of the prompt": (Span(-2), lambda row, position, n: position >= n - 2),
        "before its last token": (Span(-3, -1), lambda row, position, n: n - 3 <= position < n - 1),
        "mask": (TokenMask(mask), marked),
        "not mask": (~TokenMask(mask), lambda row, position, n: not marked(row, position, n)),
        "mask and completion": (
            TokenMask(mask) | "completion",
            lambda row, position, n: marked(row, position, n) or position >= n,
        ),
    }


@torch.no_grad()
def by_hand(
    hf: PreTrainedModel, batch: TokenBatch, change: Callable[[int, int, int, Tensor], Tensor], stop: int | None = None
) -> list[list[int]]:
    """Continue each row alone; `change` is given row, position, prompt length and the activation of one token."""
    continued: list[list[int]] = []
    for row in range(len(batch)):
        prompt = batch.input_ids[row][batch.mask[row]].tolist()
        new: list[int] = []

        def changed(x: Tensor, row: int = row, n: int = len(prompt)) -> Tensor:
            x = x.clone()
            for position in range(1, x.shape[1]):  # BOS is left alone
                x[0, position] = change(row, position, n, x[0, position])
            return x

        while len(new) < N_NEW and not {2, stop} & set(new):
            whole = TokenBatch.from_rows([prompt + new], bos_token_id=1)
            new.append(int(explicit_forward(hf, whole, {PLACE: changed})[Site.logits][0, -1].argmax()))
        continued.append(new)
    return continued


def padded(rows: list[list[int]]) -> list[list[int]]:
    width = max(len(row) for row in rows)
    return [row + [0] * (width - len(row)) for row in rows]


@pytest.mark.parametrize("side", ["left", "right"])
@pytest.mark.parametrize("name", rules(batch_of("left")))
@pytest.mark.parametrize("architecture", ["llama", "gemma2", "gpt2", "gpt_neox"])
def test_selected_tokens_are_edited(architecture: str, name: str, side: str) -> None:
    model, batch = hooked(architecture), batch_of(side)
    tokens, rule = rules(batch)[name]
    expected = by_hand(model.hf, batch, lambda row, position, n, x: x + VECTOR if rule(row, position, n) else x)
    with model.edited({PLACE: Add(VECTOR, tokens=tokens)}):
        assert model.generate(batch, N_NEW).tolist() == padded(expected)


@pytest.mark.parametrize("architecture", ["llama", "gemma2", "gpt2", "gpt_neox"])
def test_these_edits_matter(architecture: str) -> None:
    """Otherwise the comparison above would hold without any."""
    model, batch = hooked(architecture), batch_of("left")
    plain = model.generate(batch, N_NEW)
    assert plain.tolist() == padded(by_hand(model.hf, batch, lambda row, position, n, x: x))
    results = [plain]
    for tokens, _ in rules(batch).values():
        with model.edited({PLACE: Add(VECTOR, tokens=tokens)}):
            results.append(model.generate(batch, N_NEW))
    assert len({str(result.tolist()) for result in results}) >= 10


@pytest.mark.parametrize("side", ["left", "right"])
@pytest.mark.parametrize("condition", ["above", "below"])
@pytest.mark.parametrize("architecture", ["llama", "gemma2"])
def test_tokens_are_edited_on_a_condition(architecture: str, condition: str, side: str) -> None:
    model, batch = hooked(architecture), batch_of(side)
    with torch.no_grad():
        projections = (model.run(batch, [PLACE])[PLACE] @ UNIT)[batch.content_mask]
    threshold = float(projections.median()) + 1e-3

    def change(row: int, position: int, n: int, x: Tensor) -> Tensor:
        return x - 2 * VECTOR if (x @ UNIT > threshold) == (condition == "above") else x

    expected = by_hand(model.hf, batch, change)
    assert padded(expected) != model.generate(batch, N_NEW).tolist()
    with model.edited({PLACE: Add(VECTOR, -2.0, tokens=Where(VECTOR, threshold, condition))}):
        assert model.generate(batch, N_NEW).tolist() == padded(expected)


@pytest.mark.parametrize("side", ["left", "right"])
@pytest.mark.parametrize("architecture", ["llama", "gemma2"])
def test_the_read_of_a_prompt_is_put_back_token_by_token(architecture: str, side: str) -> None:
    model, batch = hooked(architecture), batch_of(side)
    value = donor(architecture, side)

    def change(row: int, position: int, n: int, x: Tensor) -> Tensor:
        return value[row][batch.mask[row]][position] if position < n else x

    expected = by_hand(model.hf, batch, change)
    assert padded(expected) != model.generate(batch, N_NEW).tolist()
    with model.edited({PLACE: Replace(value)}):
        assert model.generate(batch, N_NEW).tolist() == padded(expected)
    last = by_hand(model.hf, batch, lambda row, position, n, x: change(row, position, n, x) if position == n - 1 else x)
    assert last != expected
    with model.edited({PLACE: Replace(value, tokens="last")}):
        assert model.generate(batch, N_NEW).tolist() == padded(last)


@pytest.mark.parametrize("side", ["left", "right"])
def test_rows_that_end_early_end_alone(side: str) -> None:
    model, batch = hooked("llama"), batch_of(side)
    tokens, rule = rules(batch)["mask and completion"]
    change = lambda row, position, n, x: x + VECTOR if rule(row, position, n) else x  # noqa: E731
    free = by_hand(model.hf, batch, change)
    stop = next(row[1] for row in free if row.index(row[1]) == 1)
    expected = by_hand(model.hf, batch, change, stop)
    assert len({len(row) for row in expected}) > 1
    with model.edited({PLACE: Add(VECTOR, tokens=tokens)}):
        assert model.generate(batch, N_NEW, stop_token_ids=[stop]).tolist() == padded(expected)


def edits_of_rows(batch: TokenBatch, side: str, copies: int) -> dict[Site, list[Edit]]:
    """Edits that hold something for each row, for a batch with that many copies of each row."""
    mask, value = mask_of(batch), donor("llama", side)
    return {
        PLACE: [
            Replace(value.repeat_interleave(copies, 0), tokens=Span(-2)),
            Add(VECTOR / 12, tokens=TokenMask(mask.repeat_interleave(copies, 0)) | "completion"),
        ],
        HEADS: [Scale(2.0, heads=[1], tokens="last")],
    }


@pytest.mark.parametrize("side", ["left", "right"])
def test_continuations_are_those_of_as_many_copies_of_each_row(side: str) -> None:
    model, batch, n = hooked("llama"), batch_of(side), 25
    copies = batch.select([row for row in range(len(batch)) for _ in range(n)])
    plain = model.generate(batch, N_NEW, do_sample=True, seed=5, n_continuations=n)
    assert plain.shape == (4 * n, N_NEW)
    assert torch.equal(plain, model.generate(copies, N_NEW, do_sample=True, seed=5))
    with model.edited(edits_of_rows(batch, side, 1)):
        together = model.generate(batch, N_NEW, do_sample=True, seed=5, n_continuations=n)
    with model.edited(edits_of_rows(batch, side, n)):
        apart = model.generate(copies, N_NEW, do_sample=True, seed=5)
    assert torch.equal(together, apart)
    assert not torch.equal(together, plain)
    for row in range(4):
        assert len({str(line) for line in together[row * n : (row + 1) * n].tolist()}) > 5


def test_each_continuation_is_edited_as_its_own_prompt() -> None:
    """At a temperature near zero all continuations of a row are its greedy one."""
    model, batch = hooked("llama"), batch_of("right")
    with model.edited(edits_of_rows(batch, "right", 1)):
        greedy = model.generate(batch, N_NEW)
        sampled = model.generate(batch, N_NEW, do_sample=True, seed=0, temperature=1e-4, n_continuations=3)
    assert torch.equal(sampled, greedy.repeat_interleave(3, 0))
    assert len({str(line) for line in greedy.tolist()}) == 4


def test_an_edit_is_told_where_each_token_stands() -> None:
    contexts: list[EditContext] = []

    class Recording(Edit):
        def transform(self, activation: Tensor, context: EditContext) -> Tensor:
            contexts.append(context)
            return activation

    model, batch = hooked("llama"), batch_of("right")
    with model.edited({PLACE: Recording()}):
        model.generate(batch, 3, do_sample=True, seed=0, n_continuations=2)
    prompt, *later = contexts
    left, width = batch.padded("left"), batch.input_ids.shape[1]
    for context in contexts:
        assert context.rows.tolist() == [0, 0, 1, 1, 2, 2, 3, 3]
        assert torch.equal(context.lengths, batch.lengths.repeat_interleave(2))
    assert torch.equal(prompt.mask, left.mask.repeat_interleave(2, 0)) and not prompt.completion.any()
    for row in range(8):  # the batch was padded on the right: there column and position are the same
        assert torch.equal(prompt.columns[row][prompt.mask[row]], prompt.positions[row][prompt.mask[row]])
    assert len(later) == 2
    for step, context in enumerate(later):
        assert context.completion.all() and context.columns.unique().tolist() == [width + step]
        assert torch.equal(context.positions[:, 0], context.lengths + step)


def test_settings_that_make_no_sense_are_refused() -> None:
    model, batch = hooked("llama"), batch_of("left")
    with pytest.raises(ConfigError, match="more with do_sample=True, got 2; greedy ones are alike"):
        model.generate(batch, 2, n_continuations=2)
    with pytest.raises(ConfigError, match="n_continuations: expected 1"):
        model.generate(batch, 2, n_continuations=0)
    copies = edits_of_rows(batch, "left", 2)
    with pytest.raises(ConfigError, match="same shape"), model.edited(copies):
        model.generate(batch, 2, do_sample=True, seed=0, n_continuations=2)
    assert model.generate(batch, 2).shape == (4, 2)
