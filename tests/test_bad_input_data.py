"""Bad input, data files: each loader says in one line what it got, what it expected and what to do."""

import json
from collections.abc import Callable
from pathlib import Path

import pytest

from interp_unlearn.cli.inputs import read_labelled_texts, read_plain
from interp_unlearn.cli.options import Layout
from interp_unlearn.data import (
    FactQuestion,
    Pair,
    Prompt,
    Question,
    read_facts,
    read_pairs,
    read_prompts,
    read_questions,
    read_texts,
    write_facts,
    write_pairs,
    write_prompts,
    write_questions,
    write_texts,
)
from interp_unlearn.errors import ConfigError, DataError, InterpError

Act = Callable[[Path], object]


def reading(read: Callable[[Path], object], name: str, content: str | bytes) -> Act:
    """Write a file and read it."""

    def act(folder: Path) -> object:
        path = folder / name
        path.write_bytes(content.encode() if isinstance(content, str) else content)
        return read(path)

    return act


def sparse(read: Callable[[Path], object], name: str, size: int) -> Act:
    """Read a file that claims to be large and takes no room on the disk."""

    def act(folder: Path) -> object:
        with (folder / name).open("wb") as file:
            file.truncate(size)
        return read(folder / name)

    return act


def pairs(content: str | bytes) -> Act:
    return reading(read_pairs, "p.tsv", content)


def prompts(row: object) -> Act:
    return reading(read_prompts, "p.jsonl", row if isinstance(row, str) else json.dumps(row))


def question(**change: object) -> Act:
    row = {"question": "who", "choices": ["cat", "dog"], "answer": 1} | change
    return reading(read_questions, "bio_questions.json", json.dumps([row]))


def facts(**change: object) -> Act:
    return reading(read_facts, "f.jsonl", json.dumps({"question": "who", "answer": "the cat"} | change))


HEADER = "toxic\tneutral1\n"
GOOD = Question("who", ("cat", "dog", "hill"), 1, "bio")

