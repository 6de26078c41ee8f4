"""Half precision against float32: how far each number may be off is stated, and nothing overflows on its way to a sum.

Both models have the same weights, rounded to half precision; what differs is the precision of the pass. Bounds are in
units of the dtype's spacing at 1 (2^-7 of bfloat16, 2^-10 of float16), which is what an error is made of.
"""

import copy
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
import pytest
import torch
from conftest import make_hf, make_tokenizer
from torch import Tensor

from interp_unlearn.activations import ActivationStore, collect
from interp_unlearn.activations.pooling import pool_tokens
from interp_unlearn.directions import Directions
from interp_unlearn.drift import displacement, displacement_spectrum, measure_drift, representation_similarity
from interp_unlearn.evaluation import perplexity, retain_kl, score_answers, token_nll
from interp_unlearn.interventions import Add, Clamp, HookedModel, ProjectOut, Where
from interp_unlearn.models import parameters_by_role
from interp_unlearn.objectives import (
    ProjectionScale,
    contrastive_forget,
    cosine_forget,
    counterfactual_forget,
    cross_entropy,
    distance,
    kl,
    mse,
    projection_hinge,
    relative_mse,
    rerouting_forget,
    rmu_forget,
    sequence_log_probability,
    subspace_hinge,
    token_cosine_forget,
)
from interp_unlearn.probes import fit_probes
from interp_unlearn.sites import Site, residual_stream
from interp_unlearn.unlearning import UnlearnConfig, UnlearnData, build_objective, steering_edits, unlearn

FORGET = [f"the {a} {b} sat on blue hill" for a in ("big", "small", "red") for b in ("cat", "dog", "mat", "hill")]
RETAIN = [f"the {a} {b} ran and it was not" for a in ("big", "small", "red") for b in ("cat", "dog", "mat", "hill")]
TEXTS = [*FORGET, *RETAIN]
SITES = residual_stream(3)
MODELS = [
    ("llama", torch.bfloat16),
    ("llama", torch.float16),
    ("gpt2", torch.float16),
    ("gemma2", torch.bfloat16),
]


@dataclass(frozen=True, eq=False)
class Pair:
    """A model in half precision, the same in float32, and both after the same change of weights."""

    half: HookedModel
    full: HookedModel
    half_changed: HookedModel
    full_changed: HookedModel
    spacing: float


@pytest.fixture(params=MODELS, ids=str, scope="module")
def pair(request: pytest.FixtureRequest) -> Pair:
    architecture, dtype = request.param
    half = make_hf(architecture).to(dtype)  # pyright: ignore[reportArgumentType]
    changed = copy.deepcopy(half)
    generator = torch.Generator().manual_seed(0)
    with torch.no_grad():
        for weight in parameters_by_role(changed, ["mlp.down"], [1]).values():
            weight.copy_(weight.float() + 0.3 * torch.randn(weight.shape, generator=generator))
    models = [half, copy.deepcopy(half).float(), changed, copy.deepcopy(changed).float()]
    hooked = [HookedModel(hf, make_tokenizer(), name="tiny") for hf in models]
    return Pair(*hooked, spacing=torch.finfo(dtype).eps)  # pyright: ignore[reportCallIssue]


def test_reading(pair: Pair) -> None:
    """Relative error of the stream after each block, over all tokens: up to 4 spacings (measured: up to 1.9)."""
    batch = pair.half.tokenize(TEXTS)
    with torch.no_grad():
        found, expected = (model.run(batch, reads=SITES) for model in (pair.half, pair.full))
    for site in SITES:
        h, h0 = (trace[site][batch.content_mask].double() for trace in (found, expected))
        assert float((h - h0).norm() / h0.norm()) <= 4 * pair.spacing
    assert found[SITES[-1]].dtype == pair.half.dtype


def test_likelihood_and_divergence(pair: Pair) -> None:
    """Nats per token: within a spacing; KL: within 4 spacings of its size, and of a model with itself within theirs
    squared (measured: 0.3, 0.9, 2.1)."""
    nll = [np.log(perplexity(model, TEXTS)) for model in (pair.half, pair.full)]
    assert abs(nll[0] - nll[1]) <= pair.spacing
    found, expected = retain_kl(pair.half, pair.half_changed, TEXTS), retain_kl(pair.full, pair.full_changed, TEXTS)
    assert expected > 0.1 and abs(found - expected) <= 4 * pair.spacing * expected
    assert 0 < retain_kl(pair.full, pair.half, TEXTS) <= 8 * pair.spacing**2
    pools = [[" mat", " hill", " red dog"]] * 2
    asked = ["the cat sat on a", "who said it was"]
    p = [
        score_answers(model, asked, pools, [0, 2])["answer_probability"].to_numpy() for model in (pair.half, pair.full)
    ]
    assert np.abs(p[0] - p[1]).max() <= 4 * pair.spacing


