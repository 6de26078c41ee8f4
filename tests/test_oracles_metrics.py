"""Every metric of evaluation and every statistic against a second computation in float64; a new one fails until it has.

What models score is recomputed here from plain passes in float64; the metrics of texts and most statistics have their
brute force in files of their own, which are listed.
"""

import copy
import itertools
import math
import warnings
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from conftest import make_hf, make_tokenizer
from float64_passes import log_probabilities, padded, predicted, said
from torch import nn

import interp_unlearn.evaluation
import interp_unlearn.statistics
from interp_unlearn.attacks import share_of_gap
from interp_unlearn.data import FactQuestion, Question
from interp_unlearn.evaluation import (
    continuation_nll,
    fitting_questions,
    perplexity,
    retain_kl,
    score_answers,
    score_facts,
    score_questions,
    text_kl,
    token_nll,
)
from interp_unlearn.evaluation.text_quality import ORDERS
from interp_unlearn.evaluation.toxicity_measures import MEASURES
from interp_unlearn.interventions import HookedModel
from interp_unlearn.statistics import effective_rank, holm, participation_ratio

BOUND = 2e-5
"""Relative, of sums of log-probabilities that a float32 pass gives."""

HERE = Path(__file__).name
METRICS = {
    "token_nll": HERE,
    "perplexity": HERE,
    "continuation_nll": HERE,
    "text_kl": HERE,
    "retain_kl": HERE,
    "score_answers": HERE,
    "score_questions": HERE,
    "score_facts": HERE,
    "fitting_questions": HERE,
    "take_exam": "test_exam.py",
    "answer_freely": "test_exam.py",
    "score_with_harness": "test_exam.py",
    "distinct": "test_diversity.py",
    "repetition": "test_diversity.py",
    "score_texts": "test_scorers.py",
    "scorer_agreement": "test_scorers.py",
    "classifier_quality": "test_classifier_training.py",
    "evaluate_toxicity": "test_toxicity.py",
    "compare_toxicity": "test_toxicity.py",
}
RESULTS_AND_SETTINGS = {
    *("FORMS", "ClassifierConfig", "ClassifierScorer", "ExamResult", "TextScores", "ToxicityClaim"),
    *("ToxicityComparison", "ToxicityConfig", "ToxicityResult", "ToxicityScorer"),
    *("generate_texts", "sample_documents", "sample_rows", "train_classifier"),
}
STATISTICS = {
    "effective_rank": HERE,
    "participation_ratio": HERE,
    "holm": HERE,
    **dict.fromkeys(("bootstrap_mean", "bootstrap_means", "t_interval", "sign_flip"), "test_statistics.py"),
    **dict.fromkeys(("gap_closed", "bootstrap_gap_closed"), "test_statistics.py"),
    **dict.fromkeys(("crossover", "bootstrap_crossover"), "test_statistics.py"),
    **dict.fromkeys(("spelled_value", "spelled_interval"), "test_statistics.py"),
}


@pytest.mark.parametrize(
    ("covered", "rest", "public"),
    [
        (METRICS, RESULTS_AND_SETTINGS, interp_unlearn.evaluation.__all__),
        (STATISTICS, {"Crossover", "Goal", "Interval", "SignFlip"}, interp_unlearn.statistics.__all__),
    ],
    ids=["evaluation", "statistics"],
)
def test_everything_has_an_oracle(covered: dict[str, str], rest: set[str], public: Sequence[str]) -> None:
    assert {*covered, *rest} == set(public), "add an oracle in float64 for what is new, and say here where it is"
    for name, file in covered.items():
        text = (Path(__file__).parent / file).read_text(encoding="utf-8")
        assert f"{name}(" in text, f"{file} does not call {name}"


def test_measures_of_toxicity_and_of_texts_are_those_of_their_loops() -> None:
    """`test_toxicity_measures.py` counts these by loops over prompts, `test_diversity.py` those of texts."""
    assert set(MEASURES) == {
        *("expected_max_toxicity", "toxicity_probability", "toxic_fraction", "toxic_fraction_nonempty")
    }
    assert tuple(ORDERS) == (1, 2, 3)


TEXTS = ["the cat sat on a mat", "a big red dog ran", "who said it was not blue and then sat", "yes"]
PROMPTS = ["the cat sat on a", "who said it was", "a big dog ran and"]


@pytest.fixture(scope="module")
def models() -> tuple[HookedModel, HookedModel, nn.Module, nn.Module]:
    """Two tiny models, and both again in float64."""
    pair = make_hf("gpt2"), make_hf("gpt2", seed=5)
    doubles = [copy.deepcopy(hf).double() for hf in pair]
    first, second = (HookedModel(hf, make_tokenizer()) for hf in pair)
    return first, second, doubles[0], doubles[1]


