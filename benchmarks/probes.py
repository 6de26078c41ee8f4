"""Time and agreement of `fit_probes` beside the plain scikit-learn loop, on a store of planted directions.

    python -m benchmarks.probes                                        # 32 layers x 4,096 dimensions x 10,000 rows
    python -m benchmarks.probes --layers 2 --dims 512 --examples 2000  # a quick look
    python -m benchmarks.probes --on-demand                            # what LEACE, stability and the choice of C cost

The vectors are Gaussian with variances that fall as 1/k along their principal axes, as steep as those measured on a
small Llama (k ** -1.1), and mixed over all coordinates: on white noise, which is well-conditioned, the plain loop would
look better than it is on a model. The classes are apart along one direction a layer, so that the best possible AUROC
rises from 0.65 in the first layer to 0.99 in the last. The store lies in a temporary folder and is removed.

The plain loop is what one would write down: for every fold, and again for shuffled labels, a pipeline of StandardScaler
and LogisticRegression in double precision, on as many threads as the linear algebra library takes. Its settings are the
defaults but for C and for `max_iter`, which is raised until it converges: to its tolerance of 1e-4, where a direction
can still be several degrees from the optimum. `--plain-tol 1e-6` brings it, in more time, to where `fit_probes` stops.
"""

import argparse
import tempfile
import time
from pathlib import Path

import numpy as np
import pandas as pd
import torch
from scipy.fft import dct
from scipy.stats import norm
from sklearn.linear_model import LogisticRegression
from sklearn.pipeline import Pipeline, make_pipeline
from sklearn.preprocessing import StandardScaler

from benchmarks.page import Bar, Section
from interp_unlearn.activations import ActivationStore
from interp_unlearn.activations.shards import ShardWriter
from interp_unlearn.probes import ProbeSet, fit_probes
from interp_unlearn.probes.auroc import fold_auroc
from interp_unlearn.probes.folds import group_codes, make_folds, shuffle_within_folds
from interp_unlearn.sites import Site

SHARD_ROWS = 2000
EASIEST, HARDEST = 0.99, 0.65
"""AUROC of the best possible direction at the last and at the first layer."""


def measure(
    layers: int = 32,
    dims: int = 4096,
    examples: int = 10_000,
    folds: int = 5,
    plain_layers: int = 2,
    C: float = 1.0,
    plain_tol: float = 1e-4,
    jobs: int | None = None,
    bootstrap: int = 0,
    seed: int = 0,
    folder: Path | None = None,
) -> pd.DataFrame:
    """Fit the probes of all layers, and by the plain loop those of a few, in turns.

    Args:
        layers: number of sites; as many parts of them as `plain_layers` are fitted, with a plain layer before each.
        dims: width.
        examples: rows, in pairs of one text of each class, which stay together.
        folds: grouped folds; labels are shuffled once.
        plain_layers: for the plain loop, the last layer of each part.
        C: for both.
        plain_tol: tolerance of the plain loop.
        jobs: sites at a time; None for one a core.
        bootstrap: resamples of the AUROC's interval, which the plain loop does not make.
        seed: of the data and of the folds.
        folder: where the store is built; None for the system's folder of temporary files.

    Returns:
        A line for each plain layer and a last one for ``all`` layers (the plain loop's time there is extrapolated):
        ``site``; ``seconds`` (wall, a layer's share where they ran side by side), ``plain_seconds``, ``ratio``;
        ``auroc, plain_auroc, shuffled, plain_shuffled`` out of fold; ``cosine`` of both directions in raw coordinates.
    """
    parts = np.array_split(np.arange(layers), min(plain_layers, layers))
    rows, seconds = [], 0.0
    with tempfile.TemporaryDirectory(dir=folder) as temporary:
        for part in parts:  # one on disk at a time
            sites = [Site(int(layer), "resid_post") for layer in part]
            store = synthesise(Path(temporary) / f"layers-{part[0]}", sites, layers, dims, examples, seed)
            begun = time.perf_counter()
            plain = plain_loop(store, sites[-1], folds, C, plain_tol, seed)
            plain_seconds, begun = time.perf_counter() - begun, time.perf_counter()
            probes = fit_probes(store, folds=folds, C=C, seed=seed, bootstrap=bootstrap, n_jobs=jobs)
            taken = time.perf_counter() - begun
            seconds += taken
            rows.append(
                {**_compare(probes, sites[-1], plain), "seconds": taken / len(part), "plain_seconds": plain_seconds}
            )
            for file in (Path(temporary) / f"layers-{part[0]}").iterdir():
                file.unlink()
    table = pd.DataFrame(rows)
    total = {"site": "all", "seconds": seconds, "plain_seconds": table["plain_seconds"].mean() * layers}
    table = pd.concat([table, pd.DataFrame([total])], ignore_index=True)
    return table.assign(ratio=table["plain_seconds"] / table["seconds"])


