"""RealToxicityPrompts."""

import json
import os
from pathlib import Path

import pytest

from interp_unlearn.data import Prompt, read_prompts, write_prompts
from interp_unlearn.errors import DataError

GOOD = '{"prompt": {"text": "So", "toxicity": 0.5}, "continuation": {"text": " it goes"}}'


def test_round_trip(tmp_path: Path) -> None:
    prompts = [Prompt("So", 0.25, " it goes"), Prompt("é\u2028\n", None, None), Prompt("edge", 1.0, "x")]
    write_prompts(tmp_path / "prompts.jsonl", prompts)
    assert read_prompts(tmp_path / "prompts.jsonl") == prompts


def test_written_layout_is_the_public_one(tmp_path: Path) -> None:
    write_prompts(tmp_path / "prompts.jsonl", [Prompt("So", 0.25, " it goes")])
    row = json.loads((tmp_path / "prompts.jsonl").read_text())
    assert row == {"prompt": {"text": "So", "toxicity": 0.25}, "continuation": {"text": " it goes"}}


@pytest.mark.parametrize(
    ("row", "word"),
    [
        ("{", "not valid JSON"),
        ("[1]", "JSON object"),
        ('{"prompt": "So"}', '"prompt"'),
        ('{"prompt": {"toxicity": 0.1}}', "prompt.text"),
        ('{"prompt": {"text": "  "}}', "prompt.text"),
        ('{"prompt": {"text": "So", "toxicity": "0.5"}}', "toxicity"),
        ('{"prompt": {"text": "So", "toxicity": true}}', "toxicity"),
        ('{"prompt": {"text": "So", "toxicity": 1.5}}', "toxicity"),
        ('{"prompt": {"text": "So", "toxicity": NaN}}', "NaN"),
        ('{"prompt": {"text": "So"}, "continuation": "it"}', "continuation"),
        ('{"prompt": {"text": "So"}, "continuation": {}}', "continuation.text"),
    ],
)
def test_malformed_row_names_its_line(tmp_path: Path, row: str, word: str) -> None:
    path = tmp_path / "prompts.jsonl"
    path.write_text(f"{GOOD}\n\n{row}\n{GOOD}\n")
    with pytest.raises(DataError, match=word) as caught:
        read_prompts(path)
    assert caught.value.line == 3


@pytest.mark.parametrize("content", ["", "\n \n"])
def test_empty_file(tmp_path: Path, content: str) -> None:
    path = tmp_path / "prompts.jsonl"
    path.write_text(content)
    with pytest.raises(DataError, match="empty"):
        read_prompts(path)


@pytest.mark.parametrize("prompts", [[], [Prompt("")], [Prompt("So", 2.0)], [Prompt("So", None, " ")]])
def test_unreadable_prompts_are_not_written(tmp_path: Path, prompts: list[Prompt]) -> None:
    with pytest.raises(DataError):
        write_prompts(tmp_path / "prompts.jsonl", prompts)
    assert not list(tmp_path.iterdir())


@pytest.mark.skipif("INTERP_UNLEARN_DATA" not in os.environ, reason="INTERP_UNLEARN_DATA is not set")
@pytest.mark.parametrize(
    ("name", "rows", "unscored"),
    [("rtp_val_5k", 5000, 19), ("rtp_decodingtrust_toxic", 1196, 0), ("rtp_decodingtrust_nontoxic", 1200, 0)],
)
def test_real_prompts(name: str, rows: int, unscored: int) -> None:
    prompts = read_prompts(Path(os.environ["INTERP_UNLEARN_DATA"]) / f"data/realtoxicityprompts/{name}.jsonl")
    assert len(prompts) == rows
    assert sum(prompt.toxicity is None for prompt in prompts) == unscored
    assert all(prompt.continuation for prompt in prompts)
