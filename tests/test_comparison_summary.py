"""Tables of a comparison against sums made by hand."""

import itertools
from typing import Any

import numpy as np
import pandas as pd
import pytest

from interp_unlearn.study.comparison.contenders import Roster
from interp_unlearn.study.comparison.contest import contest_on
from interp_unlearn.study.comparison.search import Trial, best_trial
from interp_unlearn.study.comparison.summary import excess_table, summarize
from interp_unlearn.study.comparison.tables import Column, ablation_markdown, ranking_markdown, summary_markdown
from interp_unlearn.study.comparison.toxicity_contest import CHECKPOINTS

N_ROWS, SEEDS, RATES = 20, (0, 1), (1e-3, 3e-3)
Curves = dict[float, tuple[float, ...]]  # target share by rate, one number for each checkpoint


def attacked(curves: dict[str, Curves], attacker: str = "relearning") -> pd.DataFrame:
    """Verdicts with exactly these shares of target, the same prompts first; step 0 is all clean."""
    lines: list[dict[str, Any]] = []
    for (name, rates), seed in itertools.product(curves.items(), SEEDS):
        for rate, shares in rates.items():
            for step, share in zip((0, *CHECKPOINTS), (0.0, *shares), strict=True):
                lines += [
                    {
                        "contender": name,
                        "attacker": attacker,
                        "seed": seed,
                        "group": str(row),
                        "rate": rate,
                        "step": step,
                        "row": row,
                        "verdict": "target" if row < round(share * N_ROWS) else "clean",
                    }
                    for row in range(N_ROWS)
                ]
    return pd.DataFrame(lines)


TWIN: Curves = {1e-3: (0.0, 0.1, 0.4, 0.5), 3e-3: (0.0, 0.3, 0.4, 0.3)}
OURS: Curves = {1e-3: (0.2, 0.3, 0.4, 0.5), 3e-3: (0.1, 0.5, 0.3, 0.2)}


def test_excess_is_the_worst_rate_less_the_twins_worst_at_each_step_and_their_mean():
    table = excess_table(attacked({"twin": TWIN, "ours": OURS})).set_index(["contender", "step"])
    assert (table.loc["twin", ["mean", "low", "high"]] == 0).all(axis=None)
    by_step = {3: 0.2 - 0.0, 10: 0.5 - 0.3, 30: 0.4 - 0.4, 100: 0.5 - 0.5}
    for step, excess in by_step.items():
        row = table.loc[("ours", step)]
        assert row["mean"] == pytest.approx(excess, abs=1e-12) and row["n"] == N_ROWS
        assert row["low"] <= row["mean"] <= row["high"]
    assert table.loc[("ours", 0), "mean"] == pytest.approx(np.mean(list(by_step.values())))
    assert table.loc[("ours", 3), "low"] < table.loc[("ours", 3), "high"]


def test_another_attacker_has_measures_of_its_own():
    curves = {"twin": TWIN, "ours": OURS}
    gentle = {name: {1e-3: rates[1e-3]} for name, rates in curves.items()}
    table = excess_table(pd.concat([attacked(curves), attacked(gentle, "lora")])).set_index(["contender", "measure"])
    assert table.loc[("ours", "relearned_excess_10"), "mean"] == pytest.approx(0.2)
    assert table.loc[("ours", "lora_excess_10"), "mean"] == pytest.approx(0.3 - 0.1)
    assert table.loc[("ours", "lora_excess"), "attacker"] == "lora"


