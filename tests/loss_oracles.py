"""The losses of every registered objective, from plain passes in float64 and formulas in numpy.

Nothing of the package enters but the rows of a batch and the options that an objective is told. `test_oracles_losses`
compares them with it.
"""

import copy
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import pytest
import torch
from conftest import make_hf
from float64_passes import (
    added,
    content,
    cosines,
    divergence,
    log_probabilities,
    padded,
    passed,
    predicted,
    said,
    tokens,
)
from torch import Tensor, nn

from interp_unlearn.unlearning import (
    UnlearnConfig,
    UnlearnData,
)

LAYERS, D = (0, 1), 32
DATA = UnlearnData(
    forget=["the big cat sat on a mat", "who said it was not red", "a dog ran on the hill and sat", "the cat ran"],
    counterparts=[
        "the big dog sat on a hill",
        "who said it was not blue",
        "a cat ran on the mat and sat",
        "the dog ran",
    ],
    retain=["yes it was on a small hill", "no", "the blue mat then"],
    neutral=["then it was small and blue", "a hill and a mat", "not the dog who said no"],
)
CONFIG = UnlearnConfig(batch_size=4, steps=2, roles=("mlp.down",), layers=LAYERS)
Loss = Callable[[nn.Module], float]


@dataclass(frozen=True, eq=False)
class Case:
    """Both float64 models, the batch that the objective drew, and what was said to it.

    Attributes:
        before: the original.
        after: with other matrices.
        ids: of the batch; PAD where there is no token.
        options: of the objective.
    """

    before: nn.Module
    after: nn.Module
    ids: Tensor
    options: Mapping[str, Any]


def mean_over_layers(of_layer: Callable[[nn.Module, int], float], layers: tuple[int, ...]) -> Loss:
    return lambda model: float(np.mean([of_layer(model, layer) for layer in layers]))


def drawn(seed: int, size: int = D) -> np.ndarray:
    return torch.randn(size, generator=torch.Generator().manual_seed(seed)).double().numpy()


def control(layer: int) -> np.ndarray:
    """The documented draw of a layer's random direction at seed 0."""
    vector = drawn(layer)
    return vector / np.linalg.norm(vector)


def forget_rows() -> Tensor:
    """All forget rows, padded."""
    return padded(DATA.forget)


def of_cosine(case: Case) -> Loss:
    return mean_over_layers(
        lambda model, layer: (1 - cosines(tokens(model, case.ids, layer), control(layer)[None])).mean(),
        case.options["layers"],
    )


def of_rmu(case: Case) -> Loss:
    layers = case.options["layers"]
    length = dict.fromkeys(layers, case.options["coefficient"])
    if case.options["adaptive"]:
        for layer in layers:
            length[layer] *= np.linalg.norm(tokens(case.before, forget_rows(), layer), axis=-1).mean()
    return mean_over_layers(
        lambda model, layer: ((tokens(model, case.ids, layer) - length[layer] * control(layer)) ** 2).mean(), layers
    )


def of_token(case: Case) -> Loss:
    def of_layer(model: nn.Module, layer: int) -> float:
        wanted = case.ids.numpy()[content(case.ids)]
        directions = np.stack([drawn(layer * 1_000_003 + int(token)) for token in wanted])
        return float((1 - np.abs(cosines(tokens(model, case.ids, layer), directions))).mean())

    return mean_over_layers(of_layer, case.options["layers"])


def of_contrastive(case: Case) -> Loss:
    def of_layer(model: nn.Module, layer: int) -> float:
        h = tokens(model, case.ids, layer)
        near, away = cosines(h, control(layer)[None]), cosines(h, tokens(case.before, case.ids, layer))
        return float((-np.log(np.exp(near / 0.7) / (np.exp(near / 0.7) + np.exp(away / 0.7)))).mean())

    return mean_over_layers(of_layer, case.options["layers"])


