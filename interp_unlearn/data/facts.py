"""Questions with an answer in words, in the layout of TOFU (Maini et al., 2024, arXiv 2401.06121)."""

import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from interp_unlearn.data.lines import read_objects, require_text, write_lines
from interp_unlearn.errors import DataError


@dataclass(frozen=True)
class FactQuestion:
    """A question and its answer.

    Attributes:
        question: in words.
        answer: in words, without a leading space.
        paraphrase: the answer said otherwise, which wrong answers are compared with; None where there is none.
        wrong: wrong answers in the paraphrase's words.
    """

    question: str
    answer: str
    paraphrase: str | None = None
    wrong: tuple[str, ...] = ()


def read_facts(path: str | Path) -> list[FactQuestion]:
    """Read JSON lines ``{"question", "answer"}``, and of the perturbed files ``paraphrased_answer, perturbed_answer``.

    Raises:
        DataError: the file is empty, or a line is not such an object.
    """
    return [_from_object(path, row, line) for line, row in read_objects(path)]


def write_facts(path: str | Path, facts: Sequence[FactQuestion]) -> None:
    """Write facts so that ``read_facts`` gives them back.

    Raises:
        DataError: there are no facts, or a text is blank.
    """
    if not facts:
        raise DataError(path, "no facts to write")
    lines: list[str] = []
    for number, fact in enumerate(facts, start=1):
        row: dict[str, Any] = {"question": fact.question, "answer": fact.answer}
        if fact.paraphrase is not None:
            row |= {"paraphrased_answer": fact.paraphrase}
        if fact.wrong:
            row |= {"perturbed_answer": list(fact.wrong)}
        _from_object(path, row, number)
        lines.append(json.dumps(row, ensure_ascii=False))
    write_lines(path, lines)


def _from_object(path: str | Path, row: dict[str, Any], line: int) -> FactQuestion:
    question, answer = (require_text(path, row.get(name), name, line) for name in ("question", "answer"))
    paraphrase = row.get("paraphrased_answer")
    if paraphrase is not None:
        paraphrase = require_text(path, paraphrase, "paraphrased_answer", line)
    wrong = row.get("perturbed_answer", [])
    if not isinstance(wrong, list):
        raise DataError(path, "perturbed_answer: expected a list of texts", line)
    others = tuple(require_text(path, text, f"perturbed_answer {i}", line) for i, text in enumerate(wrong))
    return FactQuestion(question, answer, paraphrase, others)
