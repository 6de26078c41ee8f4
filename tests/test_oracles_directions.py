"""Every measure of directions against a second computation in float64, from plain passes and formulas."""

import copy
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from float64_passes import added, content, log_probabilities, padded, tokens
from test_oracles_diagnostics import (
    BOUND,
    FORGET,
    LAYERS,
    RETAIN,
    D,
    Everything,
    compare,
    entropy_rank,
    hooked,
    layer_of,
)
from test_oracles_diagnostics import everything as everything  # a fixture
from torch import Tensor, nn

import interp_unlearn.directions
from interp_unlearn.activations import ActivationStore, collect
from interp_unlearn.directions import (
    Directions,
    EffectsConfig,
    Intervention,
    aligned_value_vectors,
    category_directions,
    compare_directions,
    next_token_effects,
    promoted_tokens,
    subspace_rank,
    transfer,
)
from interp_unlearn.sites import Site, residual_stream

HERE = Path(__file__).name
DIRECTION_MEASURES = {
    "compare_directions": HERE,
    "subspace_rank": HERE,
    "category_directions": HERE,
    "promoted_tokens": HERE,
    "aligned_value_vectors": HERE,
    "next_token_effects": HERE,
    "transfer": HERE,
    "value_vectors": "test_direction_weights.py",
    "generation_effects": "test_direction_effects.py",
    "causal_effects": "test_direction_effects.py",
}
"""Where each is compared with a second computation; generated texts are counted by hand in theirs."""
NO_MEASURE = {"Directions", "EffectsConfig", "Intervention", "Judge", "read_directions"}


def test_every_measure_of_directions_has_an_oracle() -> None:
    assert {*DIRECTION_MEASURES, *NO_MEASURE} == set(interp_unlearn.directions.__all__)
    for name, file in DIRECTION_MEASURES.items():
        assert name in (Path(__file__).parent / file).read_text(encoding="utf-8").split("DIRECTION_MEASURES = ")[0]


@pytest.fixture(scope="module")
def pooled(everything: Everything) -> ActivationStore:
    labels = [1] * len(FORGET) + [0] * len(RETAIN)
    model = hooked(copy.deepcopy(everything.before).float(), "original")
    return collect(model, [*FORGET, *RETAIN], residual_stream(3)[1:], labels=labels, progress=False)


def means(hf: nn.Module, texts: Sequence[str], layer: int) -> np.ndarray:
    return np.stack([tokens(hf, padded([text]), layer).mean(0) for text in texts])


def units(seed: int = 3) -> dict[Site, Tensor]:
    drawn = torch.randn(3, D, generator=torch.Generator().manual_seed(seed))
    return {Site(layer, "resid_post"): drawn[layer] / drawn[layer].norm() for layer in LAYERS}


def test_cosines_of_directions(everything: Everything, pooled: ActivationStore) -> None:
    vectors = units()
    table = compare_directions(Directions(vectors), pooled)

    def expected(row: Any) -> dict[str, Any]:
        scores: list[np.ndarray] = []
        for side in ("site_a", "site_b"):
            w = vectors[Site.parse(row[side])].double().numpy()
            classes = [means(everything.before, texts, layer_of(row[side])) for texts in (FORGET, RETAIN)]
            scores.append(np.concatenate([(part - part.mean(0)) @ w for part in classes]))
        a, b = (vectors[Site.parse(row[side])].double().numpy() for side in ("site_a", "site_b"))
        return {"cosine": a @ b, "score_correlation": np.corrcoef(scores)[0, 1], "n": len(FORGET) + len(RETAIN)}

    compare(table, expected)


def test_rank_of_categories(everything: Everything, pooled: ActivationStore) -> None:
    names = ["sat"] * 4 + ["hill"] * 4 + ["neutral"] * 8
    table = subspace_rank(pooled, names, n_null=3)
    made = category_directions(pooled, names)

    def directions(layer: int) -> np.ndarray:
        x = means(everything.before, [*FORGET, *RETAIN], layer)
        found = np.stack([x[:4].mean(0), x[4:8].mean(0)]) - x[8:].mean(0)
        return found / np.linalg.norm(found, axis=1, keepdims=True)

    def expected(row: Any) -> dict[str, Any]:
        values = np.linalg.svd(directions(row["layer"]), compute_uv=False)
        at = row["component"] - 1
        shares = values**2 / (values**2).sum()
        return {"singular_value": values[at], "share": shares[at], "effective_rank": entropy_rank(values**2)}

    compare(table, expected, 10 * BOUND)
    for layer in LAYERS:
        for name, unit in zip(("sat", "hill"), directions(layer), strict=True):
            assert made[name][Site(layer, "resid_post")].numpy() == pytest.approx(unit, abs=BOUND)