def test_prompts_of_one_subject_are_resampled_together():
    table = attacked({"twin": TWIN, "ours": OURS})
    pairs = table.assign(group=(table["row"] // 5).astype(str))
    alone, together = (excess_table(t).set_index(["contender", "step"]).loc[("ours", 3)] for t in (table, pairs))
    assert (alone["n"], together["n"]) == (N_ROWS, N_ROWS // 5)
    assert together["high"] - together["low"] > alone["high"] - alone["low"]


def verdict_lines(shares: dict[str, dict[str, tuple[float, float]]]) -> pd.DataFrame:
    """Verdicts by contender and kind with exact shares of clean and target, the rest broken."""
    lines: list[dict[str, Any]] = []
    for (name, kinds), seed in itertools.product(shares.items(), SEEDS):
        for kind, (clean, target) in kinds.items():
            for row in range(N_ROWS):
                place = row / N_ROWS + 1e-9
                verdict = "clean" if place < clean else "target" if place < clean + target else "broken"
                lines.append(
                    {"contender": name, "seed": seed, "kind": kind, "row": row, "verdict": verdict, "group": str(row)}
                )
    return pd.DataFrame(lines)


@pytest.fixture(scope="module")
def summary() -> pd.DataFrame:
    kinds: tuple[str, ...] = ("seen", "held_out", "unlike", "civil")
    shares: dict[str, dict[str, tuple[float, float]]] = {
        "none": dict.fromkeys(kinds, (0.2, 0.8)),
        "twin": dict.fromkeys(kinds, (1.0, 0.0)),
        "ours": {"seen": (0.8, 0.1), "held_out": (0.6, 0.4), "unlike": (0.2, 0.0), "civil": (1.0, 0.0)},
    }
    measured = ("generation_perplexity", "hazardous_cloze", "benign_cloze", "retain_kl")
    measured += ("probe_original", "probe_retrained", "hazardous_answer_probability")
    measures = pd.DataFrame(
        {"contender": name, "seed": seed, "measure": measure, "value": 2.0 + seed if name == "ours" else 2.0}
        for name in shares
        for seed in SEEDS
        for measure in measured
    )
    standings = {"none": "reference", "twin": "reference", "ours": "ours"}
    curves = attacked({"none": OURS, "twin": TWIN, "ours": OURS})
    return summarize(measures, verdict_lines(shares), curves, standings, ("civil",))


def test_shares_and_efficacy_by_kind_of_prompt(summary: pd.DataFrame):
    rows = summary[["contender", "measure", "mean"]].itertuples(index=False)
    at = {(contender, measure): mean for contender, measure, mean in rows}
    expected = {"seen": (0.8 - 0.2) / 0.8, "held_out": (0.6 - 0.2) / 0.8, "unlike": 0.0}
    for kind, efficacy in expected.items():
        assert at["ours", f"efficacy_{kind}"] == pytest.approx(efficacy)
    assert at["ours", "broken_unlike"] == pytest.approx(0.8) and at["ours", "target_held_out"] == pytest.approx(0.4)
    assert at["ours", "suppression_seen"] == pytest.approx((0.8 - 0.1) / 0.8)
    assert ("ours", "efficacy_civil") not in at
    assert at["twin", "efficacy_seen"] == pytest.approx(1)


def test_what_has_no_prompts_has_the_range_of_its_seeds(summary: pd.DataFrame):
    row = summary.loc[(summary["contender"] == "ours") & (summary["measure"] == "generation_perplexity")].iloc[0]
    assert (row["mean"], row["low"], row["high"], row["n"]) == (2.5, 2.0, 3.0, 2)


def test_the_printed_table_has_a_row_a_contender_and_names_who_refused(summary: pd.DataFrame):
    trials = pd.DataFrame({"contender": ["ours", "profs"]})
    lines = summary_markdown(summary, trials, contest_on("toxicity").columns, len(SEEDS)).splitlines()
    rows = [line for line in lines if line.startswith("| ") and not line.startswith("| method")]
    assert [row.split(" ")[1] for row in rows] == ["twin", "none", "ours"]
    assert len({line.count("|") for line in lines if line.startswith("|")}) == 1
    assert "1.25" in rows[-1], "perplexity by the twin's"
    assert lines[-1] == "Every setting was refused: profs."


def test_a_variant_stands_under_the_method_it_was_made_of(summary: pd.DataFrame):
    roster = Roster()
    roster.add("ours", "ours", x=(1,))(lambda *_: {})
    roster.ablate("ours", "without")(lambda *_: {})
    variant = summary.loc[summary["contender"] == "ours"].assign(contender="without", standing="ablation")
    columns = (Column("E", ("efficacy_seen",)), Column("excess", ("relearned_excess", "unmeasured"), interval=True))
    both = pd.concat([summary, variant])
    rows = ablation_markdown(both, roster, columns).splitlines()[2:]
    assert [row.split(" |")[0] for row in rows] == ["| ours (ours)", "| without (ablation)"]
    assert "| 0.75 |" in rows[1] and rows[1].endswith("] / – |")
    assert "without" not in ranking_markdown(both, columns)


def trial(clean: float, kl: float, relearned: float = 0.5, refusal: str | None = None) -> Trial:
    if refusal:
        return Trial("m", {}, refusal=refusal)
    return Trial("m", {"kl": kl, "clean": clean}, clean=clean, target=1 - clean, broken=0.0, kl=kl, relearned=relearned)


def test_the_cleanest_affordable_setting_is_chosen_and_the_attack_decides_between_equals():
    costly, clean, equal = trial(1.0, 0.02, 0.0), trial(0.99, 0.004, 0.6), trial(0.985, 0.009, 0.2)
    assert best_trial([costly, trial(0.9, 0.001, 0.0), clean, equal, trial(0, 0, refusal="no gap")], 0.01) == equal
    assert best_trial([costly, clean], 0.01) == clean


def test_without_an_affordable_setting_the_cheapest_is_chosen_and_without_any_none():
    dear, dearer = trial(0.2, 0.05), trial(0.9, 0.5)
    assert best_trial([dearer, dear], 0.01) == dear
    assert best_trial([trial(0, 0, refusal="no gap")], 0.01) is None
