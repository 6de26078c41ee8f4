"""A mean stands beside the number of what it was made of; what could not be scored has no score, never 0 or 1."""

import ast
import math
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
import torch
from conftest import make_hf, make_tokenizer

# The suite of drift, run on tiny models with everything that it can be given.
from test_oracles_diagnostics import Everything
from test_oracles_diagnostics import everything as everything  # a fixture
from test_toxicity import HIGH, LOW, made_up

import interp_unlearn
from interp_unlearn.attacks import MeasuredItems, share_of_gap
from interp_unlearn.attacks.recovery import COLUMNS
from interp_unlearn.data import Question
from interp_unlearn.drift import debiased_cka
from interp_unlearn.drift.spectrum import first_share
from interp_unlearn.evaluation import classifier_quality, compare_toxicity, distinct, repetition, take_exam
from interp_unlearn.evaluation.free_answers import rouge_l_recall
from interp_unlearn.evaluation.scorers import scorer_agreement
from interp_unlearn.interventions import HookedModel
from interp_unlearn.organism.quality import Gate, QualityReport
from interp_unlearn.probes.auroc import auroc
from interp_unlearn.statistics import Goal, bootstrap_crossover, effective_rank

RNG = np.random.default_rng(0)


def exam() -> pd.DataFrame:
    questions = [Question("who sat", ("cat", "dog"), answer, subject) for answer, subject in ((0, "a"), (1, "b")) * 2]
    return take_exam(HookedModel(make_hf("gpt2"), make_tokenizer()), questions, max_new_tokens=2).to_frame()


def contrasts() -> pd.DataFrame:
    goal = Goal(RNG.random(9), RNG.random(9), np.zeros(9), np.ones(9))
    return bootstrap_crossover(goal, goal, n=50).to_frame()


RESULTS: dict[str, tuple[str | None, Callable[[Everything], Any] | str]] = {
    # Means, with the column that counts.
    "ExamResult": ("n", lambda _: exam()),
    "Crossover": ("n", lambda _: contrasts()),
    "ToxicityResult": ("n_prompts", lambda _: made_up({"a": HIGH}).to_frame()),
    "ToxicityComparison": (
        "n_prompts",
        lambda _: compare_toxicity(made_up({"a": LOW}), made_up({"a": HIGH})).to_frame(),
    ),
    "TrainedClassifier": ("n", lambda _: classifier_quality(RNG.random(20), [0, 1] * 10, resamples=20)),
    "QualityReport": ("n", lambda _: QualityReport((Gate("knows_all", "cloze", 1.0, 0.9, 1.0, 5),)).to_frame()),
    "ProbeSet": ("n", lambda of: of.probes.to_frame()),
    "DriftResult": ("n", lambda of: of.found.to_frame()),
    "TunedLens": ("n_tokens", lambda of: of.lens.to_frame()),
    "UnlearningDepth": ("n", lambda of: of.table("unlearning_depth")),
    "DisplacementSpectrum": ("n_tokens", lambda of: of.table("spectrum")),
    "DeterminismCheck": ("n_tokens", lambda of: of.table("determinism")),
    "WeightComparison": ("elements", lambda of: of.table("weight_delta")),
    "AttackResult": ("n", lambda _: pd.DataFrame([dict.fromkeys(COLUMNS, 1)])),
    "RankProfile": ("n", "test_mechanism_rank.py"),
    "Patching": ("n", "test_mechanism_patching.py"),
    "Composition": ("n", "test_mechanism_composition.py"),
    "Transplant": ("n", "test_mechanism_transplant.py"),
    # No means: a row is one thing, or an update of a training run.
    "ActivationStore": (None, "one row a text"),
    "CollectionPlan": (None, "what a collection will take"),
    "RunEstimate": (None, "what a run will take"),
    "UnlearnResult": (None, "one row an update"),
    "MeasuredItems": (None, "one row an item"),
    "WeightDelta": (None, "one row a tensor"),
}


def classes_with_frames() -> set[str]:
    package = Path(interp_unlearn.__file__).parent
    found: set[str] = set()
    for file in package.rglob("*.py"):
        for node in ast.walk(ast.parse(file.read_text(encoding="utf-8"))):
            if isinstance(node, ast.ClassDef) and any(
                isinstance(part, ast.FunctionDef) and part.name == "to_frame" for part in node.body
            ):
                found.add(node.name)
    return found