def test_probes(pair: Pair) -> None:
    """A probe of float32 scores half-precision activations alike; one that is fitted on them points the same way."""
    labels = [1] * len(FORGET) + [0] * len(RETAIN)
    stores = [collect(model, TEXTS, SITES[1:], labels=labels, progress=False) for model in (pair.half, pair.full)]
    assert all(store[site].dtype == torch.float32 for store in stores for site in SITES[1:])
    half, full = (fit_probes(store, folds=3, bootstrap=5, n_jobs=1, progress=False) for store in stores)
    for site in SITES[1:]:
        size = float(stores[1][site].norm(dim=1).mean())
        scores = [full.score(store, site) for store in stores]
        assert float((scores[0] - scores[1]).abs().max()) <= 4 * pair.spacing * size
        assert float(half.direction(site) @ full.direction(site)) >= 1 - pair.spacing
    np.testing.assert_array_equal(half.table["auroc"], full.table["auroc"])


def test_drift(pair: Pair) -> None:
    """Displacement, cosine, CKA, first component: within a spacing (measured: 0.3, 0.1, 0.15, 0.6)."""
    stores = {
        name: [collect(model, TEXTS, SITES, "none", progress=False) for model in models]
        for name, models in {
            "half": (pair.half, pair.half_changed),
            "full": (pair.full, pair.full_changed),
        }.items()
    }
    assert stores["half"][0][SITES[1]].dtype == pair.half.dtype, "single tokens are kept as the model gives them"
    found: Any
    expected: Any
    found, expected = (displacement(*stores[name]) for name in ("half", "full"))
    columns = ["relative_displacement", "cosine", "norm_ratio"]
    assert expected["relative_displacement"].max() > 0.3
    np.testing.assert_allclose(found[columns], expected[columns], rtol=0, atol=pair.spacing)
    below = found["layer"].fillna(-1) < 1
    assert (found.loc[below, "relative_displacement"] == 0).all() and below.sum() == 2
    live = measure_drift(pair.half_changed, pair.half, {"all": TEXTS}, SITES)
    np.testing.assert_allclose(live[columns], expected[columns], rtol=0, atol=pair.spacing)
    found, expected = (representation_similarity(*stores[name], n_null=0) for name in ("half", "full"))
    assert expected["cka"].min() < 0.96
    np.testing.assert_allclose(found["cka"], expected["cka"], rtol=0, atol=pair.spacing)
    np.testing.assert_allclose(found["pca_similarity"], expected["pca_similarity"], rtol=0, atol=pair.spacing)


def test_one_step(pair: Pair) -> None:
    """Half-precision weights after a step are those of float32 to within their own rounding, for masters hold the
    update; the loss is that of float32 to within 4 spacings."""
    data = UnlearnData(forget=FORGET, retain=RETAIN)
    options: dict[str, Any] = {"steps": 1, "batch_size": 4, "optimizer": "sgd", "learning_rate": 0.1, "clip": None}
    config = UnlearnConfig(**options, layers=(0, 1))
    before = torch.cat([p.detach().double().flatten() for p in parameters_by_role(pair.half.hf, ["mlp.down"]).values()])
    weights: list[Tensor] = []
    losses: list[float] = []
    for model in (pair.half, pair.full):
        copied = HookedModel(copy.deepcopy(model.hf), model.tokenizer)
        result = unlearn(copied, build_objective("cosine_rmu", layers=1), data, config, progress=False)
        losses.append(float(result.history["forget"].iloc[0]))
        matrices = parameters_by_role(copied.hf, ["mlp.down"])
        weights.append(torch.cat([p.detach().double().flatten() for p in matrices.values()]))
    assert abs(losses[0] - losses[1]) <= 4 * pair.spacing
    step = weights[1] - before
    assert float((weights[0] - weights[1]).norm()) <= 0.3 * pair.spacing * float(
        before.norm()
    ) + 4 * pair.spacing * float(step.norm())
    assert float((weights[0] - before) @ step / (weights[0] - before).norm() / step.norm()) > 0.9


LARGE = 300.0
"""Its square, 90,000, is beyond float16, whose largest number is 65,504."""
H = torch.full((2, 40, 64), LARGE, dtype=torch.float16)
OTHER = H * torch.linspace(-1, 1, 64, dtype=torch.float16)
MASK = torch.ones(2, 40, dtype=torch.bool)
IDS = torch.arange(80).reshape(2, 40) % 64
W = torch.linspace(0.5, 1, 64)
LOSSES: dict[str, Callable[[Tensor, Tensor, Tensor], Tensor]] = {
    "rmu_forget": lambda h, h0, w: rmu_forget(h, MASK, w),
    "cosine_forget": lambda h, h0, w: cosine_forget(h, MASK, w),
    "token_cosine_forget": lambda h, h0, w: token_cosine_forget(h, MASK, IDS, 0, 0),
    "contrastive_forget": lambda h, h0, w: contrastive_forget(h, h0, MASK, w),
    "counterfactual_forget": lambda h, h0, w: counterfactual_forget(h, h0, MASK),
    "rerouting_forget": lambda h, h0, w: rerouting_forget(h, h0, MASK),
    "distance": lambda h, h0, w: distance(h, h0, MASK),
    "mse": lambda h, h0, w: mse(h, h0, MASK),
    "relative_mse": lambda h, h0, w: relative_mse(h, h0, MASK),
    "projection_hinge": lambda h, h0, w: projection_hinge(h, MASK, w, ProjectionScale(0.0, 1.0)),
    "subspace_hinge": lambda h, h0, w: subspace_hinge(h, MASK, w[None], w[:1], ProjectionScale(0.0, 1.0)),
    "kl": lambda h, h0, w: kl(h, h0 / 128, MASK),
    "cross_entropy": lambda h, h0, w: cross_entropy(h0, IDS, MASK),
    "sequence_log_probability": lambda h, h0, w: -sequence_log_probability(h0, IDS, MASK).sum(),
}