def of_latent(case: Case) -> Loss:
    """The shifts are found in float64 too, by torch's gradient; they are constants of the loss."""
    (layer,), radius, steps = case.options["layers"], case.options["radius"], case.options["ascent_steps"]
    target = torch.tensor(case.options["coefficient"] * control(layer))
    mask = torch.tensor(content(case.ids))

    def shifted(model: nn.Module, shift: Tensor) -> Tensor:
        # The input of block 1 is what block 0 puts out. Padding and BOS are never edited.
        with added(model, layer - 1, lambda h: h + torch.where(mask[..., None], shift, 0.0)):
            h = passed(model, case.ids).hidden_states[layer + 1]
        return ((h[mask] - target) ** 2).mean()

    shift = torch.zeros(*case.ids.shape, D, dtype=torch.float64)
    for _ in range(steps):
        shift.requires_grad_(True)
        (slope,) = torch.autograd.grad(shifted(case.after, shift), shift)
        norms = slope.norm(dim=-1, keepdim=True)
        moved = shift.detach() + 2.5 * radius / steps * torch.where(norms > 0, slope / norms, 0.0)
        length = moved.norm(dim=-1, keepdim=True)
        shift = torch.where(length > radius, radius * moved / length, moved)
    assert float(shift.norm(dim=-1).max()) == pytest.approx(radius)
    return lambda model: float(shifted(model, shift.detach()).detach())


def of_counterfactual(case: Case) -> Loss:
    half = len(case.ids) // 2
    ours, others = case.ids[:half], case.ids[half:]
    if case.options["by"] == "predictions":
        target = log_probabilities(case.before, others)
        return lambda model: divergence(target, log_probabilities(model, ours), predicted(ours))

    def of_layer(model: nn.Module, layer: int) -> float:
        h, aim = tokens(model, ours, layer), tokens(case.before, others, layer)
        if case.options["by"] == "cosine":
            return float((1 - cosines(h, aim)).mean())
        return float((((h - aim) ** 2).sum(-1) / (aim**2).sum(-1)).mean())

    return mean_over_layers(of_layer, case.options["layers"])


def of_rerouting(case: Case) -> Loss:
    def of_layer(model: nn.Module, layer: int) -> float:
        found = cosines(tokens(model, case.ids, layer), tokens(case.before, case.ids, layer))
        return float(np.maximum(found, 0).mean())

    return mean_over_layers(of_layer, case.options["layers"])


def neutral_start(along: np.ndarray, beyond: np.ndarray) -> tuple[float, float]:
    """q and s: the neutral median, and the forget median beyond it."""
    start = float(np.median(along))
    return start, float(np.median(beyond)) - start


def hinge(values: np.ndarray, start: float, gap: float) -> float:
    return float((np.maximum((values - start) / gap, 0) ** 2).mean())


def of_projection(case: Case) -> Loss:
    def of_layer(model: nn.Module, layer: int) -> float:
        w = case.options["directions"][layer].double().numpy()
        w = w / np.linalg.norm(w)
        scale = neutral_start(*(tokens(case.before, padded(t), layer) @ w for t in (DATA.neutral, DATA.forget)))
        return hinge(tokens(model, case.ids, layer) @ w, *scale)

    return mean_over_layers(of_layer, case.options["layers"])


def of_subspace(case: Case) -> Loss:
    def of_layer(model: nn.Module, layer: int) -> float:
        rows = case.options["directions"][layer].double().numpy()
        neutral, forget = (tokens(case.before, padded(texts), layer) for texts in (DATA.neutral, DATA.forget))
        h = tokens(model, case.ids, layer)
        if case.options["penalty"] == "hinge":
            units = rows / np.linalg.norm(rows, axis=1, keepdims=True)
            return sum(hinge(h @ w, *neutral_start(neutral @ w, forget @ w)) for w in units)
        basis, centre = np.linalg.qr(rows.T)[0], neutral.mean(0)
        near, far, now = (np.linalg.norm((part - centre) @ basis, axis=1) for part in (neutral, forget, h))
        return hinge(now, *neutral_start(near, far))

    return mean_over_layers(of_layer, case.options["layers"])


def of_ascent(case: Case) -> Loss:
    return lambda model: float(np.concatenate(said(model, case.ids)).mean())


