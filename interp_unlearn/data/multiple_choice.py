"""Multiple-choice questions, in the layouts of WMDP (Li et al., ICML 2024) and MMLU (Hendrycks et al., ICLR 2021)."""

import json
import re
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

from interp_unlearn.artifacts import LARGEST_JSON
from interp_unlearn.data.lines import (
    in_short,
    parse_json,
    read_lines,
    read_table,
    require_text,
    write_lines,
    write_table,
)
from interp_unlearn.data.parquet import read_rows
from interp_unlearn.errors import DataError

_LETTERS = "ABCD"
_FILE_SUFFIX = re.compile(r"_(questions|dev|val|test)$")
_SHARD = re.compile(r"\w+-\d{5}-of-\d{5}")  # how the hub calls the files of a split


@dataclass(frozen=True)
class Question:
    """A question, its choices, the index of the right one and the subject it belongs to."""

    question: str
    choices: tuple[str, ...]
    answer: int
    subject: str


def read_questions(path: str | Path) -> list[Question]:
    """Read a WMDP ``.json`` list, an MMLU ``.csv`` without header, a folder of such ``.csv`` files (an MMLU split), or
    the ``.parquet`` that both have on the hub.

    The subject is the object's ``subject`` where there is one, else the file's name without ``_questions``, ``_dev``,
    ``_val`` or ``_test``: ``wmdp/bio_questions.json`` is about ``bio``. Of a file of the hub it is the folder's name:
    ``wmdp-bio/test-00000-of-00001.parquet`` is about ``wmdp-bio``.

    Raises:
        DataError: the file is empty, a row is malformed, or the answer is not one of the choices.
    """
    path = Path(path)
    if path.is_dir():
        files = sorted(path.glob("*.csv"))
        if not files:
            raise DataError(path, "the folder holds no .csv; expected the files of one MMLU split")
        return [question for file in files for question in _read_csv(file)]
    if path.suffix == ".csv":
        return _read_csv(path)
    if path.suffix == ".json":
        return _read_json(path)
    if path.suffix == ".parquet":
        return _read_parquet(path)
    raise DataError(
        path, f"unknown layout {path.suffix!r}; expected .json (WMDP), .csv or a folder of .csv (MMLU), .parquet (hub)"
    )


def write_questions(path: str | Path, questions: Sequence[Question]) -> None:
    """Write questions in the layout of the suffix so that ``read_questions`` gives them back.

    Raises:
        DataError: there are no questions, one is malformed, or ``.csv`` cannot hold it: that layout has exactly four
            choices, and the subject only in the file's name.
    """
    path = Path(path)
    if not questions:
        raise DataError(path, "no questions to write")
    for number, question in enumerate(questions, start=1):
        _checked(path, question, number)
    if path.suffix == ".csv":
        for number, question in enumerate(questions, start=1):
            if len(question.choices) != len(_LETTERS) or question.subject != _subject(path):
                message = f"a .csv holds four choices and the subject {_subject(path)!r} of its name; write .json"
                raise DataError(path, message, number)
        write_table(path, [[q.question, *q.choices, _LETTERS[q.answer]] for q in questions], delimiter=",")
    elif path.suffix == ".json":
        write_lines(path, [json.dumps([asdict(question) for question in questions], ensure_ascii=False, indent=1)])
    else:
        raise DataError(path, f"unknown layout {path.suffix!r}; expected .json (WMDP) or .csv (MMLU)")


def _read_csv(path: Path) -> list[Question]:
    questions: list[Question] = []
    for line, fields in read_table(path, delimiter=","):
        if len(fields) != len(_LETTERS) + 2:
            raise DataError(path, f"expected question, A, B, C, D, answer letter; got {len(fields)} fields", line)
        question, *choices, letter = fields
        if letter not in _LETTERS or len(letter) != 1:
            raise DataError(path, f"answer: expected one of A, B, C, D, got {in_short(letter)}", line)
        row = Question(question, tuple(choices), _LETTERS.index(letter), _subject(path))
        questions.append(_checked(path, row, line))
    return questions


def _read_json(path: Path) -> list[Question]:
    if path.is_file() and (size := path.stat().st_size) > LARGEST_JSON:
        raise DataError(path, f"{size:,} bytes, expected at most {LARGEST_JSON:,}; cut it into several files")
    rows = parse_json(path, "".join(line for _, line in read_lines(path)))
    if not isinstance(rows, list) or not rows:
        raise DataError(path, "expected a non-empty JSON list of questions")
    return [_from_object(path, row, number) for number, row in enumerate(rows, start=1)]


def _read_parquet(path: Path) -> list[Question]:
    rows = read_rows(path, ("question", "choices", "answer"), ("subject",))
    named = [row if row.get("subject") else {**row, "subject": _subject(path)} for row in rows]
    return [_from_object(path, row, number) for number, row in enumerate(named, start=1)]


def _from_object(path: Path, row: object, number: int) -> Question:
    """Turn one object into a question; a JSON list has no line per row, so errors name the question by number."""
    name = f"question {number}"
    if not isinstance(row, dict):
        raise DataError(path, f"{name}: expected an object with question, choices, answer")
    question, choices, answer = row.get("question"), row.get("choices"), row.get("answer")
    if not isinstance(choices, list) or not all(isinstance(choice, str) for choice in choices):
        raise DataError(path, f"{name}: choices: expected a list of texts")
    if isinstance(answer, bool) or not isinstance(answer, int):
        raise DataError(path, f"{name}: answer: expected the index of a choice from 0, got {in_short(answer)}")
    subject = require_text(path, row.get("subject", _subject(path)), f"{name}: subject", None)
    text = require_text(path, question, f"{name}: question", None)
    return _checked(path, Question(text, tuple(choices), answer, subject), None, f"{name}: ")


def _checked(path: Path, question: Question, line: int | None, name: str = "") -> Question:
    require_text(path, question.question, f"{name}question", line)
    if len(question.choices) < 2:
        raise DataError(path, f"{name}expected at least two choices, got {len(question.choices)}", line)
    for number, choice in enumerate(question.choices):
        require_text(path, choice, f"{name}choice {number}", line)
    if not 0 <= question.answer < len(question.choices):
        message = f"{name}answer: expected an index from 0 to {len(question.choices) - 1}, got {question.answer}"
        raise DataError(path, message, line)
    return question


def _subject(path: Path) -> str:
    if _SHARD.fullmatch(path.stem) and path.parent.name:
        return path.parent.name
    return _FILE_SUFFIX.sub("", path.stem)
