"""Conclusions say what stands in the tables: every sentence follows its numbers."""

from collections.abc import Mapping
from typing import Any

import pandas as pd
import pytest

from interp_unlearn.mechanism.conclusions import draw_conclusions, patching_sentences

GOALS = ("knowledge", "toxicity")


def shifted_row(group: str, outcome: str, effect: float, **more: Any) -> dict[str, Any]:
    """A row of transplants put into an original that scores 1 on the target and breaks nothing."""
    mean = effect + (outcome == "target")
    share = -effect if outcome == "target" else float("nan")
    kind, part = ("all", None) if group == "all" else ("part", group)
    row = {"direction": "inserted", "kind": kind, "group": group, "part": part, "outcome": outcome, "n_tensors": 2}
    bounds = {"effect_low": effect - 0.01, "effect_high": effect + 0.01, "share_low": share, "share_high": share}
    return row | {"mean": mean, "effect": effect, "share": share, "n": 40, "goal": "knowledge"} | bounds | more


def transplants(broken: float) -> pd.DataFrame:
    rows = [
        shifted_row("all", "target", -0.8),
        shifted_row("all", "broken", broken),
        shifted_row("attention", "target", -0.3),
        shifted_row("attention", "broken", 0.01),
        shifted_row("mlp", "target", -0.7),
        shifted_row("mlp", "broken", broken),
    ]
    restored = [row | {"direction": "restored"} for row in rows]
    return pd.DataFrame([{**row, "goal": goal} for goal in GOALS for row in [*rows, *restored]])


def equivalence(outcome: str, contrast: str, mean: float, equivalent: bool = True, **more: Any) -> dict[str, Any]:
    bounds = {"low": mean - 0.01, "high": mean + 0.01, "equivalence_low": mean - 0.01, "equivalence_high": mean + 0.01}
    return {"outcome": outcome, "contrast": contrast, "mean": mean, "equivalent": equivalent} | bounds | more


def tables(broken: float = 0.02, **changed: pd.DataFrame) -> Mapping[str, pd.DataFrame]:
    names = [f"{goal}: {outcome}" for goal in GOALS for outcome in ("target", "broken")]
    ranks = [
        {"goal": goal, "outcome": outcome, "rank": rank, "mean": mean}
        for goal in GOALS
        for outcome, mean in (("target", 0.3), ("broken", 0.17))
        for rank in (1, 4)
    ]
    depths = [
        {"goal": goal, "outcome": "target", "direction": way, "depth": depth, "low": depth, "high": depth}
        for goal, depth in zip(GOALS, (1.5, 3.25), strict=True)
        for way in ("inserted", "restored")
    ]
    carried = [
        equivalence("target", contrast, mean, goal="knowledge", onto="a stranger")
        for contrast, mean in (("on original", -0.8), ("on twin", -0.6), ("difference", 0.2))
    ]
    cosines = [
        {"kind": "all", "between": name, "cosine": cosine, "null_low": -0.002, "null_high": 0.002}
        for name, cosine in (("knowledge", 0.5), ("knowledge and toxicity", 0.01))
    ]
    found = {
        "transplant": transplants(broken),
        "depth": pd.DataFrame(depths),
        "ranks": pd.DataFrame(ranks),
        "sufficient_rank": pd.DataFrame(
            {
                "goal": GOALS,
                "outcome": "target",
                "rank": (4.0, 1.0),
                "low": (4.0, 1.0),
                "high": (4.0, 1.0),
                "full": 64,
                "share": 0.9,
            }
        ),
        "composition": pd.DataFrame([equivalence(n, c, 0.0) for n in names for c in (*GOALS, "sum", "interaction")]),
        "carried": pd.DataFrame(carried),
        "alignment": pd.DataFrame(cosines),
        "missing": pd.DataFrame({"measure": ["floor"], "needs": ["a stranger"], "floor": ["none"]}),
    }
    return found | changed


def changed(name: str, column: str, value: object, **conditions: object) -> Mapping[str, pd.DataFrame]:
    """The tables with one number of them changed."""
    found = dict(tables())
    table = found[name].copy()
    chosen = pd.Series(True, index=table.index)
    for key, wanted in conditions.items():
        chosen &= table[key] == wanted
    assert chosen.any()
    table.loc[chosen, column] = value
    return found | {name: table}


