"""Runs of a study in single-thread processes side by side."""

from __future__ import annotations

import multiprocessing
import signal
import threading
from collections.abc import Callable, Generator, Sequence
from concurrent.futures import ProcessPoolExecutor, as_completed
from contextlib import contextmanager
from typing import Any

import torch
from tqdm.auto import tqdm


def run_side_by_side(task: Callable[..., Any], calls: Sequence[tuple[Any, ...]], workers: int, label: str) -> None:
    """Makes every call in a pool of fresh processes, in the order given; the first failure, or Ctrl-C, stops the rest.

    A run that is stopped leaves no mark of being done, and is made again.
    """
    spawn = multiprocessing.get_context("spawn")
    others = multiprocessing.active_children()
    with ProcessPoolExecutor(workers, mp_context=spawn, initializer=_single_thread) as pool:
        with _deaf_to_ctrl_c():
            futures = [pool.submit(task, *arguments) for arguments in calls]
        try:
            for future in tqdm(as_completed(futures), total=len(calls), desc=label):
                future.result()
        except BaseException:
            pool.shutdown(wait=False, cancel_futures=True)
            for worker in multiprocessing.active_children():
                if worker not in others:
                    worker.terminate()
            raise


def quieten() -> None:
    """Leaves the one progress bar that counts: transformers draws one for every checkpoint it loads."""
    from transformers.utils import logging

    logging.disable_progress_bar()


@contextmanager
def _deaf_to_ctrl_c() -> Generator[None]:
    """Processes started here do not hear Ctrl-C, which a terminal sends to all of them: the first process decides."""
    if threading.current_thread() is not threading.main_thread():  # where no handler can be set
        yield
        return
    handler = signal.signal(signal.SIGINT, signal.SIG_IGN)
    try:
        yield
    finally:
        signal.signal(signal.SIGINT, handler)


def _single_thread() -> None:
    torch.set_num_threads(1)
    quieten()
