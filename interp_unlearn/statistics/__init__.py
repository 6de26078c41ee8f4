"""What the numbers of a study allow one to say: intervals, gap closed, permutation tests, contrasts."""

from interp_unlearn.statistics.contrasts import Crossover, Goal, bootstrap_crossover, crossover
from interp_unlearn.statistics.families import holm
from interp_unlearn.statistics.gap import bootstrap_gap_closed, gap_closed
from interp_unlearn.statistics.intervals import (
    Interval,
    bootstrap_mean,
    bootstrap_means,
    spelled_interval,
    spelled_value,
    t_interval,
)
from interp_unlearn.statistics.permutation import SignFlip, sign_flip
from interp_unlearn.statistics.spectra import effective_rank, participation_ratio

__all__ = [
    "Crossover",
    "Goal",
    "Interval",
    "SignFlip",
    "bootstrap_crossover",
    "bootstrap_gap_closed",
    "bootstrap_mean",
    "bootstrap_means",
    "crossover",
    "effective_rank",
    "gap_closed",
    "holm",
    "participation_ratio",
    "sign_flip",
    "spelled_interval",
    "spelled_value",
    "t_interval",
]
