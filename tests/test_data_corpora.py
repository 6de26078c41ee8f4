"""Plain corpora."""

import os
from pathlib import Path

import pytest

from interp_unlearn.data import read_texts, write_texts
from interp_unlearn.errors import DataError


def test_jsonl_round_trip_keeps_line_breaks(tmp_path: Path) -> None:
    texts = ["one\ntwo\r\n", " spaced ", "u\u2028v"]
    write_texts(tmp_path / "texts.jsonl", texts)
    assert read_texts(tmp_path / "texts.jsonl") == texts


def test_line_round_trip_splits_at_newlines_only(tmp_path: Path) -> None:
    texts = [" = Title = ", "u\u2028v\x0bw", "a\rb"]
    write_texts(tmp_path / "texts.txt", texts)
    assert read_texts(tmp_path / "texts.txt") == texts


def test_blank_lines_and_windows_endings_are_dropped(tmp_path: Path) -> None:
    (tmp_path / "texts.txt").write_bytes(b"one\r\n \r\ntwo")
    assert read_texts(tmp_path / "texts.txt") == ["one", "two"]


@pytest.mark.parametrize("row", ['{"title": "x"}', '{"text": ""}', '{"text": 3}', '"text"', '{"text": "x"'])
def test_malformed_row_names_its_line(tmp_path: Path, row: str) -> None:
    path = tmp_path / "texts.jsonl"
    path.write_text('{"text": "good"}\n' + row + "\n")
    with pytest.raises(DataError) as caught:
        read_texts(path)
    assert caught.value.line == 2


@pytest.mark.parametrize("name", ["texts.txt", "texts.jsonl"])
def test_empty_file(tmp_path: Path, name: str) -> None:
    (tmp_path / name).write_text("\n\n")
    with pytest.raises(DataError, match="empty"):
        read_texts(tmp_path / name)


@pytest.mark.parametrize("suffix", ["json", "csv", "tsv"])
def test_rows_are_not_taken_for_texts(tmp_path: Path, suffix: str) -> None:
    (tmp_path / f"texts.{suffix}").write_text('{"text": "one"}\n{"text": "two"}\n')
    with pytest.raises(DataError, match=r"holds rows, not one text a line; write it as \.jsonl or \.parquet"):
        read_texts(tmp_path / f"texts.{suffix}")


@pytest.mark.parametrize("texts", [[], ["a", " "], ["a\nb"], ["a\r"]])
def test_unreadable_texts_are_not_written(tmp_path: Path, texts: list[str]) -> None:
    with pytest.raises(DataError):
        write_texts(tmp_path / "texts.txt", texts)
    assert not list(tmp_path.iterdir())


@pytest.mark.skipif("INTERP_UNLEARN_DATA" not in os.environ, reason="INTERP_UNLEARN_DATA is not set")
@pytest.mark.parametrize(
    ("place", "rows"),
    [
        ("wikitext2/wiki.test.raw", 2891),
        ("jigsaw/test_10k_toxic.txt", 10_000),
        ("jigsaw/test_10k_normal.txt", 10_000),
        ("cyber_corpus/mitre_attack_descriptions.jsonl", 1175),
        ("bio_corpus/pubmedqa_abstracts.jsonl", 1000),
    ],
)
def test_real_texts(place: str, rows: int) -> None:
    texts = read_texts(Path(os.environ["INTERP_UNLEARN_DATA"]) / "data" / place)
    assert len(texts) == rows
