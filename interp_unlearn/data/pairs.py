"""Toxic sentences with neutral rewrites, in the layout of ParaDetox (Logacheva et al., ACL 2022)."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from interp_unlearn.data.lines import read_table, require_text, write_table
from interp_unlearn.errors import DataError


@dataclass(frozen=True)
class Pair:
    """A toxic sentence and one or more neutral rewrites of it."""

    toxic: str
    neutral: tuple[str, ...]


def read_pairs(path: str | Path) -> list[Pair]:
    """Read a tab-separated file with the header ``toxic, neutral1, neutral2, ...`` and CSV quoting.

    Fields are kept as they stand; a field can hold newlines, and blank rewrites are dropped.

    Raises:
        DataError: the file is empty, the header is another, a row has the wrong number of fields, no toxic sentence
            or no rewrite.
    """
    rows = read_table(path, delimiter="\t")
    line, header = next(rows)
    if len(header) < 2 or header[0] != "toxic" or not all(name.startswith("neutral") for name in header[1:]):
        raise DataError(path, f"expected the header toxic, neutral1, ... separated by tabs, got {header}", line)
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
    return pairs


def write_pairs(path: str | Path, pairs: Sequence[Pair]) -> None:
    """Write pairs so that ``read_pairs`` gives them back.

    Raises:
        DataError: there are no pairs, or one has a blank text or no rewrite.
    """
    if not pairs:
        raise DataError(path, "no pairs to write")
    for pair in pairs:
        if not pair.neutral or not all(text.strip() for text in (pair.toxic, *pair.neutral)):
            raise DataError(path, f"a pair needs a toxic sentence and non-blank rewrites, got {pair}")
    width = max(len(pair.neutral) for pair in pairs)
    header = ["toxic", *(f"neutral{number}" for number in range(1, width + 1))]
    rows = ([pair.toxic, *pair.neutral, *[""] * (width - len(pair.neutral))] for pair in pairs)
    write_table(path, [header, *rows], delimiter="\t")
