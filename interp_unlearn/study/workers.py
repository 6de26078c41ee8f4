"""Runs of a study in single-thread processes side by side."""

from __future__ import annotations

import multiprocessing
import os
import signal
import sys
import threading
from collections.abc import Callable, Generator, Sequence
from concurrent.futures import ProcessPoolExecutor, as_completed
from contextlib import contextmanager
from typing import Any

import torch
from tqdm.auto import tqdm


def run_side_by_side(task: Callable[..., Any], calls: Sequence[tuple[Any, ...]], workers: int, label: str) -> None:
    """Makes every call in a pool of fresh processes, in the order given; the first failure, or Ctrl-C, stops the rest.

    A run that is stopped leaves no mark of being done, and is made again. The processes end with this one,
    even where it is killed.
    """
    spawn = multiprocessing.get_context("spawn")
    others = multiprocessing.active_children()
    with ProcessPoolExecutor(workers, mp_context=spawn, initializer=_begin) as pool:
        try:
            with _deaf_to_ctrl_c():
                futures = [pool.submit(task, *arguments) for arguments in calls]
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
    """Processes started here do not hear Ctrl-C, which a terminal sends to all of them: the first process decides.

    It hears of it when the block ends.
    """
    if sys.platform == "win32":  # where signals have no masks
        yield
        return
    before = signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGINT})
    try:
        yield
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)


def _begin() -> None:
    torch.set_num_threads(1)
    quieten()
    threading.Thread(target=_end_with_the_study, daemon=True).start()


def _end_with_the_study() -> None:
    """Ends this process when the one that started it was killed: else it would go on writing beside its successor."""
    if (study := multiprocessing.parent_process()) is not None:
        study.join()
        os._exit(1)
