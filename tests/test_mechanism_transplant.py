"""Tensor transplants find planted changes where they were planted, and nowhere else."""

from collections.abc import Mapping, Sequence

import numpy as np
import pytest
import torch
from planted_deltas import distance_from, disturbed, logits_of, tensor_sums, text_logits

from interp_unlearn.errors import ConfigError
from interp_unlearn.interventions import HookedModel
from interp_unlearn.mechanism import Resampling, TransplantConfig, half_depths, transplant
from interp_unlearn.mechanism.depth_profile import reached_from
from interp_unlearn.models import parameters_by_role
from interp_unlearn.statistics import bootstrap_gap_closed, bootstrap_mean

KINDS = ("all", "layer", "up_to", "from", "part", "rest", "layer_part")
CONFIG = TransplantConfig(KINDS, Resampling(n=200))


def moved_in(model: HookedModel, layers: Sequence[int], role: str = "mlp") -> HookedModel:
    chosen = parameters_by_role(model.hf, [role], layers)
    return disturbed(model, lambda name: name in chosen)


def test_a_change_of_one_mlp_is_found_there_and_nowhere_else(model: HookedModel) -> None:
    own = model.hash()
    found = transplant(model, moved_in(model, [1]), distance_from(model), CONFIG)
    assert model.hash() == own
    table = found.to_frame()
    holding = {"all", "layer 1", "up to 1", "up to 2", "from 0", "from 1", "mlp", "layer 1 mlp"}
    for direction in ("inserted", "restored"):
        rows = table[table["direction"] == direction].set_index("group")
        inside = rows.loc[[name for name in rows.index if name in holding]]
        outside = rows.loc[[name for name in rows.index if name not in holding]]
        assert set(inside.index) == holding
        assert inside["share"].tolist() == pytest.approx([1.0] * len(holding))
        assert len(outside) >= 12
        assert (outside["effect"] == 0).all()
        assert outside["share"].tolist() == pytest.approx([0.0] * len(outside), abs=1e-9)
        assert (outside["n_tensors"] == 0).all()


def test_the_complete_transplant_is_the_other_model(model: HookedModel) -> None:
    other = disturbed(model)
    seen: dict[str, torch.Tensor] = {}

    def outcome(hybrid: HookedModel) -> Mapping[str, Sequence[float]]:
        seen[hybrid.hash()] = logits_of(hybrid)
        return {"place": [float(len(seen)), 0.0]}

    own = model.hash()
    transplant(model, other, outcome, TransplantConfig(("all",)))
    assert list(seen) == [own, other.hash()]
    assert torch.equal(seen[other.hash()], logits_of(other))
    assert model.hash() == own


def test_hybrids_have_the_values_of_either_model(model: HookedModel) -> None:
    """Against a hybrid that is put together by hand."""
    other = disturbed(model)
    found = transplant(model, other, text_logits, TransplantConfig(("layer", "part"), Resampling(n=50)))
    table = found.to_frame().set_index(["direction", "group", "outcome"])
    for group in found.groups:
        for direction, base, donor in (("inserted", model, other), ("restored", other, model)):
            hybrid = disturbed(base, lambda name: False)
            with torch.no_grad():
                for name in group.tensors:
                    hybrid.hf.get_parameter(name).copy_(donor.hf.get_parameter(name))
            expected = text_logits(hybrid)["second"]
            row = table.loc[(direction, group.name, "second")]
            assert row["mean"] == pytest.approx(np.mean(expected), abs=1e-5)
            start = text_logits(base)["second"]
            assert row["effect"] == pytest.approx(np.mean(expected) - np.mean(start), abs=1e-5)


def test_intervals_are_the_paired_bootstrap_over_groups(llama: HookedModel) -> None:
    other = disturbed(llama)
    keys = ["a", "a", "b", "c"]
    config = TransplantConfig(("part",), Resampling(n=300, seed=3, level=0.8))
    found = transplant(llama, other, distance_from(llama), config, groups=keys)
    row = found.to_frame().set_index(["direction", "group"]).loc[("inserted", "mlp")]
    group = next(group for group in found.groups if group.name == "mlp")
    before, after, whole = (
        found.values[key]["distance"] for key in (frozenset[str](), found.inserted(group), found.changed)
    )
    effect = bootstrap_mean(after - before, keys, 300, 3, 0.8)
    assert row[["effect", "effect_low", "effect_high"]].tolist() == pytest.approx(
        [effect.mean, effect.low, effect.high]
    )
    share = bootstrap_gap_closed(after, before, whole, keys, 300, 3, 0.8)
    assert row[["share", "share_low", "share_high"]].tolist() == pytest.approx([share.mean, share.low, share.high])
    assert row["n"] == 3


