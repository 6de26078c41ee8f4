"""Pieces of a card: tables, numbers with their intervals, the header that the hub reads."""

import json
import math
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from interp_unlearn.artifacts import replaced
from interp_unlearn.errors import ArtifactError

if TYPE_CHECKING:
    import pandas as pd

CARD = "README.md"
MARKER = "<!-- card: interp-unlearn -->"
"""Stands in every card written here, so that a card of the original, copied with its files, is not taken for ours."""


def table(frame: "pd.DataFrame") -> str:
    """A frame as a Markdown table."""
    return rows(list(map(str, frame.columns)), [list(row.values()) for row in frame.to_dict("records")])


def rows(header: Sequence[str], body: Sequence[Sequence[object]]) -> str:
    """A Markdown table; missing values are empty."""
    lines = [header, ["---"] * len(header), *([show(value) for value in row] for row in body)]
    return "\n".join(f"| {' | '.join(line)} |" for line in lines)


def show(value: object) -> str:
    """A cell: numbers to four digits, nothing for what is missing, no bar or line break that would end it."""
    if value is None or (isinstance(value, float) and math.isnan(value)) or str(value) in ("<NA>", "nan"):
        return ""
    text = f"{value:.4g}" if isinstance(value, float) else str(value)
    return text.replace("|", "\\|").replace("\n", " ")


def interval(value: float, low: float, high: float) -> str:
    """A number with its interval, or what of them there is."""
    if math.isnan(value):
        return ""
    return f"{value:.3g}" if math.isnan(low) else f"{value:.3g} ({low:.3g} to {high:.3g})"


def header(entries: Mapping[str, Any]) -> str:
    """The block that the hub reads; entries without a value are left out. JSON is YAML."""
    known = {name: value for name, value in entries.items() if value}
    lines = [f"{name}: {json.dumps(value, ensure_ascii=False)}" for name, value in known.items()]
    return "\n".join(["---", *lines, "---", MARKER])


def write_card(folder: Path, text: str, overwrite: bool) -> Path:
    """Write README.md; another's is kept unless told otherwise.

    Raises:
        ArtifactError: there is a card that was not written here.
    """
    path = folder / CARD
    if path.is_file() and MARKER not in path.read_text(encoding="utf-8", errors="replace") and not overwrite:
        raise ArtifactError(
            f"{path}: is there and was not written here (perhaps the original's card); move it away, or overwrite it "
            "with overwrite=True (--force)"
        )
    with replaced(path) as temporary:
        temporary.write_text(text, encoding="utf-8")
    return path
