"""Activation stores with a planted direction, for the tests of probes."""

from typing import Any

import numpy as np
import pandas as pd
import torch

from interp_unlearn.activations import ActivationStore
from interp_unlearn.sites import Site

EARLY, LATE = Site(0, "resid_post"), Site(3, "resid_post")
D = 12


def make_store(vectors: dict[Site, np.ndarray], labels: np.ndarray, **columns: Any) -> ActivationStore:
    n = len(labels)
    rows = pd.DataFrame({"n_tokens": np.full(n, 7), "label": labels.astype(int), **columns})
    tensors = {site: torch.tensor(values, dtype=torch.float32) for site, values in vectors.items()}
    return ActivationStore(
        tensors, rows, {"model": "planted", "model_hash": "a" * 64, "data_hash": "d", "pool": "mean"}
    )


def planted(n: int = 1500, seed: int = 0) -> tuple[ActivationStore, np.ndarray, np.ndarray]:
    """Classes that differ along one direction, weakly at EARLY and clearly at LATE, in noise of unequal spread."""
    rng = np.random.default_rng(seed)
    world = np.random.default_rng(99)  # the same world whatever the seed of the sample
    labels = rng.random(n) < 0.4
    direction = world.normal(size=D)
    direction /= np.linalg.norm(direction)
    spread = np.exp(world.normal(size=D) * 0.7)
    mean = world.normal(size=D) * 5
    noise = {site: rng.normal(size=(n, D)) * spread + mean for site in (EARLY, LATE)}
    vectors = {
        EARLY: noise[EARLY] + 0.5 * np.outer(labels, direction),
        LATE: noise[LATE] + 3 * np.outer(labels, direction),
    }
    return make_store(vectors, labels), direction, spread
