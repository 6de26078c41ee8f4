"""The RealToxicityPrompts protocol on tiny models with scorers whose scores are known."""

import dataclasses
import math
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import torch
from conftest import COMMON, TEXTS, make_hf
from transformers import GPT2Config, GPT2LMHeadModel

from interp_unlearn import Add, HookedModel, Site
from interp_unlearn.data import Prompt
from interp_unlearn.errors import ArtifactError, ConfigError, DataError, ScoreError
from interp_unlearn.evaluation import (
    TextScores,
    ToxicityConfig,
    ToxicityResult,
    compare_toxicity,
    continuation_nll,
    evaluate_toxicity,
    generate_texts,
    sample_rows,
)
from interp_unlearn.evaluation.generations import continuation_texts

PROMPTS = [Prompt(text, toxicity) for text, toxicity in zip(TEXTS, (0.9, 0.1, None, 0.5), strict=True)]
CONFIG = ToxicityConfig(continuations=4, max_new_tokens=6)


class Counting:
    """Toxicity is the share of a text's words that are `word`."""

    def __init__(self, word: str) -> None:
        self.name, self.hash = word, f"hash of {word}"

    def score(self, texts: Sequence[str], *, progress: bool = False) -> TextScores:
        assert all(text == text.strip() for text in texts)
        return TextScores(np.array([text.split().count(self.name) / max(1, len(text.split())) for text in texts]))


class Failing(Counting):
    def score(self, texts: Sequence[str], *, progress: bool = False) -> TextScores:
        scores = super().score(texts).probabilities
        scores[-1] = math.nan
        return TextScores(scores)


def evaluate(model: HookedModel, **options) -> ToxicityResult:
    return evaluate_toxicity(model, PROMPTS, [Counting("cat"), Counting("dog")], CONFIG, progress=False, **options)


def test_every_generation_is_kept_and_scored(llama: HookedModel):
    result = evaluate(llama)
    table = result.generations
    assert len(table) == 16
    assert table["row"].tolist() == [row for row in range(4) for _ in range(4)]
    assert table["continuation"].tolist() == list(range(4)) * 4
    assert table["prompt"].tolist() == [text for text in TEXTS for _ in range(4)]
    assert table["tokens"].max() == 6
    rows = sample_rows(llama, TEXTS, 6, seed=0, n_continuations=4, progress=False)
    assert table["text"].tolist() == continuation_texts(llama, rows)
    assert table["tokens"].tolist() == [len(new) for _, new in rows]
    for name in ("cat", "dog"):
        expected = [text.split().count(name) / max(1, len(text.split())) for text in table["text"]]
        assert table[f"toxicity_{name}"].tolist() == expected
    assert result.model_hash == llama.hash() and result.judge_hash is None


def test_measures_are_those_of_the_generations(llama: HookedModel):
    result = evaluate(llama)
    maxima = result.generations.groupby("row")["toxicity_cat"].max()
    metrics = result.metrics.set_index(["scorer", "prompts", "measure"])
    assert metrics.loc[("cat", "all", "expected_max_toxicity"), "value"] == pytest.approx(maxima.mean())
    assert metrics.loc[("cat", "toxic", "expected_max_toxicity"), "value"] == pytest.approx(maxima[[0, 3]].mean())
    assert metrics.loc[("cat", "nontoxic", "expected_max_toxicity"), "n_prompts"] == 1
    assert maxima.nunique() > 1
    assert (metrics["n_scored"] == metrics["n_generations"]).all() and (metrics["k"] == 4).all()
    assert set(result.agreement["n_texts"]) == {16}
    fewer = dataclasses.replace(result, config=dataclasses.replace(CONFIG, k=1))
    mean = fewer.metrics.set_index(["scorer", "prompts", "measure"]).loc[("cat", "all", "expected_max_toxicity")]
    assert mean["value"] == pytest.approx(result.generations["toxicity_cat"].mean()) and mean["k"] == 1


def test_a_scorer_that_fails_once_fails_the_evaluation(llama: HookedModel):
    with pytest.raises(ScoreError, match="1 of 16 scores are no probabilities, first that of text 15"):
        evaluate_toxicity(llama, PROMPTS, [Counting("cat"), Failing("dog")], CONFIG, progress=False)


def test_edits_reach_the_evaluation_and_the_comparison_sees_them(llama: HookedModel):
    original = evaluate(llama, judge=llama)
    with llama.edited({Site.logits: Add(torch.eye(COMMON["vocab_size"])[5], coefficient=20.0, include_bos=True)}):
        changed = evaluate(llama)
    assert (changed.generations["toxicity_cat"] == 1).all()  # token 5 is "cat"
    table = compare_toxicity(changed, original).differences.set_index(["scorer", "prompts", "measure"])
    row = table.loc[("cat", "all", "toxic_fraction")]
    assert row["model"] == 1 and row["difference"] == pytest.approx(1 - row["original"]) and row["low"] > 0


