"""Times of several functions, taken in turns, so that what else the machine does falls on all of them alike."""

import gc
import time
from collections.abc import Callable, Mapping
from typing import Any

import numpy as np
import pandas as pd
import torch
from tqdm import tqdm

Timed = Callable[[], Any]


def interleave(
    functions: Mapping[str, Timed], rounds: int, *, calls: int = 1, warmup: int = 2, label: str = ""
) -> pd.DataFrame:
    """Seconds of each function in each round; every other round goes in the reverse order.

    Args:
        functions: what is timed, by name.
        rounds: that count.
        calls: of a function in its turn, one after another; their mean is taken.
        warmup: rounds before them.
        label: of a progress bar; without one there is none.

    Returns:
        One column a function, one line a round.
    """
    names = list(functions)
    times: list[dict[str, float]] = []
    collecting = gc.isenabled()
    for number in tqdm(range(-warmup, rounds), desc=label, disable=not label):
        line: dict[str, float] = {}
        gc.collect()
        gc.disable()
        for name in names if number % 2 else reversed(names):
            _wait()
            started = time.perf_counter()
            for _ in range(calls):
                functions[name]()
            _wait()
            line[name] = (time.perf_counter() - started) / calls
        if collecting:
            gc.enable()
        if number >= 0:
            times.append({name: line[name] for name in names})
    return pd.DataFrame(times)


def summarize(times: pd.DataFrame, baseline: str) -> pd.DataFrame:
    """Median milliseconds of each function, and median and quartiles of its ratio to the baseline, round by round.

    Returns:
        One line a function: what, ms, ratio, ratio_low, ratio_high (quartiles), rounds.
    """
    rows: list[dict[str, Any]] = []
    for name in times.columns:
        low, median, high = np.quantile(times[name] / times[baseline], [0.25, 0.5, 0.75])
        milliseconds = 1000 * times[name].median()
        rows.append({"what": name, "ms": milliseconds, "ratio": median, "ratio_low": low, "ratio_high": high})
    return pd.DataFrame(rows).assign(rounds=len(times))


def paired_ratio(times: pd.DataFrame, what: str, baseline: str) -> float:
    """Median over the rounds of one function's time in another's."""
    return float((times[what] / times[baseline]).median())


def _wait() -> None:
    if torch.cuda.is_available():
        torch.cuda.synchronize()
