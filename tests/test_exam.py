"""What a model knows, however it is asked: planted answers are found, and nothing else."""

import random
from dataclasses import replace

import numpy as np
import pandas as pd
import pytest
import torch
from conftest import make_hf

from interp_unlearn.cli import main
from interp_unlearn.data import FactQuestion, Question, read_facts, read_texts, write_facts, write_questions
from interp_unlearn.errors import ConfigError, DataError
from interp_unlearn.evaluation import answer_freely, score_facts, score_questions, score_with_harness, take_exam
from interp_unlearn.evaluation.exam import WITH_CHOICES
from interp_unlearn.evaluation.free_answers import judge_answer, rouge_l_recall
from interp_unlearn.evaluation.multiple_choice import fill_template
from interp_unlearn.interventions import Edit
from interp_unlearn.sites import Site

QUESTIONS = [
    Question("who sat on a mat", ("cat", "dog", "hill", "mat"), 0, "one"),
    Question("who ran", ("big", "dog", "hill", "red"), 1, "one"),
    Question("it was", ("small", "blue", "big", "red"), 3, "two"),
]


class Say(Edit):
    """Makes one token the most probable everywhere."""

    def __init__(self, token: int) -> None:
        super().__init__()
        object.__setattr__(self, "token", token)

    def transform(self, activation, context):
        changed = torch.zeros_like(activation)
        changed[..., self.token] = 9.0
        return changed


def saying(model, word):
    """The model under an edit that makes it say a word."""
    (token,) = model.tokenizer(word, add_special_tokens=False)["input_ids"]
    return model.edited({Site.logits: Say(token)})


@pytest.mark.parametrize(
    ("text", "verdict"),
    [
        ("the CAT, it is", "right"),
        ("the dog and then the cat", "wrong"),
        ("caterpillar", "none"),
        ("", "none"),
        ("a cat hill", "right"),
    ],
)
def test_the_answer_named_first_counts(text, verdict):
    assert judge_answer(text, "cat", ["dog", "hill"]) == verdict


def test_of_two_answers_that_begin_alike_the_longer_was_said():
    assert judge_answer("new york city it is", "new york", ["new york city"]) == "wrong"
    assert judge_answer("new york it is", "new york", ["new york city"]) == "right"


@pytest.mark.parametrize(
    ("text", "answer", "wrong", "verdict"),
    [
        ("5", "-5", "5", "wrong"),
        ("it is -5.", "-5", "5", "right"),
        ("it is 5.", "5", "-5", "right"),
        ("x > 0", "x < 0", "x > 0", "wrong"),
        ("x > 0", "x > 0", "x < 0", "right"),
        ("it is Paris", "Paris", "==", "right"),
        ("==, or Paris", "Paris", "==", "wrong"),
        ("", "Paris", "$", "none"),
        ("$", "$", "#", "right"),
        ("Rome", "rome", "Rome", "none"),
    ],
)
def test_signs_count_where_words_do_not_tell_answers_apart(text, answer, wrong, verdict):
    assert judge_answer(text, answer, [wrong, "hill"]) == verdict


def test_recall_is_the_longest_common_subsequence():
    assert rouge_l_recall("The cat was on the mat", "the cat sat on the mat") == pytest.approx(5 / 6)
    assert rouge_l_recall("mat the on cat", "the cat sat on the mat") == pytest.approx(2 / 6)
    assert rouge_l_recall("", "a b") == 0.0 and rouge_l_recall("x a y b", "a b") == 1.0


def test_free_answers_are_what_the_model_says(llama):
    with saying(llama, "cat"):
        found = answer_freely(llama, ["who sat", "who ran"], ["cat", "dog"], [["dog"], ["cat"]], max_new_tokens=2)
    assert found["verdict"].tolist() == ["right", "wrong"]
    assert found["rouge_l"].tolist() == [1.0, 0.0]
    for answers, others in ((["cat"], None), (["cat", " "], None), (["cat", "dog"], [["a"]])):
        with pytest.raises(DataError, match="answers"):
            answer_freely(llama, ["who sat", "who ran"], answers, others)


