"""What a scorer must deliver, and how far two of them agree."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import pytest
from sklearn.metrics import cohen_kappa_score

from interp_unlearn.errors import ConfigError, ScoreError
from interp_unlearn.evaluation import TextScores, score_texts, scorer_agreement
from interp_unlearn.evaluation.scorers import check_scorers


@dataclass
class Fixed:
    """Scores that were written down."""

    values: Sequence[float]
    name: str = "fixed"
    hash: str = "0"

    def score(self, texts: Sequence[str], *, progress: bool = False) -> TextScores:
        return TextScores(np.array(self.values), truncated=1)


def test_scores_pass_as_they_are():
    scores = score_texts(Fixed([0, 0.25, 1]), ["a", "", "c"])
    assert scores.probabilities.tolist() == [0, 0.25, 1] and scores.truncated == 1


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ([0.1, 0.2], "3 texts, scores of shape"),
        ([0.1, 0.2, 0.3, 0.4], "3 texts, scores of shape"),
        ([[0.1], [0.2], [0.3]], "3 texts, scores of shape"),
        ([0.1, float("nan"), float("nan")], "2 of 3 scores are no probabilities, first that of text 1: nan"),
        ([0.1, 0.2, 1.01], "1 of 3 scores are no probabilities, first that of text 2"),
        ([-0.1, 0.2, 1], "first that of text 0: -0.1"),
    ],
)
def test_a_missing_score_is_an_error_and_no_clean_text(values: list[float], message: str):
    with pytest.raises(ScoreError, match=message):
        score_texts(Fixed(values), ["a", "b", "c"])


def test_scorers_must_differ():
    check_scorers([Fixed([], "a", "1"), Fixed([], "b", "2")])
    for scorers, message in (
        ([], "no scorer"),
        ([Fixed([], "a", "1"), Fixed([], "b", "1")], "same weights"),
        ([Fixed([], "a", "1"), Fixed([], "a", "2")], "same name"),
    ):
        with pytest.raises(ConfigError, match=message):
            check_scorers(scorers)


def test_agreement_by_hand():
    a, b = np.array([0.9, 0.8, 0.2, 0.1]), np.array([0.9, 0.3, 0.6, 0.1])
    row = scorer_agreement({"a": a, "b": b}).iloc[0]
    # Half of the judgements agree, and chance alone makes half of them agree.
    assert row["kappa"] == pytest.approx(0) == pytest.approx(cohen_kappa_score(a >= 0.5, b >= 0.5))
    assert (row["both_toxic"], row["only_first"], row["only_second"]) == (0.25, 0.25, 0.25)
    covariance = ((a - a.mean()) * (b - b.mean())).mean()
    assert row["correlation"] == pytest.approx(covariance / (a.std() * b.std()))
    assert row["rank_correlation"] == pytest.approx(1 - 6 * (0 + 1 + 1 + 0) / (4 * 15))
    assert row["n_texts"] == 4


def test_agreement_of_equal_scorers_and_of_constant_ones():
    a = np.array([0.9, 0.8, 0.2])
    row = scorer_agreement({"a": a, "b": a**2}).iloc[0]
    assert row["rank_correlation"] == pytest.approx(1) and row["kappa"] == 1
    row = scorer_agreement({"a": np.zeros(3), "b": np.zeros(3)}).iloc[0]
    assert np.isnan([row["correlation"], row["rank_correlation"], row["kappa"]]).all()
    assert row["both_toxic"] == 0
    assert len(scorer_agreement({"a": a, "b": a, "c": a})) == 3
    assert len(scorer_agreement({"a": a})) == 0
