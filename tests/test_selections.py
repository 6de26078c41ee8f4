"""Which tokens an edit touches: each selection against a loop over rows and positions."""

from collections.abc import Callable
from dataclasses import dataclass

import pytest
import torch
from conftest import TEXTS, make_tokenizer
from torch import Tensor

from interp_unlearn import Add, HookedModel, Replace, Scale, Site
from interp_unlearn.errors import ConfigError
from interp_unlearn.interventions.contexts import context_of_batch
from interp_unlearn.interventions.selections import Span, TokenMask, Where
from interp_unlearn.models import TokenBatch, tokenize

D, WIDTH = 8, 18
DIRECTION = torch.linspace(-1, 2, D)
COMPLETIONS = ["who ran", "not", "yes yes yes yes", "the big cat"]


@dataclass
class Token:
    """One real token, as the loop comes to it."""

    row: int
    column: int
    position: int
    length: int
    completion: bool
    projection: float

    @property
    def marked(self) -> bool:
        return bool(marks()[self.row, self.column])


def marks() -> Tensor:
    """A mask with no pattern, over padding and BOS too."""
    return torch.rand(4, WIDTH, generator=torch.Generator().manual_seed(0)) < 0.4


def activation() -> Tensor:
    return torch.randn(4, WIDTH, D, generator=torch.Generator().manual_seed(1))


Rule = Callable[[Token], bool]
LAST: Rule = lambda t: t.position == t.length - 1  # noqa: E731
ABOVE, BELOW, MASK = Where(3 * DIRECTION, 0.4), Where(DIRECTION, -0.2, "below"), TokenMask(marks())
CASES: dict[str, tuple[object, Rule]] = {
    "all": ("all", lambda t: True),
    "last": ("last", LAST),
    "prompt": ("prompt", lambda t: not t.completion),
    "completion": ("completion", lambda t: t.completion),
    "from the start": (Span(0), lambda t: True),
    "to a position": (Span(0, 3), lambda t: t.position < 3),
    "inside": (Span(2, 5), lambda t: 2 <= t.position < 5),
    "beyond some rows": (Span(7, 11), lambda t: 7 <= t.position < 11),
    "the last two": (Span(-2), lambda t: t.position >= t.length - 2),
    "before the last": (Span(-4, -1), lambda t: t.length - 4 <= t.position < t.length - 1),
    "all but the ends": (Span(1, -2), lambda t: 1 <= t.position < t.length - 2),
    "the end if early": (Span(-3, 6), lambda t: t.length - 3 <= t.position < 6),
    "mask": (MASK, lambda t: t.marked),
    "above": (ABOVE, lambda t: t.projection > 0.4),
    "below": (BELOW, lambda t: t.projection < -0.2),
    "not": (~MASK, lambda t: not t.marked),
    "not not": (~~MASK, lambda t: t.marked),
    "and": (MASK & ABOVE, lambda t: t.marked and t.projection > 0.4),
    "or": (MASK | ABOVE, lambda t: t.marked or t.projection > 0.4),
    "and a name": (Span(1, 4) & "prompt", lambda t: 1 <= t.position < 4 and not t.completion),
    "or a name": (Span(0, 2) | "last", lambda t: t.position < 2 or LAST(t)),
    "neither": (~(MASK | BELOW), lambda t: not (t.marked or t.projection < -0.2)),
    "not both": (~(MASK & Span(0, 6)), lambda t: not (t.marked and t.position < 6)),
    "three": (MASK & ~Span(-1) | ABOVE & "completion", lambda t: three(t)),
    "one or none": (Span(0, 3) & ~Span(1, 2), lambda t: t.position in (0, 2)),
}


def three(token: Token) -> bool:
    return (token.marked and not LAST(token)) or (token.projection > 0.4 and token.completion)


def with_completions(side: str) -> TokenBatch:
    return tokenize(make_tokenizer(), TEXTS, completions=COMPLETIONS, padding_side=side)


def expected(batch: TokenBatch, rule: Rule, include_bos: bool) -> Tensor:
    """What is edited, found token by token; the layout is built from the texts, not from the batch."""
    chosen = torch.zeros(batch.input_ids.shape, dtype=torch.bool)
    unit = DIRECTION / DIRECTION.norm()
    for row, (text, completion) in enumerate(zip(TEXTS, COMPLETIONS, strict=True)):
        n_prompt = 1 + len(text.split())
        length = n_prompt + len(completion.split())
        offset = int(batch.mask[row].nonzero()[0])
        for position in range(length):
            column = offset + position
            projection = float(activation()[row, column] @ unit)
            token = Token(row, column, position, length, position >= n_prompt, projection)
            chosen[row, column] = rule(token) and (position > 0 or include_bos)
    return chosen


@pytest.mark.parametrize("include_bos", [False, True])
@pytest.mark.parametrize("side", ["left", "right"])
@pytest.mark.parametrize("name", CASES)
def test_each_selection_is_that_of_a_loop(name: str, side: str, include_bos: bool) -> None:
    tokens, rule = CASES[name]
    batch = with_completions(side)
    before = activation()
    after = Add(torch.ones(D), tokens=tokens, include_bos=include_bos)(before, context_of_batch(batch))
    wanted = expected(batch, rule, include_bos)
    assert torch.equal((after != before).all(-1), wanted)
    assert torch.equal((after != before).any(-1), wanted)
    assert wanted.any() and (name in ("all", "from the start") or not torch.equal(wanted, batch.mask))