def test_an_exam_agrees_with_its_parts_and_finds_a_planted_answer(llama):
    result = take_exam(llama, QUESTIONS, batch_size=2, max_new_tokens=2)
    answers = result.answers
    assert answers["form"].value_counts().to_dict() == dict.fromkeys(
        ("text", "letter", "choices_only", "generation"), 3
    )
    letters = score_questions(llama, QUESTIONS, WITH_CHOICES, letters=True)
    shown = answers.loc[answers["form"] == "letter", "answer_probability"].tolist()
    assert shown == pytest.approx(letters["answer_probability"].tolist(), rel=1e-5)
    with saying(llama, "red"):
        planted = take_exam(llama, QUESTIONS, ["text", "generation"], max_new_tokens=2)
    for form in ("text", "generation"):
        correct = planted.answers.loc[planted.answers["form"] == form, "correct"].tolist()
        assert correct[2] and not correct[1]
    summary = planted.to_frame().set_index(["form", "subject"])
    assert (
        summary.loc[("generation", "two"), "accuracy"] == 1.0 and summary.loc[("generation", "one"), "accuracy"] == 0.0
    )
    assert summary.loc[("text", "all"), "n"] == 3 and summary.loc[("text", "all"), "chance"] == 0.25
    assert summary.loc[("generation", "all"), "chance"] == 0.0
    with pytest.raises(ConfigError, match="no form"):
        take_exam(llama, QUESTIONS, ["words"])


def test_facts_are_scored_against_their_formulas(llama):
    facts = [
        FactQuestion("who sat on", "the cat sat", "a cat sat on it", ("a dog sat on it", "a hill ran on it")),
        FactQuestion("who ran", "a dog"),
    ]
    found = score_facts(llama, facts, max_new_tokens=2)

    def probability(question, answer):
        start = f"Question: {question}\nAnswer:"
        batch, prompt = llama.tokenize([f"{start} {answer}"]), llama.tokenize([start])
        n = batch.input_ids.shape[1] - prompt.input_ids.shape[1]
        with torch.no_grad():
            logits = llama.run(batch, logits=True).logits[0].double().log_softmax(-1)
        chosen = logits[:-1].gather(1, batch.input_ids[0, 1:, None])[-n:]
        return chosen.mean().exp().item()

    assert found["probability"].tolist() == pytest.approx([probability(f.question, f.answer) for f in facts], rel=1e-4)
    wrong = sum(probability("who sat on", text) for text in facts[0].wrong) / 2
    assert found["truth_ratio"][0] == pytest.approx(wrong / probability("who sat on", facts[0].paraphrase), rel=1e-4)
    assert pd.isna(found["truth_ratio"][1])
    with pytest.raises(DataError, match="empty"):
        score_facts(llama, [])
    with pytest.raises(DataError, match="row 1: the answer has no words"):
        score_facts(llama, [facts[0], replace(facts[0], answer="?!")])


def test_facts_come_back_as_they_were_written(tmp_path):
    facts = [FactQuestion("q", "a", "p", ("x", "y")), FactQuestion("r", "b")]
    write_facts(tmp_path / "facts.json", facts)
    assert read_facts(tmp_path / "facts.json") == facts
    for row, match in (
        ('{"question": "q"}', "answer"),
        ('{"question": "q", "answer": "a", "perturbed_answer": 3}', "list"),
    ):
        (tmp_path / "bad.json").write_text(row)
        with pytest.raises(DataError, match=match):
            read_facts(tmp_path / "bad.json")
    with pytest.raises(DataError, match="no facts"):
        write_facts(tmp_path / "facts.json", [])


@pytest.mark.parametrize(
    ("name", "match"),
    [
        ("cais/wmdp-bio-forget-corpus", "is gated: ask its authors"),
        ("cyber-forget-corpus", "give hub:cais/wmdp-corpora/cyber-forget-corpus@REVISION"),
    ],
)
def test_a_corpus_that_is_named_is_explained(name, match):
    with pytest.raises(DataError, match=match):
        read_texts(name)


@pytest.fixture
def harness():
    pytest.importorskip("lm_eval")


