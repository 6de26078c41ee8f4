"""Sums of deltas, their interaction against a margin, and the cosine between deltas with its null."""

from collections.abc import Mapping, Sequence

import numpy as np
import pytest
import torch
from planted_deltas import copied, disturbed, tensor_sums, text_logits

from interp_unlearn.errors import ConfigError
from interp_unlearn.interventions import HookedModel
from interp_unlearn.mechanism import (
    CompositionConfig,
    Resampling,
    WeightDelta,
    align_deltas,
    applied,
    carry_over,
    compose,
)
from interp_unlearn.models import parameters_by_role
from interp_unlearn.statistics import bootstrap_mean

CONFIG = CompositionConfig(0.05, resampling=Resampling(n=200))


def nudged(model: HookedModel, name: str, by: float) -> WeightDelta:
    """A change of one element."""
    with torch.no_grad():
        change = torch.zeros_like(model.hf.get_parameter(name), dtype=torch.float64)
    change[0, 0] = by
    return WeightDelta({name: change})


def test_deltas_on_disjoint_tensors_add_up_where_the_outcome_is_linear(model: HookedModel) -> None:
    one, other = list(parameters_by_role(model.hf, ["mlp.down"], [0, 2]))
    own = model.hash()
    first, second = nudged(model, one, 1.0), nudged(model, other, -0.5)
    table = compose(model, first, second, tensor_sums(one, other), CONFIG).to_frame().set_index("contrast")
    assert model.hash() == own
    assert table["mean"].to_dict() == pytest.approx(
        {"first": 1.0, "second": -0.5, "sum": 0.5, "interaction": 0.0}, abs=1e-4
    )
    assert table["equivalent"].to_dict() == {"first": False, "second": False, "sum": False, "interaction": True}


def test_a_planted_interaction_is_no_equivalence(model: HookedModel) -> None:
    one, other = list(parameters_by_role(model.hf, ["mlp.down"], [0, 2]))
    start = [float(model.hf.get_parameter(name)[0, 0]) for name in (one, other)]

    def product(found: HookedModel) -> Mapping[str, Sequence[float]]:
        a, b = (float(found.hf.get_parameter(n)[0, 0]) - s for n, s in zip((one, other), start, strict=True))
        return {"product": [scale * (a + b + a * b) for scale in (0.9, 1.0, 1.1)], "same": [0.2, 0.4, 0.6] * 25}

    first, second = nudged(model, one, 1.0), nudged(model, other, 0.5)
    table = compose(model, first, second, product, CONFIG).to_frame().set_index(["outcome", "contrast"])
    row = table.loc[("product", "interaction")]
    assert row["mean"] == pytest.approx(0.5, abs=1e-5)
    assert not row["equivalent"]
    assert table.loc["same", "equivalent"].all()
    assert (table.loc["same", "mean"].abs() < 1e-12).all()
    wide = CompositionConfig({"product": 0.6, "same": 0.1}, resampling=Resampling(n=200))
    table = compose(model, first, second, product, wide).to_frame().set_index(["outcome", "contrast"])
    assert table.loc[("product", "interaction"), "equivalent"]
    with pytest.raises(ConfigError, match="none for outcome same"):
        compose(model, first, second, product, CompositionConfig({"product": 0.6}))


