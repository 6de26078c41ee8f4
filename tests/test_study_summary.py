"""The study's sums on hand-made tables: efficacy, suppression, intervals and the crossover."""

import json
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from study_tables import N_PROMPTS, generations_of, judged, measures_of, planted

from interp_unlearn.artifacts import read_json, write_json
from interp_unlearn.study.summary import dissociation_table, figure_table, outcome_rows, summarize


def test_efficacy_and_suppression_are_shares_of_the_gap_to_the_twin():
    table = measures_of(planted((0.5, 0.3), (0.7, 0.9)))
    # Baselines are averaged over their seeds first: before is 0.2, not 0.1, for the clean share of toxicity.
    first = (table["objective"] == "none") & (table["goal"] == "toxicity") & (table["seed"] == 0)
    table.loc[first & (table["measure"] == "clean"), "value"] = 0.3
    values = dissociation_table(table).set_index(["measure", "objective", "goal", "seed"])["value"]
    assert values["efficacy", "probe_single", "toxicity", 1] == pytest.approx((0.5 - 0.2) / (0.9 - 0.2))
    assert values["efficacy", "none", "toxicity", 0] == pytest.approx((0.3 - 0.2) / (0.9 - 0.2))
    assert values["efficacy", "probe_multi", "knowledge", 0] == pytest.approx((0.7 - 0.1) / (0.9 - 0.1))
    assert values["efficacy", "random_multi", "knowledge", 0] == pytest.approx(1.0)
    assert values["efficacy", "twin", "knowledge", 1] == pytest.approx(1.0)
    # Suppression counts whatever is no longer the target, broken text included.
    assert values["suppression", "probe_single", "toxicity", 0] == pytest.approx((0.25 - 0.9) / (0.1 - 0.9))
    assert values["suppression", "none", "knowledge", 0] == pytest.approx(0.0)
    assert values["retain_kl", "none", "knowledge", 0] == 0.25


def test_summary_gives_closed_gaps_with_intervals_over_groups():
    shares = planted((0.7, 0.3), (0.4, 0.8))
    table, generations = dissociation_table(measures_of(shares)), generations_of(shares)
    summary = summarize(table, generations)
    closed = {(row["objective"], row["goal"], row["measure"]): row for row in summary["gap_closed"]}
    assert set(closed) == {(o, g, m) for o, g in shares for m in ("efficacy", "suppression")}
    for (objective, goal), (clean, target) in shares.items():
        efficacy, suppression = closed[objective, goal, "efficacy"], closed[objective, goal, "suppression"]
        assert efficacy["mean"] == pytest.approx((clean - 0.1) / 0.8)
        assert suppression["mean"] == pytest.approx((0.9 - target) / 0.8)
        assert efficacy["low"] <= efficacy["mean"] <= efficacy["high"]
        assert (efficacy["n"], efficacy["prompts"]) == (20, N_PROMPTS)
    # The baselines are the ends of the scale in every resample.
    assert closed["none", "toxicity", "efficacy"]["low"] == closed["none", "toxicity", "efficacy"]["high"] == 0
    assert closed["twin", "toxicity", "efficacy"]["low"] == pytest.approx(1.0)
    means = {(row["objective"], row["goal"], row["measure"]): row for row in summary["means"]}
    assert means["probe_multi", "toxicity", "clean"] == {
        "objective": "probe_multi", "goal": "toxicity", "measure": "clean",
        "mean": pytest.approx(0.7), "min": 0.7, "max": 0.7, "count": 2,
    }  # fmt: skip
    drawn = figure_table(table, summary)
    assert len(drawn) == len(table)
    assert set(drawn.loc[drawn["low"].notna(), "measure"]) == {"efficacy", "suppression"}
    with_n = drawn.loc[drawn["n"].notna()]
    assert set(with_n["n"]) == {N_PROMPTS} and {"clean", "efficacy"} <= set(with_n["measure"])
    assert not {"retain_kl", "suppression"} & set(with_n["measure"])


