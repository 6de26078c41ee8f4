"""The verb `probe` and its figure with everything asked for."""

from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from probe_stores import make_store

from interp_unlearn.artifacts import read_json
from interp_unlearn.cli import main
from interp_unlearn.figures import plot_probe_auroc
from interp_unlearn.probes import ProbeSet
from interp_unlearn.sites import Site


@pytest.fixture(scope="module")
def store(tmp_path_factory: pytest.TempPathFactory) -> Path:
    rng = np.random.default_rng(0)
    labels = np.arange(120) % 2
    sites = [Site.embed, Site(0, "resid_post"), Site(1, "resid_post")]
    vectors = {site: rng.normal(size=(120, 8)) + i * 0.5 * labels[:, None] for i, site in enumerate(sites)}
    folder = tmp_path_factory.mktemp("probe") / "store"
    made = make_store(vectors, labels, group=[f"pair {index // 2}" for index in range(120)])
    made.metadata.update({"tokens": "all", "include_bos": False})
    made.save(folder)
    return folder


def probe(*arguments: object) -> int:
    return main(["probe", *(str(argument) for argument in arguments)])


def test_everything_asked_for_is_done_shown_and_kept(
    store: Path, tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    choice = ("--C", 0.01, "--C", 1.0, "--C-site", "1.resid_post")
    asked = ("--leace", "--resamples", 2, "--shuffles", 2, "--bootstrap", 50, "--folds", 3, "--jobs", 2)
    assert probe(store, "--out", tmp_path / "probes", *choice, *asked) == 0
    shown = capfd.readouterr().out
    for name in ("auroc_leace", "stability_halves", "selectivity", "calibration_slope", "C ", "n_groups"):
        assert name in shown
    found = ProbeSet.load(tmp_path / "probes")
    assert found.metadata["C"] == [0.01, 1.0] and found.metadata["C_sites"] == ["1.resid_post"]
    assert set(found.table["C"]) <= {0.01, 1.0} and found.table["C"].nunique() == 1
    assert found.table[["auroc_leace", "stability", "auroc_low", "brier"]].notna().all(axis=None)
    identity = read_json(tmp_path / "probes" / "run.json")["identity"]
    assert identity["resamples"] == 2 and identity["leace"] is True and identity["C_sites"] == ["1.resid_post"]
    assert "jobs" not in identity  # it changes no result
    assert (tmp_path / "probes" / "probe_auroc.pdf").is_file()


def test_what_was_not_asked_for_is_not_shown(store: Path, tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    assert probe(store, "--out", tmp_path / "probes", "--C", 0.5) == 0
    shown = capfd.readouterr().out
    assert not any(name in shown for name in ("leace", "stability", "bag_of_words", " C "))
    assert (ProbeSet.load(tmp_path / "probes").table["C"] == 0.5).all()


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (("--C", 0.1, "--C", 1, "--C-site", "7.resid_post"), "7.resid_post is not in the store"),
        (("--C-site", "1.resid_post"), "C several values"),
        (("--C", 0), "C above 0"),
        (("--C-site", "nowhere"), "cannot read 'nowhere' as a site"),
    ],
)
def test_what_is_wrong_is_said_in_a_line(
    store: Path, tmp_path: Path, capfd: pytest.CaptureFixture[str], arguments: tuple[object, ...], words: str
) -> None:
    assert probe(store, "--out", tmp_path / "probes", *arguments) == 2
    captured = capfd.readouterr()
    assert captured.err.startswith("error: ") and captured.err.count("\n") == 1 and words in captured.err
    assert not (tmp_path / "probes").exists()


def table(**columns: object) -> pd.DataFrame:
    auroc = np.array([0.6, 0.7, 0.9])
    frame = pd.DataFrame({"site": ["embed", "0.resid_post", "1.resid_post"], "layer": [None, 0, 1], "auroc": auroc})
    return frame.assign(auroc_low=auroc - 0.1, auroc_high=auroc + 0.1, n=10, n_groups=5, **columns)


def legend(frame: pd.DataFrame) -> list[str]:
    return [text.get_text() for text in plot_probe_auroc(frame).legends[0].get_texts()]


def test_the_figure_shows_leace_where_it_was_run() -> None:
    assert legend(table(auroc_leace=[0.5, 0.5, 0.5], auroc_shuffled=0.51)) == [
        "logistic probe",
        "shuffled labels",
        "after LEACE",
    ]
    assert legend(table(auroc_leace=float("nan"))) == ["logistic probe"]
    lines = {line.get_label(): line for line in plot_probe_auroc(table(auroc_leace=[0.4, 0.5, 0.6])).axes[0].lines}
    assert list(lines["after LEACE"].get_ydata()) == [0.5, 0.6]


def test_without_a_bootstrap_no_band_is_announced() -> None:
    titles = [
        plot_probe_auroc(frame).axes[0].get_title(loc="left")
        for frame in (table(), table().assign(auroc_low=float("nan"), auroc_high=float("nan")))
    ]
    assert "band: 95% bootstrap" in titles[0] and "band" not in titles[1]
