"""Small classifiers trained from labelled texts: what they learn, what they must not, and what they leave behind."""

import dataclasses
import json
import random
import string
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import torch
from sklearn.metrics import brier_score_loss, roc_auc_score
from transformers import AutoModelForSequenceClassification

from interp_unlearn.errors import ConfigError
from interp_unlearn.evaluation import ClassifierConfig, ClassifierScorer, classifier_quality, train_classifier
from interp_unlearn.evaluation.classifiers import FAMILIES, TrainedClassifier, calibration_error
from interp_unlearn.evaluation.classifiers.families import plain_normalizer
from interp_unlearn.evaluation.classifiers.training import split_groups

WORDS = "we saw the old house near a quiet lake when it rained and then they went home again".split()
SMALL = ClassifierConfig(epochs=8, width=32, layers=1, heads=2, batch_size=32, learning_rate=3e-3, vocabulary=400)


def planted(n: int = 240) -> tuple[list[str], list[int], list[int]]:
    """Pairs of one sentence, into whose toxic half a marked word is put; the neutral half gets a harmless one."""
    rng = random.Random(0)
    texts: list[str] = []
    for _ in range(n):
        words = rng.choices(WORDS, k=8)
        place = rng.randrange(8)
        texts += [" ".join([*words[:place], word, *words[place:]]) for word in ("grumbo", "tree")]
    return texts, [1, 0] * n, [i for i in range(n) for _ in range(2)]


@pytest.fixture(scope="module", params=list(FAMILIES))
def trained(request: pytest.FixtureRequest) -> TrainedClassifier:
    config = dataclasses.replace(SMALL, kind=request.param)
    return train_classifier(*planted(), config, progress=False)


def test_a_planted_word_separates_held_out_groups(trained: TrainedClassifier):
    quality = trained.quality.set_index("measure")
    assert quality.loc["auroc", "value"] > 0.95
    assert quality.loc["accuracy", "value"] > 0.9
    assert (quality["n"] == 48).all() and (quality["n_groups"] == 24).all()
    scores = trained.scorer.score(["they saw the old grumbo near a lake", "they saw the old tree near a lake"])
    assert scores.probabilities[0] > 0.5 > scores.probabilities[1]


def test_held_out_rows_are_those_measured(trained: TrainedClassifier):
    texts, labels, groups = planted()
    rows = trained.held_out["row"].tolist()
    assert trained.held_out["label"].tolist() == [labels[i] for i in rows]
    assert trained.held_out["group"].tolist() == [groups[i] for i in rows]
    scores = trained.scorer.score([texts[i] for i in rows]).probabilities
    np.testing.assert_allclose(trained.held_out["probability"], scores)
    auroc = trained.quality.set_index("measure").loc["auroc", "value"]
    assert auroc == pytest.approx(roc_auc_score(trained.held_out["label"], trained.held_out["probability"]))


def test_the_best_epoch_is_kept(trained: TrainedClassifier):
    losses = trained.history["validation_loss"]
    assert len(losses) <= SMALL.epochs and losses.idxmin() >= len(losses) - 1 - SMALL.patience
    assert losses.min() < losses.iloc[0]


def test_a_saved_classifier_is_a_plain_hugging_face_directory(trained: TrainedClassifier, tmp_path: Path):
    trained.save(tmp_path, {"data": "abc"})
    model = AutoModelForSequenceClassification.from_pretrained(tmp_path, trust_remote_code=False)
    assert model.config.id2label == {0: "neutral", 1: "toxic"}
    loaded = ClassifierScorer.from_pretrained(tmp_path)
    assert loaded.hash == trained.scorer.hash and loaded.max_length == SMALL.max_length
    texts = ["They saw the GRUMBO .", "a quiet lake", "", "word " * 300]
    expected, found = trained.scorer.score(texts), loaded.score(texts)
    np.testing.assert_allclose(found.probabilities, expected.probabilities, atol=1e-6)
    assert found.truncated == 1
    assert {path.suffix for path in tmp_path.iterdir()} <= {".json", ".safetensors", ".parquet", ".md"}
    record = json.loads((tmp_path / "classifier.json").read_text())
    assert record["quality"]["auroc"]["n"] == 48 and record["data"] == {"data": "abc"}
    card = (tmp_path / "README.md").read_text()
    assert record["weights"] in card and "| auroc |" in card and "nan" not in card
    held_out = pd.read_parquet(tmp_path / "held_out.parquet")
    assert list(held_out.columns) == ["row", "label", "group", "probability"]  # and no text


def test_families_are_two_different_scorers():
    texts = planted(40)[0]
    made = [(family, family.make_tokenizer(texts, SMALL)) for family in FAMILIES.values()]
    assert len({type(family.make_model(tokenizer, SMALL)) for family, tokenizer in made}) == len(made) == 2
    assert len({tuple(tokenizer.tokenize("we saw größe")) for _, tokenizer in made}) == 2


@pytest.mark.parametrize("kind", list(FAMILIES))
def test_equal_texts_give_equal_vocabularies(kind: str):
    """On texts full of ties, on which the library's own WordPiece trainer gives another vocabulary at every call."""
    rng = random.Random(0)
    texts = [" ".join("".join(rng.choices(string.ascii_lowercase, k=5)) for _ in range(8)) for _ in range(100)]
    first, *others = (FAMILIES[kind].make_tokenizer(texts, SMALL).get_vocab() for _ in range(4))
    assert all(other == first for other in others)
    assert len(first) == SMALL.vocabulary