def test_promoted_tokens(everything: Everything) -> None:
    hf, vectors = everything.before, units()
    model = hooked(copy.deepcopy(hf).float(), "original")
    gain = hf.get_parameter("transformer.ln_f.weight").detach().numpy()

    def logits(v: np.ndarray) -> np.ndarray:
        centred = v - v.mean()
        return (centred / centred.std() * gain) @ hf.get_parameter("lm_head.weight").detach().numpy().T

    def expected(row: Any) -> dict[str, Any]:
        read = logits(vectors[Site.parse(row["site"])].double().numpy())
        order = np.argsort(-read if row["side"] == "promoted" else read)
        token = order[row["rank"] - 1]
        return {"token_id": token, "value": read[token], "z": (read[token] - read.mean()) / read.std()}

    compare(promoted_tokens(model, Directions(vectors), k=3, n_null=5), expected)


def test_value_vectors(everything: Everything) -> None:
    vectors = units()
    model = hooked(copy.deepcopy(everything.before).float(), "original")

    def expected(row: Any) -> dict[str, Any]:
        rows = everything.before.get_parameter(f"transformer.h.{row['mlp_layer']}.mlp.c_proj.weight").detach().numpy()
        cosines = rows @ vectors[Site.parse(row["site"])].double().numpy() / np.linalg.norm(rows, axis=1)
        neuron = np.argsort(-cosines if row["side"] == "along" else cosines)[row["rank"] - 1]
        return {"neuron": neuron, "cosine": cosines[neuron], "norm": np.linalg.norm(rows[neuron])}

    compare(aligned_value_vectors(model, Directions(vectors), k=3), expected)


def test_effects_on_next_tokens(everything: Everything) -> None:
    site, prompts = Site(1, "resid_post"), [*FORGET[:2], "who said"]
    w = units()[site]
    model = hooked(copy.deepcopy(everything.before).float(), "original")
    config = EffectsConfig((Intervention("add", 0.5, "norm"),), n_random=1, n_resamples=10)
    table: Any = next_token_effects(model, prompts, Directions({site: w}), config, tokens=[5])
    ids = padded(prompts)
    size = 0.5 * np.linalg.norm(tokens(everything.before, ids, 1), axis=1).mean()
    by_measure: dict[str, list[float]] = {"kl": [], "total_variation": [], "token_set_log_probability": []}
    for prompt in prompts:
        one = torch.cat([padded([prompt]), torch.tensor([[4]])], dim=1)  # whatever follows: its prediction is read
        mask = torch.tensor(content(one))[..., None]
        p = log_probabilities(everything.before, one)[0, -1]
        with added(everything.before, 1, lambda h, mask=mask: h + torch.where(mask, size * w.double(), 0.0)):
            q = log_probabilities(everything.before, one)[0, -1]
        by_measure["kl"].append((np.exp(p) * (p - q)).sum())
        by_measure["total_variation"].append(np.abs(np.exp(p) - np.exp(q)).sum() / 2)
        by_measure["token_set_log_probability"].append(q[5] - p[5])
    rows: Any = table.loc[table["control"] == "direction"].set_index("measure")["mean"]
    for name, values in by_measure.items():
        assert rows[name] == pytest.approx(np.mean(values), rel=1e-3), name
        assert abs(np.mean(values)) > 1e-3


def test_transfer_of_probes(everything: Everything) -> None:
    other = [*FORGET[1:5], *RETAIN[2:6], "the cat who ran"]
    labels = [1, 1, 1, 1, 0, 0, 0, 0, 1]
    model = hooked(copy.deepcopy(everything.before).float(), "original")
    store = collect(model, other, residual_stream(3)[1:], labels=labels, progress=False)
    table: Any = transfer({"a": everything.probes}, {"b": store}, n_bootstrap=5)

    def expected(row: Any) -> dict[str, Any]:
        w = everything.probes.direction(Site.parse(row["site"]), row["estimator"]).double().numpy()
        scores = means(everything.before, other, layer_of(row["site"])) @ w
        hit, miss = scores[np.array(labels) == 1], scores[np.array(labels) == 0]
        return {"auroc": float((hit[:, None] > miss).mean()), "n": len(other), "n_positive": 5}

    compare(table, expected)
