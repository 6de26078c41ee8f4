"""Tables as HTML: numbers to the right, headings that sort, long ones in pages."""

import re
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from interp_unlearn.report.elements import Content, Element, element

if TYPE_CHECKING:
    import pandas as pd

LONGEST_CELL = 300
"""Characters of a cell; what is beyond is cut."""
_NUMBER = re.compile(r"[-+]?(\d|\.\d|inf\b)")
_RULE = re.compile(r"\|(\s*:?-+:?\s*\|)+\s*")


def frame_as_html(frame: "pd.DataFrame", caption: str) -> Element:
    """A table of a run."""
    from pandas.api.types import is_bool_dtype, is_numeric_dtype

    columns = [frame.iloc[:, position] for position in range(frame.shape[1])]
    numeric = [bool(is_numeric_dtype(column) and not is_bool_dtype(column)) for column in columns]
    rows = zip(
        *(map(shown, column.astype(object).where(column.notna(), None).tolist()) for column in columns), strict=True
    )
    return rows_as_html([str(name) for name in frame.columns], [list(row) for row in rows], caption, numeric)


def rows_as_html(
    headings: Sequence[str], rows: Sequence[Sequence[str]], caption: str, numeric: Sequence[bool] | None = None
) -> Element:
    """A table in a box of its own that scrolls sideways where the page is too narrow.

    Args:
        headings: of the columns.
        rows: cells, as they are shown.
        caption: what the table is, read out before it.
        numeric: which columns are numbers; None looks at the cells.
    """
    if numeric is None:
        numeric = [_all_numbers([row[i] for row in rows if i < len(row)]) for i in range(len(headings))]
    kinds: list[dict[str, str]] = [{"class_": "number"} if is_number else {} for is_number in numeric]
    head = element(
        "tr", *(element("th", name, scope="col", **kind) for name, kind in zip(headings, kinds, strict=True))
    )
    body = [
        element("tr", *(element("td", cell, **kind) for cell, kind in zip(row, kinds, strict=False))) for row in rows
    ]
    table = element(
        "table", element("caption", caption), element("thead", head), element("tbody", *body), class_="sortable"
    )
    return element("div", table, class_="scrolls", role="region", tabindex="0", aria_label=caption)


def markdown_as_html(text: str, caption: str) -> list[Content]:
    """The pipe tables and paragraphs of a Markdown file that this package wrote."""
    found: list[Content] = []
    lines = [line.strip() for line in text.splitlines()]
    tables = 0
    at = 0
    while at < len(lines):
        if lines[at].startswith("|") and at + 1 < len(lines) and _RULE.fullmatch(lines[at + 1]):
            end = next((i for i in range(at + 2, len(lines)) if not lines[i].startswith("|")), len(lines))
            tables += 1
            headings, *rows = ([_words(cell) for cell in _cells(line)] for line in [lines[at], *lines[at + 2 : end]])
            found.append(rows_as_html(headings, rows, caption if tables == 1 else f"{caption} ({tables})"))
            at = end
            continue
        if lines[at]:
            found.append(element("p", _words(lines[at].lstrip("# "))))
        at += 1
    return found


def shown(value: Any) -> str:
    """A value as it stands in a cell: four digits of a number, nothing for what is missing."""
    if value is None:
        return ""
    if isinstance(value, bool):
        return "yes" if value else "no"
    if isinstance(value, float):
        return str(int(value)) if value.is_integer() and abs(value) < 1e15 else f"{value:.4g}"
    text = str(value)
    return text if len(text) <= LONGEST_CELL else f"{text[:LONGEST_CELL]} \N{HORIZONTAL ELLIPSIS}"


def _cells(line: str) -> list[str]:
    return line.strip("|").split("|")


def _words(text: str) -> str:
    return text.strip().replace("`", "").replace("**", "")


def _all_numbers(cells: Sequence[str]) -> bool:
    filled = [cell for cell in cells if cell]
    return bool(filled) and all(map(_NUMBER.match, filled))
