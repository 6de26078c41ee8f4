"""Calibration against scikit-learn, closed forms and log-odds that are known to be right or wrong."""

import numpy as np
import pytest
from probe_stores import EARLY, LATE, make_store, planted
from scipy.special import expit
from sklearn.calibration import calibration_curve
from sklearn.linear_model import LogisticRegression
from sklearn.metrics import brier_score_loss, log_loss
from sklearn.model_selection import StratifiedKFold, cross_val_predict
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler

from interp_unlearn.probes import fit_probes
from interp_unlearn.probes.calibration import calibration, calibration_slope, expected_calibration_error


def drawn(n: int, spread: float = 2.0, seed: int = 0) -> tuple[np.ndarray, np.ndarray]:
    """Log-odds, and labels drawn with just those odds."""
    rng = np.random.default_rng(seed)
    log_odds = rng.normal(0.3, spread, size=n)
    return rng.random(n) < expit(log_odds), log_odds


def test_scores_agree_with_scikit_learn() -> None:
    labels, log_odds = drawn(500)
    probabilities = expit(log_odds)
    found = calibration(labels, log_odds)
    assert found["brier"] == pytest.approx(brier_score_loss(labels, probabilities))
    assert found["log_loss"] == pytest.approx(log_loss(labels, probabilities))
    share, said = calibration_curve(labels, probabilities, n_bins=10, strategy="quantile")
    assert found["calibration_error"] == pytest.approx(np.abs(share - said).mean())  # ten bins of 50


def test_bins_are_of_equal_size_though_values_are_not() -> None:
    probabilities = np.concatenate([np.full(90, 0.01), np.linspace(0.5, 0.9, 10)])
    labels = np.concatenate([np.zeros(90, dtype=bool), np.ones(10, dtype=bool)])
    assert expected_calibration_error(labels, probabilities, bins=10) == pytest.approx(0.9 * 0.01 + 0.1 * 0.3)
    assert expected_calibration_error(np.array([True, False]), np.array([1.0, 0.0])) == 0  # fewer rows than bins


def test_saying_the_base_rate_costs_its_variance_and_entropy() -> None:
    labels = np.arange(100) < 20
    found = calibration(labels, np.full(100, np.log(0.2 / 0.8)))
    assert found["brier"] == pytest.approx(0.16)
    assert found["log_loss"] == pytest.approx(-0.2 * np.log(0.2) - 0.8 * np.log(0.8))
    assert np.isnan(found["calibration_slope"])


def test_the_slope_is_the_factor_that_calibrates() -> None:
    labels, log_odds = drawn(40_000)
    assert calibration_slope(labels, log_odds) == pytest.approx(1, abs=0.03)
    right = calibration(labels, log_odds)
    for factor in (0.25, 4.0):
        wrong = calibration(labels, factor * log_odds)
        assert wrong["calibration_slope"] == pytest.approx(right["calibration_slope"] / factor, rel=1e-3)
        assert wrong["calibration_error"] > 5 * right["calibration_error"]
        assert wrong["log_loss"] > right["log_loss"] and wrong["brier"] > right["brier"]
    assert calibration_slope(labels, -log_odds) == pytest.approx(-right["calibration_slope"], rel=1e-3)


def test_there_is_no_slope_where_the_classes_are_parted() -> None:
    labels = np.arange(20) < 10
    assert np.isnan(calibration_slope(labels, np.where(labels, 1.0, -1.0) * np.arange(1, 21)))
    assert np.isnan(calibration_slope(labels, np.arange(20.0)))  # without an error, the wrong way round


def test_the_error_of_a_calibrated_probe_is_as_documented() -> None:
    rng = np.random.default_rng(0)
    errors = [expected_calibration_error(rng.random(1000) < 0.5, rng.normal(0.5, 1e-6, 1000)) for _ in range(200)]
    assert np.mean(errors) == pytest.approx(0.04, abs=0.003)


def test_the_table_is_out_of_fold() -> None:
    store, _, _ = planted(400)
    probes = fit_probes(store, folds=4, seed=3, shuffles=0, progress=False)
    pipeline = make_pipeline(StandardScaler(), LogisticRegression(tol=1e-8, max_iter=5000))
    splitter = StratifiedKFold(4, shuffle=True, random_state=3)
    for site in (EARLY, LATE):
        vectors = store[site].double().numpy()
        said = cross_val_predict(pipeline, vectors, store.labels, cv=splitter, method="predict_proba")[:, 1]
        row = probes.table.set_index("site").loc[str(site)]
        assert row["brier"] == pytest.approx(brier_score_loss(store.labels, said), abs=1e-4)
        assert row["log_loss"] == pytest.approx(log_loss(store.labels, said), abs=1e-4)


def test_many_dimensions_and_a_weak_penalty_are_too_sure() -> None:
    rng = np.random.default_rng(0)
    labels = np.arange(400) % 2 == 0
    vectors = rng.normal(size=(400, 200)) + labels[:, None] * 0.1
    store = make_store({LATE: vectors}, labels)
    slopes = [fit_probes(store, C=C, progress=False).table["calibration_slope"][0] for C in (1e-3, 100.0)]
    assert slopes[1] < 0.4 < slopes[0]