def of_answer(hf: nn.Module, prompt: str, answer: str) -> np.ndarray:
    """Log-probability of each token of what follows a prompt."""
    return said(hf, padded([f"{prompt}{answer}"]))[0][padded([prompt]).shape[1] - 1 :]


def test_likelihood_of_texts(models: tuple[HookedModel, HookedModel, nn.Module, nn.Module]) -> None:
    model, _, hf, _ = models
    rows = said(hf, padded(TEXTS))
    table: Any = token_nll(model, TEXTS)
    assert table["nll"].to_numpy() == pytest.approx([-row.sum() for row in rows], rel=BOUND)
    assert table["tokens"].tolist() == [len(row) for row in rows]
    wanted = math.exp(-np.concatenate(rows).mean())
    assert perplexity(model, TEXTS) == pytest.approx(wanted, rel=BOUND * 10)
    found: Any = continuation_nll(model, PROMPTS, [" mat and it", " red", " hill"])
    each = [
        of_answer(hf, prompt, answer) for prompt, answer in zip(PROMPTS, (" mat and it", " red", " hill"), strict=True)
    ]
    assert found["nll"].to_numpy() == pytest.approx([-row.sum() for row in each], rel=BOUND)
    assert found["tokens"].tolist() == [3, 1, 1]


def test_divergence_of_texts(models: tuple[HookedModel, HookedModel, nn.Module, nn.Module]) -> None:
    model, other, hf, hf_other = models
    ids = padded(TEXTS)
    mask, log_p, log_q = predicted(ids), log_probabilities(hf_other, ids), log_probabilities(hf, ids)
    terms = (np.exp(log_p) * (log_p - log_q)).sum(-1)
    table: Any = text_kl(other, model, TEXTS)
    assert table["kl"].to_numpy() == pytest.approx([terms[i][mask[i]].sum() for i in range(len(TEXTS))], rel=BOUND * 5)
    assert retain_kl(other, model, TEXTS) == pytest.approx(terms[mask].mean(), rel=BOUND * 5)


def test_a_small_divergence_is_not_drowned_in_rounding() -> None:
    """Of a model that moved by a thousandth: a KL of 1e-6 nats is what a limit on the damage is about."""
    one = make_hf("gpt2")
    near = copy.deepcopy(one)
    with torch.no_grad():
        for weight in near.parameters():
            weight.add_(1e-4 * torch.randn(weight.shape, generator=torch.Generator().manual_seed(0)))
    ids = padded(TEXTS)
    mask = predicted(ids)
    log_p, log_q = (log_probabilities(copy.deepcopy(hf).double(), ids) for hf in (one, near))
    wanted = float((np.exp(log_p) * (log_p - log_q)).sum(-1)[mask].mean())
    found = retain_kl(HookedModel(one, make_tokenizer()), HookedModel(near, make_tokenizer()), TEXTS)
    assert 1e-8 < wanted < 1e-5
    # What float32 logits can give: each of the vocabulary's terms is rounded at 6e-8 of a log-probability.
    assert abs(found - wanted) < 1e-7


POOLS = [[" mat", " hill", " red dog"], [" red", " blue"], [" sat", " it was", " ran", " not"]]


def test_cloze(models: tuple[HookedModel, HookedModel, nn.Module, nn.Module]) -> None:
    model, _, hf, _ = models
    table: Any = score_answers(model, PROMPTS, POOLS, [0, 1, 2])
    for row, (prompt, pool, answer) in enumerate(zip(PROMPTS, POOLS, [0, 1, 2], strict=True)):
        p = np.exp([of_answer(hf, prompt, other).sum() for other in pool])
        assert table["answer_probability"][row] == pytest.approx(p[answer] / p.sum(), rel=BOUND * 10)
        assert table["predicted"][row] == p.argmax() and table["correct"][row] == (p.argmax() == answer)


def test_multiple_choice(models: tuple[HookedModel, HookedModel, nn.Module, nn.Module]) -> None:
    model, _, hf, _ = models
    questions = [
        Question("who said it", ("red dog", "cat", "hill", "blue mat"), 1, "small"),
        Question("it was on a", ("hill", "mat", "red", "big cat ran"), 3, "big"),
    ]
    table: Any = score_questions(model, questions, "{question}")
    for row, question in enumerate(questions):
        each = [of_answer(hf, question.question, f" {choice}") for choice in question.choices]
        sums, per_token = np.array([part.sum() for part in each]), np.array([part.mean() for part in each])
        p = np.exp(sums)[question.answer] / np.exp(sums).sum()
        assert table["answer_probability"][row] == pytest.approx(p, rel=BOUND * 10)
        assert (table["predicted"][row], table["predicted_per_token"][row]) == (sums.argmax(), per_token.argmax())