def of_fine_tuning(case: Case) -> Loss:
    return lambda model: -float(np.concatenate(said(model, case.ids)).mean())


def log_sigmoid(x: np.ndarray) -> np.ndarray:
    return -np.log1p(np.exp(-x))


def of_npo(case: Case) -> Loss:
    beta, before = case.options["beta"], np.array([row.sum() for row in said(case.before, case.ids)])

    def loss(model: nn.Module) -> float:
        ratio = np.array([row.sum() for row in said(model, case.ids)]) - before
        return float((-2 / beta * log_sigmoid(-beta * ratio)).mean())

    return loss


def of_simnpo(case: Case) -> Loss:
    beta, margin = case.options["beta"], case.options["margin"]
    return lambda model: float(
        np.mean([-2 / beta * log_sigmoid(beta * (-row.mean() - margin)) for row in said(model, case.ids)])
    )


def of_dpo(case: Case) -> Loss:
    half = len(case.ids) // 2
    before = np.array([row.sum() for row in said(case.before, case.ids)])

    def loss(model: nn.Module) -> float:
        ratio = np.array([row.sum() for row in said(model, case.ids)]) - before
        return float(-log_sigmoid(case.options["beta"] * (ratio[half:] - ratio[:half])).mean())

    return loss


def of_teacher(teacher: np.ndarray, case: Case) -> Loss:
    return lambda model: divergence(teacher, log_probabilities(model, case.ids), predicted(case.ids))


def of_distilled(case: Case) -> Loss:
    ((site, projected),) = case.options["edits"].items()
    w = projected.directions.double().flatten()
    w, mask = w / w.norm(), torch.tensor(content(case.ids))
    with added(case.before, site.layer, lambda h: h - torch.where(mask[..., None], (h @ w)[..., None] * w, 0.0)):
        teacher = log_probabilities(case.before, case.ids)
    return of_teacher(teacher, case)


def of_flattened(case: Case) -> Loss:
    """What follows the BOS stays as it is, for the BOS is never edited."""
    p, edited = np.exp(log_probabilities(case.before, case.ids)), content(case.ids)[:, :-1, None]
    for pool in case.options["pools"]:
        p[..., pool] = np.where(edited, p[..., pool].mean(-1, keepdims=True), p[..., pool])
    return of_teacher(np.log(p), case)


def of_hardened(case: Case) -> Loss:
    return of_teacher(log_probabilities(case.before, case.ids), case)


def of_oracle(case: Case) -> Loss:
    return of_teacher(log_probabilities(copy.deepcopy(case.options["teacher"].hf).double(), case.ids), case)


def directions_toward(texts: tuple[str, ...], k: int = 1) -> dict[int, Tensor]:
    """At each layer k vectors along which the forget tokens lie further out than the neutral ones."""
    hf = make_hf("gpt2").double()
    found: dict[int, Tensor] = {}
    for layer in LAYERS:
        forget, neutral = tokens(hf, padded(DATA.forget), layer), tokens(hf, padded(texts), layer)
        signs = [np.sign(np.median(forget @ v) - np.median(neutral @ v)) for v in map(drawn, range(k))]
        rows = np.stack([sign * drawn(seed) for seed, sign in enumerate(signs)])
        found[layer] = torch.tensor(rows[0] if k == 1 else rows).float()
    return found


def out_of_the_plane(k: int) -> dict[int, Tensor]:
    """At each layer k vectors in whose span the forget tokens lie further from the neutral mean."""
    hf = make_hf("gpt2").double()
    found: dict[int, Tensor] = {}
    for layer in LAYERS:
        forget, neutral = (tokens(hf, padded(texts), layer) for texts in (DATA.forget, DATA.neutral))
        forget, neutral = forget - neutral.mean(0), neutral - neutral.mean(0)
        values, vectors = np.linalg.eigh(forget.T @ forget / len(forget) - neutral.T @ neutral / len(neutral))
        assert values[-1] > 0
        found[layer] = torch.tensor(vectors[:, -k:].T @ np.eye(D)).float()
    return found