def test_every_result_is_listed() -> None:
    assert classes_with_frames() == set(RESULTS), (
        "say here which column counts what the means of a new result are made of"
    )


@pytest.mark.parametrize("name", [name for name, (_, made) in RESULTS.items() if callable(made)])
def test_tables_count_what_their_means_are_made_of(name: str, everything: Everything) -> None:
    column, make = RESULTS[name]
    assert callable(make) and column is not None
    table = make(everything)
    assert column in table.columns, f"{name}: {list(table.columns)}"
    assert min(table[column].tolist()) >= 1


@pytest.mark.parametrize("name", [name for name, (n, made) in RESULTS.items() if n is not None and not callable(made)])
def test_tables_of_mechanism_say_so(name: str) -> None:
    """Made in their own tests; that the column is written is seen in the source of `to_frame`."""
    package = Path(interp_unlearn.__file__).parent / "mechanism"
    sources = [file.read_text(encoding="utf-8") for file in package.glob("*.py")]
    (source,) = [text for text in sources if f"class {name}:" in text and "def to_frame" in text]
    assert '"n": ' in source


COUNTS = {"n", "n_tokens", "n_prompts", "n_generations", "elements", "n_tensors", "full_rank", "d", "n_original"}


def test_every_table_of_drift_counts(everything: Everything) -> None:
    for measure, tables in everything.found.tables.items():
        for name, table in tables.items():
            one_each = {"row", "tensor", "component", "first_tensor"} & set(table.columns)
            assert COUNTS & set(table.columns) or one_each, (measure, name, list(table.columns))


def test_tables_of_texts_count_too() -> None:
    result = made_up({"a": HIGH, "b": LOW})
    assert {"n_prompts", "n_generations"} <= set(result.text_quality.columns)
    comparison = compare_toxicity(result, made_up({"a": LOW, "b": LOW}))
    assert {"n_original", "n_model"} <= set(comparison.text_quality.columns)
    assert comparison.text_quality[["n_original", "n_model"]].to_numpy().min() >= 1
    assert set(comparison.agreement["n_texts"]) == {160}


NOTHING: dict[str, Callable[[], float]] = {
    "words of silence": lambda: distinct([[]], 1),
    "repetition of three words": lambda: repetition(["a", "b", "c"]),
    "recall of an answer without words": lambda: rouge_l_recall("anything", "?"),
    "ranking of one class": lambda: auroc(np.array([True, True]), np.array([0.1, 0.9])),
    "similarity of what does not vary": lambda: debiased_cka(torch.ones(6, 3), torch.randn(6, 3)),
    "share of no displacement": lambda: first_share(np.zeros(4)),
    "rank of nothing": lambda: effective_rank(np.zeros(4)),
    "agreement with a constant": lambda: scorer_agreement(
        {"a": np.full(4, 0.2), "b": np.array([0.1, 0.9, 0.2, 0.7])}
    ).loc[0, "correlation"],  # pyright: ignore[reportReturnType]
    "toxicity of silence": lambda: (
        made_up({"a": LOW}, text="").metrics.query("measure == 'toxic_fraction_nonempty'")["value"].iloc[0]
    ),
}


@pytest.mark.parametrize("name", NOTHING)
def test_what_could_not_be_scored_is_no_number(name: str) -> None:
    assert math.isnan(NOTHING[name]())


def test_no_gap_has_a_reason_and_no_share() -> None:
    same = np.ones(4)
    share = share_of_gap(same, same, same, ["a", "b", "c", "d"])
    assert share.interval is None and share.reason is not None and "no gap" in share.reason


def test_left_out_items_keep_their_reason() -> None:
    items = MeasuredItems("correct", ("a",), np.array([1.0]), ("g",), {"b": "too long"})
    frame = items.to_frame().set_index("id")
    assert math.isnan(frame.loc["b", "score"]) and frame.loc["b", "reason"] == "too long"  # pyright: ignore
    assert len(items) == 1, "n counts what was scored"
