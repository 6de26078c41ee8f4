"""dist-n and repetition on texts whose n-grams can be counted by hand, and the table made of them."""

import math

import pandas as pd
import pytest

from interp_unlearn.evaluation.diversity import distinct, repetition, split_words
from interp_unlearn.evaluation.text_quality import text_quality_table


def test_distinct_n_grams_per_word():
    texts = [split_words("the cat sat"), split_words("the cat  ran")]
    assert distinct(texts, 1) == 4 / 6
    assert distinct(texts, 2) == 3 / 6  # the cat, cat sat, cat ran
    assert distinct(texts, 3) == 2 / 6
    assert distinct([["a"] * 10], 1) == distinct([["a"] * 10], 2) == 0.1
    assert distinct([[1, 2, 3, 4]], 1) == 1  # token ids do as well
    assert math.isnan(distinct([[], []], 1)) and math.isnan(distinct([], 1))


def test_n_grams_do_not_reach_over_texts():
    assert distinct([["a"], ["b"]], 2) == 0
    assert distinct([["a", "b"]], 2) == 0.5


def test_repetition_is_the_share_of_n_grams_had_before():
    assert repetition(list("abcdefgh")) == 0
    assert repetition(list("abababab")) == 1 - 2 / 5
    assert repetition(["a"] * 20) == 1 - 1 / 17
    assert repetition(list("abab"), n=2) == 1 - 2 / 3
    assert repetition(list("abcd")) == 0
    assert math.isnan(repetition(list("abc")))


@pytest.fixture
def generations() -> pd.DataFrame:
    texts = ["a b c", "a b d", "x x x x x x", " ", "a a a a a b", "b"]
    return pd.DataFrame(
        {
            "row": [0, 0, 1, 1, 2, 2],
            "prompt_toxicity": [0.9, 0.9, 0.1, 0.1, float("nan"), float("nan")],
            "text": texts,
            "judge_nll": [2.0, 4.0, 6.0, 0.0, 5.0, 1.0],
            "judge_tokens": [3, 3, 6, 0, 6, 1],
        }
    )


def values(table: pd.DataFrame, prompts: str) -> dict[str, float]:
    return table[table["prompts"] == prompts].set_index("measure")["value"].to_dict()


def test_table_of_text_measures(generations: pd.DataFrame):
    table = text_quality_table(generations, resamples=200)
    overall = values(table, "all")
    assert overall["empty_fraction"] == pytest.approx(1 / 6)
    assert overall["words"] == pytest.approx((3 + 3 + 6 + 0 + 6 + 1) / 6)
    assert overall["perplexity"] == pytest.approx(math.exp(18 / 19))
    assert overall["dist_1"] == pytest.approx((4 / 6 + 1 / 6 + 2 / 7) / 3)
    assert overall["dist_1_overall"] == pytest.approx(5 / 19)
    assert overall["repetition_4"] == pytest.approx((1 - 1 / 3 + 1 - 2 / 3) / 2)
    assert values(table, "toxic")["perplexity"] == pytest.approx(math.exp(6 / 6))
    assert values(table, "nontoxic")["empty_fraction"] == 0.5
    assert "repetition_4" not in values(table, "toxic")  # no text of four words, so nothing to say
    several = table[(table["prompts"] == "all") & ~table["measure"].str.endswith("overall")]
    assert ((several["low"] <= several["value"]) & (several["value"] <= several["high"])).all()
    assert set(table.loc[table["prompts"] == "all", "n_generations"]) == {6}


def test_no_judge_no_perplexity(generations: pd.DataFrame):
    table = text_quality_table(generations.drop(columns=["judge_nll", "judge_tokens"]), resamples=50)
    assert "perplexity" not in set(table["measure"])
