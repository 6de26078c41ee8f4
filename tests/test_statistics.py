"""Statistics against closed forms, scipy and brute force."""

import itertools
import math
from typing import Any

import numpy as np
import pandas as pd
import pytest
from scipy import stats

from interp_unlearn.errors import ConfigError
from interp_unlearn.statistics import (
    Goal,
    bootstrap_crossover,
    bootstrap_gap_closed,
    bootstrap_mean,
    bootstrap_means,
    crossover,
    gap_closed,
    sign_flip,
    spelled_interval,
    spelled_value,
    t_interval,
)

RNG = np.random.default_rng(0)


class TestBootstrap:
    def test_spread_of_the_means_is_the_closed_form(self) -> None:
        values = RNG.normal(size=200)
        means = bootstrap_means(values, n=20_000, seed=1)[:, 0]
        assert means.mean() == pytest.approx(values.mean(), abs=0.003)
        assert means.std() == pytest.approx(values.std() / math.sqrt(200), rel=0.03)

    def test_interval_agrees_with_scipy(self) -> None:
        values = RNG.exponential(size=60)
        ours = bootstrap_mean(values, n=20_000, seed=1)
        other = stats.bootstrap((values,), np.mean, n_resamples=20_000, method="percentile", rng=2)
        assert (ours.mean, ours.n) == (pytest.approx(values.mean()), 60)
        assert ours.low == pytest.approx(other.confidence_interval.low, abs=0.02)
        assert ours.high == pytest.approx(other.confidence_interval.high, abs=0.02)

    def test_copies_within_a_group_add_no_certainty(self) -> None:
        values = RNG.normal(size=40)
        copied, groups = np.repeat(values, 25), [f"g{i}" for i in range(40) for _ in range(25)]
        single, grouped = bootstrap_mean(values, seed=3), bootstrap_mean(copied, groups, seed=3)
        assert (grouped.low, grouped.high) == pytest.approx((single.low, single.high))  # the same draws of 40 units
        naive = bootstrap_mean(copied, seed=3)
        assert naive.high - naive.low < 0.3 * (grouped.high - grouped.low)

    def test_groups_of_unequal_size_against_a_loop(self) -> None:
        values, groups = np.arange(6.0), ["a", "b", "b", "b", "c", "c"]
        found = {round(float(mean), 9) for mean in bootstrap_means(values, groups, n=500)[:, 0]}
        by_group = {"a": [0.0], "b": [1.0, 2.0, 3.0], "c": [4.0, 5.0]}
        possible = {
            round(float(np.mean([v for key in draw for v in by_group[key]])), 9)
            for draw in itertools.product("abc", repeat=3)
        }
        assert found == possible

    def test_columns_share_their_draws(self) -> None:
        values = RNG.normal(size=30)
        means = bootstrap_means(np.stack([values, 2 * values + 1], axis=1), n=50)
        np.testing.assert_allclose(means[:, 1], 2 * means[:, 0] + 1)

    def test_seed_decides(self) -> None:
        values = RNG.normal(size=30)
        assert bootstrap_mean(values, seed=5) == bootstrap_mean(values, seed=5)
        assert bootstrap_mean(values, seed=5) != bootstrap_mean(values, seed=6)

    @pytest.mark.parametrize(
        ("values", "groups", "word"),
        [
            ([], None, "non-empty"),
            ([1.0], None, "at least two"),
            ([1.0, 2.0], ["a", "a"], "at least two"),
            ([1.0, 2.0], ["a"], "one per row"),
            ([1.0, 2.0, 3.0], ["a", None, "b"], "row 1 has none; give every row a key"),
            ([1.0, 2.0, 3.0], ["a", "b", math.nan], "row 2 has none"),
            ([1.0, 2.0, 3.0], [pd.NA, "b", "a"], "row 0 has none"),
            ([1.0, math.nan], None, "finite"),
        ],
    )
    def test_what_cannot_be_resampled(self, values: list[float], groups: list[Any] | None, word: str) -> None:
        with pytest.raises(ConfigError, match=word):
            bootstrap_mean(values, groups)


