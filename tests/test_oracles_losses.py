"""Every registered way to unlearn against a second computation: plain passes in float64, formulas in numpy.

Nothing of the package enters an oracle but the rows of a batch and the options that both are told.
"""

import copy
from collections.abc import Callable, Mapping
from typing import Any

import numpy as np
import pytest
import torch
from conftest import make_hf, make_tokenizer
from float64_passes import (
    BOS,
    divergence,
    log_probabilities,
    padded,
    passed,
    predicted,
    said,
    tokens,
)
from loss_oracles import (
    CONFIG,
    DATA,
    LAYERS,
    Case,
    D,
    Loss,
    directions_toward,
    drawn,
    forget_rows,
    of_ascent,
    of_contrastive,
    of_cosine,
    of_counterfactual,
    of_distilled,
    of_dpo,
    of_fine_tuning,
    of_flattened,
    of_hardened,
    of_latent,
    of_npo,
    of_oracle,
    of_projection,
    of_rerouting,
    of_rmu,
    of_simnpo,
    of_subspace,
    of_token,
    out_of_the_plane,
)
from torch import Tensor, nn

from interp_unlearn.interventions import HookedModel, ProjectOut
from interp_unlearn.models import TokenBatch, parameters_by_role
from interp_unlearn.sites import Site
from interp_unlearn.unlearning import (
    UnlearnConfig,
    WeightEdit,
    build_method,
    build_objective,
    method_kinds,
    unlearn,
)
from interp_unlearn.unlearning.corpora import Corpora, forget_mask
from interp_unlearn.unlearning.retention import Retention

VALUE, GRADIENT = 2e-5, 2e-4
"""Bounds: of a loss relative to its value, of a directional derivative relative to the gradient's norm."""

SEVERAL, ONE = {"layers": LAYERS}, {"layers": (1,)}
COSINE_AT = {"layers": LAYERS, "by": "cosine"}
CASES: list[tuple[str, Callable[[], Mapping[str, Any]], Callable[[Case], Loss]]] = [
    ("random_single", lambda: ONE, of_cosine),
    ("random_multi", lambda: SEVERAL, of_cosine),
    ("cosine_rmu", lambda: SEVERAL, of_cosine),
    ("cosine_rmu_meta", lambda: SEVERAL, of_cosine),
    ("rmu", lambda: {**SEVERAL, "coefficient": 6.5, "adaptive": False}, of_rmu),
    ("rmu", lambda: {**SEVERAL, "coefficient": 2.0, "adaptive": True}, of_rmu),
    ("rmu_lat", lambda: {**ONE, "coefficient": 6.5, "radius": 0.5, "ascent_steps": 3}, of_latent),
    ("token_rmu", lambda: SEVERAL, of_token),
    ("contrastive_rmu", lambda: SEVERAL, of_contrastive),
    ("probe_single", lambda: {**ONE, "directions": directions_toward(tuple(DATA.neutral))}, of_projection),
    ("probe_multi", lambda: {**SEVERAL, "directions": directions_toward(tuple(DATA.neutral))}, of_projection),
    (
        "subspace",
        lambda: {**SEVERAL, "directions": directions_toward(tuple(DATA.neutral), 2), "penalty": "hinge"},
        of_subspace,
    ),
    ("subspace", lambda: {**SEVERAL, "directions": out_of_the_plane(2), "penalty": "norm"}, of_subspace),
    ("counterfactual", lambda: COSINE_AT, of_counterfactual),
    ("counterfactual", lambda: {**COSINE_AT, "by": "relative_mse"}, of_counterfactual),
    ("counterfactual", lambda: {"by": "predictions"}, of_counterfactual),
    ("counterfactual_meta", lambda: COSINE_AT, of_counterfactual),
    ("rerouting", lambda: SEVERAL, of_rerouting),
    ("gradient_ascent", lambda: {}, of_ascent),
    ("grad_diff", lambda: SEVERAL, of_ascent),
    ("npo", lambda: {"beta": 0.3}, of_npo),
    ("simnpo", lambda: {"beta": 2.0, "margin": 0.5}, of_simnpo),
    ("dpo", lambda: {"beta": 0.3}, of_dpo),
    ("flattened", lambda: {"pools": [[4, 5, 9], [11, 20]]}, of_flattened),
    (
        "distilled",
        lambda: {"edits": {Site(1, "resid_post"): ProjectOut(torch.tensor(drawn(3)).float())}, "contexts": 0.0},
        of_distilled,
    ),
    ("hardened", lambda: {"contexts": 0.0}, of_hardened),
    ("oracle", lambda: {"teacher": HookedModel(make_hf("gpt2", seed=5), make_tokenizer(), name="twin")}, of_oracle),
    ("civil_finetuning", lambda: {}, of_fine_tuning),
]
EDITS = {"profs", "task_vector", "shrink_perturb", "steering"}
"""Weight and inference edits; their oracles are the tests at the end."""


