"""WMDP and MMLU questions."""

import json
import os
from pathlib import Path
from typing import Any

import pytest

from interp_unlearn.data import Question, read_questions, write_questions
from interp_unlearn.errors import DataError

QUESTION = Question('Which, "one"?\nSay.', ("a, b", "c", "d", '"e"'), 2, "virology")


@pytest.mark.parametrize("name", ["virology_test.csv", "virology_questions.json"])
def test_round_trip(tmp_path: Path, name: str) -> None:
    questions = [QUESTION, Question("Two?", ("1", "2", "3", "4"), 0, "virology")]
    write_questions(tmp_path / name, questions)
    assert read_questions(tmp_path / name) == questions


def test_json_holds_any_number_of_choices_and_subjects(tmp_path: Path) -> None:
    questions = [Question("Two?", ("yes", "no"), 1, "agents"), QUESTION]
    write_questions(tmp_path / "mixed.json", questions)
    assert read_questions(tmp_path / "mixed.json") == questions
    assert set(json.loads((tmp_path / "mixed.json").read_text())[0]) == {"question", "choices", "answer", "subject"}


def test_folder_is_read_in_order_with_each_file_its_subject(tmp_path: Path) -> None:
    (tmp_path / "b_val.csv").write_text("q,1,2,3,4,D\n")
    (tmp_path / "a_val.csv").write_text("q,1,2,3,4,A\n")
    assert [(q.subject, q.answer) for q in read_questions(tmp_path)] == [("a", 0), ("b", 3)]


@pytest.mark.parametrize(
    ("row", "word"),
    [
        ("q,1,2,3,A", "5 fields"),
        ("q,1,2,3,4,E", "answer"),
        ("q,1,2,3,4,", "answer"),
        ("q,1,2,3,4,AB", "answer"),
        (",1,2,3,4,A", "question"),
        ("q,1,,3,4,A", "choice 1"),
        ('q,1,2,3,4,"A', "malformed"),
    ],
)
def test_malformed_csv_names_the_line(tmp_path: Path, row: str, word: str) -> None:
    path = tmp_path / "x_test.csv"
    path.write_text(f'"two\nlines",1,2,3,4,A\n{row}\n')
    with pytest.raises(DataError, match=word) as caught:
        read_questions(path)
    assert caught.value.line == 3


@pytest.mark.parametrize(
    ("change", "word"),
    [
        ({"question": 3}, "question"),
        ({"choices": "abcd"}, "choices"),
        ({"choices": ["a"]}, "two choices"),
        ({"choices": ["a", ""]}, "choice 1"),
        ({"answer": 4}, "0 to 3, got 4"),
        ({"answer": -1}, "0 to 3, got -1"),
        ({"answer": True}, "answer"),
        ({"answer": "A"}, "answer"),
        ({"subject": ""}, "subject"),
    ],
)
def test_malformed_json_names_the_question(tmp_path: Path, change: dict[str, Any], word: str) -> None:
    good = {"question": "q", "choices": ["a", "b", "c", "d"], "answer": 0}
    path = tmp_path / "x.json"
    path.write_text(json.dumps([good, good | change]))
    with pytest.raises(DataError, match=f"question 2: .*{word}"):
        read_questions(path)


def test_broken_json_names_the_line(tmp_path: Path) -> None:
    path = tmp_path / "x.json"
    path.write_text('[\n{"question": "q",\n]')
    with pytest.raises(DataError, match="not valid JSON") as caught:
        read_questions(path)
    assert caught.value.line == 3


@pytest.mark.parametrize(("name", "content"), [("x.json", "[]"), ("x.json", "{}"), ("x.csv", ""), ("x.txt", "q")])
def test_empty_or_unknown_file(tmp_path: Path, name: str, content: str) -> None:
    (tmp_path / name).write_text(content)
    with pytest.raises(DataError):
        read_questions(tmp_path / name)


def test_empty_folder(tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"holds no \.csv"):
        read_questions(tmp_path)


@pytest.mark.parametrize(
    ("name", "question", "word"),
    [
        ("other.csv", QUESTION, "write .json"),
        ("virology.csv", Question("Two?", ("yes", "no"), 1, "virology"), "four choices"),
        ("virology.json", Question("Two?", ("yes", "no"), 2, "virology"), "0 to 1"),
        ("virology.tsv", QUESTION, "layout"),
    ],
)
def test_what_the_layout_cannot_hold_is_refused(tmp_path: Path, name: str, question: Question, word: str) -> None:
    with pytest.raises(DataError, match=word):
        write_questions(tmp_path / name, [question])
    assert not list(tmp_path.iterdir())


@pytest.mark.skipif("INTERP_UNLEARN_DATA" not in os.environ, reason="INTERP_UNLEARN_DATA is not set")
@pytest.mark.parametrize(
    ("place", "rows", "subjects"),
    [
        ("wmdp/bio_questions.json", 1273, 1),
        ("wmdp/cyber_questions.json", 1987, 1),
        ("mmlu/dev", 285, 57),
        ("mmlu/val", 1531, 57),
        ("mmlu/test", 14042, 57),
    ],
)
def test_real_questions(place: str, rows: int, subjects: int) -> None:
    questions = read_questions(Path(os.environ["INTERP_UNLEARN_DATA"]) / "data" / place)
    assert len(questions) == rows
    assert len({question.subject for question in questions}) == subjects
    assert {len(question.choices) for question in questions} == {4}
    assert {question.answer for question in questions} == {0, 1, 2, 3}