def test_continuations_follow_their_own_prompt(model: HookedModel):
    """Sampling at a temperature near zero is greedy, and then every continuation is the prompt's own."""
    greedy = sample_rows(model, TEXTS, 5, do_sample=False, progress=False)
    for batch_size in (2, 7, 100):
        rows = sample_rows(model, TEXTS, 5, temperature=1e-6, n_continuations=3, batch_size=batch_size, progress=False)
        assert rows == [row for row in greedy for _ in range(3)]
    assert len({new for _, new in greedy}) > 1


def test_several_continuations_are_different_samples(llama: HookedModel):
    rows = sample_rows(llama, TEXTS, 6, n_continuations=4, progress=False)
    assert len({new for _, new in rows[:4]}) > 1
    once = sample_rows(llama, TEXTS, 6, n_continuations=1, progress=False)
    assert once == sample_rows(llama, TEXTS, 6, progress=False)
    texts = generate_texts(llama, TEXTS, 6, n_continuations=4, progress=False)
    assert [text.split() for text in texts] == [text.split() for text in continuation_texts(llama, rows)]
    with pytest.raises(ConfigError, match="n_continuations"):
        sample_rows(llama, TEXTS, 6, n_continuations=0, progress=False)
    with pytest.raises(ConfigError, match="n_continuations"):
        sample_rows(llama, TEXTS, 6, n_continuations=2, do_sample=False, progress=False)
    with pytest.raises(ConfigError, match="batch_size"):
        sample_rows(llama, TEXTS, 6, batch_size=0, progress=False)


def test_a_continuation_keeps_the_space_before_it(llama: HookedModel):
    ids = [tuple(llama.tokenizer(text)["input_ids"]) for text in ("the cat", "sat on")]
    assert llama.tokenizer.decode(ids[1]) == "sat on"
    assert continuation_texts(llama, [(ids[0], ids[1]), (ids[0], ())]) == [" sat on", ""]


def test_text_is_judged_as_it_runs_on(llama: HookedModel):
    prompts, texts = ["the cat", "the c", "a dog", "a dog"], [" sat on", "at sat on", "", " ran"]
    table = continuation_nll(llama, prompts, texts)
    assert table["tokens"].tolist() == [2, 3, 0, 1]  # where a token crosses the border, it is counted whole
    ids = llama.tokenize(["the cat sat on"])
    with torch.no_grad():
        logs = llama.run(ids).logits[0].log_softmax(-1)
    tokens = ids.input_ids[0].tolist()
    nll = [-float(logs[position - 1, tokens[position]]) for position in range(1, len(tokens))]
    assert table.loc[0, "nll"] == pytest.approx(sum(nll[2:]), rel=1e-5)
    assert table.loc[1, "nll"] == pytest.approx(sum(nll[1:]), rel=1e-5)
    assert table.loc[2, "nll"] == 0


def test_judge_gives_the_perplexity_of_all_generations(llama: HookedModel, tokenizer):
    judge = HookedModel(make_hf("gpt2"), tokenizer)
    result = evaluate(llama, judge=judge)
    table = result.generations
    nll = continuation_nll(judge, table["prompt"].tolist(), table["text"].tolist())
    np.testing.assert_allclose(table["judge_nll"], nll["nll"], rtol=1e-5)
    quality = result.text_quality.set_index(["prompts", "measure"])
    expected = math.exp(nll["nll"].sum() / nll["tokens"].sum())
    assert quality.loc[("all", "perplexity"), "value"] == pytest.approx(expected)
    assert result.judge_hash == judge.hash()


def test_what_does_not_fit_is_refused(llama: HookedModel, tokenizer):
    sizes = {"n_positions": 16, "n_embd": 8, "n_head": 1, "n_layer": 1, "bos_token_id": 1, "eos_token_id": 2}
    small = HookedModel(GPT2LMHeadModel(GPT2Config(vocab_size=26, **sizes)), tokenizer)
    with pytest.raises(DataError, match="the longest needs 20 tokens, the model takes 16"):
        evaluate(small)
    with pytest.raises(DataError, match="the judge takes 16"):
        evaluate(llama, judge=small)
    with pytest.raises(DataError, match="expected at least one prompt"):
        evaluate_toxicity(llama, [], [Counting("cat")])
    with pytest.raises(ConfigError, match="no scorer"):
        evaluate_toxicity(llama, PROMPTS, [])
    for setting in ({"continuations": 0}, {"max_new_tokens": 0}, {"top_p": 0.0}, {"temperature": 0.0}, {"k": 26}):
        with pytest.raises(ConfigError, match=next(iter(setting))):
            ToxicityConfig(**setting)


def test_saved_results_read_back_whole(llama: HookedModel, tmp_path: Path):
    result = evaluate(llama)
    result.save(tmp_path)
    loaded = ToxicityResult.load(tmp_path)
    pd.testing.assert_frame_equal(loaded.generations, result.generations)
    pd.testing.assert_frame_equal(loaded.metrics, result.metrics)
    assert loaded.config == result.config and list(loaded.scorers) == list(result.scorers)
    stored = pd.read_parquet(tmp_path / "metrics.parquet")
    np.testing.assert_allclose(stored["value"], result.metrics["value"])
    compare_toxicity(loaded, result)
    missing = result.generations.copy()
    missing.loc[3, "toxicity_dog"] = np.nan
    missing.to_parquet(tmp_path / "generations.parquet")
    with pytest.raises(ArtifactError, match="incomplete"):
        ToxicityResult.load(tmp_path)


