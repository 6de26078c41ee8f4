"""Every measure of drift against a second computation in float64, from plain passes and formulas.

The suite of drift is run once on tiny models; an oracle recomputes every table of it from the models' weights. A new
measure fails the first test until it has one.
"""

import copy
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import pytest
import torch
from conftest import make_hf, make_tokenizer
from float64_passes import added, at_head, content, log_probabilities, padded, passed, tokens, unbiased_hsic
from scipy import stats
from torch import Tensor, nn

from interp_unlearn.activations import collect
from interp_unlearn.drift import MEASURES, Answers, DriftResult, TunedLens, TunedLensConfig, run_drift
from interp_unlearn.interventions import HookedModel
from interp_unlearn.models import parameters_by_role
from interp_unlearn.probes import ProbeSet, fit_probes
from interp_unlearn.sites import Site, residual_stream

BOUND = 1e-4
"""Relative, for numbers that end in float32 passes; what is made from few tokens loses digits to cancellation."""

FORGET = [f"the {a} {b} sat on blue hill" for a in ("big", "small") for b in ("cat", "dog", "mat", "hill")]
RETAIN = [f"the {a} {b} ran and it" for a in ("big", "small") for b in ("cat", "dog", "mat", "hill")]
TEXTS = {"forget": FORGET, "retain": RETAIN}
ANSWERS = Answers(["the cat sat on a", "who said it was", "a big dog ran and"], [" mat", " red dog", " it"])
LAYERS, D = range(3), 32


@dataclass(frozen=True, eq=False)
class Everything:
    """What the suite found, and the three models of it in float64."""

    found: DriftResult
    before: nn.Module
    after: nn.Module
    twin: nn.Module
    probes: ProbeSet
    lens: TunedLens

    @property
    def models(self) -> dict[str, nn.Module]:
        return {"original": self.before, "unlearned": self.after, "twin": self.twin}

    def table(self, measure: str, name: str | None = None) -> Any:
        return self.found.tables[measure][name or measure]


def hooked(hf: nn.Module, name: str) -> HookedModel:
    return HookedModel(hf, make_tokenizer(), name=name)  # pyright: ignore[reportArgumentType]


@pytest.fixture(scope="module")
def everything(tmp_path_factory: pytest.TempPathFactory) -> Everything:
    original, twin = make_hf("gpt2"), make_hf("gpt2", seed=5)
    changed = copy.deepcopy(original)
    generator = torch.Generator().manual_seed(0)
    with torch.no_grad():
        for weight in parameters_by_role(changed, ["mlp.down", "attn.o"], [1]).values():
            weight.add_(0.2 * torch.randn(weight.shape, generator=generator))
    labels = [1] * len(FORGET) + [0] * len(RETAIN)
    told: dict[str, Any] = {"labels": labels, "progress": False}
    store = collect(hooked(original, "original"), [*FORGET, *RETAIN], residual_stream(3)[1:], **told)
    probes = fit_probes(store, folds=2, bootstrap=10, n_jobs=1, progress=False)
    out = tmp_path_factory.mktemp("drift") / "out"
    given: dict[str, Any] = {"answers": ANSWERS, "probes": probes, "twin": hooked(twin, "twin"), "out": out}
    settings: dict[str, Any] = {"n_null": 3, "lens": TunedLensConfig(steps=3, held_out=0.25), "progress": False}
    models = hooked(changed, "unlearned"), hooked(original, "original")
    found = run_drift(*models, TEXTS, **given, **settings)
    assert found.missing() == {}
    lens = TunedLens.load(out / "measures" / "tuned_lens" / "tuned_lens.safetensors")
    before, after, third = (copy.deepcopy(model).double() for model in (original, changed, twin))
    return Everything(found, before, after, third, probes, lens)


def layer_of(site: str) -> int:
    return -1 if site == "embed" else int(site.split(".")[0])


def both(of: Everything, site: str, corpus: str) -> tuple[np.ndarray, np.ndarray]:
    """A corpus' tokens at a site, of the original and the changed model."""
    ids = padded(TEXTS[corpus])
    return tokens(of.before, ids, layer_of(site)), tokens(of.after, ids, layer_of(site))


def compare(table: Any, of_row: Callable[[Any], dict[str, Any]], bound: float = BOUND) -> None:
    """Every row's numbers as the oracle has them, relative to their size or, below 1e-3, to that."""
    assert len(table)
    for row in table.to_dict("records"):
        for name, expected in of_row(row).items():
            assert row[name] == pytest.approx(expected, rel=bound, abs=bound * 1e-3, nan_ok=True), (name, row)


