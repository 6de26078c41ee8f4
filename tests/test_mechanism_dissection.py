"""A dissection finds planted changes, averages seeds within items, and says only what its numbers say."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
import torch
from planted_deltas import copied, disturbed, tensor_sums
from transformers import PreTrainedTokenizerBase

from interp_unlearn.artifacts import read_json, read_parquet
from interp_unlearn.errors import ConfigError
from interp_unlearn.figures import plot_dissection
from interp_unlearn.interventions import HookedModel
from interp_unlearn.mechanism import (
    DissectionConfig,
    GoalRuns,
    PatchConfig,
    PatchTexts,
    Resampling,
    TransplantConfig,
    averaged,
    dissect,
    patch_both_ways,
    transplant,
)
from interp_unlearn.models import parameters_by_role

CONFIG = DissectionConfig(0.05, ranks=(1,), n_null=20, resampling=Resampling(n=100))


def named(model: HookedModel, layer: int) -> str:
    return next(iter(parameters_by_role(model.hf, ["mlp.down"], [layer])))


def shifted(model: HookedModel, name: str, by: float) -> HookedModel:
    """A copy with one element moved."""
    changed = copied(model)
    with torch.no_grad():
        changed.hf.get_parameter(name)[0, 0] += by
    return changed


def goals_of(model: HookedModel, twins: bool = True) -> dict[str, GoalRuns]:
    """Two goals in different tensors, two runs each."""
    low, high = named(model, 0), named(model, 2)
    return {
        "low": GoalRuns(
            [shifted(model, low, by) for by in (-1.0, -3.0)],
            tensor_sums(low),
            twin=shifted(model, low, -2.0) if twins else None,
        ),
        "high": GoalRuns(
            [shifted(model, high, by) for by in (-0.5, -1.5)],
            tensor_sums(high),
            twin=shifted(model, high, -1.0) if twins else None,
        ),
    }


def test_two_planted_goals_are_told_apart(llama: HookedModel, tmp_path: Path) -> None:
    own = llama.hash()
    found = dissect(llama, goals_of(llama), CONFIG, stranger=disturbed(llama))
    assert llama.hash() == own
    moved: Any = found.tables["transplant"].set_index(["goal", "direction", "group"])
    assert moved.loc[("low", "inserted", "all"), "effect"] == pytest.approx(-2.0, abs=1e-4)  # mean of the two runs
    assert moved.loc[("low", "inserted", "mlp"), "share"] == pytest.approx(1.0)
    assert moved.loc[("low", "inserted", "attention"), "share"] == pytest.approx(0.0, abs=1e-6)
    depth: Any = found.tables["depth"].set_index(["goal", "direction"])["depth"]
    assert depth["low", "inserted"] == pytest.approx(0.5, abs=1e-3)
    assert depth["high", "inserted"] == pytest.approx(2.5, abs=1e-3)
    together: Any = found.tables["composition"].set_index(["outcome", "contrast"])
    assert together.loc[("low: sum", "high"), "equivalent"] and together.loc[("low: sum", "interaction"), "equivalent"]
    carried: Any = found.tables["carried"].set_index(["goal", "onto", "contrast"])
    assert carried.loc[("low", "the twin of high", "difference"), "equivalent"]
    assert set(found.tables["alignment"]["between"]) == {"low", "high", "low and high"}
    text = found.conclusions()
    assert "act independently of each other" in text and "intervals apart" in text
    assert set(found.tables["missing"]["measure"]) == {"patching, low", "patching, high"}
    found.save(tmp_path)
    assert read_json(tmp_path / "dissection.json")["conclusions"] == text
    pd.testing.assert_frame_equal(read_parquet(tmp_path / "carried.parquet"), found.tables["carried"])


def test_states_are_patched_between_the_original_and_a_twin_with_texts(
    llama: HookedModel, tokenizer: PreTrainedTokenizerBase
) -> None:
    texts = PatchTexts.of_subjects(
        tokenizer, ["the cat sat on a", "it was the dog who said"], [" mat", " no"], ["cat", "dog"]
    )
    twin, stranger = disturbed(llama), disturbed(llama, seed=2)
    goal = GoalRuns([shifted(llama, named(llama, 0), -1.0)], tensor_sums(named(llama, 0)), twin=twin, texts=texts)
    found = dissect(llama, {"low": goal}, CONFIG, stranger=stranger)
    expected = patch_both_ways(llama, twin, texts, PatchConfig(resampling=CONFIG.resampling), floor=stranger)
    table = found.tables["patching"]
    for into, one in zip(("twin", "original"), expected, strict=True):
        rows = table.loc[table["into"] == into].drop(columns=["into", "goal"]).reset_index(drop=True)
        pd.testing.assert_frame_equal(rows, one.to_frame())
    assert "Of low, the twin's states in the original" in found.conclusions()
    assert "patching, low" not in set(found.tables["missing"]["measure"])
    without = dissect(llama, {"low": GoalRuns(goal.runs, goal.outcome, twin=twin)}, CONFIG)
    missing: Any = without.tables["missing"].set_index("measure")
    assert missing.loc["patching, low", "needs"] == "texts with their answers" and "patching" not in without.tables


def test_conclusions_change_with_the_numbers(llama: HookedModel) -> None:
    goals = goals_of(llama)
    start = {name: float(llama.hf.get_parameter(named(llama, layer))[0, 0]) for name, layer in (("a", 0), ("b", 2))}

    def entangled(model: HookedModel) -> Mapping[str, Sequence[float]]:
        a, b = (float(model.hf.get_parameter(named(model, n))[0, 0]) - start[k] for k, n in (("a", 0), ("b", 2)))
        return {"target": [weight * (a + a * b + 1) for weight in (0.9, 1.0, 1.1) * 10]}

    goals["low"] = GoalRuns(goals["low"].runs, entangled, twin=goals["low"].twin)
    text = dissect(llama, goals, CONFIG).conclusions()
    assert "act independently is not shown" in text and "act independently of each other" not in text


def test_without_twins_it_says_what_is_missing_and_against_what(llama: HookedModel) -> None:
    runs = goals_of(llama, twins=False)["low"]
    found = dissect(llama, {"low": GoalRuns(runs.runs[:1], runs.outcome)}, CONFIG)
    assert set(found.tables) == {"transplant", "depth", "ranks", "sufficient_rank", "missing"}
    missing: Any = found.tables["missing"].set_index("measure")
    assert missing.loc["composition", "needs"] == "runs on a second goal"
    assert "original" in missing.loc["composition", "floor"]
    assert "Not measured: composition (needs runs on a second goal" in found.conclusions()
    assert len(plot_dissection(found.tables).axes) == 3


def test_no_effect_is_no_share(llama: HookedModel) -> None:
    low, high = named(llama, 0), named(llama, 2)
    found = dissect(llama, {"low": GoalRuns([shifted(llama, low, -1.0)], tensor_sums(high))}, CONFIG)
    assert "No share of it can be named on low" in found.conclusions()
    assert np.isnan(found.tables["transplant"]["share"].to_numpy(dtype=float)).all()


def test_seeds_are_averaged_within_items(llama: HookedModel) -> None:
    low = named(llama, 0)
    config = TransplantConfig(("all",), Resampling(n=50))
    found = [transplant(llama, shifted(llama, low, by), tensor_sums(low), config) for by in (-1.0, -3.0)]
    both = averaged(found)
    for condition, values in both.values.items():
        expected = np.mean([one.values[condition]["sum"] for one in found], axis=0)
        assert np.allclose(values["sum"], expected)
    other = transplant(llama, shifted(llama, named(llama, 1), 1.0), tensor_sums(low), config)
    with pytest.raises(ConfigError, match="different conditions"):
        averaged([found[0], other])


def test_what_cannot_be_dissected_is_refused(llama: HookedModel) -> None:
    goals = goals_of(llama)
    with pytest.raises(ConfigError, match="one or two goals"):
        dissect(llama, {}, CONFIG)
    with pytest.raises(ConfigError, match="one or two goals"):
        dissect(llama, {"low": GoalRuns([], goals["low"].outcome)}, CONFIG)
    with pytest.raises(ConfigError, match="margin"):
        DissectionConfig(0.0)
    with pytest.raises(ConfigError, match="kinds"):
        DissectionConfig(0.1, kinds=("blocks",))
    with pytest.raises(ConfigError, match="n_null"):
        DissectionConfig(0.1, n_null=0)


def test_the_figure_shows_the_tables_numbers(llama: HookedModel) -> None:
    found = dissect(llama, goals_of(llama), CONFIG)
    deep, parts, ranks, nothing = plot_dissection(found.tables).axes
    moved = found.tables["transplant"]
    rows = moved.loc[(moved["direction"] == "inserted") & (moved["kind"] == "up_to") & (moved["goal"] == "high")]
    assert [np.asarray(line.get_ydata()).tolist() for line in deep.lines[:2]].count(rows["share"].tolist()) == 1
    assert [label.get_text() for label in parts.get_xticklabels()] == ["attention", "MLPs"]
    assert ranks.get_xscale() == "log"
    labels = [label.get_text() for label in nothing.get_yticklabels()]
    assert "low: by the other goal's change" in labels and len(labels) == 6