def test_t_interval_agrees_with_scipy() -> None:
    values = RNG.normal(size=8)
    expected = stats.ttest_1samp(values, 0).confidence_interval(0.9)
    found = t_interval(values, level=0.9)
    assert (found.low, found.high) == (pytest.approx(expected.low), pytest.approx(expected.high))
    assert (found.mean, found.n) == (pytest.approx(values.mean()), 8)


@pytest.mark.parametrize(("values", "level"), [([1.0], 0.95), ([1.0, 2.0], 95)])
def test_t_interval_refuses(values: list[float], level: float) -> None:
    with pytest.raises(ConfigError):
        t_interval(values, level)


class TestGap:
    def test_values_are_not_clipped(self) -> None:
        assert gap_closed(0.1, 0.1, 0.9) == 0
        assert gap_closed(0.9, 0.1, 0.9) == 1
        assert gap_closed(1.0, 0.2, 0.6) == pytest.approx(2)
        assert gap_closed(0.0, 0.2, 0.6) == pytest.approx(-0.5)
        assert gap_closed(0.2, 1.0, 0.2) == 1  # suppression: the target share falls

    @pytest.mark.parametrize(("before", "target"), [(0.5, 0.5), (0.5, 0.5 + 1e-10), (math.nan, 1.0)])
    def test_no_gap(self, before: float, target: float) -> None:
        with pytest.raises(ConfigError):
            gap_closed(0.5, before, target)

    def test_bootstrap_agrees_with_a_loop_over_resamples(self) -> None:
        before, after, target = ((RNG.random(80) < p).astype(float) for p in (0.1, 0.5, 0.9))
        found = bootstrap_gap_closed(after, before, target, n=4000, seed=1)
        assert found.mean == pytest.approx(gap_closed(after.mean(), before.mean(), target.mean()))
        loop = []
        for _ in range(4000):
            rows = RNG.integers(80, size=80)
            loop.append(gap_closed(after[rows].mean(), before[rows].mean(), target[rows].mean()))
        assert found.low == pytest.approx(np.quantile(loop, 0.025), abs=0.02)
        assert found.high == pytest.approx(np.quantile(loop, 0.975), abs=0.02)

    def test_a_model_equal_to_its_twin_has_no_uncertainty(self) -> None:
        before, target = RNG.random(50) * 0.2, 0.8 + RNG.random(50) * 0.2
        found = bootstrap_gap_closed(target, before, target)
        assert (found.mean, found.low, found.high) == pytest.approx((1, 1, 1))

    def test_gap_that_vanishes_in_a_resample(self) -> None:
        with pytest.raises(ConfigError, match="vanishes"):
            bootstrap_gap_closed([0, 1], [0, 0], [0, 1])

    def test_unpaired_rows(self) -> None:
        with pytest.raises(ConfigError, match="one value per row"):
            bootstrap_gap_closed([1, 1], [0, 0, 0], [1, 1, 1])


class TestSignFlip:
    @pytest.mark.parametrize("alternative", ["greater", "less", "two-sided"])
    @pytest.mark.parametrize("n", [1, 5, 10])
    def test_exact_p_agrees_with_scipy(self, alternative: str, n: int) -> None:
        values = np.round(RNG.normal(0.3, size=n), 1)  # rounding makes ties
        found = sign_flip(values, alternative)  # type: ignore[arg-type]
        if n == 1:
            expected = {"greater": 0.5, "less": 0.5, "two-sided": 1.0}[alternative]
            expected = (
                expected
                if alternative == "two-sided"
                else (0.5 if (values[0] > 0) == (alternative == "greater") else 1)
            )
        else:
            test = stats.permutation_test(
                (values,), np.mean, permutation_type="samples", n_resamples=np.inf, alternative=alternative
            )
            expected = test.pvalue
        assert found.exact
        assert found.p_value == pytest.approx(min(1, expected))

    def test_all_positive_gives_the_smallest_p(self) -> None:
        assert sign_flip([1.0, 2.0, 3.0], "greater").p_value == 1 / 8
        assert sign_flip([1.0, 2.0, 3.0], "less").p_value == 1
        assert sign_flip([1.0, 2.0, 3.0]).p_value == 1 / 4

    def test_sampled_p_is_near_the_normal_one_and_never_zero(self) -> None:
        values = RNG.normal(0.2, size=60)
        found = sign_flip(values, "greater", n_resamples=5000)
        normal = stats.norm.sf(values.sum() / math.sqrt((values**2).sum()))
        assert not found.exact
        assert found.p_value == pytest.approx(normal, abs=0.02)
        assert sign_flip(np.ones(17), "greater", n_resamples=100).p_value >= 1 / 101

    def test_uniform_under_the_null(self) -> None:
        p_values = [sign_flip(RNG.normal(size=8), "greater").p_value for _ in range(400)]
        assert stats.kstest(p_values, "uniform").pvalue > 0.001

    def test_unknown_alternative(self) -> None:
        with pytest.raises(ConfigError, match="alternative"):
            sign_flip([1.0], "larger")  # type: ignore[arg-type]