def test_every_registered_method_has_an_oracle() -> None:
    builtin = {name for name in method_kinds() if not name.startswith("test")}
    assert builtin == {name for name, _, _ in CASES} | EDITS, "add an oracle in float64 here for a new method"
    kinds = method_kinds()
    assert {name for name in builtin if kinds[name] != "loss"} == EDITS


def gpt2() -> HookedModel:
    return HookedModel(make_hf("gpt2"), make_tokenizer(), name="tiny-gpt2")


def moved(*models: nn.Module) -> None:
    """The same change of every written matrix, large enough to move losses by far more than their bounds."""
    for model in models:
        generator = torch.Generator().manual_seed(7)
        for weight in parameters_by_role(model, ["mlp.down", "attn.o"]).values():
            change = 0.1 * torch.randn(weight.shape, generator=generator)
            with torch.no_grad():
                weight.add_(change.to(weight.dtype))


@pytest.mark.parametrize(("name", "options", "oracle"), CASES, ids=[name for name, _, _ in CASES])
def test_value_and_gradient_are_the_float64_ones(
    name: str, options: Callable[[], Mapping[str, Any]], oracle: Callable[[Case], Loss]
) -> None:
    model, told = gpt2(), options()
    objective = build_objective(name, **told)
    corpora = Corpora.from_data(model.tokenizer, DATA)
    objective.prepare(model, corpora, CONFIG)
    batch: TokenBatch = objective.batch(model, corpora, CONFIG, 0)
    assert (batch.input_ids[:, 0] == BOS).all() and len(set(batch.mask.sum(1).tolist())) > 1
    with torch.no_grad():
        targets = objective.targets(model, batch)
    before = copy.deepcopy(model.hf).double()
    after = copy.deepcopy(before)
    moved(model.hf, after)
    case = Case(before, after, batch.input_ids, told)

    loss = oracle(case)
    value, _ = objective.loss(model, batch, forget_mask(batch, CONFIG), targets)
    expected, unmoved = loss(after), loss(before)
    assert value.dtype == torch.float32
    assert abs(value.item() - expected) <= VALUE * abs(expected)
    # Otherwise the change would be within the bound, and the case could not tell one model from the other.
    assert abs(unmoved - expected) > 20 * VALUE * abs(expected)

    weights = parameters_by_role(model.hf, ["mlp.down"], list(LAYERS))
    gradient = dict(zip(weights, torch.autograd.grad(value, list(weights.values())), strict=True))
    size = float(torch.stack([part.double().norm() for part in gradient.values()]).norm())
    assert size > 1e-4
    assert abs(slope(loss, after, gradient, size) - along(gradient, size)) <= GRADIENT * size


def direction_of(name: str, gradient: Tensor, size: float) -> Tensor:
    """Along the gradient and, so that a part that is missing shows, along chance."""
    generator = torch.Generator().manual_seed(sum(map(ord, name)))
    chance = torch.randn(gradient.shape, generator=generator, dtype=torch.float64)
    return gradient.double() / size + chance / chance.norm()