def test_a_condition_sees_what_the_edits_before_it_left() -> None:
    batch, ones = with_completions("left"), torch.ones(D)
    context = context_of_batch(batch)
    small = torch.zeros(4, WIDTH, D)
    raised = Add(ones, tokens="completion")(small, context)
    doubled = Scale(2.0, tokens=Where(ones, 0.5))(raised, context)
    assert torch.equal(doubled, 2 * raised)
    assert torch.equal((doubled != 0).all(-1), batch.completion_mask)


def test_heads_are_selected_together_with_tokens() -> None:
    batch = with_completions("right")
    z = torch.randn(4, WIDTH, 3, D, generator=torch.Generator().manual_seed(2))
    edited = Scale(2.0, tokens=Span(-2), heads=[0, 2])(z, context_of_batch(batch))
    for row in range(4):
        for column in range(WIDTH):
            last_two = batch.lengths[row] - 2 <= column < batch.lengths[row]
            changed = (edited[row, column] != z[row, column]).any(-1).tolist()
            assert changed == ([True, False, True] if last_two else [False] * 3)


def test_a_condition_passes_no_gradients() -> None:
    context, before = context_of_batch(with_completions("left")), activation().requires_grad_()
    Scale(3.0, tokens=Where(DIRECTION, 0.0))(before, context).sum().backward()
    above = (before @ DIRECTION > 0) & context.content
    assert torch.equal(before.grad, torch.where(above[..., None], 3.0, 1.0).expand_as(before))


@pytest.mark.parametrize("tokens", ["first", 3, None, ["last"], marks()])
def test_what_selects_no_tokens_is_refused(tokens: object) -> None:
    with pytest.raises(ConfigError, match="expected one of all, last, prompt, completion, a Span, a TokenMask or a"):
        Scale(2.0, tokens=tokens)
    with pytest.raises(ConfigError, match="expected one of all, last"):
        Span(0) & tokens
    with pytest.raises(ConfigError, match="expected one of all, last"):
        Span(0) | tokens


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: Span(3, 3), r"Span\(3, 3\) is empty; expected start < stop"),
        (lambda: Span(-1, -2), r"Span\(-1, -2\) is empty"),
        (lambda: TokenMask([[True, False]]), r"expected a boolean tensor \[batch, pos\], got <class 'list'>"),
        (lambda: TokenMask(torch.ones(2, 3)), r"expected a boolean tensor .* got torch.float32 \(2, 3\)"),
        (lambda: TokenMask(marks()[0]), r"expected a boolean tensor .* got torch.bool \(18,\)"),
        (lambda: Where(torch.zeros(D), 0.0), "finite direction .* not zero"),
        (lambda: Where(torch.full((D,), float("nan")), 0.0), "finite direction"),
        (lambda: Where(torch.ones(2, D), 0.0), r"direction \[d\]"),
        (lambda: Where(DIRECTION, 0.0, "beside"), "side must be 'above' or 'below', got 'beside'"),
        (lambda: Scale(2.0, heads=[]), "expected head numbers counted from 0, got"),
        (lambda: Scale(2.0, heads=[0, -1]), r"expected head numbers counted from 0, got \[0, -1\]"),
    ],
)
def test_wrong_settings_are_refused(make: Callable[[], object], message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        make()


@pytest.mark.parametrize(
    ("edit", "site", "message"),
    [
        (
            Scale(2.0, tokens=TokenMask(marks())),
            "resid_post",
            r"\(4, 18\) does not fit a pass of \(4, 14\)",
        ),
        (Scale(2.0, tokens=TokenMask(marks()[:2, :14])), "resid_post", r"\(2, 14\) does not fit a pass of \(4, 14\)"),
        (Scale(2.0, tokens=Where(DIRECTION, 0.0)), "resid_post", "direction of width 8 but the activation here is"),
        (Scale(2.0, tokens=Where(DIRECTION, 0.0)), "z", "another site"),
        (Scale(2.0, tokens=Span(0) & Where(DIRECTION, 0.0)), "mlp_post", "direction of width 8"),
        (Scale(2.0, heads=[0]), "attn_out", "at the site z only; drop heads, or edit z"),
        (Scale(2.0, heads=[1, 4]), "z", r"got \[1, 4\], the model has heads 0 to 3"),
        (Add(torch.ones(4, 8)), "attn_out", "a vector for each of 4 heads .* or edit z|has width 8"),
        (Add(torch.ones(4, 32)), "attn_out", r"a vector for each of 4 heads .* give one vector \[d\], or edit z"),
        (Add(torch.ones(3, 8)), "z", "a vector for each of 3 heads"),
        (Replace(torch.ones(4, 14, 4, 7)), "z", "has width 7"),
        (Replace(torch.ones(4, 13, 4, 8)), "z", "read it from a batch of the same shape"),
    ],
)
def test_what_does_not_fit_the_pass_is_refused(llama: HookedModel, edit: object, site: str, message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        llama.run(llama.tokenize(TEXTS), edits={Site(1, site): edit})


@pytest.mark.parametrize("tokens", ["prompt", "completion", Span(0) & "completion", ~Span(0) | "prompt"])
def test_prompt_and_completion_need_a_batch_that_knows_them(llama: HookedModel, tokens: object) -> None:
    edits = {Site(1, "resid_post"): Scale(2.0, tokens=tokens)}
    batch = llama.tokenize(TEXTS)
    with pytest.raises(ConfigError, match="tokenised with completions or as chats, or generate"):
        llama.run(batch, edits=edits)
    with pytest.raises(ConfigError, match="does not say which tokens are the completion"), llama.edited(edits):
        llama.hf(batch.input_ids, attention_mask=batch.attention_mask)
    known = llama.tokenize(TEXTS, completions=COMPLETIONS)
    llama.run(known, edits=edits)
    with llama.edited(edits):
        assert llama.generate(batch, 2).shape == (4, 2)
