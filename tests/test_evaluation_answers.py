"""Cloze and multiple choice against a loop over prompts and answers on the plain Hugging Face model."""

import numpy as np
import pytest
import torch

from interp_unlearn.data import Question
from interp_unlearn.errors import DataError
from interp_unlearn.evaluation import score_answers, score_questions

PROMPTS = ["the cat sat on a", "who said the big red", "yes", "it was not small and then the dog"]
POOLS = [
    [" mat", " hill", " dog"],
    [" dog", " cat ran", " cat sat", " mat"],
    [" no", " yes yes yes", " the"],
    [" ran", " sat"],
]
ANSWERS = [0, 2, 1, 1]


def brute_log_probability(model, prompt, answer):
    ids = [1, *model.tokenizer(prompt)["input_ids"]]
    tail = model.tokenizer(answer)["input_ids"]
    with torch.no_grad():
        logits = model.hf(torch.tensor([[*ids, *tail]])).logits[0].log_softmax(-1)
    return sum(logits[len(ids) - 1 + i, token].item() for i, token in enumerate(tail))


def brute_pools(model, prompts, pools):
    return [
        np.array([brute_log_probability(model, p, a) for a in pool]) for p, pool in zip(prompts, pools, strict=True)
    ]


def test_cloze_equals_scoring_each_answer_alone(model):
    frame = score_answers(model, PROMPTS, POOLS, ANSWERS)
    for row, scores in enumerate(brute_pools(model, PROMPTS, POOLS)):
        probabilities = np.exp(scores) / np.exp(scores).sum()
        assert frame.loc[row, "row"] == row
        assert frame.loc[row, "predicted"] == probabilities.argmax()
        assert frame.loc[row, "correct"] == (probabilities.argmax() == ANSWERS[row])
        assert frame.loc[row, "answer_probability"] == pytest.approx(probabilities[ANSWERS[row]], abs=1e-5)


def test_cloze_does_not_depend_on_the_batch_size(llama):
    whole = score_answers(llama, PROMPTS, POOLS, ANSWERS)
    single = score_answers(llama, PROMPTS, POOLS, ANSWERS, batch_size=1)
    np.testing.assert_allclose(whole["answer_probability"], single["answer_probability"], atol=1e-5)


def test_a_pool_of_single_tokens_costs_one_row_a_prompt(llama, monkeypatch):
    rows = []
    run = llama.run

    def counting(batch, **options):
        rows.append(len(batch))
        return run(batch, **options)

    monkeypatch.setattr(llama, "run", counting)
    pool = [" mat", " hill", " dog", " cat", " red", " blue"]
    score_answers(llama, PROMPTS, [pool] * 4, ANSWERS, batch_size=3)
    assert sorted(rows) == [1, 3]


def test_two_identical_answers_split_the_probability(llama):
    frame = score_answers(llama, ["the cat"], [[" sat", " sat"]], [0])
    assert frame.loc[0, "answer_probability"] == pytest.approx(0.5, abs=1e-6)


@pytest.mark.parametrize("answer", [0, 1])
def test_an_answer_that_stands_twice_is_right_by_either(llama, answer):
    assert score_answers(llama, ["the cat"], [[" sat", " sat"]], [answer]).loc[0, "correct"]
    question = Question("the cat", ("sat", "sat"), answer, "")
    asked = score_questions(llama, [question], "{question}")
    assert asked.loc[0, "correct"]
    assert asked.loc[0, "correct_per_token"]


@pytest.mark.parametrize(
    ("prompts", "pools", "answers"),
    [
        (["the cat"], [], []),
        (["the cat"], [[" sat"]], [1]),
        (["the cat"], [[" sat"]], [0, 0]),
        (["the cat"], [[]], [0]),
        (["the cat"], [["", " sat"]], [1]),
        ([], [], []),
    ],
)
def test_lists_that_do_not_fit_are_refused(llama, prompts, pools, answers):
    with pytest.raises(DataError):
        score_answers(llama, prompts, pools, answers)


QUESTIONS = [
    Question("who sat on a mat", ("the cat", "a big red dog"), 0, "pets"),
    Question("it was not", ("blue hill and red hill", "small", "on"), 1, "hills"),
    Question("then who ran", ("no", "the big dog ran"), 1, "pets"),
]


def test_questions_by_text_summed_and_per_token(model):
    frame = score_questions(model, QUESTIONS, "{question} yes")
    pools = [[f" {choice}" for choice in q.choices] for q in QUESTIONS]
    brute = brute_pools(model, [f"{q.question} yes" for q in QUESTIONS], pools)
    for row, (scores, question) in enumerate(zip(brute, QUESTIONS, strict=True)):
        lengths = np.array([len(choice.split()) for choice in question.choices])
        assert frame.loc[row, "subject"] == question.subject
        assert frame.loc[row, "predicted"] == scores.argmax()
        assert frame.loc[row, "predicted_per_token"] == (scores / lengths).argmax()
        assert frame.loc[row, "correct_per_token"] == ((scores / lengths).argmax() == question.answer)
        expected = np.exp(scores[question.answer]) / np.exp(scores).sum()
        assert frame.loc[row, "answer_probability"] == pytest.approx(expected, abs=1e-5)


def test_summing_favours_short_answers_and_dividing_does_not(llama):
    # The same word again and again: its sum falls with every repetition, its mean hardly moves.
    question = Question("the cat", ("sat on a mat and then it was not red", "hill"), 0, "")
    frame = score_questions(llama, [question], "{question}")
    scores = brute_pools(llama, ["the cat"], [[" sat on a mat and then it was not red", " hill"]])[0]
    assert scores[0] < scores[1]
    assert frame.loc[0, "predicted"] == 1


def test_templates_may_be_functions_and_show_the_choices(llama):
    seen = []

    def template(question):
        seen.append(question)
        return "the cat"

    score_questions(llama, QUESTIONS, template)
    assert seen == QUESTIONS
    from interp_unlearn.evaluation.multiple_choice import fill_template

    filled = fill_template("{subject}: {question}\n{choices}", QUESTIONS[0])
    assert filled == "pets: who sat on a mat\nA. the cat\nB. a big red dog"


def test_letters_are_scored_as_letters(llama):
    frame = score_questions(llama, QUESTIONS[:1], "{question}", letters=True)
    # Neither letter is in the vocabulary, so both are the unknown token.
    assert frame.loc[0, "answer_probability"] == pytest.approx(0.5, abs=1e-6)