def describe(rows: pd.DataFrame) -> list[Section]:
    """The section on the fits, beside the plain loop."""
    layers, total = rows[rows["site"] != "all"], rows[rows["site"] == "all"].iloc[0]
    shown = pd.DataFrame(
        {
            "": [*layers["site"], "all 32 layers (plain: extrapolated)"],
            "fit_probes, s": rows["seconds"].map("{:,.0f}".format),
            "plain loop, s": rows["plain_seconds"].map("{:,.0f}".format),
            "ratio": rows["ratio"].map("{:.1f}".format),
            "AUROC, plain AUROC": [*map("{:.4f}, {:.4f}".format, layers["auroc"], layers["plain_auroc"]), ""],
            "cosine of the directions": [*map("{:.4f}".format, layers["cosine"]), ""],
        }
    )
    bars = (
        Bar("32 layers at fixed C with shuffled labels, seconds", float(total["seconds"]), highest=600),
        Bar("AUROC, largest difference", float((layers["auroc"] - layers["plain_auroc"]).abs().max()), highest=0.005),
    )
    text = (
        "`fit_probes` beside a loop of scikit-learn pipelines in double precision at its default tolerance: 32 layers "
        "of 4,096 dimensions, 10,000 planted examples in pairs, five grouped folds, labels and shuffled labels, C = 1. "
        "Single layers: a layer's share where layers ran side by side. At that tolerance the plain loop can stop "
        "degrees short of the optimum where classes are far apart; `python -m benchmarks.probes --plain-tol 1e-7` "
        "takes it there."
    )
    return [Section("Probes", text, shown, bars)]


def describe_on_demand(rows: pd.DataFrame) -> list[Section]:
    """The section on what is asked for beyond that."""
    shown = pd.DataFrame(
        {
            "one layer, one core": rows["what"],
            "seconds": rows["seconds"].map("{:.0f}".format),
            "more": rows["more"].map("{:+.0f}".format),
        }
    )
    return [Section("Probes, on demand", "What each control or choice adds at one layer of the same size.", shown)]


def measure_on_demand(
    dims: int = 4096, examples: int = 10_000, folds: int = 5, seed: int = 0, folder: Path | None = None
) -> pd.DataFrame:
    """Seconds of one layer on one core, as it is by default and with one thing more.

    Returns:
        ``what``, ``seconds``, ``more`` (than without it), ``chosen_C``.
    """
    asked = {
        "default, without a bootstrap": {},
        "bootstrap=1000": {"bootstrap": 1000},
        "leace=True": {"leace": True},
        "resamples=5": {"resamples": 5},
        "C of four values": {"C": [1e-3, 1e-2, 1e-1, 1.0]},
    }
    rows = []
    with tempfile.TemporaryDirectory(dir=folder) as temporary:
        store = synthesise(Path(temporary) / "store", [Site(0, "resid_post")], 2, dims, examples, seed)
        for what, settings in asked.items():
            begun = time.perf_counter()
            probes = fit_probes(store, folds=folds, seed=seed, n_jobs=1, progress=False, **{"bootstrap": 0, **settings})
            rows.append({"what": what, "seconds": time.perf_counter() - begun, "chosen_C": probes.table["C"][0]})
    table = pd.DataFrame(rows)
    return table.assign(more=table["seconds"] - table["seconds"][0])


def synthesise(
    folder: Path, sites: list[Site], layers: int, dims: int, examples: int, seed: int = 0
) -> ActivationStore:
    """Write a store shard by shard and open it; never more than one shard is in memory."""
    labels = np.arange(examples) % 2
    spread = np.arange(1, dims + 1, dtype=np.float32) ** -0.5
    spread *= np.sqrt(dims) / np.linalg.norm(spread)
    metadata = {"model": "planted", "model_hash": "0" * 64, "data_hash": str(seed), "pool": "mean"}
    starts = range(0, examples, SHARD_ROWS)
    writer = ShardWriter(folder, tuple(sites), starts, examples, metadata, ("data_hash",))
    for start in starts:
        rows = slice(start, min(start + SHARD_ROWS, examples))
        tensors = {str(site): _vectors(labels[rows], spread, site, layers, (seed, start)) for site in sites}
        writer.write(start, tensors | {"n_tokens": torch.full((rows.stop - start,), 20)})
    pairs = [f"pair {index // 2}" for index in range(examples)]
    writer.finish(pd.DataFrame({"n_tokens": 20, "label": labels, "group": pairs}))
    return ActivationStore.open(folder)