@pytest.mark.parametrize("name", LOSSES)
def test_losses_do_not_overflow(name: str) -> None:
    """As in float64, to float32's precision; a sum of squares, or of 80 rows' terms, is none of float16's numbers."""
    found = LOSSES[name](H, OTHER, W)
    expected = LOSSES[name](H.double(), OTHER.double(), W.double())
    assert found.dtype == torch.float32
    assert found.item() == pytest.approx(expected.item(), rel=1e-5, abs=1e-6)


def test_gradients_reach_half_precision_without_overflow() -> None:
    h = OTHER.clone().requires_grad_()
    relative_mse(h, H, MASK).backward()
    assert h.grad is not None and h.grad.dtype == torch.float16 and bool(h.grad.isfinite().all())
    assert bool((h.grad != 0).any())


def token_store(vectors: Tensor) -> ActivationStore:
    import pandas as pd

    rows = pd.DataFrame({"n_tokens": [40, 40]})
    metadata = {"model": "planted", "model_hash": "a" * 64, "data_hash": "d", "pool": "none"}
    ids = torch.arange(80, dtype=torch.int32)
    return ActivationStore({Site(0, "resid_post"): vectors.flatten(0, 1)}, rows, metadata, ids)


def test_norms_and_moments_do_not_overflow() -> None:
    generator = torch.Generator().manual_seed(0)
    h0 = (LARGE * torch.randn(2, 40, 64, generator=generator)).half()
    h = (h0.float() + LARGE * torch.randn(64, generator=generator)).half()
    found = displacement(token_store(h0), token_store(h)).iloc[0]
    x, y = (part.double().flatten(0, 1).numpy() for part in (h0, h))
    relative = np.linalg.norm(y - x, axis=1) / np.linalg.norm(x, axis=1)
    assert found["relative_displacement"] == pytest.approx(relative.mean(), rel=1e-9)
    spectrum = displacement_spectrum(token_store(h0), token_store(h), n_null=1)
    squares = np.linalg.svd(y - x, compute_uv=False) ** 2
    assert spectrum.table["share"].iloc[0] == pytest.approx(squares[0] / squares.sum(), rel=1e-6)
    similarity = representation_similarity(token_store(h0), token_store(h), n_null=2).iloc[0]
    assert similarity["cka"] == pytest.approx(1.0, abs=1e-5), "the common shift leaves the geometry as it is"
    pooled = pool_tokens(H.expand(2, 40, 64).repeat(1, 10, 1), torch.ones(2, 400, dtype=torch.bool), "mean")
    assert (pooled == LARGE).all(), "the sum of 400 tokens, 120,000, is beyond float16"


def test_directions_in_half_precision_have_unit_norm() -> None:
    """The norm of 4,096 numbers of 3,000 is 192,000: in float16 it is infinite, and a direction would come out as 0."""
    long = torch.full((4096,), 3000.0, dtype=torch.float16)
    site = Site(1, "resid_post")
    steering = steering_edits({1: long}, [1], 2.0)[site]
    assert isinstance(steering, Add)
    vectors = {
        "clamp": Clamp(long, 0.0).direction,
        "where": Where(long, 0.0).direction,
        "project_out": ProjectOut(long).basis[0],
        "directions": Directions({site: long})[site],
        "steering": steering.vector,
    }
    for name, vector in vectors.items():
        assert float(vector.double().norm()) == pytest.approx(1.0, abs=1e-5), name


def test_text_sums_are_float64_however_long() -> None:
    """Of a model in float16 that gives every token of many texts the same loss, the mean is that of one."""
    half = HookedModel(make_hf("gpt2").half(), make_tokenizer())
    one: Any
    many: Any
    one, many = token_nll(half, TEXTS[:1]), token_nll(half, TEXTS[:1] * 300)
    assert many["nll"].sum() / many["tokens"].sum() == pytest.approx(one["nll"].sum() / one["tokens"].sum(), rel=1e-3)
    assert many["nll"].sum() > 300