@pytest.mark.parametrize("form", ["letter", "text"])
def test_the_harness_asks_the_live_model(llama, harness, form):
    """Against summed log-probabilities by hand, and under an edit."""
    found = score_with_harness(llama, QUESTIONS, description="", form=form, batch_size=2)
    for question, correct in zip(QUESTIONS, found["correct"], strict=True):
        prompt = fill_template("{question}\n{choices}\nAnswer:", question)
        scores = []
        for choice in question.choices if form == "text" else "ABCD":
            start, whole = (llama.tokenizer(text)["input_ids"] for text in (prompt, f"{prompt} {choice}"))
            with torch.no_grad():
                logits = llama.hf(torch.tensor([whole])).logits[0].double().log_softmax(-1)
            scores.append(sum(logits[i - 1, whole[i]].item() for i in range(len(start), len(whole))))
        assert correct == (scores.index(max(scores)) == question.answer)
    assert found["subject"].tolist() == ["one", "one", "two"]
    if form == "text":
        with saying(llama, "red"):
            assert score_with_harness(llama, QUESTIONS, form=form)["correct"].tolist()[2]


def test_the_harness_takes_shots_and_refuses_what_it_cannot_ask(llama, harness):
    llama.hf.train()
    draws = []
    for seed in (7, 99):
        random.seed(seed), np.random.seed(seed), torch.manual_seed(seed)
        found = score_with_harness(llama, QUESTIONS, shots=QUESTIONS[:2])
        draws.append((random.random(), np.random.rand(), torch.rand(1).item()))
        assert len(found) == 3 and llama.hf.training
    assert all(one != other for one, other in zip(*draws, strict=True)), "the caller's generators were seeded"
    with pytest.raises(DataError, match="not four choices"):
        score_with_harness(llama, [Question("q", ("a", "b"), 0, "s")])
    with pytest.raises(DataError, match="empty"):
        score_with_harness(llama, [])
    # The harness would cut from the left, and score what is left of the question.
    long = Question(" ".join(["cat"] * 2 * llama.context_length), ("a", "b", "c", "d"), 0, "s")
    with pytest.raises(DataError, match=rf"the longest row has \d+ tokens, the model takes {llama.context_length}"):
        score_with_harness(llama, [QUESTIONS[0], long])


def test_the_verbs(tokenizer, tmp_path, capsys):
    make_hf("llama").save_pretrained(tmp_path / "model")
    tokenizer.save_pretrained(tmp_path / "model")
    write_questions(tmp_path / "one_questions.json", QUESTIONS)
    write_facts(
        tmp_path / "facts.json", [FactQuestion("who sat", "the cat", "a cat", ("a dog",)), FactQuestion("a", "b")]
    )
    model = str(tmp_path / "model")
    asked = ["exam", model, "--questions", str(tmp_path / "one_questions.json"), "--max-new-tokens", "2"]
    assert main([*asked, "--out", str(tmp_path / "all"), "--limit", "1"]) == 0
    assert len(pd.read_parquet(tmp_path / "all" / "answers.parquet")) == 4 * 2  # one of each subject
    assert main([*asked, "--out", str(tmp_path / "one"), "--form", "text"]) == 0
    assert main([*asked, "--out", str(tmp_path / "bad"), "--form", "song"]) == 2
    long = Question("what? " * 400, ("cat", "dog"), 0, "long")
    write_questions(tmp_path / "one_questions.json", [*QUESTIONS, long])
    assert main([*asked, "--out", str(tmp_path / "long")]) == 2
    assert main([*asked, "--out", str(tmp_path / "short"), "--skip-long", "--form", "text"]) == 0
    assert len(pd.read_parquet(tmp_path / "short" / "answers.parquet")) == len(QUESTIONS)
    data = ["--data", str(tmp_path / "facts.json"), "--max-new-tokens", "2"]
    assert main(["facts", model, *data, "--out", str(tmp_path / "facts")]) == 0
    shown = capsys.readouterr()
    assert "truth_ratio" not in shown.out  # one value has no interval
    assert f"1 of {len(QUESTIONS) + 1} questions are longer than the context" in shown.out
    assert "rouge_l" in shown.out and "no form song" in shown.err
    assert len(pd.read_parquet(tmp_path / "facts" / "facts.parquet")) == 2
    assert "cat" not in shown.out
