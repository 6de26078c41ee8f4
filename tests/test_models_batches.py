import pytest
import torch
from conftest import TEXTS
from transformers import PreTrainedTokenizerBase

from interp_unlearn.errors import ConfigError, DataError
from interp_unlearn.models import TokenBatch, tokenize

LENGTHS = [7, 6, 14, 2]  # words and BOS


@pytest.mark.parametrize("side", ["left", "right"])
def test_masks_positions_and_ids(tokenizer: PreTrainedTokenizerBase, side: str) -> None:
    batch = tokenize(tokenizer, TEXTS, padding_side=side)
    assert batch.lengths.tolist() == LENGTHS and len(batch) == 4
    for row, text in enumerate(TEXTS):
        real = batch.mask[row]
        expected = [1, *tokenizer.convert_tokens_to_ids(text.split())]
        assert batch.input_ids[row][real].tolist() == expected
        assert batch.position_ids[row][real].tolist() == list(range(len(expected)))
        assert batch.input_ids[row][batch.content_mask[row]].tolist() == expected[1:]
    edge = batch.mask[:, -1 if side == "left" else 0]
    assert edge.all()
    assert (batch.position_ids[~batch.mask] == 0).all() or side == "right"


def test_mask_survives_a_padding_id_that_is_a_real_token(tokenizer: PreTrainedTokenizerBase) -> None:
    the = tokenizer.convert_tokens_to_ids("the")
    batch = TokenBatch.from_rows([[1, the, the], [1]], bos_token_id=1, pad_token_id=the)
    assert batch.mask.tolist() == [[True, True, True], [True, False, False]]


def test_bos_only_counts_at_the_start_of_a_row() -> None:
    batch = TokenBatch.from_rows([[1, 5, 1, 6], [7, 1]], bos_token_id=1, padding_side="left")
    assert batch.content_mask.tolist() == [[False, True, True, True], [False, False, True, True]]
    assert TokenBatch.from_rows([[1, 5]]).content_mask.all()


@pytest.mark.parametrize("side", ["left", "right"])
def test_completions(tokenizer: PreTrainedTokenizerBase, side: str) -> None:
    batch = tokenize(tokenizer, ["the cat", "a"], completions=["sat", "ran on a"], padding_side=side)
    marked = [batch.input_ids[row][batch.completion_mask[row]] for row in range(2)]
    assert [tokenizer.decode(ids) for ids in marked] == ["sat", "ran on a"]
    whole = tokenize(tokenizer, ["the cat sat", "a ran on a"], padding_side=side)
    assert torch.equal(batch.input_ids, whole.input_ids)


def test_without_bos_and_truncated(tokenizer: PreTrainedTokenizerBase) -> None:
    batch = tokenize(tokenizer, ["the cat sat on"], add_bos=False, max_length=3)
    assert tokenizer.decode(batch.input_ids[0]) == "the cat sat"
    assert tokenize(tokenizer, ["the cat sat on"], max_length=3).input_ids[0, 0] == 1


@pytest.mark.parametrize(
    ("texts", "options"),
    [
        ([], {}),
        (["the", ""], {}),
        (["the"], {"max_length": 1}),
        (["the"], {"completions": [""]}),
        (["the cat sat", "a"], {"completions": ["on", "on"], "max_length": 3}),
    ],
)
def test_empty_input_is_refused(tokenizer: PreTrainedTokenizerBase, texts: list[str], options: dict) -> None:
    with pytest.raises(DataError):
        tokenize(tokenizer, texts, **options)


def test_error_names_the_row(tokenizer: PreTrainedTokenizerBase) -> None:
    with pytest.raises(DataError, match="text 2 has no tokens"):
        tokenize(tokenizer, ["the", "cat", ""])


def test_one_string_and_unequal_numbers_are_refused(tokenizer: PreTrainedTokenizerBase) -> None:
    with pytest.raises(ConfigError, match="list of texts"):
        tokenize(tokenizer, "the cat")
    with pytest.raises(ConfigError, match="2 prompts but 1 completions"):
        tokenize(tokenizer, ["the", "cat"], completions=["a"])
    with pytest.raises(DataError, match="row 1"):
        TokenBatch.from_rows([[1], []])


def test_select_keeps_rows_together(tokenizer: PreTrainedTokenizerBase) -> None:
    batch = tokenize(tokenizer, TEXTS, completions=TEXTS)
    for rows in ([2, 0], torch.tensor([2, 0])):
        chosen = batch.select(rows)
        assert torch.equal(chosen.input_ids, batch.input_ids[[2, 0]])
        assert torch.equal(chosen.completion_mask, batch.completion_mask[[2, 0]])
        assert chosen.bos_token_id == 1
    assert len(batch.select(slice(1, 3))) == 2


def test_moving_the_padding_equals_padding_there(tokenizer: PreTrainedTokenizerBase) -> None:
    left, right = (tokenize(tokenizer, TEXTS, completions=TEXTS, padding_side=side) for side in ("left", "right"))
    for moved, expected in ((right.padded("left"), left), (left.padded("right"), right)):
        assert torch.equal(moved.mask, expected.mask)
        for name in ("input_ids", "position_ids", "completion_mask"):
            assert torch.equal(getattr(moved, name)[moved.mask], getattr(expected, name)[moved.mask])
    assert left.padded("left") is left


def test_to_the_same_device_is_the_same_batch(tokenizer: PreTrainedTokenizerBase) -> None:
    batch = tokenize(tokenizer, TEXTS)
    assert batch.to("cpu") is batch
    assert batch.to("meta").input_ids.device.type == "meta"