def displacement(of: Everything) -> None:
    def expected(row: Any) -> dict[str, Any]:
        h0, h = both(of, row["site"], row["corpus"])
        norms, norms0 = np.linalg.norm(h, axis=1), np.linalg.norm(h0, axis=1)
        return {
            "relative_displacement": (np.linalg.norm(h - h0, axis=1) / norms0).mean(),
            "cosine": ((h * h0).sum(1) / norms / norms0).mean(),
            "norm_ratio": (norms / norms0).mean(),
            "n_tokens": len(h),
        }

    compare(of.table("displacement"), expected)
    assert of.table("displacement")["relative_displacement"].max() > 0.1


def massive_activations(of: Everything) -> None:
    def expected(row: Any) -> dict[str, Any]:
        h0, h = both(of, row["site"], row["corpus"])
        sizes = [np.abs(states).mean(0) for states in (h0, h)]
        # torch's median of an even number is the lower of the two in the middle.
        ratio, ratio_changed = (size.max() / np.sort(size)[(D - 1) // 2] for size in sizes)
        kept = sizes[0] <= 10 * np.sort(sizes[0])[(D - 1) // 2]
        moved = np.linalg.norm((h - h0)[:, kept], axis=1) / np.linalg.norm(h0[:, kept], axis=1)
        return {
            "ratio": ratio,
            "ratio_changed": ratio_changed,
            "dimension": sizes[0].argmax(),
            "n_massive": (~kept).sum(),
            "relative_displacement_without": moved.mean(),
            "n_tokens": len(h),
        }

    compare(of.table("massive_activations"), expected)


def entropy_rank(squares: np.ndarray) -> float:
    shares = squares[squares > 0] / squares.sum()
    return float(np.exp(stats.entropy(shares)))


def spectrum(of: Everything) -> None:
    def expected(row: Any) -> dict[str, Any]:
        h0, h = both(of, row["site"], row["corpus"])
        if layer_of(row["site"]) < 1:
            return dict.fromkeys(("share", "effective_rank", "participation_ratio"), np.nan)
        squares = np.linalg.svd(h - h0, compute_uv=False) ** 2
        return {
            "share": squares[0] / squares.sum(),
            "effective_rank": entropy_rank(squares),
            "participation_ratio": squares.sum() ** 2 / (squares**2).sum(),
            "relative_displacement": (np.linalg.norm(h - h0, axis=1) / np.linalg.norm(h0, axis=1)).mean(),
            "n_tokens": len(h),
        }

    compare(of.table("spectrum"), expected)
    moved = of.table("spectrum", "components").query("layer >= 1")
    for (site, corpus), part in moved.groupby(["site", "corpus"]):
        h0, h = both(of, str(site), str(corpus))
        values = np.linalg.svd(h - h0, compute_uv=False)
        kept = part.sort_values("component")
        np.testing.assert_allclose(kept["singular_value"], values[: len(kept)], rtol=BOUND, atol=BOUND * values[0])


def cka(of: Everything) -> None:
    def similarity(x: np.ndarray, y: np.ndarray) -> float:
        k, m = x @ x.T, y @ y.T
        return unbiased_hsic(k, m) / np.sqrt(unbiased_hsic(k, k) * unbiased_hsic(m, m))

    def expected(row: Any) -> dict[str, Any]:
        x, y = both(of, row["site"], row["corpus"])
        (_, s, v), (_, _, w) = np.linalg.svd(x - x.mean(0)), np.linalg.svd(y - y.mean(0))
        return {
            "cka": similarity(x, y),
            "cka_standardised": similarity(x / x.std(0), y / y.std(0)),
            "pca_similarity": abs(v[0] @ w[0]),
            "pca_shift": abs((y.mean(0) - x.mean(0)) @ v[0]) / (s[0] / np.sqrt(len(x))),
            "n_tokens": len(x),
        }

    compare(of.table("cka"), expected, 10 * BOUND)
    assert of.table("cka")["cka"].min() < 0.99


def delta_of(of: Everything, name: str) -> np.ndarray:
    """The change of a GPT-2 matrix as [out, in]."""
    return (of.after.get_parameter(name) - of.before.get_parameter(name)).detach().numpy().T


def angles(of: Everything) -> None:
    writers = [f"transformer.h.1.{part}.c_proj.weight" for part in ("attn", "mlp")]
    weights = [np.linalg.svd(delta_of(of, name))[0][:, :4] for name in writers]

    def subspace(name: str, site: str) -> np.ndarray:
        if name == "probe":
            return of.probes.direction(Site.parse(site)).double().numpy()[:, None]
        if name == "weight delta":
            return np.concatenate(weights, axis=1)
        h0, h = both(of, site, "forget")
        return np.linalg.svd(h - h0)[2][:4].T

    def expected(row: Any) -> dict[str, Any]:
        first, second = (np.linalg.qr(subspace(row[side], row["site"]))[0] for side in ("first", "second"))
        cosines = np.linalg.svd(first.T @ second, compute_uv=False)
        return {"cosine": cosines[row["angle"] - 1]}

    table = of.table("angles")
    compare(table, expected, 20 * BOUND)
    assert {*table["first"], *table["second"]} == {"probe", "displacement", "weight delta"}
    assert np.degrees(np.arccos(table["cosine"].clip(-1, 1))).to_numpy() == pytest.approx(table["degrees"], abs=1e-3)


def last_tokens(hf: nn.Module, texts: Sequence[str], layer: int) -> np.ndarray:
    return np.stack([tokens(hf, padded([text]), layer)[-1] for text in texts])


def lens_rows(of: Everything, measure: str, translate: Callable[[np.ndarray, str], np.ndarray]) -> None:
    """The answer's log-probability and rank by a head: the model's own, of the tuned lens the original's."""
    targets = [int(make_tokenizer()(answer)["input_ids"][0]) for answer in ANSWERS.answers]  # pyright: ignore[reportArgumentType,reportGeneralTypeIssues]

    def expected(row: Any) -> dict[str, Any]:
        hf = of.models[row["model"]]
        stream = translate(last_tokens(hf, ANSWERS.prompts, layer_of(row["site"])), row["site"])
        read = at_head(hf if measure == "logit_lens" else of.before, stream)[row["row"]]
        value = read[targets[row["row"]]]
        return {"log_probability": value, "probability": np.exp(value), "rank": (read >= value).sum()}

    compare(of.table(measure, "texts"), expected)
    assert set(of.table(measure, "texts")["model"]) == set(of.models)
    means = of.table(measure, "texts").groupby(["model", "site"])["log_probability"].mean()
    compare(of.table(measure, "lens"), lambda row: {"log_probability": means[row["model"], row["site"]], "n": 3})


def logit_lens(of: Everything) -> None:
    lens_rows(of, "logit_lens", lambda stream, _: stream)


def tuned_lens(of: Everything) -> None:
    def translate(stream: np.ndarray, site: str) -> np.ndarray:
        place = Site.parse(site)
        if place == of.lens.last:
            return stream
        weight, bias = of.lens.weights[place].double().numpy(), of.lens.biases[place].double().numpy()
        assert np.abs(weight).max() > 0
        return stream + stream @ weight.T + bias

    lens_rows(of, "tuned_lens", translate)
    # Fitted on the retained texts, a quarter of them held out by a draw of seed 0.
    held_out = [RETAIN[i] for i in sorted(np.random.default_rng(0).permutation(len(RETAIN))[:2])]

    def expected(row: Any) -> dict[str, Any]:
        ids = padded(held_out)
        own = at_head(of.before, tokens(of.before, ids, 2))
        stream = tokens(of.before, ids, layer_of(row["site"]))
        read = {"kl_logit": at_head(of.before, stream), "kl_tuned": at_head(of.before, translate(stream, row["site"]))}
        return {name: (np.exp(own) * (own - other)).sum(1).mean() for name, other in read.items()}

    compare(of.table("tuned_lens", "fit"), expected)


def retrained_probes(of: Everything) -> None:
    """The original's probe on other models, pair by pair; that a fit is scikit-learn's, the tests of probes show."""
    of_model = {"changed": of.after, "never_knew": of.twin}

    def expected(row: Any) -> dict[str, Any]:
        hf, site = of_model[row["model"]], Site.parse(row["site"])
        w = of.probes.direction(site).double().numpy()
        hit, miss = (
            np.array([tokens(hf, padded([text]), layer_of(row["site"])).mean(0) @ w for text in texts])
            for texts in (FORGET, RETAIN)
        )
        pairs = (hit[:, None] > miss).mean() + (hit[:, None] == miss).mean() / 2
        return {"auroc": float(pairs), "n": len(FORGET) + len(RETAIN)}

    table = of.table("retrained_probes")
    moved = table.loc[(table["probe"] == "original") & (table["model"] != "original")]
    compare(moved, expected)
    assert len(moved) == 6


def answer_score(hf: nn.Module, prompt: str, answer: str, patch: tuple[int, nn.Module] | None = None) -> float:
    """Mean log-probability of an answer's tokens, with another model's stream put in after one block or not."""
    ids, start = padded([f"{prompt}{answer}"]), padded([prompt]).shape[1]
    if patch is None:
        read = log_probabilities(hf, ids)[0]
    else:
        layer, donor = patch
        mask, stream = torch.tensor(content(ids))[..., None], torch.zeros(*ids.shape, D, dtype=torch.float64)
        stream[mask[..., 0]] = torch.tensor(tokens(donor, ids, layer))
        with added(hf, layer, lambda h: torch.where(mask, stream, h)):
            read = log_probabilities(hf, ids)[0]
    return float(np.mean([read[at - 1, int(ids[0, at])] for at in range(start, ids.shape[1])]))


def unlearning_depth(of: Everything) -> None:
    pairs = list(zip(ANSWERS.prompts, ANSWERS.answers, strict=True))
    own = np.array([answer_score(of.before, *pair) for pair in pairs])
    drops = {
        name: own - np.array([[answer_score(of.before, *pair, (layer, donor)) for pair in pairs] for layer in LAYERS])
        for name, donor in (("twin", of.twin), ("unlearned", of.after))
    }
    first, second = drops["twin"], drops["unlearned"]

    def of_layer(row: Any) -> dict[str, Any]:
        at = layer_of(row["site"])
        return {"drop_never_knew": first[at].mean(), "drop_unlearned": second[at].mean()}

    compare(of.table("unlearning_depth"), of_layer, 10 * BOUND)
    depths: list[float] = []
    for text in range(len(pairs)):
        counted = [layer for layer in LAYERS if first[layer, text] > 0.05]
        erased = [first[at, text] * min(max(second[at, text] / first[at, text], 0.0), 1.0) for at in counted]
        depths.append(sum(erased) / sum(first[at, text] for at in counted) if counted else np.nan)
    assert of.table("unlearning_depth", "texts")["depth"].to_numpy() == pytest.approx(depths, rel=1e-3, nan_ok=True)
    assert np.isfinite(depths).any()
    (score,) = of.table("unlearning_depth", "score")["score"]
    assert score == pytest.approx(np.nanmean(depths), rel=1e-3)


def entering(of: Everything, name: str) -> np.ndarray:
    """What enters a matrix of the original at the counted tokens of the target texts."""
    ids, kept = padded(FORGET), list[Tensor]()
    module = of.before.get_submodule(name.removesuffix(".weight"))
    handle = module.register_forward_pre_hook(lambda _, given: kept.append(given[0]))
    with torch.no_grad():
        passed(of.before, ids)
    handle.remove()
    return kept[0].numpy()[content(ids)]


def weight_delta(of: Everything) -> None:
    table = of.table("weight_delta")

    def expected(row: Any) -> dict[str, Any]:
        delta, before = delta_of(of, row["tensor"]), of.before.get_parameter(row["tensor"]).detach().numpy()
        squares = np.linalg.svd(delta, compute_uv=False) ** 2
        inputs = entering(of, row["tensor"])
        _, values, components = np.linalg.svd(inputs)
        return {
            "relative_change": np.linalg.norm(delta) / np.linalg.norm(before),
            "moved": (delta != 0).mean(),
            "share": squares[0] / squares.sum(),
            "effective_rank": entropy_rank(squares),
            "input_energy": ((delta @ components[:8].T) ** 2).sum() / (delta**2).sum(),
            "activation_energy": (values[:8] ** 2).sum() / (values**2).sum(),
        }

    compare(table, expected)
    differing = [
        name for name, weight in of.before.named_parameters() if not torch.equal(weight, of.after.get_parameter(name))
    ]
    assert sorted(table["tensor"]) == sorted(differing) and len(differing) == 2

    def aligned(row: Any) -> dict[str, Any]:
        delta, w = delta_of(of, row["tensor"]), of.probes.direction(Site.parse(row["site"])).double().numpy()
        left = np.linalg.svd(delta)[0]
        return {"cosine": abs(left[:, 0] @ w), "energy": ((w @ delta) ** 2).sum() / (delta**2).sum()}

    compare(of.table("weight_delta", "alignments"), aligned)


def determinism(of: Everything) -> None:
    def expected(row: Any) -> dict[str, Any]:
        pairs = [both(of, row["site"], corpus) for corpus in TEXTS]
        largest = max(np.abs(h - h0).max() for h0, h in pairs)
        return {"largest": largest, "below": layer_of(row["site"]) < 1, "n_tokens": sum(len(h) for _, h in pairs)}

    compare(of.table("determinism"), expected)
    (passed_,) = of.table("determinism", "result")["passed"]
    assert bool(passed_)


ORACLES: dict[str, Callable[[Everything], None]] = {
    "unlearning_depth": unlearning_depth,
    "weight_delta": weight_delta,
    "determinism": determinism,
    "displacement": displacement,
    "massive_activations": massive_activations,
    "spectrum": spectrum,
    "logit_lens": logit_lens,
    "tuned_lens": tuned_lens,
    "retrained_probes": retrained_probes,
    "cka": cka,
    "angles": angles,
}


def test_every_measure_of_drift_has_an_oracle() -> None:
    assert set(ORACLES) == set(MEASURES), "add an oracle in float64 here for a new measure"


@pytest.mark.parametrize("name", ORACLES)
def test_drift(name: str, everything: Everything) -> None:
    ORACLES[name](everything)
