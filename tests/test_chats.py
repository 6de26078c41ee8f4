"""Conversations: the assistant's turns, and nothing else, are the completion."""

import pytest
import torch
from conftest import make_hf, make_tokenizer
from transformers import PreTrainedTokenizerBase

from interp_unlearn import Add, HookedModel, Site
from interp_unlearn.errors import ConfigError, DataError
from interp_unlearn.models import TokenBatch, tokenize_chats

HEADERS = {"system": "then", "user": "who", "assistant": "said"}  # words of the tiny tokenizer
TURN = "{{ {'system': 'then', 'user': 'who', 'assistant': 'said'}[m.role] }} {{ m.content }} </s>\n"
HEADER = "{% if add_generation_prompt %}said {% endif %}"
TEMPLATE = "{% for m in messages %}" + TURN + "{% endfor %}" + HEADER
CHATS = [
    ["system: yes no", "user: the cat sat", "assistant: on a mat", "user: a big dog", "assistant: ran"],
    ["user: it was red", "assistant: and blue", "user: not small"],
    ["user: yes"],
    ["user: hill", "assistant: said who said", "assistant: no"],
]


def as_chat(lines: list[str]) -> list[dict[str, str]]:
    return [dict(zip(("role", "content"), line.split(": "), strict=True)) for line in lines]


def by_hand(lines: list[str]) -> list[tuple[str, bool]]:
    """Each word of the rendered conversation, and whether the assistant wrote it."""
    words: list[tuple[str, bool]] = []
    for message in as_chat(lines):
        words.append((HEADERS[message["role"]], False))
        words += [(word, message["role"] == "assistant") for word in [*message["content"].split(), "</s>"]]
    return words if message["role"] == "assistant" else [*words, ("said", False)]


@pytest.fixture
def chatty() -> PreTrainedTokenizerBase:
    tokenizer = make_tokenizer()
    tokenizer.chat_template = TEMPLATE
    return tokenizer


@pytest.mark.parametrize("side", ["left", "right"])
@pytest.mark.parametrize("start", ["", "<s> "])
def test_the_assistants_turns_are_the_completion(chatty: PreTrainedTokenizerBase, side: str, start: str) -> None:
    chatty.chat_template = start + TEMPLATE
    batch = tokenize_chats(chatty, [as_chat(lines) for lines in CHATS], padding_side=side)
    for row, lines in enumerate(CHATS):
        words = [*([("<s>", False)] if start else []), *by_hand(lines)]
        real = batch.mask[row]
        assert chatty.convert_ids_to_tokens(batch.input_ids[row][real]) == [word for word, _ in words]
        assert batch.completion_mask[row][real].tolist() == [assistant for _, assistant in words]
        assert batch.content_mask[row][real].tolist() == [word != "<s>" for word, _ in words]
        assert batch.mask[row, -1 if side == "left" else 0]
    assert not (batch.completion_mask & ~batch.mask).any()


@torch.no_grad()
@pytest.mark.parametrize("side", ["left", "right"])
@pytest.mark.parametrize("tokens", ["completion", "prompt"])
def test_exactly_these_turns_are_edited(chatty: PreTrainedTokenizerBase, side: str, tokens: str) -> None:
    model, site = HookedModel(make_hf("llama"), chatty), Site(1, "resid_post")
    batch = model.tokenize_chats([as_chat(lines) for lines in CHATS], padding_side=side)
    before = model.run(batch, [site])[site]
    after = model.run(batch, [site], {site: Add(torch.ones(32), tokens=tokens)})[site]
    for row, lines in enumerate(CHATS):
        edited = (after != before).any(-1)[row]
        assert edited[batch.mask[row]].tolist() == [wrote == (tokens == "completion") for _, wrote in by_hand(lines)]
        assert not edited[~batch.mask[row]].any()


def test_long_chats_are_cut_at_the_end(chatty: PreTrainedTokenizerBase) -> None:
    whole = tokenize_chats(chatty, [as_chat(lines) for lines in CHATS])
    marks = whole.completion_mask
    longest = max(int(row.nonzero()[0]) for row in marks if row.any()) + 1  # the first word of the latest first turn
    assert longest < whole.longest
    cut = tokenize_chats(chatty, [as_chat(lines) for lines in CHATS], max_length=longest)
    assert cut.lengths.tolist() == [min(length, longest) for length in whole.lengths.tolist()]
    assert torch.equal(cut.input_ids, whole.input_ids[:, :longest])
    assert torch.equal(cut.completion_mask, marks[:, :longest])
    with pytest.raises(DataError, match="cuts away all that the assistant says"):
        tokenize_chats(chatty, [as_chat(lines) for lines in CHATS], max_length=longest - 1)


def test_rows_keep_their_turns_when_padding_changes_sides(chatty: PreTrainedTokenizerBase) -> None:
    left, right = (
        tokenize_chats(chatty, [as_chat(lines) for lines in CHATS], padding_side=side) for side in ("left", "right")
    )

    def same(first: TokenBatch, second: TokenBatch) -> bool:
        return torch.equal(first.input_ids, second.input_ids) and torch.equal(
            first.completion_mask, second.completion_mask
        )

    assert not same(left, right)
    assert same(left.padded("right"), right) and same(right.padded("left"), left)


@pytest.mark.parametrize(
    "template",
    [
        # Only the last message is shown in full, as templates do that drop earlier reasoning.
        "{% for m in messages %}{% if loop.last %}" + TURN + "{% else %}yes </s>{% endif %}{% endfor %}" + HEADER,
        # The number of messages stands in front.
        "{{ messages | length }} " + TEMPLATE,
    ],
)
def test_a_template_that_rewrites_earlier_turns_is_refused(chatty: PreTrainedTokenizerBase, template: str) -> None:
    chatty.chat_template = template
    assert len(tokenize_chats(chatty, [as_chat(["user: the cat"])])) == 1
    with pytest.raises(ConfigError, match=r"rewrites earlier turns .* tokenise prompt and completion as texts"):
        tokenize_chats(chatty, [as_chat(lines) for lines in CHATS])


def test_what_is_no_chat_is_refused(chatty: PreTrainedTokenizerBase) -> None:
    with pytest.raises(DataError, match="expected at least one conversation"):
        tokenize_chats(chatty, [])
    with pytest.raises(DataError, match="conversation 1 has no messages"):
        tokenize_chats(chatty, [as_chat(["user: yes"]), []])
    with pytest.raises(DataError, match="conversation 0 begins with the assistant"):
        tokenize_chats(chatty, [as_chat(["assistant: yes"])])
    with pytest.raises(ConfigError, match=r"no chat template; set tokenizer\.chat_template"):
        tokenize_chats(make_tokenizer(), [as_chat(["user: yes"])])
