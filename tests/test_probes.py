"""Probes against planted directions, the scikit-learn pipeline and hand-made folds."""

import shutil
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
import torch
from probe_stores import EARLY, LATE, D, make_store, planted
from sklearn.linear_model import LogisticRegression
from sklearn.metrics import roc_auc_score
from sklearn.model_selection import StratifiedGroupKFold, StratifiedKFold
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler

from interp_unlearn.activations import ActivationStore
from interp_unlearn.errors import ArtifactError, ConfigError, SiteError
from interp_unlearn.probes import ProbeSet, fit_probes
from interp_unlearn.probes.folds import make_folds, shuffle_within_folds
from interp_unlearn.sites import Site


class TestDirections:
    def test_planted_direction_is_recovered(self) -> None:
        store, direction, spread = planted(6000)
        probes = fit_probes(store, progress=False)
        discriminant = direction / spread**2  # for Gaussian classes of equal covariance
        discriminant /= np.linalg.norm(discriminant)
        assert probes.direction(LATE).numpy() @ discriminant > 0.97
        assert probes.direction(LATE, "mean_difference").numpy() @ direction > 0.97
        assert discriminant @ direction < 0.9  # the two are not the same question
        for tensor in (probes.directions, probes.mean_differences):
            torch.testing.assert_close(tensor.norm(dim=1), torch.ones(2))

    def test_score_is_the_pipelines_decision_in_raw_coordinates(self) -> None:
        store, _, _ = planted()
        probes = fit_probes(store, C=0.3, progress=False)
        for index, site in enumerate(probes.sites):
            vectors = store[site].double().numpy()
            regression = LogisticRegression(C=0.3, tol=1e-8, max_iter=5000)
            pipeline = make_pipeline(StandardScaler(), regression).fit(vectors, store.labels)
            expected = pipeline.decision_function(vectors)
            found = probes.scales[index] * probes.score(store, site)
            np.testing.assert_allclose(found.numpy(), expected, atol=1e-3, rtol=1e-3)

    def test_score_is_a_distance_in_the_units_of_the_stream(self) -> None:
        store, _, _ = planted()
        probes = fit_probes(store, progress=False)
        vectors = torch.randn(2, 5, D)
        for estimator in ("logistic", "mean_difference"):
            before = probes.score(vectors, LATE, estimator)
            after = probes.score(vectors + 2.5 * probes.direction(LATE, estimator), LATE, estimator)
            assert before.shape == (2, 5)
            torch.testing.assert_close(after - before, torch.full((2, 5), 2.5))

    def test_mean_difference_border_is_half_way(self) -> None:
        store, _, _ = planted()
        scores = fit_probes(store, progress=False).score(store, LATE, "mean_difference").numpy()
        positive, negative = scores[store.labels == 1].mean(), scores[store.labels == 0].mean()
        assert positive == pytest.approx(-negative, abs=1e-4)
        assert positive > 0