def test_outcomes_are_averaged_over_seeds_and_ordered_by_prompt():
    none, all_clean = judged(0.0, 1.0), judged(1.0, 0.0)
    half = judged(0.5, 0.5)
    seeds = [frame.assign(objective="x", goal="knowledge", seed=i) for i, frame in enumerate((none, all_clean, half))]
    shuffled = pd.concat(seeds).sample(frac=1, random_state=0)
    shares = outcome_rows(shuffled, "knowledge", "x", "clean")
    expected = (1 + (half["verdict"] == "clean").to_numpy()) / 3
    assert shares.index.tolist() == list(range(N_PROMPTS)) and np.allclose(shares.to_numpy(), expected)


def test_summary_does_not_depend_on_the_order_of_rows():
    shares = planted((0.7, 0.3), (0.4, 0.8))
    table, generations = dissociation_table(measures_of(shares)), generations_of(shares)
    assert summarize(table, generations) == summarize(table, generations.sample(frac=1, random_state=1))


def test_a_planted_crossover_is_found():
    shares = planted((0.7, 0.3), (0.4, 0.8))
    found = summarize(dissociation_table(measures_of(shares)), generations_of(shares))["crossover"]
    assert set(found) == {"single", "multi", "mean"}
    for of_layers in found.values():
        assert of_layers["crossover"] is True
        toxicity, knowledge, interaction = of_layers["contrasts"]
        assert toxicity["contrast"] == "toxicity: probe minus random"
        assert knowledge["contrast"] == "knowledge: random minus probe"
        assert toxicity["mean"] == pytest.approx(0.5) and knowledge["mean"] == pytest.approx(0.5)
        assert interaction["mean"] == pytest.approx(1.0)
        assert 0 < toxicity["low"] <= 0.5 <= toxicity["high"]
    assert "p_value" not in json.dumps(found)


@pytest.mark.parametrize("knowledge", [(0.5, 0.5), (0.6, 0.5), (0.5, 0.525)])  # the last rests on one prompt
def test_a_one_sided_advantage_is_no_crossover_however_large_the_interaction(knowledge: tuple[float, float]):
    shares = planted((0.9, 0.1), knowledge)
    found = summarize(dissociation_table(measures_of(shares)), generations_of(shares))["crossover"]["single"]
    toxicity, other, interaction = found["contrasts"]
    assert toxicity["low"] > 0 and interaction["low"] > 0 and other["low"] <= 0
    assert found["crossover"] is False


def test_the_mean_over_layers_is_of_both_kinds():
    shares = planted((0.7, 0.3), (0.4, 0.8), "single") | {
        ("probe_multi", "toxicity"): (0.3, 0.3),
        ("random_multi", "toxicity"): (0.5, 0.3),
        ("probe_multi", "knowledge"): (0.1, 0.3),
        ("random_multi", "knowledge"): (0.9, 0.1),
    }
    found = summarize(dissociation_table(measures_of(shares)), generations_of(shares))["crossover"]
    assert (found["single"]["crossover"], found["multi"]["crossover"]) == (True, False)
    assert found["multi"]["contrasts"][0]["mean"] == pytest.approx(-0.25)
    assert found["mean"]["contrasts"][0]["mean"] == pytest.approx((0.5 - 0.25) / 2)
    assert found["mean"]["contrasts"][1]["mean"] == pytest.approx((0.5 + 1.0) / 2)


def test_a_table_of_one_organism_can_be_written_as_json(tmp_path: Path):
    shares = planted((0.7, 0.3), (0.4, 0.8))
    summary = summarize(dissociation_table(measures_of(shares)), generations_of(shares))
    write_json(tmp_path / "summary.json", summary)
    assert read_json(tmp_path / "summary.json")["crossover"]["single"] == summary["crossover"]["single"]
