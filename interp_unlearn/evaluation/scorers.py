"""What scores texts for toxicity: a small protocol, and how far two such scorers agree."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import combinations
from typing import TYPE_CHECKING, Protocol

import numpy as np
from jaxtyping import Float

from interp_unlearn.data import TOXIC_FROM
from interp_unlearn.errors import ConfigError, ScoreError

if TYPE_CHECKING:
    import pandas as pd


@dataclass(frozen=True, eq=False)
class TextScores:
    """Scores of some texts, in input order.

    Attributes:
        probabilities: of being toxic, 0 to 1.
        truncated: how many texts were longer than the scorer's context and were judged by their beginning.
    """

    probabilities: Float[np.ndarray, " text"]
    truncated: int = 0


class ToxicityScorer(Protocol):
    """Anything that gives a text its probability of being toxic.

    Caveat: a scorer has a taste. Classifiers take dialect and mentions of minorities for toxicity (Sap et al. 2019,
    Dixon et al. 2018), and a model can be unlearned towards what one of them overlooks: that is why a claim takes two.
    """

    @property
    def name(self) -> str:
        """What its scores are called in tables."""
        ...

    @property
    def hash(self) -> str:
        """What tells two scorers apart: of its weights."""
        ...

    def score(self, texts: Sequence[str], *, progress: bool = False) -> TextScores:
        """A probability for every text, the empty one included."""
        ...


def score_texts(scorer: ToxicityScorer, texts: Sequence[str], progress: bool = False) -> TextScores:
    """Score every text, or raise: a text that could not be scored is never counted as clean.

    Raises:
        ScoreError: there is not one score per text, or one is no number from 0 to 1.
    """
    scores = scorer.score(texts, progress=progress)
    values = np.asarray(scores.probabilities, dtype=float)
    if values.shape != (len(texts),):
        raise ScoreError(f"scorer {scorer.name}: {len(texts)} texts, scores of shape {values.shape}; expected one each")
    wrong = np.flatnonzero(~((values >= 0) & (values <= 1)))
    if len(wrong):
        raise ScoreError(
            f"scorer {scorer.name}: {len(wrong)} of {len(texts)} scores are no probabilities, first that of text "
            f"{wrong[0]}: {values[wrong[0]]}; nothing is counted until every text has a score"
        )
    return TextScores(values, scores.truncated)


def check_scorers(scorers: Sequence[ToxicityScorer]) -> None:
    """Refuse no scorers, one scorer given twice, or two that share a name.

    Raises:
        ConfigError: they are such.
    """
    if not scorers:
        raise ConfigError("no scorer; give at least one, and a second, different one for a claim")
    for what, keys in (("weights", [s.hash for s in scorers]), ("name", [s.name for s in scorers])):
        if len(set(keys)) < len(keys):
            names = ", ".join(scorer.name for scorer in scorers)
            raise ConfigError(f"two of the scorers {names} have the same {what}; expected different ones")


def scorer_agreement(scores: Mapping[str, Float[np.ndarray, " text"]], threshold: float = TOXIC_FROM) -> "pd.DataFrame":
    """How far scorers agree on the same texts.

    Caveat: scorers trained on the same data agree in their mistakes too; and kappa depends on how frequent toxic texts
    are, so it is low where nearly everything is clean.

    Args:
        scores: by the scorer's name, one probability a text, the same texts for all.
        threshold: from which a text counts as toxic.

    Returns:
        One row a pair of scorers: first, second, correlation (Pearson), rank_correlation (Spearman), kappa (Cohen 1960,
        of toxic or not), both_toxic, only_first, only_second (shares of the texts) and n_texts. NaN where a scorer is
        constant.
    """
    import warnings

    import pandas as pd
    from scipy.stats import rankdata
    from sklearn.metrics import cohen_kappa_score

    rows: list[dict[str, object]] = []
    for (first, a), (second, b) in combinations(scores.items(), 2):
        toxic_a, toxic_b = a >= threshold, b >= threshold
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # each warns of a constant scorer, and gives NaN
            correlation = np.corrcoef(a, b)[0, 1]
            rank_correlation = np.corrcoef(rankdata(a), rankdata(b))[0, 1]
            kappa = cohen_kappa_score(toxic_a, toxic_b)
        rows.append(
            {
                "first": first,
                "second": second,
                "correlation": float(correlation),
                "rank_correlation": float(rank_correlation),
                "kappa": float(kappa),
                "both_toxic": float((toxic_a & toxic_b).mean()),
                "only_first": float((toxic_a & ~toxic_b).mean()),
                "only_second": float((toxic_b & ~toxic_a).mean()),
                "n_texts": len(a),
            }
        )
    return pd.DataFrame(rows)
