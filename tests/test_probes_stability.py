"""Stability of the direction: against a loop by hand, on planted directions and on noise."""

import numpy as np
import pytest
from probe_stores import LATE, make_store
from sklearn.linear_model import LogisticRegression
from sklearn.preprocessing import StandardScaler

from interp_unlearn.probes import fit_probes

WIDTH = 30
COLUMNS = ["stability", "stability_low", "stability_halves"]


def sample(n: int, signal: float, seed: int = 0) -> tuple[np.ndarray, np.ndarray]:
    """Isotropic noise with classes apart along the first axis, which is then the best direction too."""
    rng = np.random.default_rng(seed)
    labels = np.arange(n) % 2
    return rng.normal(size=(n, WIDTH)) + signal * labels[:, None] * np.eye(WIDTH)[0], labels


def fitted(n: int, signal: float, **settings: object):
    vectors, labels = sample(n, signal)
    store = make_store({LATE: vectors}, labels)
    return fit_probes(store, shuffles=0, bootstrap=0, progress=False, **settings)  # type: ignore[arg-type]


def test_more_data_bring_the_direction_nearer_to_the_planted_one_and_settle_it() -> None:
    probes = [fitted(n, 1.0, resamples=10) for n in (100, 400, 3200)]
    planted = [float(p.direction(LATE)[0]) for p in probes]
    tables = [p.table.iloc[0] for p in probes]
    assert planted[0] < planted[1] < planted[2] and planted[2] > 0.95
    for name in COLUMNS:
        assert tables[0][name] < tables[1][name] < tables[2][name]
    assert tables[2]["stability_halves"] > 0.9
    assert all(row["stability_low"] <= row["stability"] for row in tables)


def test_noise_has_no_direction() -> None:
    probes = fitted(400, 0.0, resamples=10)
    row = probes.table.iloc[0]
    assert abs(float(probes.direction(LATE)[0])) < 0.4
    assert abs(row["stability_halves"]) < 0.25  # one in thirty dimensions: about 0.18 a pair
    assert row["stability"] > 0.5  # as documented: a resample shares rows with the data


def test_it_equals_a_loop_over_resampled_groups() -> None:
    vectors, labels = sample(300, 1.0)
    groups = np.arange(300) // 3
    store = make_store({LATE: vectors}, labels)
    probes = fit_probes(store, groups=groups.tolist(), resamples=40, shuffles=0, progress=False)
    direction, rng, cosines, halves = probes.direction(LATE).double().numpy(), np.random.default_rng(5), [], []

    def refit(drawn: np.ndarray) -> np.ndarray:
        rows = np.concatenate([np.flatnonzero(groups == group) for group in drawn])
        scaler = StandardScaler().fit(vectors[rows])
        slope = LogisticRegression(tol=1e-8).fit(scaler.transform(vectors[rows]), labels[rows]).coef_[0] / scaler.scale_
        return slope / np.linalg.norm(slope)

    for _ in range(40):
        cosines.append(refit(rng.integers(100, size=100)) @ direction)
        order = rng.permutation(100)
        halves.append(refit(order[:50]) @ refit(order[50:]))
    row = probes.table.iloc[0]
    assert row["stability"] == pytest.approx(np.mean(cosines), abs=0.02)
    assert row["stability_low"] == pytest.approx(np.quantile(cosines, 0.05), abs=0.04)
    assert row["stability_halves"] == pytest.approx(np.mean(halves), abs=0.05)


def test_copies_within_groups_settle_nothing() -> None:
    vectors, labels = sample(100, 1.0)
    store = make_store({LATE: np.repeat(vectors, 5, axis=0)}, np.repeat(labels, 5))
    groups = [index // 5 for index in range(500)]
    rows = [fit_probes(store, groups=g, resamples=10, progress=False).table.iloc[0] for g in (groups, None)]
    assert rows[0]["stability_halves"] < rows[1]["stability_halves"] - 0.2


def test_halves_that_lack_a_class_are_drawn_again() -> None:
    rng = np.random.default_rng(0)
    labels = np.repeat([0, 0, 1, 1], 10)  # a third of all halves of four groups holds one class only
    store = make_store({LATE: rng.normal(size=(40, WIDTH)) + 3 * labels[:, None] * np.eye(WIDTH)[0]}, labels)
    groups = [f"g{row // 10}" for row in range(40)]
    row = fit_probes(store, groups=groups, folds=2, resamples=20, shuffles=0, bootstrap=0, progress=False).table.iloc[0]
    assert row[COLUMNS].between(-1, 1).all()


def test_it_is_measured_on_demand() -> None:
    assert fitted(100, 1.0).table[COLUMNS].isna().all(axis=None)


def test_few_groups_are_drawn_until_both_classes_are_there() -> None:
    vectors, labels = np.random.default_rng(0).normal(size=(80, WIDTH)), np.repeat([0, 1, 0, 1], 20)
    groups = np.repeat([0, 1, 2, 3], 20).tolist()
    store = make_store({LATE: vectors}, labels)
    table = fit_probes(store, groups=groups, folds=2, resamples=20, seed=3, progress=False).table
    assert table[COLUMNS].notna().all(axis=None)
