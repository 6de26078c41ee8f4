"""Principal angles: known ones, and random subspaces against their null."""

from typing import Any

import numpy as np
import pytest
import torch
from test_drift_paired import EARLY, LATE, gaussian
from torch import Tensor

from interp_unlearn.directions import Directions
from interp_unlearn.directions.nulls import cosine_quantile
from interp_unlearn.drift import principal_angles
from interp_unlearn.errors import ConfigError, SiteError
from interp_unlearn.sites import Site

D = 40


def axes(*indices: int) -> Tensor:
    return torch.eye(D).double()[:, list(indices)]


def test_planted_angles_whatever_spans_the_subspaces() -> None:
    tilted = np.cos(0.4) * axes(1) + np.sin(0.4) * axes(2)
    mixed = torch.cat([axes(0), tilted], dim=1) @ torch.tensor([[2.0, -3.0], [5.0, 0.1]]).double()
    table: Any = principal_angles({"probe": {LATE: axes(0, 1)}, "delta": {LATE: mixed}}, n_null=10)
    assert table["degrees"].tolist() == pytest.approx([0, np.degrees(0.4)], abs=1e-5)
    assert table["cosine"].tolist() == pytest.approx([1, np.cos(0.4)])
    assert table["angle"].tolist() == [1, 2] and table["layer"].tolist() == [2, 2]
    assert (table["null_low"] > 45).all(), "nothing so near by chance"


def test_every_two_at_every_site_that_both_have() -> None:
    directions = Directions({EARLY: gaussian(0, D), LATE: axes(3)[:, 0]})
    spans = {EARLY: axes(0, 1), LATE: axes(3, 4)}
    table: Any = principal_angles({"probe": directions, "moved": spans, "delta": {LATE: axes(5)}}, n_null=5)
    found = {(row.site, row.first, row.second) for row in table.itertuples()}
    assert found == {
        ("0.resid_post", "probe", "moved"),
        ("2.resid_post", "probe", "moved"),
        ("2.resid_post", "probe", "delta"),
        ("2.resid_post", "moved", "delta"),
    }
    degrees: Any = table.set_index(["site", "first", "second"])["degrees"]
    assert degrees["2.resid_post", "probe", "moved"] == pytest.approx(0, abs=1e-5)
    assert degrees["2.resid_post", "probe", "delta"] == pytest.approx(90)
    inside = float(torch.nn.functional.normalize(gaussian(0, D), dim=0)[:2].norm())
    assert degrees["0.resid_post", "probe", "moved"] == pytest.approx(np.degrees(np.arccos(inside)), abs=1e-3)


def test_repeated_columns_are_one_direction() -> None:
    table: Any = principal_angles({"a": {LATE: torch.cat([axes(0), 2 * axes(0)], dim=1)}, "b": {LATE: axes(1, 2, 3)}})
    assert table["k_first"].tolist() == [1] and table["k_second"].tolist() == [3]


def test_random_subspaces_lie_within_the_null() -> None:
    sites = [Site(layer, "resid_post") for layer in range(30)]
    spans = {
        name: {site: gaussian(100 * k + i, D, k) for i, site in enumerate(sites)} for name, k in (("a", 3), ("b", 5))
    }
    table: Any = principal_angles(spans, n_null=400)
    assert len(table) == 90
    inside = (table["null_low"] <= table["degrees"]) & (table["degrees"] <= table["null_high"])
    assert inside.mean() > 0.85


def test_the_null_of_two_directions_is_the_exact_one() -> None:
    table: Any = principal_angles({"a": {LATE: axes(0)}, "b": {LATE: axes(1)}}, n_null=1500, level=0.9)
    # The angle's 5% quantile is the absolute cosine's 95%, which is the cosine's 97.5%.
    assert table["null_low"][0] == pytest.approx(np.degrees(np.arccos(cosine_quantile(D, 0.975))), abs=1.5)
    assert table["null_median"][0] == pytest.approx(np.degrees(np.arccos(cosine_quantile(D, 0.75))), abs=1.5)


def test_what_is_no_subspace_is_refused() -> None:
    with pytest.raises(ConfigError, match="at least two subspaces"):
        principal_angles({"a": {LATE: axes(0)}})
    with pytest.raises(SiteError, match="no two of a, b have a site in common"):
        principal_angles({"a": {LATE: axes(0)}, "b": {EARLY: axes(0)}})
    with pytest.raises(ConfigError, match=r"b, 2\.resid_post: all columns are zero"):
        principal_angles({"a": {LATE: axes(0)}, "b": {LATE: 0 * axes(0)}})
    with pytest.raises(ConfigError, match=r"expected finite columns \[d, k\], got shape \(40,\)"):
        principal_angles({"a": {LATE: axes(0)}, "b": {LATE: axes(0)[:, 0]}})
    for broken in (float("nan"), float("inf")):
        with pytest.raises(ConfigError, match=r"b, 2\.resid_post: expected finite columns \[d, k\]"):
            principal_angles({"a": {LATE: axes(0)}, "b": {LATE: axes(0) * broken}})
    with pytest.raises(ConfigError, match=r"expected finite columns \[d, k\], got shape \(40, 0\)"):
        principal_angles({"a": {LATE: axes(0)}, "b": {LATE: axes(0)[:, :0]}})
    with pytest.raises(ConfigError, match="a is 40 wide there and b 39"):
        principal_angles({"a": {LATE: axes(0)}, "b": {LATE: axes(0)[1:] + 1}})
