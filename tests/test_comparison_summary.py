"""Tables of a comparison against sums made by hand."""

import itertools
from typing import Any

import numpy as np
import pandas as pd
import pytest

from interp_unlearn.study.comparison.attack import CHECKPOINTS
from interp_unlearn.study.comparison.search import Trial, best_trial
from interp_unlearn.study.comparison.summary import excess_table, summarize, summary_markdown

N_ROWS, SEEDS, RATES = 20, (0, 1), (1e-3, 3e-3)
Curves = dict[float, tuple[float, ...]]  # target share by rate, one number for each checkpoint


def attacked(curves: dict[str, Curves]) -> pd.DataFrame:
    """Verdicts with exactly these shares of target, the same prompts first; step 0 is all clean."""
    lines: list[dict[str, Any]] = []
    for (name, rates), seed in itertools.product(curves.items(), SEEDS):
        for rate, shares in rates.items():
            for step, share in zip((0, *CHECKPOINTS), (0.0, *shares), strict=True):
                lines += [
                    {
                        "contender": name,
                        "seed": seed,
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


def verdict_lines(shares: dict[str, dict[str, tuple[float, float]]]) -> pd.DataFrame:
    """Verdicts by contender and kind with exact shares of clean and target, the rest broken."""
    lines: list[dict[str, Any]] = []
    for (name, kinds), seed in itertools.product(shares.items(), SEEDS):
        for kind, (clean, target) in kinds.items():
            for row in range(N_ROWS):
                place = row / N_ROWS + 1e-9
                verdict = "clean" if place < clean else "target" if place < clean + target else "broken"
                lines.append({"contender": name, "seed": seed, "kind": kind, "row": row, "verdict": verdict})
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
    return summarize(measures, verdict_lines(shares), curves, standings)


def test_shares_and_efficacy_by_kind_of_prompt(summary: pd.DataFrame):
    rows = summary[["contender", "measure", "mean"]].itertuples(index=False)
    at = {(contender, measure): mean for contender, measure, mean in rows}
    expected = {"seen": (0.8 - 0.2) / 0.8, "held_out": (0.6 - 0.2) / 0.8, "unlike": 0.0}
    for kind, efficacy in expected.items():
        assert at["ours", f"efficacy_{kind}"] == pytest.approx(efficacy)
    assert at["ours", "broken_unlike"] == pytest.approx(0.8) and at["ours", "target_held_out"] == pytest.approx(0.4)
    assert ("ours", "efficacy_civil") not in at
    assert at["twin", "efficacy_seen"] == pytest.approx(1)


def test_what_has_no_prompts_has_the_range_of_its_seeds(summary: pd.DataFrame):
    row = summary.loc[(summary["contender"] == "ours") & (summary["measure"] == "generation_perplexity")].iloc[0]
    assert (row["mean"], row["low"], row["high"], row["n"]) == (2.5, 2.0, 3.0, 2)


def test_the_printed_table_has_a_row_a_contender_and_names_who_refused(summary: pd.DataFrame):
    trials = pd.DataFrame({"contender": ["ours", "profs"]})
    lines = summary_markdown(summary, trials, len(SEEDS)).splitlines()
    rows = [line for line in lines if line.startswith("| ") and not line.startswith("| method")]
    assert [row.split(" ")[1] for row in rows] == ["twin", "none", "ours"]
    assert len({line.count("|") for line in lines if line.startswith("|")}) == 1
    assert "1.25" in rows[-1], "perplexity by the twin's"
    assert lines[-1] == "Every setting was refused: profs."


def trial(clean: float, kl: float, relearned: float = 0.5, refusal: str | None = None) -> Trial:
    if refusal:
        return Trial("m", {}, refusal=refusal)
    return Trial("m", {"kl": kl, "clean": clean}, clean=clean, target=1 - clean, broken=0.0, kl=kl, relearned=relearned)


def test_the_cleanest_affordable_setting_is_chosen_and_the_attack_decides_between_equals():
    costly, clean, equal = trial(1.0, 0.02, 0.0), trial(0.99, 0.004, 0.6), trial(0.985, 0.009, 0.2)
    assert best_trial([costly, trial(0.9, 0.001, 0.0), clean, equal, trial(0, 0, refusal="no gap")]) == equal
    assert best_trial([costly, clean]) == clean


def test_without_an_affordable_setting_the_cheapest_is_chosen_and_without_any_none():
    dear, dearer = trial(0.2, 0.05), trial(0.9, 0.5)
    assert best_trial([dearer, dear]) == dear
    assert best_trial([trial(0, 0, refusal="no gap")]) is None
