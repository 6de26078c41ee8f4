"""Sites in parallel: the same bits, a progress bar that moves, errors that name their site."""

import threading
import time
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
import torch
from probe_stores import make_store
from threadpoolctl import threadpool_info

from interp_unlearn.activations import ActivationStore
from interp_unlearn.errors import ArtifactError, ConfigError
from interp_unlearn.probes import ProbeSet, fit_probes
from interp_unlearn.probes.parallel import map_sites
from interp_unlearn.sites import Site

SITES = [Site.embed, *(Site(layer, "resid_post") for layer in range(3))]
EVERYTHING: dict[str, Any] = {"C": [0.01, 1.0], "folds": 3, "resamples": 1, "leace": True, "progress": False}


def store_of(n: int = 240, width: int = 40) -> ActivationStore:
    rng = np.random.default_rng(0)
    labels = np.arange(n) % 2
    vectors = {site: rng.normal(size=(n, width)) + 0.2 * i * labels[:, None] for i, site in enumerate(SITES)}
    return make_store(vectors, labels, group=[f"g{index // 2}" for index in range(n)])


def assert_same_bits(one: ProbeSet, other: ProbeSet) -> None:
    pd.testing.assert_frame_equal(one.table, other.table, check_exact=True)
    for name in ("directions", "biases", "scales", "mean_differences", "mean_difference_biases"):
        assert torch.equal(getattr(one, name), getattr(other, name)), name
    assert one.metadata == other.metadata


def test_results_do_not_depend_on_the_number_of_jobs() -> None:
    store = store_of()
    one = fit_probes(store, n_jobs=1, **EVERYTHING)
    assert one.table.nunique()["auroc"] == len(SITES)
    for jobs in (3, None):
        assert_same_bits(one, fit_probes(store, n_jobs=jobs, **EVERYTHING))


def test_a_site_does_not_depend_on_its_neighbours() -> None:
    store = store_of()
    alone = ActivationStore({SITES[2]: store[SITES[2]]}, store.rows, store.metadata)
    expected = fit_probes(store, **EVERYTHING).table.iloc[[2]].reset_index(drop=True)
    pd.testing.assert_frame_equal(fit_probes(alone, **EVERYTHING).table, expected, check_exact=True)


def test_a_store_mapped_from_disk_gives_the_same_and_is_left_alone(tmp_path: Path) -> None:
    store = store_of()
    store.metadata.update({"tokens": "all", "include_bos": False, "max_length": None, "dtype": "float32"})
    store.save(tmp_path / "store")
    before = {file.name: file.read_bytes() for file in (tmp_path / "store").iterdir()}
    mapped = ActivationStore.open(tmp_path / "store")
    assert_same_bits(fit_probes(store, **EVERYTHING), fit_probes(mapped, **EVERYTHING))
    assert {file.name: file.read_bytes() for file in (tmp_path / "store").iterdir()} == before


def test_the_bar_counts_sites(capsys: pytest.CaptureFixture[str]) -> None:
    fit_probes(store_of(), C=[0.1, 1.0], C_sites=SITES[1:], folds=3)
    shown = capsys.readouterr().err
    assert "probe: 100%" in shown and "4/4" in shown
    assert "choose C: 100%" in shown and "3/3" in shown
    fit_probes(store_of(), progress=False)
    assert capsys.readouterr().err == ""


@pytest.mark.parametrize("jobs", [1, 3])
def test_an_error_names_its_site_once(jobs: int) -> None:
    store = store_of()
    store[SITES[3]][7, 2] = float("nan")
    with pytest.raises(ConfigError) as raised:
        fit_probes(store, n_jobs=jobs, progress=False)
    message = "2.resid_post: 1 of 240 rows are not finite, first row 7; collect in float32 or drop them"
    assert str(raised.value) == message
    with pytest.raises(ConfigError, match=message):
        fit_probes(store, C=[0.1, 1.0], C_sites=SITES[2:], n_jobs=jobs, progress=False)


def test_a_missing_shard_names_its_site(tmp_path: Path) -> None:
    store = store_of()
    store.metadata.update({"tokens": "all", "include_bos": False})
    store.save(tmp_path / "store")
    mapped = ActivationStore.open(tmp_path / "store")
    next((tmp_path / "store").glob("rows-*")).unlink()
    with pytest.raises(ArtifactError, match=r"^(embed|\d\.resid_post): .*collect the store again"):
        fit_probes(mapped, progress=False)


class TestMapSites:
    def test_results_come_in_the_order_of_the_sites(self) -> None:
        last_first = [threading.Event() for _ in SITES]
        last_first[-1].set()

        def work(site: Site) -> str:
            index = SITES.index(site)
            assert last_first[index].wait(10)  # each waits for the one after it: all run at once
            last_first[index - 1].set()
            return str(site)

        assert map_sites(work, SITES, len(SITES), "test", False) == [str(site) for site in SITES]

    def test_no_more_than_asked_for_at_a_time_and_one_thread_each(self) -> None:
        running, most, lock = 0, 0, threading.Lock()

        def work(site: Site) -> list[int]:
            nonlocal running, most
            with lock:
                running += 1
                most = max(most, running)
            threads = [pool["num_threads"] for pool in threadpool_info() if pool["user_api"] == "blas"]
            with lock:
                running -= 1
            return threads

        before = threadpool_info()
        found = map_sites(work, SITES * 4, 2, "test", False)
        assert most <= 2
        assert all(threads and set(threads) == {1} for threads in found)
        assert threadpool_info() == before

    def test_after_an_error_nothing_more_is_begun(self) -> None:
        begun: list[Site] = []

        def work(site: Site) -> None:
            begun.append(site)
            if len(begun) > 1:
                time.sleep(0.05)  # so that a busy machine has the time to cancel the others
            raise ConfigError("no")

        with pytest.raises(ConfigError, match="embed: no"):
            map_sites(work, SITES * 20, 1, "test", False)
        assert len(begun) < 50


def test_jobs_are_checked() -> None:
    with pytest.raises(ConfigError, match="n_jobs: expected at least 1"):
        fit_probes(store_of(), n_jobs=0, progress=False)
