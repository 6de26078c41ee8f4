"""Stratified folds that never split a group, and labels shuffled within them."""

from collections.abc import Sequence

import numpy as np
from jaxtyping import Bool, Int
from numpy.typing import ArrayLike

from interp_unlearn.errors import ConfigError
from interp_unlearn.probes.auroc import Folds
from interp_unlearn.statistics.intervals import check_groups

INNER_FOLDS = 3


def binary_labels(labels: ArrayLike | None, n: int) -> Bool[np.ndarray, " row"]:
    """Labels as booleans.

    Raises:
        ConfigError: there are none, not one per row, they are not 0 and 1, or there is one class only.
    """
    if labels is None:
        raise ConfigError("labels: none were given and the store holds none; give one 0 or 1 per row")
    values = np.asarray(labels)
    if values.shape != (n,):
        raise ConfigError(f"labels: expected one per row ({n}), got shape {values.shape}")
    found = sorted({value.item() for value in np.unique(values)}, key=str)
    if not set(found) <= {0, 1}:
        raise ConfigError(f"labels: expected 0 and 1, got {', '.join(map(repr, found[:5]))}")
    if len(found) < 2:
        raise ConfigError(f"labels: all {n} rows are of class {int(found[0])}; a probe needs both")
    return values.astype(bool)


def group_codes(groups: Sequence[object] | None, n: int) -> Int[np.ndarray, " row"]:
    """Group keys as integers in order of first appearance; every row its own group if there are none.

    Raises:
        ConfigError: there is not one per row.
    """
    if groups is None:
        return np.arange(n)
    check_groups(groups, n)
    order: dict[object, int] = {}
    return np.array([order.setdefault(group, len(order)) for group in groups])


def make_folds(labels: Bool[np.ndarray, " row"], groups: Int[np.ndarray, " row"], folds: int, seed: int) -> Folds:
    """Shuffled stratified folds; rows of one group are all in one test fold.

    Raises:
        ConfigError: there are fewer groups than folds, or a fold would lack a class.
    """
    from sklearn.model_selection import StratifiedGroupKFold, StratifiedKFold

    n_groups = int(groups.max()) + 1
    if folds < 2:
        raise ConfigError(f"folds: expected at least 2, got {folds}")
    if n_groups < folds:
        raise ConfigError(f"folds: {folds} folds need as many groups, got {n_groups}; ask for fewer folds")
    if min(labels.sum(), (~labels).sum()) < folds:
        raise ConfigError(f"folds: {folds} folds need as many rows of each class; ask for fewer folds")
    grouped = n_groups < len(labels)  # without groups the plain splitter gives the same kind of folds, much faster
    splitter = (StratifiedGroupKFold if grouped else StratifiedKFold)(folds, shuffle=True, random_state=seed)
    made: Folds = list(splitter.split(np.zeros((len(labels), 1)), labels, groups if grouped else None))
    for number, (train, test) in enumerate(made):
        if any(len(np.unique(labels[rows])) < 2 for rows in (train, test)):
            raise ConfigError(f"folds: fold {number} holds one class only; ask for fewer folds or use finer groups")
    return made


def make_inner_folds(
    labels: Bool[np.ndarray, " row"], groups: Int[np.ndarray, " row"], rows: Int[np.ndarray, " chosen"], seed: int
) -> Folds:
    """Three folds of the same kind inside some rows (an outer training fold, or all): what C is chosen on.

    Raises:
        ConfigError: there are too few groups or rows of a class for it.
    """
    codes = np.unique(groups[rows], return_inverse=True)[1]
    try:
        inner = make_folds(labels[rows], codes, INNER_FOLDS, seed)
    except ConfigError as error:
        raise ConfigError(f"choosing C needs {INNER_FOLDS} folds inside each training fold: {error}") from error
    return [(rows[train], rows[test]) for train, test in inner]


def shuffle_within_folds(
    labels: Bool[np.ndarray, " row"], groups: Int[np.ndarray, " row"], folds: Folds, seed: int
) -> Bool[np.ndarray, " row"]:
    """Labels without meaning, alike in all else: every fold keeps its classes, so that an AUROC of 0.5 is expected.

    Inside each test fold, groups of one class get one random label each (all their rows alike), as many of each class
    as before; where the last group to be labelled is too large for that, it is split. Groups that hold both classes
    (a text and its rewrite) have their labels permuted inside.
    """
    rng = np.random.default_rng(seed)
    shuffled = labels.copy()
    size, positive = np.bincount(groups), np.bincount(groups, weights=labels)
    pure = ((positive == 0) | (positive == size))[groups]
    for _, test in folds:
        rank = rng.permutation(len(size))[groups]
        whole, mixed = test[pure[test]], test[~pure[test]]
        shuffled[whole[np.argsort(rank[whole], kind="stable")]] = np.arange(len(whole)) < labels[whole].sum()
        drawn = mixed[np.lexsort((rng.random(len(mixed)), groups[mixed]))]
        shuffled[mixed[np.argsort(groups[mixed], kind="stable")]] = labels[drawn]
    return shuffled
