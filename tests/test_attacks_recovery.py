"""The share of the gap with scores made by hand, and no number where there is no gap."""

import json
from typing import Any

import numpy as np
import pandas as pd
import pytest

from interp_unlearn.attacks import AttackResult, Attempt, MeasuredItems, share_of_gap
from interp_unlearn.attacks.recovery import better_than, describe
from interp_unlearn.errors import ArtifactError
from interp_unlearn.figures import plot_attack_curves
from interp_unlearn.statistics import bootstrap_gap_closed

IDS = [f"i{number}" for number in range(8)]
GROUPS = [f"g{number // 2}" for number in range(8)]


def items(scores: Any, ids: Any = IDS, groups: Any = GROUPS, **options: Any) -> MeasuredItems:
    return MeasuredItems.of("x", scores, ids, groups, **options)


def share_of(*scores_and_groups: Any) -> Any:
    return share_of_gap(*scores_and_groups)


def row(
    attempt: Attempt, unlearned: MeasuredItems | None = None, original: MeasuredItems | None = None
) -> dict[str, Any]:
    before = items([0.0] * 8) if unlearned is None else unlearned
    return describe("a", attempt, before, items([1.0] * 8) if original is None else original)


def test_the_share_of_scores_made_by_hand():
    found = share_of([0.5, 0.7, 0.6, 0.6], [0.2, 0.2, 0.2, 0.2], [1.0, 1.0, 1.0, 1.0], list("abcd"))
    assert found.interval.mean == pytest.approx(0.5) and found.interval.n == 4 and found.reason is None
    assert 0.3 < found.interval.low < 0.5 < found.interval.high < 0.7


@pytest.mark.parametrize(("attacked", "share"), [([0.2] * 4, 0), ([1.0] * 4, 1), ([1.4] * 4, 1.5), ([0.0] * 4, -0.25)])
def test_the_share_is_not_clipped(attacked: Any, share: float):
    found = share_of(attacked, [0.2] * 4, [1.0] * 4, list("abcd")).interval
    assert (found.mean, found.low, found.high) == pytest.approx((share, share, share))