def test_no_share_is_given_of_an_effect_that_may_be_none(llama: HookedModel) -> None:
    other = moved_in(llama, [0])

    def outcome(hybrid: HookedModel) -> Mapping[str, Sequence[float]]:
        moved = hybrid.hash() == other.hash()
        return {"none": [0.5, 0.5, 0.5], "unsure": [float(moved), -0.5 * moved, 0.1], "sure": [float(moved)] * 3}

    table = transplant(llama, other, outcome, CONFIG).to_frame().set_index("outcome")
    assert table.loc[["none", "unsure"], "share"].isna().all()
    assert (table.loc["none", "effect"] == 0).all()
    assert table.loc["sure", "share"].notna().all()
    depths = half_depths(transplant(llama, other, outcome, CONFIG)).set_index("outcome")
    assert depths.loc[["none", "unsure"], ["depth", "low", "high"]].isna().to_numpy().all()


def test_each_condition_is_measured_once(llama: HookedModel) -> None:
    other, calls = moved_in(llama, [1]), 0

    def outcome(hybrid: HookedModel) -> Mapping[str, Sequence[float]]:
        nonlocal calls
        calls += 1
        return text_logits(hybrid)

    transplant(llama, other, outcome, CONFIG)
    # All of three matrices, or none of them: whatever else is moved has not changed.
    assert calls == 2


def test_weights_come_back_when_the_outcome_fails(llama: HookedModel) -> None:
    other, own, calls = disturbed(llama), llama.hash(), 0

    def failing(hybrid: HookedModel) -> Mapping[str, Sequence[float]]:
        nonlocal calls
        calls += 1
        if calls == 3:
            raise KeyError
        return text_logits(hybrid)

    with pytest.raises(KeyError):
        transplant(llama, other, failing, CONFIG)
    assert llama.hash() == own
    calls = 10

    def changing(hybrid: HookedModel) -> Mapping[str, Sequence[float]]:
        nonlocal calls
        calls += 1
        return {"n": [0.0] * calls}

    with pytest.raises(ConfigError, match="same ones"):
        transplant(llama, other, changing, CONFIG)
    with pytest.raises(ConfigError, match=r"outcome bad: .*finite"):
        transplant(llama, other, lambda hybrid: {"bad": [float("nan"), 1.0]}, CONFIG)
    for keys, message in (
        (["a"], "one per row"),
        (["a"] * 4, "at least two"),
        ({"other": ["a"]}, "none for outcome first"),
    ):
        with pytest.raises(ConfigError, match=message):
            transplant(llama, other, text_logits, CONFIG, groups=keys)
    with pytest.raises(ConfigError, match="same weights"):
        transplant(llama, llama, text_logits, CONFIG)
    assert llama.hash() == own


@pytest.mark.parametrize(("layers", "depth"), [([0], 0.5), ([1], 1.5), ([2], 2.5), ([0, 2], 1.0), ([0, 1, 2], 1.5)])
def test_half_depth_of_a_linear_effect(model: HookedModel, layers: list[int], depth: float) -> None:
    """Equal changes of some blocks, summed up: half of the effect sits where half of the blocks are passed."""
    chosen = list(parameters_by_role(model.hf, ["mlp.down"], layers))
    other = disturbed(model, lambda name: False)
    with torch.no_grad():
        for name in chosen:
            other.hf.get_parameter(name)[0, 0] += 1.0
    table = half_depths(transplant(model, other, tensor_sums(*chosen), CONFIG))
    assert table["depth"].tolist() == pytest.approx([depth, depth], abs=1e-3)
    assert table["relative_depth"].tolist() == pytest.approx([depth / 3, depth / 3], abs=1e-3)


def test_half_depth_outside_the_blocks(llama: HookedModel) -> None:
    for name, depth in (("model.embed_tokens.weight", 0.0), ("lm_head.weight", 3.0)):
        other = disturbed(llama, lambda tensor, name=name: tensor == name)
        table = half_depths(transplant(llama, other, distance_from(llama), TransplantConfig(("up_to",))))
        assert table["depth"].tolist() == [depth, depth]
    with pytest.raises(ConfigError, match="cumulative"):
        half_depths(transplant(llama, other, text_logits, TransplantConfig(("part",))))


def test_a_level_is_reached_for_good() -> None:
    curves = np.array([[0.0, 0.6, 0.4, 0.9, 1.0], [0.5, 0.5, 0.5, 0.5, 1.0], [0.0, 0.0, 0.0, 0.2, 0.3]]).T
    assert reached_from(curves, 0.5).tolist() == [3, 0, 4]