class TestCrossValidation:
    @pytest.mark.parametrize("grouped", [False, True])
    def test_table_equals_hand_made_folds(self, grouped: bool) -> None:
        store, _, _ = planted(400)
        labels = store.labels
        assert labels is not None
        groups = [f"g{index // 4}" for index in range(400)] if grouped else None
        probes = fit_probes(store, labels, groups, folds=4, seed=3, progress=False)
        splitter = (StratifiedGroupKFold if grouped else StratifiedKFold)(4, shuffle=True, random_state=3)
        vectors = store[EARLY].double().numpy()
        logistic, difference, right = [], [], []
        codes = np.repeat(np.arange(100), 4)
        for train, test in splitter.split(vectors, labels, codes if grouped else None):
            pipeline = make_pipeline(StandardScaler(), LogisticRegression(tol=1e-8, max_iter=5000))
            scores = pipeline.fit(vectors[train], labels[train]).decision_function(vectors[test])
            logistic.append(roc_auc_score(labels[test], scores))
            right.extend((scores > 0) == labels[test])
            gap = vectors[train][labels[train] == 1].mean(0) - vectors[train][labels[train] == 0].mean(0)
            difference.append(roc_auc_score(labels[test], vectors[test] @ gap))
        row = probes.to_frame().set_index("site").loc[str(EARLY)]
        assert row["auroc"] == pytest.approx(np.mean(logistic), abs=5e-4)  # a pair of near equals or two
        assert row["auroc_mean_difference"] == pytest.approx(np.mean(difference))
        assert row["accuracy"] == pytest.approx(np.mean(right), abs=0.005)
        assert (row["n"], row["n_groups"], row["n_positive"]) == (400, 100 if grouped else 400, labels.sum())

    def test_copies_of_a_text_leak_unless_grouped(self) -> None:
        rng = np.random.default_rng(0)
        vectors = np.repeat(
            rng.normal(size=(60, 80)), 5, axis=0
        )  # 60 texts that say nothing of the label, 5 copies each
        labels = np.repeat(rng.random(60) < 0.5, 5)
        store = make_store({LATE: vectors}, labels)
        leaked = fit_probes(store, progress=False).table["auroc"][0]
        honest = fit_probes(store, groups=[index // 5 for index in range(300)], progress=False).table["auroc"][0]
        assert leaked > 0.95
        assert honest < 0.7

    def test_groups_of_the_store_are_used(self) -> None:
        store, _, _ = planted(200)
        kept = make_store({LATE: store[LATE].numpy()}, store.labels, group=[f"g{i // 2}" for i in range(200)])
        assert fit_probes(kept, progress=False).table["n_groups"][0] == 100

    def test_seed_decides(self) -> None:
        store, _, _ = planted(300)
        tables = [fit_probes(store, seed=seed, progress=False).table for seed in (1, 1, 2)]
        pd.testing.assert_frame_equal(tables[0], tables[1])
        assert not tables[0].equals(tables[2])


class TestInterval:
    def test_it_covers_the_estimate_and_tightens_with_more_rows(self) -> None:
        widths = []
        for n in (200, 3200):
            row = fit_probes(planted(n)[0], progress=False).table.iloc[0]
            assert row["auroc_low"] < row["auroc"] < row["auroc_high"]
            widths.append(row["auroc_high"] - row["auroc_low"])
        assert widths[1] == pytest.approx(widths[0] / 4, rel=0.4)  # as one over the root of n

    def test_copies_within_groups_add_no_certainty(self) -> None:
        store, _, _ = planted(200)
        labels = np.repeat(store.labels, 6)
        copies = make_store({EARLY: np.repeat(store[EARLY].numpy(), 6, axis=0)}, labels)
        groups = [index // 6 for index in range(1200)]
        rows = [fit_probes(copies, groups=g, progress=False).table.iloc[0] for g in (groups, None)]
        grouped, naive = (row["auroc_high"] - row["auroc_low"] for row in rows)
        assert naive < 0.6 * grouped


class TestControls:
    def test_shuffled_labels_and_random_directions_are_worth_nothing(self) -> None:
        table = fit_probes(planted(3000)[0], shuffles=3, progress=False).table
        assert table["auroc"][1] > 0.95
        assert abs(table["auroc_shuffled"] - 0.5).max() < 0.04
        assert table["auroc_random_direction"][1] < table["auroc_mean_difference"][1] - 0.1

    def test_shuffled_labels_find_no_more_than_the_larger_class(self) -> None:
        rng = np.random.default_rng(0)
        store = make_store({LATE: rng.normal(size=(400, 3))}, rng.random(400) < 0.8)
        row = fit_probes(store, shuffles=5, bootstrap=0, progress=False).table.iloc[0]
        assert row["accuracy_shuffled"] == pytest.approx(0.8, abs=0.04), "not 0.2, the share of the smaller class"

    def test_shuffled_labels_on_few_rows_and_many_dimensions(self) -> None:
        rng = np.random.default_rng(0)
        store = make_store({LATE: rng.normal(size=(60, 200))}, np.arange(60) % 2)
        table = fit_probes(store, shuffles=40, progress=False).table
        assert table["auroc_shuffled"][0] == pytest.approx(0.5, abs=0.05)

    def test_bag_of_words_finds_words_and_not_their_parity(self) -> None:
        rng = np.random.default_rng(0)
        first, second = rng.random(400) < 0.5, rng.random(400) < 0.5
        texts = [f"{'bad' if a else 'good'} thing {'!' if b else '.'}" for a, b in zip(first, second, strict=True)]
        vectors = {LATE: rng.normal(size=(400, D))}
        words = fit_probes(make_store(vectors, first), texts=texts, progress=False)
        marks = fit_probes(make_store(vectors, second, text=texts), progress=False)  # the store's own texts
        parity = fit_probes(make_store(vectors, first ^ second), texts=texts, progress=False)
        assert words.table["auroc_bag_of_words"][0] == marks.table["auroc_bag_of_words"][0] == 1
        assert abs(parity.table["auroc_bag_of_words"][0] - 0.5) < 0.1
        assert fit_probes(make_store(vectors, first), progress=False).table["auroc_bag_of_words"].isna().all()

    def test_bag_of_words_does_not_see_its_test_fold(self) -> None:
        store = make_store({LATE: np.random.default_rng(0).normal(size=(200, D))}, np.arange(200) % 2)
        own_words = [f"word{index}" for index in range(200)]
        found = fit_probes(store, texts=own_words, progress=False).table["auroc_bag_of_words"][0]
        assert found == pytest.approx(0.5, abs=0.1)

    def test_random_directions_are_turned_towards_the_positives(self) -> None:
        rng = np.random.default_rng(0)
        labels = np.arange(300) % 2
        store = make_store(
            {LATE: rng.normal(size=(300, 1)) - labels[:, None]}, labels
        )  # in one dimension all are equal
        row = fit_probes(store, progress=False).table.iloc[0]
        assert row["auroc_random_direction"] == pytest.approx(row["auroc_mean_difference"])
        assert row["auroc_random_direction"] > 0.7

    def test_length_alone(self) -> None:
        rng = np.random.default_rng(0)
        labels = np.arange(300) % 2
        store = make_store({LATE: rng.normal(size=(300, D))}, labels)
        store.rows["n_tokens"] = 10 + 5 * labels + rng.integers(0, 4, 300)
        assert fit_probes(store, progress=False).table["auroc_length"][0] == 1

    def test_shuffles_can_be_left_out(self) -> None:
        assert fit_probes(planted(200)[0], shuffles=0, progress=False).table["auroc_shuffled"].isna().all()


class TestProbeSet:
    def test_best_and_evaluate_on_other_data(self) -> None:
        probes = fit_probes(planted(1500)[0], progress=False)
        assert probes.best() == LATE
        other, _, _ = planted(500, seed=5)
        frame = probes.evaluate(other).set_index("site")
        for site in (EARLY, LATE):
            expected = roc_auc_score(other.labels, probes.score(other, site).numpy())
            assert frame.loc[str(site), "auroc"] == pytest.approx(expected)
        flipped = probes.evaluate(other, 1 - np.asarray(other.labels)).set_index("site")
        np.testing.assert_allclose(flipped["auroc"], 1 - frame["auroc"])

    def test_evaluate_takes_the_sites_in_common(self) -> None:
        store, _, _ = planted(300)
        probes = fit_probes(store, progress=False)
        one = make_store({LATE: store[LATE].numpy()}, store.labels)
        assert probes.evaluate(one)["site"].tolist() == [str(LATE)]
        with pytest.raises(ConfigError, match="none of the probes' sites"):
            probes.evaluate(make_store({Site.embed: store[LATE].numpy()}, store.labels))

    def test_round_trip_and_foreign_model(self, tmp_path: Path) -> None:
        class Model:
            name = "other"

            def __init__(self, digest: str) -> None:
                self.hash = lambda: digest

        store, _, _ = planted(300)
        store = make_store({Site.embed: store[EARLY].numpy(), LATE: store[LATE].numpy()}, store.labels)
        probes = fit_probes(store, progress=False)
        probes.save(tmp_path / "probes")
        found = ProbeSet.load(tmp_path / "probes", Model("a" * 64))  # type: ignore[arg-type]
        assert found.sites == probes.sites == (Site.embed, LATE)
        assert found.metadata == probes.metadata
        pd.testing.assert_frame_equal(found.table, probes.table)
        for name in ("directions", "biases", "scales", "mean_differences", "mean_difference_biases"):
            assert torch.equal(getattr(found, name), getattr(probes, name))
        with pytest.raises(ArtifactError, match="planted"):
            ProbeSet.load(tmp_path / "probes", Model("b" * 64))  # type: ignore[arg-type]

    def test_the_hash_is_of_numbers_and_settings_and_not_of_versions(self) -> None:
        probes = fit_probes(planted(200)[0], progress=False)
        assert isinstance(probes.directions, torch.Tensor) and probes.directions.shape == (2, len(probes.directions[0]))
        changed = {
            "setting": replace(probes, metadata=probes.metadata | {"C": 0.5}),
            "number": replace(probes, directions=-probes.directions),
            "table": replace(probes, table=probes.table.assign(auroc=0.5)),
        }
        newer = replace(probes, metadata=probes.metadata | {"versions": {"torch": "99"}})
        assert newer.hash() == probes.hash()
        assert len({probes.hash(), *(other.hash() for other in changed.values())}) == 4

    def test_half_a_folder(self, tmp_path: Path) -> None:
        fit_probes(planted(200)[0], progress=False).save(tmp_path)
        (tmp_path / "probes.safetensors").unlink()
        with pytest.raises(ArtifactError):
            ProbeSet.load(tmp_path)

    def test_unknown_site_or_estimator(self) -> None:
        probes = fit_probes(planted(200)[0], progress=False)
        with pytest.raises(SiteError, match=r"0\.resid_post, 3\.resid_post"):
            probes.direction(Site(1, "resid_post"))
        with pytest.raises(ConfigError, match="estimator"):
            probes.direction(LATE, "svm")  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("settings", "word"),
    [
        ({"labels": np.zeros(200)}, "class 0"),
        ({"labels": np.arange(200) % 3}, "expected 0 and 1"),
        ({"labels": ["toxic"] * 200}, "expected 0 and 1"),
        ({"labels": [0, 1]}, "one per row"),
        ({"groups": ["a"] * 3}, "one per row"),
        ({"groups": ["a", "b", None, "c"] * 50}, "row 2 has none"),
        ({"groups": ["a", "b"] * 100}, "fewer folds"),
        ({"labels": np.arange(200) < 100, "groups": [i // 100 for i in range(200)], "folds": 2}, "one class"),
        ({"labels": np.arange(200) < 3}, "rows of each class"),
        ({"folds": 1}, "at least 2"),
        ({"texts": ["a"]}, "texts"),
        ({"C": 0}, "C above 0"),
        ({"resamples": -1}, "resamples: expected at least 0"),
        ({"bootstrap": -1}, "bootstrap: expected at least 0"),
        ({"shuffles": -1}, "shuffles: expected at least 0"),
    ],
)
def test_settings_are_checked(settings: dict[str, Any], word: str) -> None:
    with pytest.raises(ConfigError, match=word):
        fit_probes(planted(200)[0], progress=False, **settings)


def test_vectors_are_checked() -> None:
    labels = np.arange(50) % 2
    broken = np.random.default_rng(0).normal(size=(50, D))
    broken[3, 4] = np.nan
    with pytest.raises(ConfigError, match=r"3\.resid_post: 1 of 50 rows are not finite"):
        fit_probes(make_store({LATE: broken}, labels), progress=False)
    with pytest.raises(ConfigError, match="embed: the same vector"):
        fit_probes(make_store({Site.embed: np.full((50, D), 0.1)}, labels), progress=False)
    no_labels = make_store({LATE: np.ones((50, D))}, labels)
    del no_labels.rows["label"]
    with pytest.raises(ConfigError, match="labels"):
        fit_probes(no_labels, progress=False)


class TestControlTask:
    def test_selectivity_is_what_the_accuracy_is_above_the_control_tasks(self) -> None:
        table = fit_probes(planted(1500)[0], shuffles=2, progress=False).table
        np.testing.assert_allclose(table["selectivity"], table["accuracy"] - table["accuracy_shuffled"])
        assert (table["accuracy_shuffled"] - 0.55).abs().max() < 0.07  # between a half and the larger class, 0.6
        assert table["selectivity"][1] > 0.3 > table["selectivity"][0]
        assert fit_probes(planted(200)[0], shuffles=0, progress=False).table["selectivity"].isna().all()

    def test_labels_without_meaning_have_none(self) -> None:
        rng = np.random.default_rng(0)
        store = make_store({LATE: rng.normal(size=(1000, D))}, np.arange(1000) % 2)
        assert fit_probes(store, shuffles=5, progress=False).table["selectivity"][0] == pytest.approx(0, abs=0.06)

    def test_the_control_equals_a_probe_of_the_shuffled_labels(self) -> None:
        store, _, _ = planted(300)
        groups = [index // 3 for index in range(300)]
        codes, labels = np.arange(300) // 3, np.asarray(store.labels).astype(bool)
        probes = fit_probes(store, groups=groups, seed=2, progress=False)
        folds = make_folds(labels, codes, 5, seed=2)
        shuffled = shuffle_within_folds(labels, codes, folds, seed=2)
        vectors, expected = store[LATE].double().numpy(), []
        for train, test in folds:
            pipeline = make_pipeline(StandardScaler(), LogisticRegression(tol=1e-8, max_iter=5000))
            scores = pipeline.fit(vectors[train], shuffled[train]).decision_function(vectors[test])
            expected.append(roc_auc_score(shuffled[test], scores))
        assert probes.table["auroc_shuffled"][1] == pytest.approx(np.mean(expected), abs=2e-3)


class TestDifferentWidths:
    """Logits and neurons beside the residual stream."""

    SITES = (Site(0, "mlp_post"), Site(0, "resid_post"), Site.logits)

    def make(self, n: int = 300, seed: int = 0) -> ActivationStore:
        rng = np.random.default_rng(seed)
        labels = np.arange(n) % 2
        sizes = zip(self.SITES, (20, 6, 30), strict=True)
        vectors = {site: rng.normal(size=(n, width)) + 0.5 * labels[:, None] for site, width in sizes}
        return make_store(vectors, labels)

    def test_each_site_has_its_own(self, tmp_path: Path) -> None:
        store = self.make()
        probes = fit_probes(store, leace=True, resamples=1, progress=False)
        assert [len(probes.direction(site)) for site in self.SITES] == [20, 6, 30]
        for site in self.SITES:
            alone = fit_probes(make_store({site: store[site].numpy()}, store.labels), progress=False)
            assert torch.equal(alone.direction(site), probes.direction(site))
            assert torch.equal(alone.score(store, site), probes.score(store, site))
            assert probes.direction(site, "mean_difference").norm() == pytest.approx(1)
        other = self.make(seed=1)
        assert (probes.evaluate(other)["auroc"] > 0.6).all()

    def test_round_trip(self, tmp_path: Path) -> None:
        probes = fit_probes(self.make(), progress=False)
        probes.save(tmp_path)
        found = ProbeSet.load(tmp_path)
        assert isinstance(found.directions, tuple)
        for site in self.SITES:
            for estimator in ("logistic", "mean_difference"):
                assert torch.equal(found.direction(site, estimator), probes.direction(site, estimator))
                assert found.bias(site, estimator) == probes.bias(site, estimator)
        pd.testing.assert_frame_equal(found.table, probes.table)

    def test_sites_of_one_width_share_a_tensor(self, tmp_path: Path) -> None:
        probes = fit_probes(planted(200)[0], progress=False)
        probes.save(tmp_path)
        for of in (probes, ProbeSet.load(tmp_path)):
            assert isinstance(of.directions, torch.Tensor) and of.directions.shape == (2, D)

    def test_files_that_do_not_belong_together(self, tmp_path: Path) -> None:
        fit_probes(self.make(), progress=False).save(tmp_path / "one")
        fit_probes(planted(200)[0], progress=False).save(tmp_path / "other")
        for name in ("probes.safetensors", "table.parquet"):
            mixed = tmp_path / name.partition(".")[0]
            shutil.copytree(tmp_path / "one", mixed)
            shutil.copy(tmp_path / "other" / name, mixed / name)
            with pytest.raises(ArtifactError, match="do not belong together"):
                ProbeSet.load(mixed)


def test_bootstrap_is_made_on_demand() -> None:
    table = fit_probes(planted(200)[0], bootstrap=0, progress=False).table
    assert table[["auroc_low", "auroc_high"]].isna().all(axis=None)
    assert table["auroc"].notna().all()


def test_a_store_of_single_tokens_is_refused() -> None:
    store = planted(50)[0]
    store.metadata["pool"] = "none"
    with pytest.raises(ConfigError, match="a vector per token"):
        fit_probes(store, progress=False)
