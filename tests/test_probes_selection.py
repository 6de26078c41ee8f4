"""C chosen by nested cross-validation, against scikit-learn's grid search inside hand-made folds."""

import numpy as np
import pytest
from probe_stores import make_store
from sklearn.linear_model import LogisticRegression
from sklearn.metrics import roc_auc_score
from sklearn.model_selection import GridSearchCV, StratifiedGroupKFold
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler

from interp_unlearn.activations import ActivationStore
from interp_unlearn.errors import ConfigError, SiteError
from interp_unlearn.probes import fit_probes
from interp_unlearn.probes.folds import make_folds, make_inner_folds
from interp_unlearn.sites import Site

SITES = [Site(layer, "resid_post") for layer in range(4)]
GRID = (1e-4, 1e-2, 1.0)
GROUPS = [index // 2 for index in range(160)]


def store_of(n: int = 160) -> ActivationStore:
    """From layer to layer more of the label, along one direction or spread over all."""
    rng = np.random.default_rng(0)
    labels = np.arange(n) // 2 % 2
    vectors = {}
    for layer, site in enumerate(SITES):
        signal = np.ones(20) * 0.15 * layer if layer % 2 else np.eye(20)[0] * 0.8 * layer
        vectors[site] = rng.normal(size=(n, 20)) + labels[:, None] * signal
    return make_store(vectors, labels)


def test_each_fold_chooses_as_a_grid_search_inside_it() -> None:
    store = store_of()
    probes = fit_probes(store, groups=GROUPS, C=[1.0, 1e-4, 1e-2], seed=1, progress=False)
    assert probes.metadata["C"] == [1e-4, 1e-2, 1.0]
    codes, labels = np.asarray(GROUPS), np.asarray(store.labels).astype(bool)
    chosen = set()
    for index, site in enumerate(store.sites):
        vectors = store[site].double().numpy()
        expected, scores = [], []
        folds = list(StratifiedGroupKFold(5, shuffle=True, random_state=1).split(vectors, labels, codes))
        for rows in (*(train for train, _ in folds), np.arange(160)):
            search = GridSearchCV(
                make_pipeline(StandardScaler(), LogisticRegression(tol=1e-8)),
                {"logisticregression__C": list(GRID)},
                scoring="roc_auc",
                cv=StratifiedGroupKFold(3, shuffle=True, random_state=1),
            )
            search.fit(vectors[rows], labels[rows], groups=codes[rows])
            expected.append(search.best_params_["logisticregression__C"])
            scores.append(search)
        assert probes.metadata["C_of_folds"][str(site)] == expected[:-1]
        assert probes.table["C"][index] == expected[-1]
        found = np.mean(
            [
                roc_auc_score(labels[t], s.decision_function(vectors[t]))
                for s, (_, t) in zip(scores, folds, strict=False)
            ]
        )
        assert probes.table["auroc"][index] == pytest.approx(found, abs=2e-3)
        exact = scores[-1].best_estimator_[1].coef_[0] / scores[-1].best_estimator_[0].scale_
        assert probes.direction(site).numpy() @ (exact / np.linalg.norm(exact)) > 0.9999
        chosen |= set(expected)
    assert len(chosen) > 1  # a choice that is one was made


def test_what_is_said_of_the_fit_on_all_rows_is_as_with_its_C_alone() -> None:
    store = store_of()
    chosen = fit_probes(store, groups=GROUPS, C=list(GRID), seed=1, resamples=6, progress=False)
    differs = False
    for row, site in zip(chosen.table.to_dict("records"), store.sites, strict=True):
        alone = fit_probes(store, groups=GROUPS, C=row["C"], seed=1, resamples=6, progress=False)
        assert alone.metadata["C_of_folds"][str(site)] == [row["C"]] * 5
        other = alone.table.to_dict("records")[store.sites.index(site)]
        for name in ("stability", "stability_low", "stability_halves", "auroc_random_direction", "C"):
            assert row[name] == other[name], (site, name)
        np.testing.assert_array_equal(chosen.direction(site).numpy(), alone.direction(site).numpy())
        differs |= chosen.metadata["C_of_folds"][str(site)][1] != row["C"]
    assert differs  # else a fold's C would do as well


def test_the_inner_folds_lie_inside_the_training_fold() -> None:
    labels, groups = np.arange(160) // 2 % 2 == 1, np.asarray(GROUPS)
    for train, test in make_folds(labels, groups, 5, seed=0):
        rows = np.concatenate([part for pair in make_inner_folds(labels, groups, train, seed=0) for part in pair])
        assert not set(groups[rows]) & set(groups[test])


def test_three_sites_choose_for_all() -> None:
    store = store_of()
    alone = fit_probes(store, groups=GROUPS, C=GRID, progress=False)
    asked = SITES[:3]
    probes = fit_probes(store, groups=GROUPS, C=GRID, C_sites=asked, progress=False)
    choices = [[*alone.metadata["C_of_folds"][str(site)], alone.table["C"][i]] for i, site in enumerate(asked)]
    assert len({tuple(choice) for choice in choices}) > 1
    medians = np.median(choices, axis=0).tolist()
    for site in SITES:
        assert probes.metadata["C_of_folds"][str(site)] == medians[:-1]
    assert (probes.table["C"] == medians[-1]).all()
    assert probes.metadata["C_sites"] == [str(site) for site in asked]


def test_of_an_even_number_the_lower_median_is_taken() -> None:
    store = store_of()
    alone = fit_probes(store, groups=GROUPS, C=GRID, progress=False)
    pairs = [(a, b) for a in range(4) for b in range(a) if alone.table["C"][a] != alone.table["C"][b]]
    assert pairs
    first, second = pairs[0]
    probes = fit_probes(store, groups=GROUPS, C=GRID, C_sites=[SITES[first], SITES[second]], progress=False)
    assert (probes.table["C"] == min(alone.table["C"][first], alone.table["C"][second])).all()


def test_noise_does_not_profit_from_the_choice() -> None:
    rng = np.random.default_rng(0)
    found = []
    for _ in range(10):
        store = make_store({SITES[0]: rng.normal(size=(80, 30))}, np.arange(80) % 2)
        found.append(
            fit_probes(store, C=[1e-4, 1.0], folds=3, shuffles=0, bootstrap=0, progress=False).table["auroc"][0]
        )
    assert np.mean(found) == pytest.approx(0.5, abs=0.07)


def test_one_value_of_c_is_kept_as_it_is() -> None:
    probes = fit_probes(store_of(), C=0.3, progress=False)
    assert (probes.table["C"] == 0.3).all()
    assert probes.metadata["C"] == 0.3
    assert probes.metadata["C_of_folds"][str(SITES[0])] == [0.3] * 5


@pytest.mark.parametrize(
    ("settings", "error", "word"),
    [
        ({"C": []}, ConfigError, "C above 0"),
        ({"C": [1.0, -1.0]}, ConfigError, "C above 0"),
        ({"C": [1.0, 1.0]}, ConfigError, "different values"),
        ({"C": 1.0, "C_sites": SITES[:1]}, ConfigError, "C several values"),
        ({"C": GRID, "C_sites": []}, ConfigError, "give it a site"),
        ({"C": GRID, "C_sites": [Site(9, "resid_post")]}, SiteError, "9.resid_post is not in the store"),
        ({"C": GRID, "groups": [index // 40 for index in range(160)], "folds": 2}, ConfigError, "choosing C needs"),
    ],
)
def test_settings_are_checked(settings: dict, error: type[Exception], word: str) -> None:
    with pytest.raises(error, match=word):
        fit_probes(store_of(), progress=False, **settings)
