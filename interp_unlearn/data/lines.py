"""Lines and table rows of a text file, each with the line number an error message needs."""

import csv
import json
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import Any

from interp_unlearn.artifacts import replaced
from interp_unlearn.errors import DataError

_BOM = b"\xef\xbb\xbf"
LONGEST_LINE = 2**26
"""Bytes of a line beyond which a file is refused: a whole book is a tenth of it."""


def read_lines(path: str | Path) -> Iterator[tuple[int, str]]:
    """Yield ``(line number from 1, line with its ending)``; only ``\\n`` ends a line.

    ``str.splitlines`` and universal newlines would also split at U+2028 or a bare carriage return, which occur inside
    web text, and every later line number would be wrong.

    Raises:
        DataError: the file is missing, is not UTF-8 or has too long a line (with its number), or holds nothing but
            white space.
    """
    path = Path(path)
    if not path.is_file():
        raise DataError(path, "no such file; expected the path of a data file")
    blank = True
    with path.open("rb") as file:
        for number, raw in enumerate(iter(lambda: file.readline(LONGEST_LINE + 1), b""), start=1):
            if len(raw) > LONGEST_LINE:
                raise DataError(
                    path, f"longer than {LONGEST_LINE:,} bytes; expected a text file with a row a line", number
                )
            if number == 1:
                raw = raw.removeprefix(_BOM)
            try:
                line = raw.decode("utf-8")
            except UnicodeDecodeError as error:
                raise DataError(path, f"not UTF-8 text ({error.reason}); convert the file to UTF-8", number) from error
            blank = blank and not line.strip()
            yield number, line
    if blank:
        raise DataError(path, "the file is empty; expected at least one row")


def read_objects(path: str | Path) -> Iterator[tuple[int, dict[str, Any]]]:
    """Yield ``(line number, object)`` for every line of a JSON-lines file; blank lines are skipped.

    Raises:
        DataError: a line is not one JSON object.
    """
    for number, line in read_lines(path):
        if not line.strip():
            continue
        value = parse_json(path, line, number)
        if not isinstance(value, dict):
            raise DataError(path, f"expected a JSON object, got {_kind(value)}; one object a line", number)
        yield number, value


def read_table(path: str | Path, delimiter: str) -> Iterator[tuple[int, list[str]]]:
    """Yield ``(number of the row's first line, fields)`` of a delimited file with CSV quoting; blank lines are skipped.

    Raises:
        DataError: the quoting is malformed.
    """
    reader = csv.reader((line for _, line in read_lines(path)), delimiter=delimiter, strict=True)
    first = 1
    while True:
        try:
            row = next(reader)
        except StopIteration:
            return
        except csv.Error as error:
            raise DataError(path, f"malformed row ({error}); quote fields as csv does", first) from error
        if row:
            yield first, row
        first = reader.line_num + 1  # a quoted field can hold newlines, so a row can span several lines


def write_lines(path: str | Path, lines: Iterable[str]) -> None:
    """Write lines, each ended by ``\\n`` on every platform, whole or not at all."""
    with replaced(path) as temporary, temporary.open("w", encoding="utf-8", newline="") as file:
        file.writelines(line + "\n" for line in lines)


def write_table(path: str | Path, rows: Iterable[Sequence[object]], delimiter: str) -> None:
    """Write a delimited file with CSV quoting where it is needed."""
    rows = [[str(field) for field in row] for row in rows]
    # Before Python 3.13 minimal quoting leaves a bare carriage return unquoted, which no reader takes back.
    bare_return = any("\r" in field for row in rows for field in row)
    quoting = csv.QUOTE_ALL if bare_return else csv.QUOTE_MINIMAL
    with replaced(path) as temporary, temporary.open("w", encoding="utf-8", newline="") as file:
        csv.writer(file, delimiter=delimiter, lineterminator="\n", quoting=quoting).writerows(rows)


def parse_json(path: str | Path, text: str, line: int | None = None) -> Any:
    """Parse JSON, refusing the NaN and Infinity that Python's parser lets through.

    Raises:
        DataError: ``text`` is not JSON; the line is ``line``, or the one within ``text`` when that is None.
    """

    def refuse(constant: str) -> None:
        raise DataError(path, f"{constant} is not JSON; write null for a missing number", line)

    try:
        return json.loads(text, parse_constant=refuse)
    except json.JSONDecodeError as error:
        number = error.lineno if line is None else line
        raise DataError(path, f"not valid JSON: {error.msg} at column {error.colno}", number) from error
    except (RecursionError, ValueError) as error:  # nested too deeply, or a number of thousands of digits
        raise DataError(path, f"not valid JSON: {error}; shorten it", line) from error


def require_text(path: str | Path, value: object, name: str, line: int | None) -> str:
    """Return ``value`` if it is a string with something in it.

    Raises:
        DataError: it is not.
    """
    if not isinstance(value, str):
        raise DataError(path, f"{name}: expected text, got {_kind(value)}", line)
    if not value.strip():
        raise DataError(path, f"{name}: expected text, got a blank; remove the row", line)
    try:
        value.encode()
    except UnicodeEncodeError as error:  # JSON's escapes can say it, and no tokenizer takes it
        raise DataError(path, f"{name}: half of a surrogate pair, which is no character; remove it", line) from error
    return value


def in_short(value: object) -> str:
    """What a value is, for an error message: a text longer than a letter by its length, since it may offend."""
    if isinstance(value, str) and len(value) > 1:
        return f"text of {len(value)} characters"
    return repr(value) if isinstance(value, str | bool | int | float) else _kind(value)


def _kind(value: object) -> str:
    return "nothing" if value is None else type(value).__name__
