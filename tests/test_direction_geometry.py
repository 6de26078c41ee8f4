"""Cosines between layers and the rank of several categories, against planted directions and drawn nulls."""

import math

import numpy as np
import pandas as pd
import pytest
import torch

from interp_unlearn.activations import ActivationStore
from interp_unlearn.directions import Directions, category_directions, compare_directions, subspace_rank
from interp_unlearn.directions.nulls import cosine_quantile, random_direction_at, random_unit_vectors
from interp_unlearn.errors import ConfigError, SiteError
from interp_unlearn.sites import Site

SITES = [Site.embed, Site(0, "resid_post"), Site(1, "resid_post")]
D = 24


def store_of(vectors: dict[Site, np.ndarray], labels: np.ndarray | None = None) -> ActivationStore:
    n = len(next(iter(vectors.values())))
    rows = pd.DataFrame({"n_tokens": np.full(n, 5)})
    rows = rows if labels is None else rows.assign(label=labels.astype(int))
    tensors = {site: torch.tensor(values, dtype=torch.float32) for site, values in vectors.items()}
    return ActivationStore(tensors, rows, {"model": "planted", "model_hash": "a", "data_hash": "d", "pool": "mean"})


class TestNulls:
    @pytest.mark.parametrize("d", [2, 5, 64])
    def test_quantiles_are_those_of_drawn_directions(self, d: int) -> None:
        drawn = random_unit_vectors(200_000, d, seed=0)[:, 0].double()
        assert float(drawn.std()) == pytest.approx(1 / math.sqrt(d), rel=0.01)
        for probability in (0.6, 0.975):
            found = cosine_quantile(d, probability)
            assert float((drawn <= found).double().mean()) == pytest.approx(probability, abs=0.004)

    def test_largest_of_many(self) -> None:
        largest = random_unit_vectors(50 * 4000, 16, seed=1)[:, 0].reshape(4000, 50).amax(1)
        found = cosine_quantile(16, 0.95, of_largest=50)
        assert float((largest <= found).double().mean()) == pytest.approx(0.95, abs=0.012)
        assert found > cosine_quantile(16, 0.95)

    def test_a_random_direction_belongs_to_its_site_and_seed(self) -> None:
        sites = [*SITES, Site(0, "mlp_out"), Site(1, "attn_out")]
        drawn = torch.stack([random_direction_at(site, 512, seed) for site in sites for seed in (0, 1)])
        assert ((drawn @ drawn.T).fill_diagonal_(0).abs() < 0.25).all()
        torch.testing.assert_close(random_direction_at(SITES[1], 512, 1), drawn[3])

    def test_one_dimension_has_no_chance(self) -> None:
        with pytest.raises(ConfigError, match="at least 2 dimensions"):
            cosine_quantile(1, 0.9)


class TestCosines:
    def test_planted_angle_and_null(self) -> None:
        e = torch.eye(D)
        angle = 0.7
        turned = math.cos(angle) * e[0] + math.sin(angle) * e[1]
        frame = compare_directions(Directions({SITES[0]: e[0], SITES[1]: 3 * turned, SITES[2]: -e[0]}))
        table = frame.pivot(index="site_a", columns="site_b", values="cosine")
        assert table.loc["embed", "0.resid_post"] == pytest.approx(math.cos(angle), abs=1e-6)
        assert table.loc["1.resid_post", "embed"] == pytest.approx(-1, abs=1e-6)
        assert len(frame) == 9 and frame["null_std"].unique() == pytest.approx([1 / math.sqrt(D)])
        assert frame["null_high"].iloc[0] == pytest.approx(cosine_quantile(D, 0.975)) == -frame["null_low"].iloc[0]
        assert frame["layer_a"].isna().sum() == 3

    def test_whitening_takes_out_what_anisotropy_puts_in(self) -> None:
        """Vectors drawn like anisotropic activations are alike for no reason: raw cosines show it, whitened do not."""
        rng = np.random.default_rng(0)
        spread = np.ones(D)
        spread[:2] = 30
        vectors = {
            site: rng.normal(size=(4000, D)) * spread * scale for site, scale in zip(SITES, (1, 10, 3), strict=True)
        }
        store = store_of(vectors)
        raw, whitened = [], []
        for _ in range(40):
            drawn = {site: torch.tensor(rng.normal(size=D) * spread) for site in SITES[:2]}
            row = compare_directions(Directions(drawn), store).iloc[1]
            raw.append(row["cosine"])
            whitened.append(row["whitened_cosine"])
        expected = 1 / math.sqrt(D)
        assert np.std(whitened) == pytest.approx(expected, rel=0.35)
        assert np.std(raw) > 2 * expected

    def test_scores_correlate_though_the_basis_turns(self) -> None:
        rng = np.random.default_rng(1)
        turn = np.linalg.qr(rng.normal(size=(D, D)))[0]
        early = rng.normal(size=(500, D))
        direction = rng.normal(size=D)
        store = store_of({SITES[1]: early, SITES[2]: early @ turn})
        directions = {SITES[1]: torch.tensor(direction), SITES[2]: torch.tensor(direction @ turn)}
        row = compare_directions(Directions(directions), store).iloc[1]
        assert row["score_correlation"] == pytest.approx(1, abs=1e-6)
        assert abs(row["cosine"]) < 0.6 and row["n"] == 500

    def test_classes_are_centred_apart(self) -> None:
        """Between the classes both scores differ; within them they have nothing in common."""
        rng = np.random.default_rng(2)
        labels = np.arange(2000) % 2
        noise = [rng.normal(size=(2000, D)) for _ in range(2)]
        vectors = {site: x + 50 * labels[:, None] * np.eye(D)[0] for site, x in zip(SITES[1:], noise, strict=True)}
        axis = torch.eye(D)[0]
        directions = Directions({SITES[1]: axis, SITES[2]: axis})
        assert abs(compare_directions(directions, store_of(vectors, labels)).iloc[1]["score_correlation"]) < 0.1
        assert compare_directions(directions, store_of(vectors)).iloc[1]["score_correlation"] > 0.99

    def test_refusals(self) -> None:
        two = Directions({SITES[0]: torch.ones(D), SITES[1]: torch.ones(D)})
        with pytest.raises(ConfigError, match="at two sites, got embed"):
            compare_directions(two.at(SITES[:1]))
        with pytest.raises(ConfigError, match=r"one width, got \[8, 24\]"):
            compare_directions(Directions({SITES[0]: torch.ones(D), SITES[1]: torch.ones(8)}))
        with pytest.raises(SiteError, match=r"0\.z is not in the residual stream"):
            compare_directions(Directions({SITES[0]: torch.ones(D), Site(0, "z"): torch.ones(D)}))
        with pytest.raises(SiteError, match=r"0\.resid_post"):
            compare_directions(two, store_of({SITES[0]: np.random.default_rng(0).normal(size=(9, D))}))
        with pytest.raises(ConfigError, match="nothing varies"):
            compare_directions(two, store_of({site: np.ones((9, D)) for site in SITES}))