def _vectors(labels: np.ndarray, spread: np.ndarray, site: Site, layers: int, key: tuple[int, int]) -> torch.Tensor:
    world = np.random.default_rng([key[0], site.layer or 0])  # the same in every shard
    signs = world.choice(np.array([-1, 1], dtype=np.float32), size=(2, len(spread)))
    direction = np.zeros(len(spread), dtype=np.float32)
    leading = max(1, len(spread) // 16)
    direction[:leading] = world.normal(size=leading)
    direction /= np.linalg.norm(direction)
    best = HARDEST + (EASIEST - HARDEST) * ((site.layer or 0) / max(1, layers - 1))
    gap = np.sqrt(2) * norm.ppf(best)  # two normal classes so far apart, in standard deviations, have that AUROC
    noise = np.random.default_rng([*key, site.layer or 0]).standard_normal((len(labels), len(spread)), dtype=np.float32)
    rows = noise + np.float32(gap) * (labels[:, None] - np.float32(0.5)) * direction
    mixed = dct(rows * spread * signs[0], norm="ortho", axis=1, workers=1) * signs[1]
    return torch.from_numpy(np.ascontiguousarray(mixed + world.normal(size=len(spread)), dtype=np.float32))


def plain_loop(store: ActivationStore, site: Site, folds: int, C: float, tol: float, seed: int) -> dict[str, object]:
    """AUROC of labels and of shuffled labels, and the direction, with scikit-learn as it comes."""
    vectors, labels = store[site].double().numpy(), np.asarray(store.labels).astype(bool)
    groups = group_codes(store.groups, len(store))
    splits = make_folds(labels, groups, folds, seed)
    found: dict[str, object] = {}
    for name, of in (("plain_auroc", labels), ("plain_shuffled", shuffle_within_folds(labels, groups, splits, seed))):
        scores = np.zeros(len(of))
        for train, test in splits:
            scores[test] = _pipeline(C, tol).fit(vectors[train], of[train]).decision_function(vectors[test])
        found[name] = fold_auroc(of, scores, splits)
    scaler, regression = _pipeline(C, tol).fit(vectors, labels)
    slope = regression.coef_[0] / scaler.scale_
    return found | {"direction": slope / np.linalg.norm(slope)}


def _pipeline(C: float, tol: float) -> Pipeline:
    return make_pipeline(StandardScaler(), LogisticRegression(C=C, tol=tol, max_iter=5000))


def _compare(probes: ProbeSet, site: Site, plain: dict[str, object]) -> dict[str, object]:
    row = probes.table.set_index("site").loc[str(site)]
    cosine = float(probes.direction(site).double().numpy() @ np.asarray(plain.pop("direction")))
    return {"site": str(site), "auroc": row["auroc"], "shuffled": row["auroc_shuffled"], **plain, "cosine": cosine}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--layers", type=int, default=32)
    parser.add_argument("--dims", type=int, default=4096)
    parser.add_argument("--examples", type=int, default=10_000)
    parser.add_argument("--folds", type=int, default=5)
    parser.add_argument("--plain-layers", type=int, default=2, help="layers that the plain loop is timed on")
    parser.add_argument("--C", type=float, default=1.0)
    parser.add_argument("--plain-tol", type=float, default=1e-4)
    parser.add_argument("--jobs", type=int, default=None, help="sites at a time; by default one a core")
    parser.add_argument("--bootstrap", type=int, default=0)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--folder", type=Path, default=None, help="where the store is built, then removed")
    parser.add_argument("--on-demand", action="store_true", help="time what is made on demand, on one layer")
    settings = vars(parser.parse_args())
    if settings.pop("on_demand"):
        table = measure_on_demand(**{key: settings[key] for key in ("dims", "examples", "folds", "seed", "folder")})
    else:
        table = measure(**settings)
    print(table.to_string(index=False, float_format=lambda value: f"{value:.4g}"))


if __name__ == "__main__":
    main()