class TestCrossover:
    def test_contrasts_of_known_cells(self) -> None:
        noise = np.array([-0.01, 0.0, 0.01, 0.02, -0.02, 0.0])
        found = crossover(0.9 + noise, 0.3 - noise, 0.8 + noise, 0.1 + noise)
        assert found.first.mean == pytest.approx(0.6)
        assert found.second.mean == pytest.approx(0.7)
        assert found.interaction.mean == pytest.approx(1.3)
        assert found.p_crossover == 1 / 64
        assert list(found.to_frame()["contrast"]) == ["first", "second", "interaction", "crossover"]

    def test_interaction_without_crossover_is_not_claimed(self) -> None:
        first, other = np.full(6, 0.9) + np.arange(6) / 100, np.full(6, 0.1)
        found = crossover(first, other, np.full(6, 0.5), np.full(6, 0.6) + np.arange(6) / 100)
        assert found.p_interaction == 1 / 64
        assert found.p_crossover == found.p_second == 1
        assert found.first.low > 0 > found.second.high

    def test_one_organism_gets_no_p_value(self) -> None:
        with pytest.raises(ConfigError, match="bootstrap_crossover"):
            crossover([0.9], [0.1], [0.8], [0.2])

    def test_bootstrap_differences_and_interaction(self) -> None:
        def outcomes(p: float) -> np.ndarray:
            return (RNG.random(120) < p).astype(float)

        groups = [i // 4 for i in range(120)]
        first = Goal(outcomes(0.8), outcomes(0.3), outcomes(0.1), outcomes(0.9), groups)
        second = Goal(outcomes(0.7), outcomes(0.5), outcomes(0.2), outcomes(1.0))
        found = bootstrap_crossover(first, second)
        for goal, interval in ((first, found.first), (second, found.second)):
            gap = np.mean(goal.target) - np.mean(goal.before)
            expected = (np.mean(goal.favoured) - np.mean(goal.other)) / gap
            assert interval.mean == pytest.approx(expected)
            assert interval.low < expected < interval.high
        assert (found.first.n, found.second.n, found.interaction.n) == (30, 120, 30)
        assert found.interaction.mean == pytest.approx(found.first.mean + found.second.mean)
        widths = [i.high - i.low for i in (found.first, found.second, found.interaction)]
        assert widths[2] == pytest.approx(math.hypot(widths[0], widths[1]), rel=0.1)  # independent goals
        assert math.isnan(found.p_crossover)

    def test_bootstrap_draws_of_the_two_goals_are_independent(self) -> None:
        goal = Goal(RNG.random(60), RNG.random(60), np.zeros(60), np.ones(60))
        found = bootstrap_crossover(goal, goal, n=4000)
        single, both = (i.high - i.low for i in (found.first, found.interaction))
        assert both == pytest.approx(math.sqrt(2) * single, rel=0.1)  # twice as wide if they shared their draws


@pytest.mark.parametrize("test", [bootstrap_mean, t_interval, sign_flip])
def test_several_columns_are_not_one(test) -> None:
    with pytest.raises(ConfigError, match=r"one value a row, got shape \(4, 2\)"):
        test(np.ones((4, 2)))


def test_a_number_that_rounds_to_zero_has_no_sign():
    assert spelled_value(-0.004) == spelled_value(0.0) == "0.00"
    assert spelled_value(-0.006) == "-0.01"
    assert spelled_interval(-0.001, -0.0151, 1.0) == "0.00 [-0.02, 1.00]"
    assert spelled_value(float("nan")) == "nan"