def test_facts(models: tuple[HookedModel, HookedModel, nn.Module, nn.Module]) -> None:
    model, _, hf, _ = models
    facts = [
        FactQuestion("who sat", "the cat sat on it", "it was the cat", ("the dog", "a big red dog")),
        FactQuestion("who ran", "the dog"),
    ]
    table: Any = score_facts(model, facts, "{question}", max_new_tokens=3)
    for row, fact in enumerate(facts):
        p = math.exp(of_answer(hf, fact.question, f" {fact.answer}").mean())
        assert table["probability"][row] == pytest.approx(p, rel=BOUND * 10)
    wrong = [math.exp(of_answer(hf, "who sat", f" {text}").mean()) for text in facts[0].wrong]
    right = math.exp(of_answer(hf, "who sat", " it was the cat").mean())
    assert table["truth_ratio"][0] == pytest.approx(np.mean(wrong) / right, rel=BOUND * 10)
    assert math.isnan(table["truth_ratio"][1]), "without wrong answers there is no ratio, and no 0 or 1 in its place"


def test_questions_that_do_not_fit_are_left_out_and_counted(
    models: tuple[HookedModel, HookedModel, nn.Module, nn.Module],
) -> None:
    model = models[0]
    short, long = (Question(" ".join(["cat"] * n), ("a", "b"), 0, "s") for n in (5, 70))
    assert model.architecture.context_length == 64
    assert fitting_questions(model, [short, long, short]) == (short, short)
    # In the context are the BOS, the template's words, the question, and the tokens of a free answer.
    counts = [
        n for n in range(1, 70) if fitting_questions(model, [Question(" ".join(["cat"] * n), ("a", "b"), 0, "s")])
    ]
    words = len(make_tokenizer()("Question: \nAnswer:")["input_ids"])  # pyright: ignore[reportArgumentType]
    assert counts == list(range(1, 64 - 32 - 1 - words + 1))


@pytest.mark.parametrize("level", [0.95])
def test_the_share_of_a_gap_against_all_resamples(level: float) -> None:
    """Three groups of unequal size give 27 resamples, all as likely: the interval is the quantiles of these."""
    groups = ["a", "a", "b", "c", "c", "c"]
    attacked = np.array([0.3, 0.9, 0.1, 0.6, 0.5, 0.8])
    unlearned, original = attacked - np.array([0.1, 0.4, 0.05, 0.2, 0.3, 0.1]), np.array([0.9, 1, 0.8, 1, 0.9, 1])
    share = share_of_gap(attacked, unlearned, original, groups, n_resamples=40_000).interval
    assert share is not None
    rows = {key: [i for i, group in enumerate(groups) if group == key] for key in "abc"}
    values: list[float] = []
    for draw in itertools.product("abc", repeat=3):
        at = [i for key in draw for i in rows[key]]
        values.append((attacked[at] - unlearned[at]).mean() / (original[at] - unlearned[at]).mean())
    assert share.mean == pytest.approx((attacked - unlearned).mean() / (original - unlearned).mean(), rel=1e-12)
    expected = np.quantile(np.repeat(values, 1000), [(1 - level) / 2, (1 + level) / 2])
    assert (share.low, share.high) == (pytest.approx(expected[0]), pytest.approx(expected[1]))
    assert share.n == 3


def test_spectra() -> None:
    squares = np.array([4.0, 2.0, 1.0, 1.0, 0.0])
    shares = [0.5, 0.25, 0.125, 0.125]
    assert effective_rank(squares) == pytest.approx(math.prod(p**-p for p in shares), rel=1e-12)
    assert participation_ratio(squares) == pytest.approx(1 / sum(p * p for p in shares), rel=1e-12)
    with warnings.catch_warnings():
        warnings.simplefilter("error")  # no division by 0 on the way
        assert math.isnan(effective_rank(np.zeros(3))) and math.isnan(participation_ratio(np.zeros(3)))


def test_holm_over_all_orders() -> None:
    """A hypothesis is rejected at a level if all smaller p-values are, and its own is below level / those left."""
    p = [0.011, 0.2, 0.012, 0.04]
    levels = np.linspace(0, 1, 20_001)[1:]
    for order in itertools.permutations(range(4)):
        given = [p[i] for i in order]
        ranked = sorted(range(4), key=lambda i: given[i])
        adjusted = holm(given)
        for place, index in enumerate(ranked):
            passed = np.all([given[ranked[k]] <= levels / (4 - k) for k in range(place + 1)], axis=0)
            wanted = levels[passed].min() if passed.any() else 1.0
            assert adjusted[index] == pytest.approx(wanted, abs=6e-5)
