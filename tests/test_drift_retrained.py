"""Probes trained again: they find a class that has moved to another direction, and nothing where nothing is."""

from typing import Any

import numpy as np
import pytest
from probe_stores import EARLY, LATE, make_store

from interp_unlearn.activations import ActivationStore
from interp_unlearn.drift import retrained_probes
from interp_unlearn.errors import ConfigError, DataError
from interp_unlearn.probes import ProbeSet, fit_probes

N, D = 400, 12
LABELS = np.random.default_rng(0).random(N) < 0.5
OPTIONS: dict[str, Any] = {"folds": 4, "bootstrap": 50}


def separated(early: float, late: float, axis: int) -> ActivationStore:
    """Texts whose classes lie apart along one axis, by so much at each layer."""
    noise = np.random.default_rng(axis).normal(size=(2, N, D))
    direction = np.eye(D)[axis]
    gaps = {EARLY: early, LATE: late}
    vectors = {site: noise[i] + gap * np.outer(LABELS, direction) for i, (site, gap) in enumerate(gaps.items())}
    return make_store(vectors, LABELS, text=[f"text {i}" for i in range(N)])


@pytest.fixture(scope="module")
def probes() -> ProbeSet:
    return fit_probes(separated(0.7, 4.0, axis=0), progress=False, **OPTIONS)


def auroc_of(table: Any) -> dict[tuple[str, str], float]:
    return table[table["chosen"]].set_index(["model", "probe"])["auroc"].to_dict()


def test_a_class_that_turned_away_is_found_again_at_the_layer_of_the_original(probes: ProbeSet) -> None:
    # The changed model would choose EARLY, where the class is clearer now.
    changed, floor = separated(6.0, 3.0, axis=1), separated(0.0, 0.0, axis=2)
    table: Any = retrained_probes(probes, changed, never_knew=floor, sites=[EARLY, LATE], **OPTIONS)
    assert table.loc[table["chosen"], "site"].unique().tolist() == [str(LATE)]
    found = auroc_of(table)
    assert found["original", "original"] > 0.98
    assert found["changed", "original"] == pytest.approx(0.5, abs=0.1)
    assert found["changed", "retrained"] > 0.95
    for probe in ("original", "retrained"):
        assert found["never_knew", probe] == pytest.approx(0.5, abs=0.1)
    retrained = table[table["probe"] == "retrained"]
    assert retrained["auroc_shuffled"].between(0.35, 0.65).all()
    assert (retrained["low"] <= retrained["auroc"]).all() and (retrained["auroc"] <= retrained["high"]).all()
    assert set(table["site"]) == {str(EARLY), str(LATE)} and (table["n"] == N).all()


def test_what_the_probes_were_scored_on_is_said(probes: ProbeSet) -> None:
    changed = separated(1.0, 1.0, axis=1)
    table: Any = retrained_probes(probes, changed, **OPTIONS)
    assert table["scored"].tolist() == ["out_of_fold", "texts_of_the_fit", "out_of_fold"]
    other = ActivationStore(changed.vectors, changed.rows, {**changed.metadata, "data_hash": "another"})
    assert retrained_probes(probes, other, **OPTIONS)["scored"].tolist()[1] == "other_texts"


def test_stores_without_texts_are_told_apart_by_the_hash_of_their_data(probes: ProbeSet) -> None:
    changed, floor = separated(6.0, 3.0, axis=1), separated(0.0, 0.0, axis=2)
    silent = [
        ActivationStore(s.vectors, s.rows.drop(columns="text"), {**s.metadata, "data_hash": name})
        for s, name in ((changed, "one"), (floor, "one"), (floor, "another"))
    ]
    retrained_probes(probes, silent[0], never_knew=silent[1], **OPTIONS)
    with pytest.raises(DataError, match="texts or labels are not those"):
        retrained_probes(probes, silent[0], never_knew=silent[2], **OPTIONS)


def test_what_does_not_fit_is_refused(probes: ProbeSet) -> None:
    changed = separated(1.0, 1.0, axis=1)
    with pytest.raises(DataError, match="texts or labels are not those"):
        retrained_probes(probes, changed, never_knew=changed.select(range(100)), **OPTIONS)
    flipped = ActivationStore(changed.vectors, changed.rows.assign(label=1 - changed.rows["label"]), changed.metadata)
    with pytest.raises(DataError, match="texts or labels are not those"):
        retrained_probes(probes, changed, never_knew=flipped, **OPTIONS)
    single = ActivationStore(changed.vectors, changed.rows, {**changed.metadata, "pool": "none"})
    with pytest.raises(ConfigError, match="collect it pooled"):
        retrained_probes(probes, single, **OPTIONS)
    late_only = fit_probes(
        ActivationStore({LATE: changed[LATE]}, changed.rows, changed.metadata), progress=False, **OPTIONS
    )
    with pytest.raises(ConfigError, match=r"no probe at 0\.resid_post"):
        retrained_probes(late_only, changed, site=EARLY, **OPTIONS)