class TestRank:
    @pytest.mark.parametrize("rank", [1, 2, 4])
    def test_orthogonal_directions_count_one_each(self, rank: int) -> None:
        axes = torch.eye(D)
        named = {f"c{i}": Directions({SITES[1]: axes[i % rank]}) for i in range(4)}
        frame = subspace_rank(named, n_null=50)
        assert frame["effective_rank"].iloc[0] == pytest.approx(rank)
        assert (frame["share"] > 1e-9).sum() == rank
        assert frame["share"].sum() == pytest.approx(1) == frame["cumulative_share"].iloc[-1]
        assert (frame["singular_value"] ** 2).sum() == pytest.approx(4)
        assert frame["random_low"].iloc[0] < frame["random_rank"].iloc[0] < 4
        assert frame["shuffled_rank"].isna().all() and frame["n"].isna().all()

    def planted(self, spread: float, n: int = 400) -> tuple[ActivationStore, list[str]]:
        """Three categories along one shared direction, and each along one of its own of length ``spread``."""
        rng = np.random.default_rng(0)
        names = ["neutral", "insult", "threat", "slur"]
        kinds = rng.integers(0, 4, size=n)
        shift = np.zeros((4, D))
        shift[1:, 0] = 4
        shift[1:, 1:4] = spread * np.eye(3)
        store = store_of({SITES[1]: rng.normal(size=(n, D)) + shift[kinds]})
        return store, [names[kind] for kind in kinds]

    def test_one_shared_direction_stays_inside_the_shuffled_band(self) -> None:
        store, categories = self.planted(0)
        first = subspace_rank(store, categories, n_null=200).iloc[0]
        assert first["shuffled_low"] <= first["effective_rank"] <= first["shuffled_high"] < 1.5
        assert first["n_categories"] == 3 and first["n"] == 400

    def test_directions_of_their_own_leave_it(self) -> None:
        store, categories = self.planted(8)
        first = subspace_rank(store, categories, n_null=200).iloc[0]
        assert first["effective_rank"] > 1.2 * first["shuffled_high"]
        expected = np.full((3, 3), 16.0) + 64 * np.eye(3)  # of the planted differences
        shares = np.linalg.eigvalsh(expected)[::-1] / np.trace(expected)
        assert first["effective_rank"] == pytest.approx(np.exp(-(shares * np.log(shares)).sum()), rel=0.03)

    def test_mean_differences_of_names_and_of_masks(self) -> None:
        store, categories = self.planted(8)
        names = np.array(categories)
        masks = {name: names == name for name in ("insult", "threat", "slur")}
        by_name, by_mask = category_directions(store, categories), category_directions(store, masks)
        x = store[SITES[1]].double().numpy()
        for name, mask in masks.items():
            gap = x[mask].mean(0) - x[names == "neutral"].mean(0)
            for found in (by_name, by_mask):
                assert found[name][SITES[1]].numpy() == pytest.approx(gap / np.linalg.norm(gap), abs=1e-5)

    def test_a_text_may_be_of_several_categories(self) -> None:
        store, categories = self.planted(8)
        names = np.array(categories)
        masks = {"toxic": names != "neutral", "threat": names == "threat"}
        frame = subspace_rank(store, masks, n_null=20)
        assert frame["n_categories"].iloc[0] == 2 and frame["shuffled_rank"].notna().all()

    def test_refusals(self) -> None:
        store, categories = self.planted(0)
        one = Directions({SITES[0]: torch.ones(D)})
        with pytest.raises(ConfigError, match="at least two categories, got a"):
            subspace_rank({"a": one})
        with pytest.raises(SiteError, match="no site in common"):
            subspace_rank({"a": one, "b": Directions({SITES[1]: torch.ones(D)})})
        with pytest.raises(ConfigError, match="widths: "):
            subspace_rank({"a": one, "b": Directions({SITES[0]: torch.ones(8)})})
        with pytest.raises(ConfigError, match="a store needs categories"):
            subspace_rank(store)
        with pytest.raises(ConfigError, match="no text is neutral"):
            subspace_rank(store, ["insult", "slur"] * 200)
        with pytest.raises(ConfigError, match="an entry for each of 400 texts"):
            subspace_rank(store, categories[:-1])
        with pytest.raises(ConfigError, match="no text is rare"):
            subspace_rank(store, {"rare": np.zeros(400), "all": np.ones(400)})
