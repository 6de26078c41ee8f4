"""Massive activations: a planted dimension, none in noise, and the displacement that such a dimension hides."""

import pytest
import torch
from test_drift_paired import LATE, gaussian, token_store

from interp_unlearn.drift import massive_activations
from interp_unlearn.errors import ConfigError, DataError

N, D = 200, 48


def test_a_planted_dimension_is_found_and_the_displacement_that_it_hides() -> None:
    h0 = gaussian(0, N, D)
    moved = h0 + 0.5 * gaussian(1, N, D)
    h0[:, 7] = moved[:, 7] = 400 * h0[:, 7].sign()  # it does not move
    (row,) = massive_activations(token_store({LATE: h0}), token_store({LATE: moved})).to_dict("records")
    assert row["dimension"] == 7 and row["n_massive"] == 1
    assert row["ratio"] == pytest.approx(400 / (2 / torch.pi) ** 0.5, rel=0.05)  # a normal's mean magnitude
    assert row["ratio_changed"] == pytest.approx(row["ratio"] / 1.25**0.5, rel=0.05)
    assert row["relative_displacement"] < 0.02 and row["relative_displacement_without"] == pytest.approx(0.5, rel=0.05)
    assert (row["n_tokens"], row["d"]) == (N, D)


def test_noise_has_none_and_nothing_is_left_out() -> None:
    h0, h = gaussian(0, N, D), gaussian(1, N, D)
    (row,) = massive_activations(token_store({LATE: h0}), token_store({LATE: h})).to_dict("records")
    assert row["n_massive"] == 0 and 1 < row["ratio"] < 1.5
    assert row["relative_displacement_without"] == row["relative_displacement"]
    alike = massive_activations(token_store({LATE: h0}), token_store({LATE: h0}), above=1.01).iloc[0]
    assert alike["n_massive"] > 0 and alike["relative_displacement_without"] == 0


def test_dimensions_of_which_most_are_nothing_have_no_ratio() -> None:
    h0 = torch.zeros(N, D, dtype=torch.float64)
    h0[:, 0] = 1.0
    row = massive_activations(token_store({LATE: h0}), token_store({LATE: h0})).iloc[0]
    assert row["ratio"] != row["ratio"]


def test_what_cannot_be_measured_is_refused() -> None:
    store = token_store({LATE: gaussian(0, 20, 4)})
    with pytest.raises(ConfigError, match="above: expected more than 1 median, got 1"):
        massive_activations(store, store, above=1.0)
    with pytest.raises(DataError, match="none count"):
        massive_activations(store, store, keep=torch.zeros(20, dtype=torch.bool).numpy())
