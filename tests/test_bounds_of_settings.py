"""The least and the most that a setting may be is taken, and what lies just beyond is refused by its name."""

from collections.abc import Callable, Mapping
from typing import Any

import numpy as np
import pytest
import torch
from test_drift_paired import LATE, gaussian, token_store

from interp_unlearn.drift import displacement_spectrum, principal_angles, representation_similarity
from interp_unlearn.drift.setup import DriftSetup, DriftTexts
from interp_unlearn.drift.tuned_lens import TunedLensConfig
from interp_unlearn.errors import ConfigError, DataError
from interp_unlearn.objectives import projection_scale
from interp_unlearn.probes.folds import make_folds
from interp_unlearn.probes.settings import ProbeSettings
from interp_unlearn.sites import Site
from interp_unlearn.statistics import bootstrap_mean, bootstrap_means, holm, sign_flip, t_interval

LABELS = np.arange(8) % 2 == 0
PROBES: dict[str, Any] = {"folds": 2, "C": 1.0, "C_sites": None, "seed": 1, "shuffles": 1, "bootstrap": 1}
PROBES |= {"resamples": 1, "leace": False}


def of_spectrum(**options: Any) -> Any:
    stores = [token_store({LATE: gaussian(seed, 10, 4)}, (10,)) for seed in (0, 1)]
    return displacement_spectrum(*stores, **options)


def of_similarity(**options: Any) -> Any:
    stores = [token_store({LATE: gaussian(seed, 10, 4)}, (10,)) for seed in (0, 1)]
    return representation_similarity(*stores, **options)


def of_angles(n: int = 2, **options: Any) -> Any:
    return principal_angles({str(seed): {LATE: gaussian(seed, 8, 2)} for seed in range(n)}, **options)


def of_drift(**options: Any) -> DriftSetup:
    return DriftSetup(DriftTexts(["a"], ["b"]), **options)


def of_probes(**options: Any) -> ProbeSettings:
    return ProbeSettings(**PROBES | options)


def of_folds(folds: int, n: int = 8) -> Any:
    return make_folds(LABELS[:n], np.arange(n), folds, 0)


def of_scale(quantile: float, beyond: float = 1e-3) -> Any:
    return projection_scale(torch.tensor([1.0, 1.0 + beyond, 2.0]), torch.tensor([0.0, 1.0, 3.0]), quantile)


# a call, what it takes, what it refuses, and the word by which it does
BOUNDS: list[tuple[Callable[..., Any], list[Mapping[str, Any]], list[Mapping[str, Any]], str]] = [
    (of_drift, [{"rank": 1}, {"n_null": 1}], [{"rank": 0}, {"n_null": 0}], "rank and n_null of at least 1"),
    (
        of_drift,
        [{"batch_tokens": 1, "batch_size": 1}],
        [{"batch_tokens": 0}, {"batch_size": 0}],
        "batches of at least 1",
    ),
    (of_drift, [{"sites": [LATE]}], [{"sites": []}, {"sites": [LATE, LATE]}], "each site once"),
    (
        TunedLensConfig,
        [{"steps": 0, "batch_texts": 1, "weight_decay": 0.0, "learning_rate": 1e-12}],
        [{"steps": -1}, {"batch_texts": 0}, {"weight_decay": -1e-9}, {"learning_rate": 0.0}],
        "learning_rate above 0",
    ),
    (TunedLensConfig, [{"held_out": 1e-9}, {"held_out": 1 - 1e-9}], [{"held_out": 0.0}, {"held_out": 1.0}], "held_out"),
    *(
        (of_probes, [{name: 0}], [{name: -1}], f"^{name}: expected at least 0")
        for name in ("seed", "shuffles", "bootstrap", "resamples")
    ),
    (
        of_probes,
        [{"C": 1e-12}, {"C": [1.0, 2.0], "C_sites": [LATE]}],
        [{"C": 0.0}, {"C": []}, {"C": -1.0}, {"C": [1.0, 0.0]}],
        "expected C above 0",
    ),
    (
        of_probes,
        [{"C": [1.0, 2.0], "C_sites": [LATE]}],
        [{"C": [1.0], "C_sites": [LATE]}, {"C": [1.0, 2.0], "C_sites": []}],
        "C_sites says where",
    ),
    (of_folds, [{"folds": 2}], [{"folds": 1}], "folds: expected at least 2"),
    (of_folds, [{"folds": 4}], [{"folds": 5}], "as many rows of each class"),
    (of_folds, [{"folds": 3, "n": 6}], [{"folds": 7, "n": 6}], "as many groups, got 6"),
    (
        of_spectrum,
        [{"n_directions": 1, "n_null": 0}],
        [{"n_directions": 0}, {"n_null": -1}],
        "n_directions of at least 1",
    ),
    (lambda k: of_spectrum(n_null=0).to_subspaces(k), [{"k": 1}], [{"k": 0}], "k must be at least 1, got 0"),
    (of_similarity, [{"max_tokens": 4, "n_null": 0}], [{"max_tokens": 3}, {"n_null": -1}], "max_tokens of at least 4"),
    (
        of_angles,
        [{"n": 2, "n_null": 1}, {"level": 1e-9}, {"level": 1 - 1e-9}],
        [{"n": 1}, {"n_null": 0}, {"level": 0.0}, {"level": 1.0}],
        "at least two subspaces",
    ),
    (of_scale, [{"quantile": 0}, {"quantile": 1}], [{"quantile": -1e-9}, {"quantile": 1 + 1e-9}], "quantile"),
    (of_scale, [{"quantile": 0.5, "beyond": 1e-3}], [{"quantile": 0.5, "beyond": 0.0}], "must project beyond"),
    (bootstrap_means, [{"columns": [1.0, 2.0], "n": 1}], [{"columns": [1.0, 2.0], "n": 0}], "n: expected at least one"),
    (bootstrap_means, [{"columns": [1.0, 2.0], "seed": 0}], [{"columns": [1.0, 2.0], "seed": -1}], "seed: expected 0"),
    (bootstrap_means, [{"columns": [1.0, 2.0]}], [{"columns": [1.0]}], "at least two groups or rows, got 1"),
    (
        bootstrap_mean,
        [{"values": [1.0, 2.0], "level": 1e-9}, {"values": [1.0, 2.0], "level": 1 - 1e-9}],
        [{"values": [1.0, 2.0], "level": 0.0}, {"values": [1.0, 2.0], "level": 1.0}],
        "level: expected a share",
    ),
    (t_interval, [{"values": [1.0, 2.0]}], [{"values": [1.0]}], "at least two replicates"),
    (
        holm,
        [{"p_values": [0.0, 1.0]}, {"p_values": 0.5}],
        [{"p_values": [-1e-9]}, {"p_values": [1 + 1e-9]}],
        "between 0",
    ),
    (holm, [{"p_values": [0.5]}], [{"p_values": []}, {"p_values": [[0.5]]}], "in one row"),
]


