"""Plain text: a ``text`` field or column (the layout of the WMDP corpora), or one text a line."""

import json
from collections.abc import Sequence
from pathlib import Path

from interp_unlearn.data.hub import explain_missing_corpus
from interp_unlearn.data.lines import read_lines, read_objects, require_text, write_lines
from interp_unlearn.data.parquet import read_rows
from interp_unlearn.errors import DataError


def read_texts(path: str | Path) -> list[str]:
    """Read texts: from ``.jsonl`` the field ``text`` of every line, from ``.parquet`` the column ``text`` but for blank
    rows, from any other file every line that is not blank; ``.json``, ``.csv`` and ``.tsv`` hold rows and are refused.

    WikiText (a paragraph a line) and Jigsaw (a sentence a line) are of the second kind. Texts are kept as they stand,
    without the line ending.

    Raises:
        DataError: the file is missing or empty, holds rows, or a JSON line has no text; of a corpus of WMDP that was
            named instead of a file, how to come by it.
    """
    if not Path(path).exists():
        explain_missing_corpus(str(path))
    if Path(path).suffix == ".jsonl":
        return [require_text(path, row.get("text"), "text", line) for line, row in read_objects(path)]
    if Path(path).suffix == ".parquet":
        rows = [row for row in read_rows(path, ("text",)) if row["text"] is None or str(row["text"]).strip()]
        return [require_text(path, row["text"], "text", None) for row in rows]
    if Path(path).suffix in (".json", ".csv", ".tsv"):
        raise DataError(path, "holds rows, not one text a line; write it as .jsonl or .parquet with the texts as text")
    return [line.removesuffix("\n").removesuffix("\r") for _, line in read_lines(path) if line.strip()]


def write_texts(path: str | Path, texts: Sequence[str]) -> None:
    """Write texts so that ``read_texts`` gives them back: ``.jsonl`` as objects, any other suffix one a line.

    Raises:
        DataError: there are no texts, one is blank, or one holds a line break and the layout is one a line.
    """
    if not texts:
        raise DataError(path, "no texts to write")
    as_objects = Path(path).suffix == ".jsonl"
    for number, text in enumerate(texts, start=1):
        require_text(path, text, "text", number)
        if not as_objects and ("\n" in text or text.endswith("\r")):
            raise DataError(path, "a text with a line break does not fit on one line; write .jsonl", number)
    write_lines(path, [json.dumps({"text": text}, ensure_ascii=False) for text in texts] if as_objects else texts)