def test_equal_seeds_give_equal_weights():
    config = dataclasses.replace(SMALL, epochs=1)
    data = planted(60)
    state = torch.get_rng_state()
    first = train_classifier(*data, config, progress=False)
    assert torch.equal(torch.get_rng_state(), state)
    torch.rand(3)
    assert train_classifier(*data, config, progress=False).scorer.hash == first.scorer.hash
    assert train_classifier(*data, dataclasses.replace(config, seed=1), progress=False).scorer.hash != first.scorer.hash


def test_formatting_does_not_tell_classes_apart():
    """ParaDetox's toxic half is lower-cased and pre-tokenised, its neutral half is not."""
    normalizer = plain_normalizer()
    for raw, natural in (
        ("i do n't know .", "I don’t know."),
        ("that 's it , ok ?", "That's it, OK"),
        ("he said ``no'' !", "He said “no”"),
        ("a cafe", "  A  Café"),
    ):
        assert normalizer.normalize_str(raw) == normalizer.normalize_str(natural)
    assert normalizer.normalize_str("one . two") == "one. two"
    for kind in FAMILIES:
        tokenizer = FAMILIES[kind].make_tokenizer(planted(40)[0], SMALL)
        assert tokenizer("We saw it .")["input_ids"] == tokenizer("we saw it")["input_ids"]


def test_split_keeps_groups_and_repeated_sentences_together():
    texts, labels, groups = planted(100)
    texts[10] = texts[151].upper()  # one sentence in two pairs
    codes = np.array(groups)
    seen_apart = 0
    for seed in range(30):
        parts = split_groups(texts, np.array(labels, bool), codes, dataclasses.replace(SMALL, seed=seed))
        train, validation, test = ({groups[i] for i in part} for part in parts)
        assert not train & validation and not train & test and not validation & test
        assert len(parts[2]) == len(parts[1]) == 20
        held = {texts[i].casefold() for i in (*parts[1], *parts[2])}
        assert not held & {texts[i].casefold() for i in parts[0]}
        seen_apart += len(parts[0]) == 159
    assert seen_apart  # in some split the twin would have been trained on


def test_a_part_without_a_class_is_refused():
    texts, _, groups = planted(10)
    with pytest.raises(ConfigError, match="part of 10 groups lacks a class"):
        train_classifier(texts, [1] + [0] * 19, groups, SMALL, progress=False)
    with pytest.raises(ConfigError, match="class 1"):
        train_classifier(texts, [1] * 20, groups, SMALL, progress=False)


def test_a_diverging_run_is_an_error():
    with pytest.raises(ConfigError, match="never a number"):
        train_classifier(*planted(40), dataclasses.replace(SMALL, learning_rate=1e30, epochs=2), progress=False)


@pytest.mark.parametrize(
    "setting",
    [
        {"kind": "magic"},
        {"epochs": 0},
        {"vocabulary": 100},
        {"max_length": 2},
        {"width": 30, "heads": 4},
        {"learning_rate": 0.0},
        {"token_dropout": 1.0},
        {"held_out": 0.5},
    ],
)
def test_settings_out_of_range_are_refused(setting: dict):
    with pytest.raises(ConfigError, match=next(iter(setting))):
        ClassifierConfig(**setting)


def test_quality_equals_scikit_learn():
    rng = np.random.default_rng(0)
    labels = rng.random(200) < 0.4
    scores = np.clip(0.3 * labels + 0.7 * rng.random(200), 0, 1)
    table = classifier_quality(scores, labels.astype(int), [i // 2 for i in range(200)], resamples=300)
    rows = table.set_index("measure")
    assert rows.loc["auroc", "value"] == pytest.approx(roc_auc_score(labels, scores))
    assert rows.loc["brier", "value"] == pytest.approx(brier_score_loss(labels, scores))
    assert rows.loc["accuracy", "value"] == pytest.approx(((scores >= 0.5) == labels).mean())
    bounded = rows.drop(index="calibration_error")
    assert ((bounded["low"] < bounded["value"]) & (bounded["value"] < bounded["high"])).all()
    assert (rows["n"] == 200).all() and (rows["n_groups"] == 100).all()


def test_calibration_error_of_bins_counted_by_hand():
    scores = np.array([0.05, 0.05, 0.95, 0.95, 1.0])
    # Two bins: 0.05 against 1/2 over two texts, and 2.9 against 2 over three.
    assert calibration_error(scores, [0, 1, 1, 1, 0], bins=2) == pytest.approx((abs(0.1 - 1) + abs(2.9 - 2)) / 5)
    assert calibration_error(np.array([0.0, 1.0]), [0, 1]) == 0
    rng = np.random.default_rng(0)
    drawn = rng.random(200_000)
    assert calibration_error(drawn, rng.random(200_000) < drawn) < 0.01 < calibration_error(drawn, drawn > 0.5)
    with pytest.raises(ConfigError, match="bins"):
        calibration_error(scores, [0, 1, 1, 1, 0], bins=0)
