"""ParaDetox pairs."""

import os
from pathlib import Path

import pytest

from interp_unlearn.data import Pair, read_pairs, write_pairs
from interp_unlearn.errors import DataError


def test_round_trip_keeps_quotes_newlines_and_missing_rewrites(tmp_path: Path) -> None:
    pairs = [
        Pair('he said "go"\nand\tleft', ("he left",)),
        Pair("unterminated \" quote, 'and' comma", ("a", "b", " c ")),
        Pair("line\u2028separator", ("x\r\ny", "bare\rreturn")),
    ]
    write_pairs(tmp_path / "pairs.tsv", pairs)
    assert read_pairs(tmp_path / "pairs.tsv") == pairs


def test_windows_file_with_byte_order_mark(tmp_path: Path) -> None:
    path = tmp_path / "pairs.tsv"
    path.write_bytes("\ufefftoxic\tneutral1\r\nbad\tgood\r\n".encode())
    assert read_pairs(path) == [Pair("bad", ("good",))]


@pytest.mark.parametrize(
    ("content", "line", "word"),
    [
        ("", None, "empty"),
        ("toxic\tneutral1\n", None, "no rows"),
        ("en_toxic\tneutral1\nbad\tgood\n", 1, "header"),
        ('toxic\tneutral1\n"two\nlines"\tgood\nbad\tgood\tmore\n', 4, "2 tab-separated"),
        ('toxic\tneutral1\n"two\nlines"\t \n', 2, "no neutral rewrite"),
        ("toxic\tneutral1\nbad\tgood\n \tgood\n", 3, "toxic"),
        ('toxic\tneutral1\nbad\tgood\n"never\tclosed\n', 3, "malformed"),
    ],
)
def test_malformed_file_names_the_line(tmp_path: Path, content: str, line: int | None, word: str) -> None:
    path = tmp_path / "pairs.tsv"
    path.write_bytes(content.encode())
    with pytest.raises(DataError, match=word) as caught:
        read_pairs(path)
    assert caught.value.line == line
    if line is not None:
        assert str(caught.value).startswith(f"{path}:{line}: ")


def test_not_utf8_names_the_line(tmp_path: Path) -> None:
    path = tmp_path / "pairs.tsv"
    path.write_bytes(b"toxic\tneutral1\nbad\tgood\ncaf\xe9\tgood\n")
    with pytest.raises(DataError, match="UTF-8") as caught:
        read_pairs(path)
    assert caught.value.line == 3


def test_missing_file(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="no such file"):
        read_pairs(tmp_path / "nowhere.tsv")


@pytest.mark.parametrize("pairs", [[], [Pair("bad", ())], [Pair(" ", ("good",))], [Pair("bad", ("good", ""))]])
def test_unreadable_pairs_are_not_written(tmp_path: Path, pairs: list[Pair]) -> None:
    with pytest.raises(DataError):
        write_pairs(tmp_path / "pairs.tsv", pairs)
    assert not list(tmp_path.iterdir())


@pytest.mark.skipif("INTERP_UNLEARN_DATA" not in os.environ, reason="INTERP_UNLEARN_DATA is not set")
def test_real_paradetox(tmp_path: Path) -> None:
    pairs = read_pairs(Path(os.environ["INTERP_UNLEARN_DATA"]) / "data/paradetox/paradetox.tsv")
    assert len(pairs) == 11_927
    assert {len(pair.neutral) for pair in pairs} == {1, 2, 3}
    write_pairs(tmp_path / "again.tsv", pairs)
    assert read_pairs(tmp_path / "again.tsv") == pairs
