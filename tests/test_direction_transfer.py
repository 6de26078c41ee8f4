"""Train on A, test on B: shared and unshared planted directions."""

import numpy as np
import pandas as pd
import pytest
import torch
from sklearn.metrics import roc_auc_score

from interp_unlearn.activations import ActivationStore
from interp_unlearn.directions import transfer
from interp_unlearn.errors import ConfigError
from interp_unlearn.probes import ProbeSet, fit_probes
from interp_unlearn.sites import Site

EARLY, LATE = Site(0, "resid_post"), Site(1, "resid_post")
D, N = 12, 240


def dataset(name: str, late_axis: int, seed: int, model: str = "m") -> ActivationStore:
    """Classes that differ along axis 0 early, in every dataset, and along an axis of the dataset's own late."""
    rng = np.random.default_rng(seed)
    labels = rng.random(N) < 0.5
    vectors = {
        site: rng.normal(size=(N, D)) + 2.5 * np.outer(labels, np.eye(D)[axis])
        for site, axis in ((EARLY, 0), (LATE, late_axis))
    }
    rows = pd.DataFrame({"n_tokens": 5, "label": labels.astype(int), "group": [f"g{i // 3}" for i in range(N)]})
    tensors = {site: torch.tensor(values, dtype=torch.float32) for site, values in vectors.items()}
    return ActivationStore(tensors, rows, {"model": model, "model_hash": model, "data_hash": name, "pool": "mean"})


@pytest.fixture(scope="module")
def stores() -> dict[str, ActivationStore]:
    return {"a": dataset("a", 1, 0), "b": dataset("b", 2, 1)}


@pytest.fixture(scope="module")
def probes(stores: dict[str, ActivationStore]) -> dict[str, ProbeSet]:
    return {name: fit_probes(store, groups=store.groups, folds=3, progress=False) for name, store in stores.items()}


@pytest.fixture(scope="module")
def frame(probes: dict[str, ProbeSet], stores: dict[str, ActivationStore]) -> pd.DataFrame:
    return transfer(probes, stores, n_bootstrap=300)


def cell(frame: pd.DataFrame, **keys: str) -> pd.Series:
    for name, value in keys.items():
        frame = frame[frame[name] == value]
    assert len(frame) == 1
    return frame.iloc[0]


def test_a_shared_direction_transfers_and_an_unshared_one_does_not(frame: pd.DataFrame) -> None:
    assert len(frame) == 2 * 2 * 2 * 2
    for train, test in (("a", "b"), ("b", "a")):
        for estimator in ("logistic", "mean_difference"):
            early = cell(frame, train=train, test=test, site=str(EARLY), estimator=estimator)
            late = cell(frame, train=train, test=test, site=str(LATE), estimator=estimator)
            assert early["auroc"] > 0.9 and early["low"] > 0.85
            assert late["low"] < 0.75 and abs(late["auroc"] - 0.5) < 0.2
            assert (early["scored"], early["n"], early["n_groups"]) == ("other_data", N, N // 3)
            assert early["low"] <= early["auroc"] <= early["high"]


def test_scores_on_other_data_are_the_probes_own(
    frame: pd.DataFrame, probes: dict[str, ProbeSet], stores: dict[str, ActivationStore]
) -> None:
    for estimator in ("logistic", "mean_difference"):
        scores = probes["a"].score(stores["b"], LATE, estimator).numpy()
        expected = roc_auc_score(stores["b"].labels, scores)
        found = cell(frame, train="a", test="b", site=str(LATE), estimator=estimator)["auroc"]
        assert found == pytest.approx(expected)


def test_their_own_data_are_scored_out_of_fold(frame: pd.DataFrame, probes: dict[str, ProbeSet]) -> None:
    row = probes["a"].table.set_index("site").loc[str(LATE)]
    own = cell(frame, train="a", test="a", site=str(LATE), estimator="logistic")
    assert own["scored"] == "out_of_fold"
    assert (own["auroc"], own["low"], own["high"]) == (row["auroc"], row["auroc_low"], row["auroc_high"])
    other = cell(frame, train="a", test="a", site=str(LATE), estimator="mean_difference")
    assert other["auroc"] == row["auroc_mean_difference"] and np.isnan(other["low"])


def test_refusals(probes: dict[str, ProbeSet], stores: dict[str, ActivationStore]) -> None:
    with pytest.raises(ConfigError, match="at least one probe set and one store"):
        transfer({}, stores)
    with pytest.raises(ConfigError, match="transfer compares datasets on one model"):
        transfer(probes, {"x": dataset("x", 1, 2, model="other")})
    unlabelled = ActivationStore(stores["a"].vectors, stores["a"].rows.drop(columns="label"), stores["a"].metadata)
    with pytest.raises(ConfigError, match="none were given"):
        transfer(probes, {"x": unlabelled})
    elsewhere = ActivationStore({Site(2, "mlp_out"): stores["a"][EARLY]}, stores["a"].rows, stores["a"].metadata)
    with pytest.raises(ConfigError, match="no site in common"):
        transfer(probes, {"x": elsewhere})
    tokens = ActivationStore(stores["a"].vectors, stores["a"].rows, {**stores["a"].metadata, "pool": "none"})
    with pytest.raises(ConfigError, match="collect it pooled"):
        transfer(probes, {"x": tokens})


def test_the_training_texts_with_other_labels_or_pooled_otherwise_are_scored(
    probes: dict[str, ProbeSet], stores: dict[str, ActivationStore]
) -> None:
    """Their out-of-fold AUROC is about other labels and other vectors."""
    store = stores["a"]
    flipped = store.rows.assign(label=np.random.default_rng(5).permutation(store.rows["label"].to_numpy()))
    others = {
        "relabelled": ActivationStore({site: store[site] for site in store.sites}, flipped, store.metadata),
        "pooled": ActivationStore(
            {site: store[site].roll(1, 0) for site in store.sites}, store.rows, store.metadata | {"pool": "last"}
        ),
    }
    found = transfer({"a": probes["a"]}, others, n_bootstrap=100)
    assert (found["scored"] == "same_texts").all()
    assert (found["auroc"] - 0.5).abs().max() < 0.15
