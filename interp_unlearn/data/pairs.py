"""Toxic sentences with neutral rewrites, in the layout of ParaDetox (Logacheva et al., ACL 2022)."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from interp_unlearn.data.lines import read_table, require_text, write_table
from interp_unlearn.errors import DataError

HUB_HEADER = ("en_toxic_comment", "en_neutral_comment")


@dataclass(frozen=True)
class Pair:
    """A toxic sentence and one or more neutral rewrites of it."""

    toxic: str
    neutral: tuple[str, ...]


def read_pairs(path: str | Path) -> list[Pair]:
    """Read a tab-separated file with the header ``toxic, neutral1, neutral2, ...`` and CSV quoting.

    Fields are kept as they stand; a field can hold newlines, and blank rewrites are dropped. The hub's file
    (s-nlp/paradetox) has the header ``en_toxic_comment, en_neutral_comment`` and a row a rewrite: the rewrites of one
    sentence become one pair, so that a sentence never stands on both sides of a split.

    Raises:
        DataError: the file is empty, the header is another, a row has the wrong number of fields, no toxic sentence
            or no rewrite.
    """
    rows = read_table(path, delimiter="\t")
    line, header = next(rows)
    of_hub = tuple(header) == HUB_HEADER
    local = len(header) > 1 and header[0] == "toxic" and all(name.startswith("neutral") for name in header[1:])
    if not of_hub and not local:
        raise DataError(
            path,
            f"expected the header toxic, neutral1, ... separated by tabs (or {', '.join(HUB_HEADER)}), got "
            f"{len(header)} others",
            line,
        )
    pairs: list[Pair] = []
    for line, fields in rows:
        if len(fields) != len(header):
            raise DataError(path, f"expected {len(header)} tab-separated fields, got {len(fields)}", line)
        neutral = tuple(text for text in fields[1:] if text.strip())
        if not neutral:
            raise DataError(path, "no neutral rewrite; give at least one or remove the row", line)
        pairs.append(Pair(require_text(path, fields[0], "toxic", line), neutral))
    if not pairs:
        raise DataError(path, "the file holds a header and no rows")
    return _joined(pairs) if of_hub else pairs


def write_pairs(path: str | Path, pairs: Sequence[Pair]) -> None:
    """Write pairs so that ``read_pairs`` gives them back.

    Raises:
        DataError: there are no pairs, or one has a blank text or no rewrite.
    """
    if not pairs:
        raise DataError(path, "no pairs to write")
    for number, pair in enumerate(pairs, start=1):
        if not pair.neutral or not all(text.strip() for text in (pair.toxic, *pair.neutral)):
            raise DataError(path, "a pair needs a toxic sentence and non-blank rewrites", number)
    width = max(len(pair.neutral) for pair in pairs)
    header = ["toxic", *(f"neutral{number}" for number in range(1, width + 1))]
    rows = ([pair.toxic, *pair.neutral, *[""] * (width - len(pair.neutral))] for pair in pairs)
    write_table(path, [header, *rows], delimiter="\t")


def _joined(pairs: Sequence[Pair]) -> list[Pair]:
    """One pair a sentence, in the order in which the sentences first came."""
    neutral: dict[str, list[str]] = {}
    for pair in pairs:
        neutral.setdefault(pair.toxic, []).extend(pair.neutral)
    return [Pair(toxic, tuple(rewrites)) for toxic, rewrites in neutral.items()]
