"""What the same seed gives a second time, and how far threads and batch sizes move a result, on a shipped twin.

One small run goes from texts to numbers: activations are collected, probes fitted, the model unlearned for a few steps
and evaluated. It is made again on each backend, in a process of its own, with two threads for one, and with batches of
8 rows for 32. Of a wider model with random weights the activations alone are read so.

    python -m benchmarks.determinism   # measures, prints and keeps the result
    python -m benchmarks determinism   # the same, and writes docs/benchmarks.md
"""

import multiprocessing
from collections.abc import Generator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import pandas as pd
import torch
from threadpoolctl import threadpool_limits
from tqdm import tqdm

from benchmarks import machine
from benchmarks.page import Bar, Section, keep_result
from benchmarks.shapes import make_model, make_tokenizer
from interp_unlearn.activations import collect
from interp_unlearn.evaluation import generate_texts, token_nll
from interp_unlearn.interventions import HookedModel
from interp_unlearn.organism.shipped import twin_path
from interp_unlearn.probes import fit_probes
from interp_unlearn.sites import Site
from interp_unlearn.study.stage import load_stage
from interp_unlearn.unlearning import UnlearnConfig, UnlearnData, build_objective, unlearn

SITES = [Site(layer, "resid_post") for layer in (1, 3, 5)]
N_TEXTS, STEPS, ROWS = 128, 5, 32
WIDE = "gpt2_small"
BACKENDS = ("torch", "transformer_lens", "nnsight")
AGAIN, PROCESS, THREADS, BATCHES = "run again", "in another process", "2 threads for 1", "batches of 8 for 32"