def test_groups_are_resampled_together():
    rng = np.random.default_rng(0)
    after, before, target = rng.random(40), 0.1 * rng.random(40), 1 + rng.random(40)
    groups = [str(number // 4) for number in range(40)]
    by_group, alone = (share_of(after, before, target, names).interval for names in (groups, list(map(str, range(40)))))
    expected = bootstrap_gap_closed(after, before, target, groups)
    assert (by_group.mean, by_group.low, by_group.high, by_group.n) == (
        expected.mean,
        expected.low,
        expected.high,
        10,
    )
    assert alone.mean == by_group.mean and alone.n == 40


@pytest.mark.parametrize(
    ("original", "reason"),
    [
        ([0.2] * 8, "no gap to recover: original - unlearned = 0 "),
        ([0.1] * 8, "no gap to recover: original - unlearned = -0.1 "),
        ([1.0, -0.6] * 4, "no gap to recover"),  # 0 on the average, far from it in each item
    ],
)
def test_without_a_gap_there_is_no_number(original: list[float], reason: str):
    found = share_of([0.9] * 8, [0.2] * 8, original, IDS)
    assert found.interval is None and found.reason.startswith(reason)
    described = row(Attempt({}, items([0.9] * 8)), items([0.2] * 8), items(original))
    assert np.isnan([described[name] for name in ("recovered", "recovered_low", "recovered_high")]).all()
    assert described["reason"].startswith(reason) and described["score"] == pytest.approx(0.9)


def test_one_group_has_no_interval():
    found = share_of([1.0, 1.0], [0.0, 0.0], [1.0, 1.0], ["a", "a"])
    assert found.interval is None and "1 group" in found.reason


def test_items_are_compared_by_name():
    attacked = items([0.5, 0.5, 0.1, 0.1], ["i6", "i7", "i0", "i1"], ["g3", "g3", "g0", "g0"])
    before = items(np.linspace(0, 0.07, 8))
    found = row(Attempt({}, attacked), before)
    assert (found["n"], found["n_groups"], found["n_left_out"]) == (4, 2, 0)
    assert found["unlearned"] == pytest.approx((0.06 + 0.07 + 0.00 + 0.01) / 4) and found["original"] == 1.0
    assert found["score"] == pytest.approx(0.3)
    assert found["recovered"] == pytest.approx((0.3 - 0.035) / (1 - 0.035))


def test_what_one_model_could_not_be_asked_is_left_out_for_all():
    attacked = items([1.0] * 6 + [np.nan] * 2)
    before = items([0.0, np.nan] + [0.0] * 6)
    found = row(Attempt({}, attacked), before)
    assert (found["n"], found["n_left_out"], found["recovered"]) == (5, 3, 1.0)
    none = row(Attempt({}, items([np.nan] * 8)))
    assert none["n"] == 0 and "no item" in none["reason"] and np.isnan(none["score"])


def test_an_error_is_no_number():
    found = row(Attempt({"rate": 1}, None, step=3, reason="the loss is not finite"))
    assert found["reason"] == "the loss is not finite" and found["setting"] == '{"rate": 1}' and found["step"] == 3
    assert np.isnan(found["score"]) and np.isnan(found["recovered"]) and found["n"] == 0


def test_the_original_asked_in_the_same_words_is_the_goal():
    found = row(Attempt({}, items([0.3] * 8), original=items([0.6] * 8)))
    assert found["recovered"] == pytest.approx(0.5) and found["original"] == pytest.approx(0.6)
    assert "no gap" in row(Attempt({}, items([0.3] * 8), original=items([0.0] * 8)))["reason"]


def test_the_control_is_paired_by_group():
    attacked, control = np.array([1.0, 1.0] * 6), np.array([0.0, 0.2] * 6)
    groups = [str(number // 2) for number in range(12)]
    assert better_than(attacked, control, groups) == 2.0**-6  # six groups, all of one sign
    assert better_than(control, attacked, groups) == 1.0
    assert better_than(attacked, attacked, groups) == 1.0
    found = row(Attempt({}, items([1.0] * 8), control=items([0.25] * 8)))
    assert found["p"] == 2.0**-4 and found["control"] == 0.25
    assert np.isnan(row(Attempt({}, items([1.0] * 8)))["p"])


def attempts_table(rows: list[tuple[str, float, float]]) -> pd.DataFrame:
    table = pd.DataFrame(rows, columns=["attack", "recovered", "p"])
    return table.assign(score=table["recovered"])


def test_p_is_corrected_for_the_attempts_of_an_attack_and_of_no_other():
    table = attempts_table([("a", 0.2, 0.01), ("a", 0.5, 0.02), ("a", 0.1, float("nan")), ("b", 0.9, 0.03)])
    table = pd.concat([table, attempts_table([("c", 0.0, float("nan"))])], ignore_index=True)
    worst = AttackResult(table, table, items([1.0] * 8), items([0.0] * 8), {}).worst().set_index("attack")
    assert worst.loc["a", ["p", "p_adjusted"]].tolist() == [0.02, 0.02], "the larger of two, by Holm"
    assert worst.loc["b", "p_adjusted"] == 0.03 and np.isnan(worst.loc["c", "p_adjusted"])
    other = table.assign(recovered=-table["recovered"])
    assert AttackResult(other, other, items([1.0] * 8), items([0.0] * 8), {}).worst().set_index("attack").loc[
        "a", "recovered"
    ] == pytest.approx(-0.1)
    first = table.drop(index=2).assign(recovered=[0.5, 0.2, 0.9, 0.0])
    worst = AttackResult(first, first, items([1.0] * 8), items([0.0] * 8), {}).worst().set_index("attack")
    assert worst.loc["a", ["p", "p_adjusted"]].tolist() == [0.01, 0.02], "twice the smaller of two"


def curve(attack: str, rate: float, scores: list[float]) -> pd.DataFrame:
    setting = json.dumps({"learning_rate": rate})
    frame = pd.DataFrame({"attack": attack, "setting": setting, "step": [1, 5, 10], "score": scores, "n": 8})
    return frame.assign(low=frame["score"] - 0.1, high=frame["score"] + 0.1, original=0.9, unlearned=0.2)


def test_the_curves_are_those_of_the_attempts():
    table = pd.concat([curve("relearn", 1e-3, [0.2, 0.4, 0.8]), curve("relearn", 1e-4, [0.1, 0.2, 0.3])])
    table = pd.concat([table, curve("relearn_unrelated", 1e-3, [0.0, 0.1, 0.1])], ignore_index=True)
    still = curve("prune", 0.0, [0.5, 0.5, 0.5]).assign(step=float("nan"))
    figure = plot_attack_curves(pd.concat([table, still], ignore_index=True))
    first, second = figure.axes
    lines = {line.get_label(): np.asarray(line.get_ydata()).tolist() for line in first.lines}
    assert lines["rate 0.001"] == [0.2, 0.4, 0.8] and lines["rate 0.0001"] == [0.1, 0.2, 0.3]
    across = [np.asarray(line.get_ydata()).tolist() for line in first.lines[2:]]
    assert across == [pytest.approx([0.9, 0.9]), pytest.approx([0.2, 0.2])]
    assert len(second.lines) == 3 and "n = 8" in second.get_xlabel()
    with pytest.raises(ArtifactError, match="no attack with steps"):
        plot_attack_curves(still)