@pytest.mark.parametrize(("call", "taken", "refused", "word"), BOUNDS)
def test_what_lies_on_a_bound_is_taken_and_what_lies_beyond_is_not(
    call: Callable[..., Any], taken: list[Mapping[str, Any]], refused: list[Mapping[str, Any]], word: str
) -> None:
    for told in taken:
        call(**told)
    for told in refused:
        with pytest.raises((ConfigError, DataError), match=word):
            call(**told)


def test_the_scale_begins_at_the_quantile_that_was_asked_for() -> None:
    assert [of_scale(quantile).threshold for quantile in (0.0, 0.5, 1.0)] == [0.0, 1.0, 3.0]
    assert of_scale(1.0).start == 3.0 and of_scale(0.0).neutral_median == 1.0
    assert of_scale(0.5).gap == pytest.approx(1e-3, rel=1e-3)


def test_sixteen_differences_are_enumerated_and_seventeen_are_drawn() -> None:
    assert sign_flip(np.ones(16), "greater") == sign_flip(np.ones(16), "greater", n_resamples=3)
    assert sign_flip(np.ones(16), "greater").p_value == 2**-16
    drawn = [sign_flip(np.ones(17), alternative, n_resamples=100) for alternative in ("greater", "less", "two-sided")]
    assert [found.p_value for found in drawn] == [1 / 101, 1.0, 1 / 101]  # the observed pattern counts, no other hits
    assert not any(found.exact for found in drawn) and {found.n for found in drawn} == {17}


def test_a_drawn_p_value_is_the_share_of_the_patterns_with_the_observed_one() -> None:
    values = np.random.default_rng(3).normal(0.1, size=20)
    rng = np.random.default_rng(7)
    flipped = np.array([rng.choice([-1.0, 1.0], size=20) @ values / 20 for _ in range(200)])
    found = sign_flip(values, "two-sided", n_resamples=200, seed=7)
    assert found.p_value == (1 + (np.abs(flipped) >= abs(values.mean())).sum()) / 201


def test_angles_of_several_sites_are_counted_from_the_smallest() -> None:
    early = Site(0, "resid_post")
    subspaces = {name: {early: gaussian(seed, 8, 2), LATE: gaussian(seed + 9, 8, 3)} for seed, name in enumerate("ab")}
    table = principal_angles(subspaces, n_null=5)
    assert table["angle"].tolist() == [1, 2, 1, 2, 3]
    for _, rows in table.groupby("site"):
        assert rows["degrees"].is_monotonic_increasing
        assert (rows["null_low"] <= rows["null_median"]).all() and (rows["null_median"] <= rows["null_high"]).all()
        np.testing.assert_allclose(rows["cosine"], np.cos(np.radians(rows["degrees"])), atol=1e-12)
