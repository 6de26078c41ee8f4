"""Over how many directions a spectrum is spread."""

import numpy as np
from jaxtyping import Float


def effective_rank(squares: Float[np.ndarray, " k"]) -> float:
    """``exp`` of the entropy of the normalised squared singular values; NaN if they are all 0.

    From 1 (one direction) to k (all alike). Source: after Roy and Vetterli 2007, who take the values, not squares.
    """
    total = squares.sum()
    shares = squares[squares > 0] / total
    return float(np.exp(-(shares * np.log(shares)).sum())) if total > 0 else float("nan")


def participation_ratio(squares: Float[np.ndarray, " k"]) -> float:
    """``(sum s^2)^2 / sum s^4``; NaN if all are 0. Never above the effective rank: small values count less."""
    total = squares.sum()
    return float(total**2 / (squares**2).sum()) if total > 0 else float("nan")
