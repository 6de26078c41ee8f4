"""Fitting one linear probe per site, cross-validated over groups, beside its controls."""

import logging
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from jaxtyping import Bool, Float
from numpy.typing import ArrayLike
from tqdm import tqdm

from interp_unlearn.artifacts import environment
from interp_unlearn.errors import ConfigError
from interp_unlearn.probes.auroc import Folds, bootstrap_auroc, fold_auroc
from interp_unlearn.probes.controls import (
    bag_of_words_auroc,
    length_auroc,
    mean_difference_auroc,
    out_of_fold_scores,
    random_direction_auroc,
    shuffled_auroc,
)
from interp_unlearn.probes.folds import binary_labels, group_codes, make_folds
from interp_unlearn.probes.linear import LinearProbe, fit_logistic, fit_mean_difference
from interp_unlearn.probes.probe_set import ProbeSet

if TYPE_CHECKING:
    from interp_unlearn.activations import ActivationStore
    from interp_unlearn.sites import Site

_LOG = logging.getLogger(__name__)

N_BOOTSTRAP = 1000
_CARRIED = ("model", "model_hash", "data_hash", "pool", "include_bos")


def fit_probes(
    store: "ActivationStore",
    labels: ArrayLike | None = None,
    groups: Sequence[object] | None = None,
    *,
    folds: int = 5,
    C: float = 1.0,
    seed: int = 0,
    shuffles: int = 1,
    texts: Sequence[str] | None = None,
    progress: bool = True,
) -> ProbeSet:
    """Fit a probe at every site of the store; labels, groups and texts default to the store's own.

    The AUROC is out of fold, the direction comes from a final fit on all rows. The columns of the table are described
    at `ProbeSet`.
    Caveat: a high AUROC says the label can be read off linearly, not that the model uses it; test that with an edit.

    Args:
        store: pooled activations.
        labels: 0 or 1 per row.
        groups: rows that must stay together (a subject, a pair, a template family); None for every row alone.
        folds: of the cross-validation.
        C: inverse strength of the L2 penalty on standardised coordinates.
        seed: of folds, controls and bootstrap.
        shuffles: label shufflings averaged in the control; 0 leaves it out.
        texts: for the bag-of-words control.
        progress: show a progress bar.

    Raises:
        ConfigError: labels of one class or not binary, lengths that differ, too few groups, activations that are not
            finite or do not vary.
    """
    if not C > 0 or shuffles < 0:
        raise ConfigError(f"expected C above 0 and shuffles of at least 0, got C={C}, shuffles={shuffles}")
    n = len(store)
    classes = binary_labels(store.labels if labels is None else labels, n)
    codes = group_codes(store.groups if groups is None else groups, n)
    texts = store.texts if texts is None else texts
    if texts is not None and len(texts) != n:
        raise ConfigError(f"texts: expected one per row ({n}), got {len(texts)}")
    splits = make_folds(classes, codes, folds, seed)
    n_groups = int(codes.max()) + 1
    fits = len(store.sites) * (folds * (1 + shuffles) + 1)
    _LOG.info("probes: %d logistic fits on %d rows in %d groups", fits, n, n_groups)

    shared = {
        "auroc_bag_of_words": float("nan") if texts is None else bag_of_words_auroc(texts, classes, splits, C),
        "auroc_length": length_auroc(store.rows["n_tokens"].to_numpy(dtype=float), classes, splits),
        "n": n,
        "n_groups": n_groups,
        "n_positive": int(classes.sum()),
    }
    logistic: list[LinearProbe] = []
    differences: list[LinearProbe] = []
    rows: list[dict[str, Any]] = []
    for site in tqdm(store.sites, desc="probe", unit="site", disable=not progress):
        vectors = _checked(store[site].numpy().astype(np.float64), site)
        try:
            measured = _measure_site(vectors, classes, codes, splits, C, seed, shuffles)
            logistic.append(fit_logistic(vectors, classes, C))
            differences.append(fit_mean_difference(vectors, classes))
        except ConfigError as error:
            raise ConfigError(f"{site}: {error}") from error
        rows.append({"site": str(site), "layer": site.layer, **measured, **shared})
    metadata = {key: store.metadata.get(key) for key in _CARRIED}
    metadata |= {"folds": folds, "C": C, "seed": seed, "shuffles": shuffles, "versions": environment()}
    return _assemble(store.sites, logistic, differences, rows, metadata)


def _measure_site(
    vectors: Float[np.ndarray, "row d_model"],
    labels: Bool[np.ndarray, " row"],
    groups: np.ndarray,
    folds: Folds,
    C: float,
    seed: int,
    shuffles: int,
) -> dict[str, float]:
    scores = out_of_fold_scores(vectors, labels, folds, C)
    low, high = bootstrap_auroc(labels, scores, folds, groups, N_BOOTSTRAP, seed)
    return {
        "auroc": fold_auroc(labels, scores, folds),
        "auroc_low": low,
        "auroc_high": high,
        "accuracy": float(((scores > 0) == labels).mean()),
        "auroc_shuffled": shuffled_auroc(vectors, labels, folds, C, range(seed, seed + shuffles)),
        "auroc_random_direction": random_direction_auroc(vectors, labels, folds, seed),
        "auroc_mean_difference": mean_difference_auroc(vectors, labels, folds),
    }


def _assemble(
    sites: "tuple[Site, ...]",
    logistic: list[LinearProbe],
    differences: list[LinearProbe],
    rows: list[dict[str, Any]],
    metadata: dict[str, Any],
) -> ProbeSet:
    import pandas as pd

    if len({len(probe.direction) for probe in logistic}) > 1:
        raise ConfigError("sites of different widths (logits beside the residual stream) cannot share one ProbeSet")
    table = pd.DataFrame(rows).astype({"layer": "Int64"})
    return ProbeSet(
        sites=tuple(sites),
        directions=_stack([probe.direction for probe in logistic]),
        biases=_stack([probe.bias for probe in logistic]),
        scales=_stack([probe.scale for probe in logistic]),
        mean_differences=_stack([probe.direction for probe in differences]),
        mean_difference_biases=_stack([probe.bias for probe in differences]),
        table=table,
        metadata=metadata,
    )


def _stack(values: Sequence[Any]) -> torch.Tensor:
    return torch.tensor(np.stack(values), dtype=torch.float32)


def _checked(vectors: Float[np.ndarray, "row d_model"], site: "Site") -> Float[np.ndarray, "row d_model"]:
    broken = int((~np.isfinite(vectors)).any(1).sum())
    if broken:
        raise ConfigError(f"{site}: {broken} of {len(vectors)} rows are not finite; collect in float32 or drop them")
    if (vectors == vectors[0]).all():
        raise ConfigError(
            f"{site}: the same vector in every row (pool last at embed reads the last token); leave it out"
        )
    return vectors