@dataclass(frozen=True)
class Run:
    """How the run is made.

    Attributes:
        backend: of all passes.
        threads: of torch and of the linear algebra library.
        rows: of a pass; an update has as many rows whatever it is.
    """

    backend: str = "torch"
    threads: int = 1
    rows: int = ROWS

    def __call__(self) -> dict[str, np.ndarray]:
        """Every artifact: numbers, or texts."""
        with on_threads(self.threads):
            return self._made()

    def _made(self) -> dict[str, np.ndarray]:
        model = HookedModel.from_pretrained(str(twin_path("knows_all")), backend=self.backend)
        stage = load_stage("knowledge")
        forget, retain = (stage.split(part[:N_TEXTS])[0] for part in (stage.sets.forget, stage.sets.neutral))
        longest = model.tokenize([*forget, *retain]).longest
        labels = [1] * len(forget) + [0] * len(retain)
        told: dict[str, Any] = {"labels": labels, "batch_tokens": self.rows * longest, "progress": False}
        store = collect(model, [*forget, *retain], SITES, **told)
        probes = fit_probes(store, bootstrap=50, n_jobs=1, progress=False)
        data = UnlearnData(forget=forget, retain=retain)
        config = UnlearnConfig(steps=STEPS, batch_size=self.rows, accumulation=ROWS // self.rows)
        result = unlearn(model, build_objective("cosine_rmu", layers=3), data, config, progress=False)
        trained = [model.hf.get_parameter(name) for name in result.changed["tensor"]]
        nll = token_nll(model, retain, batch_size=self.rows)["nll"].to_numpy()
        asked = dict.fromkeys(" ".join(text.split()[:4]) for text in retain[:ROWS])
        said = generate_texts(model, list(asked), 8, seed=0, batch_size=self.rows, progress=False)
        return {
            "activations": _row([store[site] for site in SITES]),
            "probe directions": _row([probes.direction(site) for site in SITES]),
            f"weights after {STEPS} steps": _row([weights.detach() for weights in trained]),
            "log-likelihoods": nll,
            "sampled texts": np.array(said),
        }


@dataclass(frozen=True)
class Reading:
    """Activations of a model of GPT-2's shape at three depths, by threads and rows of a pass as `Run` has them."""

    threads: int = 1
    rows: int = ROWS

    def __call__(self) -> dict[str, np.ndarray]:
        texts = ["the cat sat on a mat and then " * (1 + number % 6) for number in range(ROWS)]
        model = HookedModel(make_model(WIDE), make_tokenizer(texts))
        sites, longest = [Site(layer, "resid_post") for layer in (0, 5, 11)], model.tokenize(texts).longest
        with on_threads(self.threads):
            store = collect(model, texts, sites, batch_tokens=self.rows * longest, progress=False)
        return {"activations": _row([store[site] for site in sites])}


@contextmanager
def on_threads(threads: int) -> Generator[None]:
    """So many threads of torch and of the linear algebra library."""
    before = torch.get_num_threads()
    torch.set_num_threads(threads)
    try:
        with threadpool_limits(threads):
            yield
    finally:
        torch.set_num_threads(before)


def measure() -> pd.DataFrame:
    """Each run beside the one it should equal.

    Returns:
        One line a comparison, model, backend and artifact: what, model, backend, artifact, identical (every bit),
        largest (absolute difference of a number by the largest number; of texts, the share that differ), n (numbers, or
        texts).
    """
    plain, wide = Run(), Reading()
    compared: list[tuple[str, Run | Reading, Run | Reading]] = [(AGAIN, Run(b), Run(b)) for b in BACKENDS]
    compared.append((PROCESS, plain, plain))
    for run in (plain, wide):
        compared += [(THREADS, run, replace(run, threads=2)), (BATCHES, run, replace(run, rows=8))]
    made: dict[Run | Reading, dict[str, np.ndarray]] = {}
    rows: list[dict[str, Any]] = []
    for what, first, second in tqdm(compared, desc="determinism"):
        if first not in made:
            made[first] = first()
        found = _in_another_process(second) if what == PROCESS else second()
        model, backend = ("twin", second.backend) if isinstance(second, Run) else (WIDE, "torch")
        place = {"what": what, "model": model, "backend": backend}
        rows += [place | line for line in _compared(found, made[first])]
    return pd.DataFrame(rows)


def describe(rows: pd.DataFrame) -> list[Section]:
    """The section on determinism."""
    shown = rows.assign(
        identical=np.where(rows["identical"], "yes", "no"),
        largest=[f"{value:.1e}" if value else "0" for value in rows["largest"]],
        n=rows["n"].map("{:,}".format),
    )
    columns = {"what": "", "largest": "largest", "n": "compared"}
    text = (
        f"One run on a shipped twin: {2 * N_TEXTS} texts read at three layers, probes fitted, {STEPS} steps of cosine "
        f"RMU on {ROWS} rows, likelihoods and sampled texts scored; and activations of a wider model, {WIDE}. The same "
        "seed on the same machine gives the same bits, on every backend and in another process. Fewer rows in a pass "
        "may group sums otherwise, for floating-point addition does not associate, and AdamW amplifies what is left "
        "where a gradient is near 0. Largest is the difference of a number by the largest of its kind; of texts, the "
        "share that differ. Texts are sampled batch by batch, so that another batch size is another sample: state it "
        "with every number that is made from generations, and compare trained weights at equal batch sizes."
    )
    same = rows.loc[rows["what"].isin([AGAIN, PROCESS])]
    moved = rows.loc[rows["what"].isin([THREADS, BATCHES]) & rows["artifact"].isin(["activations", "probe directions"])]
    bars = (
        Bar("artifacts that differ when the same run is made again", float((~same["identical"]).sum()), highest=0),
        Bar("activations and directions by threads and batches", float(moved["largest"].max()), highest=1e-3),
    )
    return [Section("Determinism", text, shown.rename(columns=columns), bars)]


def _row(parts: list[torch.Tensor]) -> np.ndarray:
    return torch.cat([part.flatten() for part in parts]).numpy().copy()


def _in_another_process(run: Run | Reading) -> dict[str, np.ndarray]:
    with multiprocessing.get_context("spawn").Pool(1) as pool:
        return pool.apply(run)


def _compared(found: Mapping[str, np.ndarray], expected: Mapping[str, np.ndarray]) -> list[dict[str, Any]]:
    lines: list[dict[str, Any]] = []
    for name, b in expected.items():
        a = found[name]
        texts = b.dtype.kind == "U"
        largest = float((a != b).mean() if texts else np.abs(a.astype(float) - b).max() / np.abs(b).max())
        lines.append({"artifact": name, "identical": a.tobytes() == b.tobytes(), "largest": largest, "n": a.size})
    return lines


if __name__ == "__main__":
    measured = measure()
    keep_result("determinism", measured, machine.facts())
    print(measured.to_string(index=False))