def test_few_items_without_a_difference_are_no_equivalence(llama: HookedModel) -> None:
    """Twenty prompts of which none changed: one in seven of all prompts may, and would not have been seen.

    Eighty of twenty subjects say no more than that, since those of a subject may change together.
    """
    name = next(iter(parameters_by_role(llama.hf, ["mlp.down"], [0])))
    first, second = nudged(llama, name, 1.0), nudged(llama, name, 0.5)
    subjects = [i // 4 for i in range(80)]
    for n, keys, units, equivalent in ((20, None, 20, False), (80, None, 80, True), (80, subjects, 20, False)):
        table = compose(llama, first, second, lambda _, n=n: {"target": [1.0] * n}, CONFIG, groups=keys).to_frame()
        assert table["equivalence_high"].tolist() == pytest.approx([1 - 0.05 ** (1 / units)] * 4)
        assert table["equivalent"].tolist() == [equivalent] * 4


@pytest.mark.parametrize("size", [0.2, 1.0])
def test_items_that_differ_do_not_make_the_verdict_surer(llama: HookedModel, size: float) -> None:
    """Of 55 prompts none, one, ten, ... changed; where none of so few is no equivalence, neither are some."""
    name = next(iter(parameters_by_role(llama.hf, ["mlp.down"], [0])))
    start = llama.hash()
    first, second = nudged(llama, name, 1.0), nudged(llama, name, 0.5)
    ends: list[float] = []
    for moved in (0, 1, 2, 5, 9, 10, 11, 20, 40):

        def outcome(model: HookedModel, moved: int = moved) -> Mapping[str, Sequence[float]]:
            return {"target": [size * (row < moved and model.hash() != start) for row in range(55)]}

        row = compose(llama, first, second, outcome, CONFIG).to_frame().set_index("contrast").loc["first"]
        assert row["mean"] == pytest.approx(size * moved / 55)
        assert not row["equivalent"]
        ends.append(row["equivalence_high"])
    assert ends[0] == pytest.approx(1 - 0.05 ** (1 / 55)) and ends == sorted(ends)


def test_gate_and_up_multiply(llama: HookedModel) -> None:
    """Two deltas in one block whose products a real outcome sees."""
    first, second = (
        WeightDelta.between(
            llama, disturbed(llama, lambda n, role=role: n in parameters_by_role(llama.hf, [role], [2]))
        )
        for role in ("mlp.gate", "mlp.up")
    )
    table = compose(llama, first, second, text_logits, CompositionConfig(1e-4)).to_frame()
    rows = table[table["contrast"] == "interaction"]
    assert min(abs(mean) for mean in rows["mean"].tolist()) > 1e-3
    assert not any(rows["equivalent"].tolist())


def test_contrasts_by_hand(llama: HookedModel) -> None:
    first = WeightDelta.between(llama, disturbed(llama, seed=1))
    second = WeightDelta.between(llama, disturbed(llama, seed=2))
    config = CompositionConfig(
        0.5, ("knowledge", "toxicity"), alpha=0.25, resampling=Resampling(n=300, seed=5, level=0.9)
    )
    keys = {name: ["a", "a", "b", "c"] for name in ("first", "second")}
    found = compose(llama, first, second, text_logits, config, groups=keys)
    by_hand = {"original": text_logits(llama)["first"]}
    for name, deltas in (("a", [first]), ("b", [second]), ("ab", [first, second])):
        hybrid = copied(llama)
        with torch.no_grad():
            for tensor, parameter in hybrid.hf.named_parameters():
                parameter.copy_(parameter.double() + sum(delta.changes[tensor] for delta in deltas))
        by_hand[name] = text_logits(hybrid)["first"]
    values = {name: np.array(items) for name, items in by_hand.items()}
    difference = values["ab"] - values["a"] - values["b"] + values["original"]
    row = found.to_frame().set_index(["outcome", "contrast"]).loc[("first", "interaction")]
    shown = bootstrap_mean(difference, keys["first"], 300, 5, 0.9)
    tested = bootstrap_mean(difference, keys["first"], 300, 5, 0.5)
    assert row[["mean", "low", "high"]].tolist() == pytest.approx([shown.mean, shown.low, shown.high], abs=1e-4)
    assert row[["equivalence_low", "equivalence_high"]].tolist() == pytest.approx([tested.low, tested.high], abs=1e-4)
    assert row["n"] == 3
    assert set(found.contrasts) == {"knowledge", "toxicity", "sum", "interaction"}


def test_a_delta_carries_over_to_a_twin_or_does_not(model: HookedModel) -> None:
    name = next(iter(parameters_by_role(model.hf, ["mlp.down"], [1])))
    twin = disturbed(model, lambda tensor: tensor == name)
    delta = nudged(model, name, 1.0)
    own, others = model.hash(), twin.hash()
    table = carry_over(model, twin, delta, tensor_sums(name), CONFIG).to_frame().set_index("contrast")
    assert table["mean"].to_dict() == pytest.approx({"on original": 1.0, "on twin": 1.0, "difference": 0.0}, abs=1e-4)
    assert table["equivalent"].to_dict() == {"on original": False, "on twin": False, "difference": True}
    start = float(model.hf.get_parameter(name)[0, 0])

    def only_there(found: HookedModel) -> Mapping[str, Sequence[float]]:
        return {"only": [float(abs(float(found.hf.get_parameter(name)[0, 0]) - start - 1.0) < 1e-5)] * 3}

    table = carry_over(model, twin, delta, only_there, CONFIG).to_frame().set_index("contrast")
    assert table["mean"].to_dict() == pytest.approx({"on original": 1.0, "on twin": 0.0, "difference": -1.0})
    assert not table.loc["difference", "equivalent"]

    def failing(found: HookedModel) -> Mapping[str, Sequence[float]]:
        if found is twin and found.hash() != others:
            raise KeyError
        return {"none": [0.0, 0.0]}

    with pytest.raises(KeyError):
        carry_over(model, twin, delta, failing, CONFIG)
    assert (model.hash(), twin.hash()) == (own, others)


def test_settings_that_prove_nothing_are_refused() -> None:
    for margin in (0.0, -1.0, {}, {"a": 0.0}):
        with pytest.raises(ConfigError, match="margin"):
            CompositionConfig(margin)
    with pytest.raises(ConfigError, match="alpha"):
        CompositionConfig(0.1, alpha=0.5)
    for names in (("a", "a"), ("a", "sum")):
        with pytest.raises(ConfigError, match="names"):
            CompositionConfig(0.1, names)


def test_cosines_of_equal_opposite_and_partly_shared_deltas(model: HookedModel) -> None:
    first = WeightDelta.between(model, disturbed(model, seed=1))
    opposite = WeightDelta({name: -2 * change for name, change in first.changes.items()})
    for second, cosine in ((first, 1.0), (opposite, -1.0)):
        table = align_deltas(model, first, second, n_null=99).set_index("group")
        assert table["cosine"].tolist() == pytest.approx([cosine] * len(table))
        assert table.loc["all", "p_value"] == pytest.approx(0.01)
        assert table.loc["all", "null_low"] < 0 < table.loc["all", "null_high"] < 0.3
    mlp = {name for name in first.changes if name in parameters_by_role(model.hf, ["mlp"])}
    attention = first.restricted(parameters_by_role(model.hf, ["attn"]))
    table = align_deltas(model, attention, first.restricted(mlp)).set_index("group")
    assert table.loc["all", "cosine"] == 0
    assert table.loc[["attention", "mlp"], ["cosine", "p_value"]].isna().to_numpy().all()


def test_cosines_are_those_of_the_flattened_tensors(model: HookedModel) -> None:
    deltas = [WeightDelta.between(model, disturbed(model, seed=seed)) for seed in (1, 2)]
    table = align_deltas(model, *deltas, kinds=("layer_part",), n_null=10).set_index("group")
    names = [
        n for n, p in model.hf.named_parameters() if any(p is q for q in model.architecture.blocks[1].parameters())
    ]
    attention = {id(q) for q in model.architecture.attention(model.architecture.blocks[1]).parameters()}
    chosen = [name for name in names if id(model.hf.get_parameter(name)) in attention]
    one, other = (torch.cat([delta.changes[name].reshape(-1) for name in chosen]) for delta in deltas)
    expected = float(one @ other / (one.norm() * other.norm()))
    assert table.loc["layer 1 attention", "cosine"] == pytest.approx(expected, abs=1e-9)


def test_the_null_holds_for_deltas_of_rank_one(llama: HookedModel) -> None:
    """Unrelated changes of low rank have large cosines by chance; few of them may look related."""
    name = next(iter(parameters_by_role(llama.hf, ["mlp.down"], [0])))
    rows, columns = llama.hf.get_parameter(name).shape
    generator = torch.Generator().manual_seed(0)

    def rank_one() -> WeightDelta:
        left, right = (torch.randn(size, generator=generator, dtype=torch.float64) for size in (rows, columns))
        return WeightDelta({name: torch.outer(left, right)})

    p_values = [
        float(align_deltas(llama, rank_one(), rank_one(), kinds=("all",), n_null=199)["p_value"].iloc[0])
        for _ in range(120)
    ]
    assert 0.0 < np.mean(np.array(p_values) <= 0.1) < 0.2
    assert 0.4 < np.mean(p_values) < 0.6


def test_a_delta_applied_beside_another_is_their_sum(llama: HookedModel) -> None:
    first, second = (WeightDelta.between(llama, disturbed(llama, seed=seed)) for seed in (1, 2))
    with applied(llama, first + second):
        together = text_logits(llama)["first"]
    with applied(llama, first), applied(llama, second):
        nested = text_logits(llama)["first"]
    assert nested == pytest.approx(together, abs=1e-3)