def made_up(scores: dict[str, np.ndarray], text: str = "words here", seed: int = 0) -> ToxicityResult:
    """A result of 40 prompts with 2 continuations each, whose scores are given by prompt."""
    n = 40
    table = pd.DataFrame(
        {
            "row": np.repeat(np.arange(n), 2),
            "prompt": [f"prompt {i}" for i in range(n) for _ in range(2)],
            "prompt_toxicity": np.repeat(np.where(np.arange(n) < 20, 0.9, 0.1), 2),
            "continuation": np.tile([0, 1], n),
            "text": text,
            "tokens": 2,
        }
    )
    for name, values in scores.items():
        table[f"toxicity_{name}"] = np.repeat(values, 2)
    described = tuple({"name": name, "hash": name, "truncated": 0} for name in scores)
    return ToxicityResult(ToxicityConfig(continuations=2, seed=seed), table, described, "m")


HIGH, LOW = np.tile([0.9, 0.7], 20), np.tile([0.2, 0.4], 20)


def test_a_claim_takes_two_scorers_that_agree():
    comparison = compare_toxicity(made_up({"a": LOW, "b": LOW}), made_up({"a": HIGH, "b": HIGH}))
    claim = comparison.claim()
    assert claim.verdict == "less toxic" and claim.scorers == ("a", "b")
    assert "-0.500 [" in claim.reason and "on 40 prompts (all)" in claim.reason and "fluency not judged" in claim.reason
    assert comparison.claim("toxic_fraction", "toxic").verdict == "less toxic"
    back = compare_toxicity(made_up({"a": HIGH, "b": HIGH}), made_up({"a": LOW, "b": LOW}))
    assert back.claim().verdict == "more toxic"


def test_scorers_that_disagree_show_nothing():
    comparison = compare_toxicity(made_up({"a": LOW, "b": HIGH}), made_up({"a": HIGH, "b": HIGH}))
    assert comparison.claim().verdict == "not shown"
    assert comparison.agreement.loc[0, "n_texts"] == 160 and comparison.agreement.loc[0, "only_second"] == 0.5


def test_one_scorer_is_not_enough_and_neither_is_the_same_twice(tmp_path: Path):
    comparison = compare_toxicity(made_up({"a": LOW}), made_up({"a": HIGH}))
    assert len(comparison.differences) == 12
    same = dataclasses.replace(comparison, hashes={"a": "x", "b": "x"})
    for refused in (comparison, same):
        with pytest.raises(ConfigError, match="two scorers with different weights"):
            refused.claim()
    comparison.save(tmp_path)
    assert [path.name for path in tmp_path.iterdir()] == ["comparison.parquet"]


def test_falling_silent_is_not_less_toxic():
    """The classifier finds the empty text clean; that must not carry a claim."""
    silent = made_up({"a": LOW, "b": LOW}, text="  ")
    claim = compare_toxicity(silent, made_up({"a": HIGH, "b": HIGH})).claim()
    assert claim.verdict == "not shown"
    assert "not so among texts that are not empty" in claim.reason and "empty_fraction 0 to 1" in claim.reason


def test_a_model_against_itself_shows_nothing(tmp_path: Path):
    result = made_up({"a": HIGH, "b": LOW})
    comparison = compare_toxicity(result, result)
    assert (comparison.differences[["difference", "low", "high"]] == 0).all(axis=None)
    assert comparison.claim().verdict == "not shown"
    comparison.save(tmp_path)
    assert {path.name for path in tmp_path.iterdir()} == {
        "comparison.parquet",
        "scorer_agreement.parquet",
        "claims.json",
    }
    with pytest.raises(ConfigError, match="no 'charm' on 'all' prompts; there are expected_max_toxicity"):
        comparison.claim("charm")


def test_only_like_is_compared_with_like():
    result = made_up({"a": HIGH, "b": LOW})
    other = result.generations.assign(prompt="x")
    relabelled = tuple({**scorer, "label": "insult"} for scorer in result.scorers)
    judged = dataclasses.replace(result, judge_hash="one")
    for wrong, what in (
        (made_up({"a": HIGH, "b": LOW}, seed=1), "settings"),
        (dataclasses.replace(result, config=dataclasses.replace(result.config, batch_size=64)), "settings"),
        (dataclasses.replace(result, generations=other), "prompts"),
        (made_up({"a": HIGH}), "scorers"),
        (dataclasses.replace(result, scorers=relabelled), "scorers"),
        (dataclasses.replace(result, judge_hash="another"), "judges"),
    ):
        with pytest.raises(ConfigError, match=f"different {what}"):
            compare_toxicity(wrong, judged)
    compare_toxicity(judged, judged)
    compare_toxicity(result, judged)  # one side alone was judged, and no perplexity is compared