def along(gradient: Mapping[str, Tensor], size: float) -> float:
    """What the gradient says the loss changes by."""
    return sum(float((part.double() * direction_of(name, part, size)).sum()) for name, part in gradient.items())


def slope(loss: Loss, model: nn.Module, gradient: Mapping[str, Tensor], size: float, step: float = 1e-5) -> float:
    """Central difference of the float64 loss."""
    weights = dict(model.named_parameters())
    values: list[float] = []
    for sign in (1, -2):  # ahead, then behind
        with torch.no_grad():
            for name, part in gradient.items():
                weights[name].add_(direction_of(name, part, size), alpha=sign * step)
        values.append(loss(model))
    return (values[0] - values[1]) / (2 * step)


@pytest.mark.parametrize("hidden", ["relative_mse", "mse", "distance"])
def test_the_retain_terms(hidden: Any) -> None:
    model = gpt2()
    corpora = Corpora.from_data(model.tokenizer, DATA)
    assert corpora.retain is not None
    batch = corpora.retain.batch(range(3))
    retention = Retention(LAYERS, 3.0, 0.5, hidden, 0.25)
    before = copy.deepcopy(model.hf).double()
    with torch.no_grad():
        original = retention.run(model, batch)
    after = copy.deepcopy(before)
    moved(model.hf, after)
    found, logs = retention.loss(original, retention.run(model, batch), batch, batch.content_mask)

    ids = batch.input_ids
    by_layer: list[float] = []
    for layer in LAYERS:
        h, h0 = tokens(after, ids, layer), tokens(before, ids, layer)
        squares = ((h - h0) ** 2).sum(-1)
        each = {"relative_mse": squares / (h0**2).sum(-1), "mse": squares / D, "distance": np.sqrt(squares)}
        by_layer.append(float(each[hidden].mean()))
    kl = divergence(log_probabilities(before, ids), log_probabilities(after, ids), predicted(ids))
    nll = -float(np.concatenate(said(after, ids)).mean())
    assert logs["retain_hidden"] == pytest.approx(np.mean(by_layer), rel=VALUE)
    assert (logs["retain_kl"], logs["retain_nll"]) == (pytest.approx(kl, rel=VALUE), pytest.approx(nll, rel=VALUE))
    assert found.item() == pytest.approx(3.0 * np.mean(by_layer) + 0.5 * kl + 0.25 * nll, rel=VALUE)


def test_a_whole_step_is_the_float64_one() -> None:
    """One update of plain gradient descent on forget and retain terms, against central differences in float64."""
    model, rate = gpt2(), 1e-2
    before = copy.deepcopy(model.hf).double()
    settings: dict[str, Any] = {"optimizer": "sgd", "learning_rate": rate, "clip": None, "batch_size": 4}
    config = UnlearnConfig(steps=1, roles=("mlp.down",), layers=(1,), retain_weight=0.0, kl_weight=0.0, **settings)
    unlearn(model, build_objective("rmu", layers=1, coefficient=6.5), DATA, config, progress=False)

    (name,) = parameters_by_role(model.hf, ["mlp.down"], [1])
    expected = of_rmu(Case(before, before, forget_rows(), {"layers": (1,), "coefficient": 6.5, "adaptive": False}))
    changed = model.hf.get_parameter(name).double() - before.get_parameter(name)
    for row, column in ((0, 0), (17, 5), (40, 31)):
        values: list[float] = []
        for sign in (1, -2):
            with torch.no_grad():
                before.get_parameter(name)[row, column] += sign * 1e-5
            values.append(expected(before))
        with torch.no_grad():
            before.get_parameter(name)[row, column] += 1e-5
        wanted = -rate * (values[0] - values[1]) / 2e-5
        assert float(changed[row, column]) == pytest.approx(wanted, rel=1e-2, abs=2e-7)


def edit(name: str, **options: object) -> WeightEdit:
    made = build_method(name, **options)
    assert isinstance(made, WeightEdit)
    return made