@pytest.mark.parametrize(
    ("name", "column", "value", "conditions", "before", "after"),
    [
        ("transplant", "share", 0.45, {"group": "attention"}, "attention 0.30 [", "attention 0.45 ["),
        ("transplant", "mean", 0.62, {"group": "mlp", "outcome": "broken"}, "(broken 0.02)", "(broken 0.62)"),
        ("transplant", "effect", 0.5, {"group": "all", "outcome": "broken"}, "broken by 0.02 [", "broken by 0.50 ["),
        ("depth", "depth", 2.75, {"goal": "knowledge"}, "knowledge at 1.50 [", "knowledge at 2.75 ["),
        ("depth", "high", 4.0, {"goal": "knowledge"}, "3.25] blocks, intervals apart", "3.25] blocks, which the"),
        ("sufficient_rank", "rank", 2.0, {"goal": "toxicity"}, "toxicity 1 [", "toxicity 2 ["),
        ("ranks", "mean", 0.93, {"outcome": "broken", "rank": 4}, "of 64 (broken 0.17)", "of 64 (broken 0.93)"),
        ("carried", "mean", -0.1, {"contrast": "on twin"}, "a stranger -0.60 [", "a stranger -0.10 ["),
        (
            "carried",
            "equivalent",
            False,
            {"contrast": "difference"},
            "0.80 [-0.81, -0.79], the same",
            "not shown to be",
        ),
        ("alignment", "cosine", 0.33, {"between": "knowledge"}, "knowledge 0.500 (", "knowledge 0.330 ("),
        (
            *("composition", "equivalent", False, {"outcome": "toxicity: broken", "contrast": "interaction"}),
            *("the two changes act independently of each other", "independently is not shown"),
        ),
        (
            *("composition", "mean", 0.04, {"outcome": "knowledge: broken", "contrast": "toxicity"}),
            *("changes knowledge: broken by 0.00 [", "changes knowledge: broken by 0.04 ["),
        ),
        ("missing", "needs", "a third goal", {}, "needs a stranger", "needs a third goal"),
    ],
)
def test_a_sentence_changes_with_its_number(
    name: str, column: str, value: object, conditions: dict[str, object], before: str, after: str
) -> None:
    original, other = (
        draw_conclusions(found, GOALS, 0.05) for found in (tables(), changed(name, column, value, **conditions))
    )
    assert before in original and after not in original
    assert after in other


def test_what_breaks_text_is_called_damage_only_beyond_the_margin() -> None:
    assert "may be damage" not in draw_conclusions(tables(broken=0.02), GOALS, 0.05)
    assert "may be damage" not in draw_conclusions(tables(broken=0.055), GOALS, 0.05), "its interval reaches within"
    text = draw_conclusions(tables(broken=0.4), GOALS, 0.05)
    assert text.count("Put in, MLPs change broken by 0.40 [0.39, 0.41]: what these do to target may be damage.") == 2
    assert "attention change broken" not in text


def places(effects: Mapping[tuple[int, str], float], floors: float = 0.0, into: str = "twin") -> pd.DataFrame:
    """Patched states with a half-width of 0.1, donor 5 nats above the recipient."""
    rows = [
        {"layer": layer, "position": position, "effect": effect, "effect_low": effect - 0.1}
        | {"effect_high": effect + 0.1, "beyond_floor": effect - floors, "beyond_floor_low": effect - floors - 0.1}
        | {
            "beyond_floor_high": effect - floors + 0.1,
            "recipient": -6.0,
            "donor": -1.0,
            "into": into,
            "goal": "toxicity",
        }
        for (layer, position), effect in effects.items()
    ]
    return pd.DataFrame(rows)


def test_patching_names_the_places_that_go_the_donors_way_and_beyond_the_floor() -> None:
    effects = {(0, "last"): 0.05, (1, "last"): 1.0, (2, "last"): 4.0, (4, "last"): 3.0, (1, "subject"): -2.0}
    (text,) = patching_sentences(places(effects))
    assert "move the answer by 5% of the way or more and further" in text
    assert "of 5 places, at: last tokens after block 1 to 2, 4; of all places" in text
    assert "of all places most by 4.00 [3.90, 4.10] nats of 5.00" in text
    (floored,) = patching_sentences(places({(1, "last"): 4.5, (2, "last"): 0.3}, floors=0.25).query("layer == 2"))
    assert "at: none; of all places most by 0.30" in floored, "what does not go beyond the floor is no less an effect"
    (little,) = patching_sentences(places({(1, "last"): 0.2, (2, "last"): 0.25}))
    assert "at: last tokens after block 2; of" in little, "0.2 of 5 nats is above 0 and not 5%"
    assert "original's states in the twin" in text and "further than a stranger's do" in text and "subject" not in text
    (disturbed,) = patching_sentences(places(effects, floors=3.5))
    assert "at: last tokens after block 2; of all" in disturbed
    nothing = places({(0, "last"): -1.0})
    assert "at: none." in next(iter(patching_sentences(nothing)))
    unfloored = places(effects).assign(beyond_floor=float("nan"))
    assert "no floor: disturbance alone may do so" in next(iter(patching_sentences(unfloored)))


def test_a_twin_takes_an_answer_away() -> None:
    table = places({(3, "all"): -4.0, (5, "all"): 0.5}, into="original").assign(recipient=-1.0, donor=-6.0)
    (text,) = patching_sentences(table)
    assert (
        "the twin's states in the original" in text
        and "at: all tokens after block 3; of all places most by -4.00" in text
    )
    assert list(patching_sentences(None)) == []
