"""Texts that go on from others: their tokens are those they have in the whole text, whatever a tokenizer adds."""

import os
from pathlib import Path

import pytest
from conftest import make_tokenizer
from tokenizers import Tokenizer, decoders, models, normalizers, pre_tokenizers
from transformers import AutoTokenizer, PreTrainedTokenizerFast

from interp_unlearn.models import tokenize, tokenize_chats
from interp_unlearn.models.encoding import encode_continuations, encode_rows, encode_texts

TEXTS = ["a girl", "the old girl", "\n"]
CONTINUATIONS = [" girl", "girl", " a girl", "\n a", "", "  girl", " \n"]


def byte_pairs(space: str, *merged: str) -> Tokenizer:
    """A tokenizer with a few merges; the words of its vocabulary begin with their space."""
    letters = sorted({*"agirlthenod\n\u2581\u0120\u010a"})
    merges = [(space, "g"), ("i", "r"), ("ir", "l"), (space, "a")]
    vocabulary = [*letters, *("".join(pair) for pair in merges), *merged, "<unk>"]
    return Tokenizer(models.BPE({token: i for i, token in enumerate(vocabulary)}, merges, unk_token="<unk>"))


def of_kind(kind: str) -> PreTrainedTokenizerFast:
    tokenizer = byte_pairs("\u0120" if kind.startswith("bytes") else "\u2581")
    if kind == "llama":
        tokenizer.normalizer = normalizers.Sequence([normalizers.Prepend("\u2581"), normalizers.Replace(" ", "\u2581")])
        tokenizer.decoder = decoders.Replace("\u2581", " ")
    elif kind == "gemma":
        tokenizer.normalizer = normalizers.Replace(" ", "\u2581")
    elif kind.startswith("metaspace"):
        tokenizer.pre_tokenizer = pre_tokenizers.Metaspace("\u2581", kind.partition(" ")[2])
    else:
        tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=kind.endswith("space"))
    return PreTrainedTokenizerFast(tokenizer_object=tokenizer, unk_token="<unk>")


KINDS = ["llama", "gemma", "metaspace first", "metaspace always", "metaspace never", "bytes", "bytes with space"]


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("text", TEXTS)
def test_tokens_are_those_of_the_whole_text(kind: str, text: str) -> None:
    tokenizer = of_kind(kind)
    (before,) = encode_texts(tokenizer, [text])
    for continuation, found in zip(CONTINUATIONS, encode_continuations(tokenizer, CONTINUATIONS), strict=True):
        (whole,) = encode_texts(tokenizer, [text + continuation])
        if text.endswith("\n") and kind.startswith("bytes"):
            continue  # there a line break and what follows may be one piece
        assert [*before, *found] == whole, (continuation, tokenizer.convert_ids_to_tokens(found))


def test_the_tokenizer_of_the_llama_kind_would_write_two_spaces() -> None:
    apart = encode_texts(of_kind("llama"), [" girl"])[0]
    assert len(apart) == len(encode_continuations(of_kind("llama"), [" girl"])[0]) + 1


@pytest.mark.parametrize("kind", KINDS)
def test_rows_with_completions(kind: str) -> None:
    tokenizer = of_kind(kind)
    prompts, completions = ["the girl", "", "a"], [" girl", "a girl", " a"]
    found = encode_rows(tokenizer, prompts, completions=completions)
    assert found.rows == encode_texts(tokenizer, [p + c for p, c in zip(prompts, completions, strict=True)])
    assert found.completion_starts == [
        len(row) if p else 0 for p, row in zip(prompts, encode_texts(tokenizer, prompts), strict=True)
    ]


def test_other_tokenizers_are_left_alone() -> None:
    tokenizer = make_tokenizer()
    assert encode_continuations(tokenizer, []) == encode_continuations(of_kind("llama"), []) == []
    assert encode_continuations(tokenizer, [" a robin", "robin"]) == encode_texts(tokenizer, [" a robin", "robin"])


def test_turns_of_a_chat_go_on() -> None:
    tokenizer = of_kind("llama")
    tokenizer.chat_template = "{% for m in messages %}{{ m['content'] }}\n{% endfor %}"
    turns = ["the girl", " a girl", " the girl"]
    chat = [{"role": role, "content": turn} for role, turn in zip(["user", "assistant", "user"], turns, strict=True)]
    batch = tokenize_chats(tokenizer, [chat])
    assert batch.input_ids[0].tolist() == encode_texts(tokenizer, ["".join(f"{turn}\n" for turn in turns)])[0]


@pytest.mark.skipif("INTERP_UNLEARN_DATA" not in os.environ, reason="real data is not there")
def test_the_real_checkpoint() -> None:
    tokenizer = AutoTokenizer.from_pretrained(Path(os.environ["INTERP_UNLEARN_DATA"]) / "models" / "stories260K")
    batch = tokenize(tokenizer, ["Once there was a little"], completions=[" girl named Lily."], add_bos=False)
    whole = tokenize(tokenizer, ["Once there was a little girl named Lily."], add_bos=False)
    assert batch.input_ids.tolist() == whole.input_ids.tolist()
