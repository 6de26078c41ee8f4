"""Runs of a study in single-thread processes side by side."""

from __future__ import annotations

import multiprocessing
from collections.abc import Callable, Sequence
from concurrent.futures import ProcessPoolExecutor, as_completed
from typing import Any

import torch
from tqdm.auto import tqdm


def run_side_by_side(task: Callable[..., Any], calls: Sequence[tuple[Any, ...]], workers: int, label: str) -> None:
    """Makes every call in a pool of fresh processes, in the order given; the first failure stops the rest."""
    spawn = multiprocessing.get_context("spawn")
    with ProcessPoolExecutor(workers, mp_context=spawn, initializer=_single_thread) as pool:
        futures = [pool.submit(task, *arguments) for arguments in calls]
        try:
            for future in tqdm(as_completed(futures), total=len(calls), desc=label):
                future.result()
        except BaseException:
            pool.shutdown(wait=False, cancel_futures=True)
            raise


def quieten() -> None:
    """Leaves the one progress bar that counts: transformers draws one for every checkpoint it loads."""
    from transformers.utils import logging

    logging.disable_progress_bar()


def _single_thread() -> None:
    torch.set_num_threads(1)
    quieten()