CASES: dict[str, tuple[Act, type[InterpError], str]] = {
    "pairs: no file": (lambda t: read_pairs(t / "no.tsv"), DataError, r"no\.tsv: no such file; expected the path of a"),
    "pairs: a folder": (read_pairs, DataError, r"no such file; expected the path of a data file"),
    "pairs: empty": (pairs("\n\n"), DataError, r"p\.tsv: the file is empty; expected at least one row"),
    "pairs: another header": (
        pairs("bad\tgood\n"),
        DataError,
        r":1: expected the header toxic, neutral1, .*, got 2 others",
    ),
    "pairs: a field too many": (pairs(HEADER + "a\tb\tc\n"), DataError, r":2: expected 2 tab-separated fields, got 3"),
    "pairs: no rewrite": (pairs(HEADER + "a\t \n"), DataError, r":2: no neutral rewrite; give at least one or remove"),
    "pairs: blank sentence": (pairs(HEADER + " \tb\n"), DataError, r":2: toxic: expected text, got a blank; remove"),
    "pairs: a header alone": (pairs(HEADER), DataError, r"holds a header and no rows"),
    "pairs: an open quote": (pairs(HEADER + '"a\tb\n'), DataError, r":2: malformed row .*; quote fields as csv does"),
    "pairs: not UTF-8": (pairs(HEADER.encode() + b"\xff\tb\n"), DataError, r":2: not UTF-8 text .*convert the file"),
    "pairs: one endless line": (
        sparse(read_pairs, "p.tsv", 2**40),
        DataError,
        r":1: longer than 67,108,864 bytes; expected a text file with a row a line",
    ),
    "prompts: not JSON": (prompts("{]"), DataError, r":1: not valid JSON: .* at column 2"),
    "prompts: a list a line": (prompts([1]), DataError, r":1: expected a JSON object, got list; one object a line"),
    "prompts: a plain text": (prompts({"prompt": "So"}), DataError, r'expected "prompt": \{"text": \.\.\., "toxicity"'),
    "prompts: no text": (prompts({"prompt": {}}), DataError, r"prompt\.text: expected text, got nothing"),
    "prompts: score above 1": (
        prompts({"prompt": {"text": "So", "toxicity": 2}}),
        DataError,
        r"prompt\.toxicity: expected a number from 0 to 1 or null, got 2",
    ),
    "prompts: score in words": (
        prompts({"prompt": {"text": "So", "toxicity": "high"}}),
        DataError,
        r"expected a number from 0 to 1 or null, got text of 4 characters",
    ),
    "prompts: NaN": (prompts('{"prompt": {"text": "So", "toxicity": NaN}}'), DataError, r"NaN is not JSON; write null"),
    "prompts: infinite by size": (
        prompts('{"prompt": {"text": "So", "toxicity": 1e999}}'),
        DataError,
        r"expected a number from 0 to 1 or null, got inf",
    ),
    "prompts: continuation": (
        prompts({"prompt": {"text": "So"}, "continuation": ["x"]}),
        DataError,
        r'expected "continuation": \{"text": \.\.\.\} or null',
    ),
    "prompts: half a surrogate pair": (
        prompts('{"prompt": {"text": "So \\ud800"}}'),
        DataError,
        r"prompt\.text: half of a surrogate pair, which is no character; remove it",
    ),
    "prompts: nested too deeply": (prompts("[" * 100_000), DataError, r":1: not valid JSON: maximum recursion depth"),
    "prompts: thousands of digits": (
        prompts("1" * 5000),
        DataError,
        r":1: not valid JSON: Exceeds the limit .*shorten",
    ),
    "questions: Parquet": (
        reading(read_questions, "q.parquet", b"PAR1"),
        DataError,
        r"not a Parquet file: .*; download it again",
    ),
    "questions: a folder without csv": (read_questions, DataError, r"holds no \.csv; expected the files of one MMLU"),
    "questions: csv of five fields": (
        reading(read_questions, "q.csv", "who,a,b,c,A\n"),
        DataError,
        r":1: expected question, A, B, C, D, answer letter; got 5 fields",
    ),
    "questions: letter E": (
        reading(read_questions, "q.csv", "who,a,b,c,d,E\n"),
        DataError,
        r":1: answer: expected one of A, B, C, D, got 'E'",
    ),
    "questions: an object": (reading(read_questions, "q.json", "{}"), DataError, r"expected a non-empty JSON list"),
    "questions: an empty list": (reading(read_questions, "q.json", "[]"), DataError, r"expected a non-empty JSON list"),
    "questions: of text": (reading(read_questions, "q.json", '["who"]'), DataError, r"question 1: expected an object"),
    "questions: choices": (question(choices="ab"), DataError, r"question 1: choices: expected a list of texts"),
    "questions: one choice": (question(choices=["a"], answer=0), DataError, r"expected at least two choices, got 1"),
    "questions: blank choice": (
        question(choices=["a", ""]),
        DataError,
        r"question 1: choice 1: expected text, got a bl",
    ),
    "questions: answer beyond": (question(answer=2), DataError, r"answer: expected an index from 0 to 1, got 2"),
    "questions: answer as text": (question(answer="B"), DataError, r"expected the index of a choice from 0, got 'B'"),
    "questions: answer as truth": (
        question(answer=True),
        DataError,
        r"expected the index of a choice from 0, got True",
    ),
    "questions: too large": (
        sparse(read_questions, "q.json", 2**28 + 1),
        DataError,
        r"268,435,457 bytes, expected at most 268,435,456; cut it into several files",
    ),
    "texts: a gated corpus": (
        lambda t: read_texts("cais/wmdp-bio-forget-corpus"),
        DataError,
        r"is gated: ask its authors .* and give the path of the downloaded \.jsonl; until then use",
    ),
    "texts: an open corpus": (
        lambda t: read_texts("cyber-forget-corpus"),
        DataError,
        r"is no file, but open: give hub:cais/wmdp-corpora/cyber-forget-corpus@REVISION, or the path",
    ),
    "texts: no file": (lambda t: read_texts(t / "x.txt"), DataError, r"x\.txt: no such file; expected the path"),
    "texts: a line without text": (
        reading(read_texts, "x.jsonl", '{"text": "a"}\n{"title": "b"}\n'),
        DataError,
        r"x\.jsonl:2: text: expected text, got nothing",
    ),
    "texts: a number": (reading(read_texts, "x.jsonl", '{"text": 3}'), DataError, r":1: text: expected text, got int"),
    "facts: no answer": (facts(answer=None), DataError, r":1: answer: expected text, got nothing"),
    "facts: blank paraphrase": (
        facts(paraphrased_answer=" "),
        DataError,
        r"paraphrased_answer: expected text, got a bl",
    ),
    "facts: one wrong answer": (
        facts(perturbed_answer="a dog"),
        DataError,
        r"perturbed_answer: expected a list of texts",
    ),
    "facts: a wrong answer of none": (facts(perturbed_answer=[None]), DataError, r"perturbed_answer 0: expected text"),
    "retained texts: no rows": (
        reading(read_plain, "r.jsonl", "\n"),
        DataError,
        r"the file is empty; expected at least",
    ),
    "labelled texts: no scores": (
        reading(lambda p: read_labelled_texts(p, Layout.prompts), "p.jsonl", '{"prompt": {"text": "So"}}'),
        DataError,
        r"no prompt has a toxicity score, so there are no classes; use --layout texts",
    ),
    "labelled texts: all skipped": (
        reading(lambda p: read_labelled_texts(p, Layout.texts, skip=2), "t.txt", "a\nb\n"),
        DataError,
        r"t\.txt: holds 2 rows, so none is left after --skip 2",
    ),
    "labelled texts: neutral pairs": (
        lambda t: read_labelled_texts(t / "p.tsv", Layout.pairs, t / "n.txt"),
        ConfigError,
        r"--neutral goes with --layout texts or facts; .*p\.tsv in the layout pairs holds both classes",
    ),
    "writing no pairs": (lambda t: write_pairs(t / "p.tsv", []), DataError, r"p\.tsv: no pairs to write"),
    "writing a pair without rewrite": (
        lambda t: write_pairs(t / "p.tsv", [Pair("a", ())]),
        DataError,
        r":1: a pair needs a toxic sentence and non-blank rewrites",
    ),
    "writing a score of 2": (
        lambda t: write_prompts(t / "p.jsonl", [Prompt("So", 2.0)]),
        DataError,
        r":1: prompt\.toxicity: expected a number from 0 to 1 or null, got 2\.0",
    ),
    "writing three choices": (
        lambda t: write_questions(t / "bio.csv", [GOOD]),
        DataError,
        r":1: a \.csv holds four choices and the subject 'bio' of its name; write \.json",
    ),
    "writing a line break": (
        lambda t: write_texts(t / "x.txt", ["a\nb"]),
        DataError,
        r":1: a text with a line break does not fit on one line; write \.jsonl",
    ),
    "writing half a surrogate pair": (
        lambda t: write_texts(t / "x.txt", ["a \udc00"]),
        DataError,
        r":1: text: half of a surrogate pair, which is no character; remove it",
    ),
    "writing no facts": (lambda t: write_facts(t / "f.jsonl", []), DataError, r"f\.jsonl: no facts to write"),
    "writing a blank answer": (
        lambda t: write_facts(t / "f.jsonl", [FactQuestion("who", "")]),
        DataError,
        r":1: answer: expected text, got a blank; remove the row",
    ),
}


@pytest.mark.parametrize("case", list(CASES))
def test_bad_data_is_refused_with_one_clear_line(case: str, tmp_path: Path) -> None:
    act, error, message = CASES[case]
    with pytest.raises(error, match=message) as raised:
        act(tmp_path)
    assert len(str(raised.value).splitlines()) == 1


def test_what_cannot_be_written_leaves_no_file(tmp_path: Path) -> None:
    for case in [name for name in CASES if name.startswith("writing")]:
        with pytest.raises(DataError):
            CASES[case][0](tmp_path)
    assert list(tmp_path.iterdir()) == []