def test_profs() -> None:
    model = gpt2()
    before = copy.deepcopy(model.hf).double()
    edit("profs", rank=2).apply(model, DATA, CONFIG, progress=False)
    for layer in LAYERS:
        (name,) = parameters_by_role(model.hf, ["mlp.down"], [layer])
        means = [pair_means(before, texts, layer) for texts in (DATA.forget, DATA.counterparts)]
        common = means[1].mean(0) / np.linalg.norm(means[1].mean(0))
        difference = (means[0] - means[1]) / 2
        difference = difference - np.outer(difference @ common, common)
        rows = np.linalg.svd(difference)[2][:2]
        weight = before.get_parameter(name).detach().numpy()  # GPT-2's are [in, out]
        wanted = weight - weight @ rows.T @ rows
        found = model.hf.get_parameter(name).detach().double().numpy()
        assert np.abs(found - weight).max() > 1e-2
        np.testing.assert_allclose(found, wanted, atol=VALUE * np.abs(weight).max())


def pair_means(model: nn.Module, texts: Any, layer: int) -> np.ndarray:
    """The mean over each text's tokens after a block."""
    return np.stack([tokens(model, padded([text]), layer).mean(0) for text in texts])


def test_a_task_vector() -> None:
    model = gpt2()
    before = copy.deepcopy(model.hf).double()
    settings: dict[str, Any] = {"optimizer": "sgd", "learning_rate": 0.1, "clip": None, "batch_size": 4, "steps": 2}
    config = UnlearnConfig(roles=("mlp.down",), layers=LAYERS, **settings)
    edit("task_vector", coefficient=0.7).apply(model, DATA, config, progress=False)

    tuned, ids = copy.deepcopy(before), forget_rows()
    weights = parameters_by_role(tuned, ["mlp.down"], list(LAYERS))
    mask = torch.tensor(predicted(ids))
    for _ in range(2):  # all four rows are in every batch
        log_p = passed(tuned, ids).logits[:, :-1].log_softmax(-1)
        loss = -log_p.gather(-1, ids[:, 1:, None])[..., 0][mask].mean()
        for weight, slope_ in zip(weights.values(), torch.autograd.grad(loss, list(weights.values())), strict=True):
            with torch.no_grad():
                weight.sub_(0.1 * slope_)
    for name, weight in weights.items():
        original = before.get_parameter(name)
        step = (model.hf.get_parameter(name).double() - original).detach()
        wanted = (-0.7 * (weight - original)).detach()
        assert float((step - wanted).norm() / wanted.norm()) < 1e-4


def test_shrinking_and_perturbing() -> None:
    model = gpt2()
    before = copy.deepcopy(model.hf).double()
    edit("shrink_perturb", alpha=0.3, beta=0.5, seed=4).apply(model, DATA, CONFIG, progress=False)
    generator = torch.Generator().manual_seed(4)
    for name in parameters_by_role(model.hf, ["mlp.down"], list(LAYERS)):
        weight = before.get_parameter(name).detach()
        spread = (2 / sum(weight.shape)) ** 0.5  # Xavier's
        noise = spread * torch.randn(weight.shape, generator=generator).double()
        wanted = 0.7 * weight + 0.3 * 0.5 * noise
        torch.testing.assert_close(model.hf.get_parameter(name).detach().double(), wanted, rtol=0, atol=1e-6)


def test_steering() -> None:
    model = gpt2()
    double = copy.deepcopy(model.hf).double()
    vector, ids, site = torch.tensor(drawn(1)).float(), forget_rows(), Site(1, "resid_post")
    edits: Any = build_method("steering", directions={1: vector}, layers=1, coefficient=2.5)
    batch = Corpora.from_data(model.tokenizer, DATA).forget.batch(range(4))
    with torch.no_grad():
        stream = model.run(batch, edits=edits, reads=[site])[site]
    unit = vector.double().numpy() / np.linalg.norm(vector.double().numpy())
    wanted = tokens(double, ids, 1) - 2.5 * unit
    found = stream[batch.content_mask].double().numpy()
    np.testing.assert_allclose(found, wanted, atol=VALUE * np.abs(wanted).max())
