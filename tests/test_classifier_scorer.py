"""Sequence classifiers of every kind of head as scorers, against their own logits."""

import logging
import math
from pathlib import Path

import numpy as np
import pytest
import torch
from conftest import COMMON, TEXTS, WORDS, make_hf, make_tokenizer
from torch import Tensor
from transformers import (
    BertConfig,
    BertForSequenceClassification,
    GPT2Config,
    GPT2ForSequenceClassification,
    LlamaConfig,
    LlamaForSequenceClassification,
    PreTrainedModel,
    PreTrainedTokenizerFast,
    RobertaConfig,
    RobertaForSequenceClassification,
)

from interp_unlearn.errors import CheckpointError, ConfigError, ScoreError
from interp_unlearn.evaluation import ClassifierScorer
from interp_unlearn.evaluation.classifiers import find_head
from interp_unlearn.models import weights_hash

SMALL = {key: COMMON[key] for key in ("vocab_size", "hidden_size", "intermediate_size", "num_attention_heads")}
SMALL |= {"num_hidden_layers": 2, "max_position_embeddings": 34, "initializer_range": 0.2, "pad_token_id": 0}
GPT2 = {"vocab_size": COMMON["vocab_size"], "n_embd": 32, "n_layer": 2, "n_head": 4, "n_positions": 32}
JIGSAW = {0: "toxic", 1: "severe_toxic", 2: "insult"}
HEADS = {
    "softmax": {"id2label": {0: "neutral", 1: "Toxic"}},
    "nameless": {"num_labels": 2},
    "single": {"num_labels": 1},
    "multi": {"id2label": JIGSAW, "problem_type": "multi_label_classification"},
}


def make_classifier(kind: str, **options: object) -> PreTrainedModel:
    torch.manual_seed(0)
    if kind == "bert":
        return BertForSequenceClassification(BertConfig(**SMALL, **options)).eval()
    if kind == "roberta":
        return RobertaForSequenceClassification(RobertaConfig(**{**SMALL, "pad_token_id": 1}, **options)).eval()
    if kind == "gpt2":
        return GPT2ForSequenceClassification(GPT2Config(**GPT2, initializer_range=0.2, **options)).eval()
    return LlamaForSequenceClassification(LlamaConfig(**{**COMMON, "num_hidden_layers": 2}, **options)).eval()


@torch.no_grad()
def logits_of(model: PreTrainedModel, tokenizer: PreTrainedTokenizerFast, text: str) -> Tensor:
    """A text by itself, without padding."""
    ids = torch.tensor([tokenizer(text)["input_ids"]])
    return model(input_ids=ids, attention_mask=torch.ones_like(ids)).logits[0].double()


@pytest.mark.parametrize("kind", ["bert", "gpt2", "llama"])
@pytest.mark.parametrize("head", list(HEADS))
def test_scores_are_the_toxic_labels_probabilities(kind: str, head: str, tokenizer: PreTrainedTokenizerFast):
    model = make_classifier(kind, **HEADS[head])
    scorer = ClassifierScorer(model, tokenizer, "it", batch_size=3)
    scores = scorer.score(TEXTS).probabilities
    for text, score in zip(TEXTS, scores, strict=True):
        logits = logits_of(model, tokenizer, text)
        expected = {
            "softmax": logits.softmax(-1)[-1],
            "nameless": logits.softmax(-1)[-1],
            "single": logits[0].sigmoid(),
            "multi": logits[0].sigmoid(),
        }[head]
        assert score == pytest.approx(float(expected), abs=1e-5)
    assert np.ptp(scores) > 0.01
    assert scorer.hash == weights_hash(model)


def test_another_label_may_be_asked_for(tokenizer: PreTrainedTokenizerFast):
    model = make_classifier("bert", **HEADS["multi"])
    scorer = ClassifierScorer(model, tokenizer, "it", label="Insult")
    expected = [float(logits_of(model, tokenizer, text)[2].sigmoid()) for text in TEXTS]
    np.testing.assert_allclose(scorer.score(TEXTS).probabilities, expected, atol=1e-5)
    assert scorer.describe()["label"] == "insult"


@pytest.mark.parametrize(
    ("options", "label", "message"),
    [
        ({"id2label": {0: "nothate", 1: "hate"}}, None, "cannot be told; its labels are nothate, hate: name one"),
        ({"id2label": {0: "nothate", 1: "hate"}}, "hat", "no label 'hat'; its labels are nothate, hate"),
        ({"id2label": {0: "toxic", 1: "toxicity"}}, None, "cannot be told"),
        ({"id2label": {0: "non-toxic"}}, None, "cannot be told; its labels are non-toxic"),
        ({"id2label": JIGSAW}, None, "no problem_type in its config.json"),
        ({"num_labels": 1, "problem_type": "regression"}, None, "outputs are no probabilities"),
        ({"num_labels": 3, "problem_type": "multi_label_classification"}, None, "LABEL_0, LABEL_1, LABEL_2"),
    ],
)
def test_what_cannot_be_told_is_asked_for(options: dict, label: str | None, message: str):
    with pytest.raises(ConfigError, match=message):
        find_head(BertConfig(**options), label)
    with pytest.raises(ConfigError, match="scorer it: "):
        ClassifierScorer(make_classifier("bert", **options), make_tokenizer(), "it", label)


def test_a_stated_label_and_problem_decide():
    assert find_head(BertConfig(id2label={0: "nothate", 1: "hate"}), "hate").index == 1
    three = BertConfig(id2label={0: "clean", 1: "toxic", 2: "spam"}, problem_type="single_label_classification")
    assert not find_head(three).independent
    assert find_head(BertConfig(id2label={0: "toxic"})).independent


def test_long_texts_are_cut_counted_and_reported(tokenizer: PreTrainedTokenizerFast, caplog: pytest.LogCaptureFixture):
    model = make_classifier("bert")
    scorer = ClassifierScorer(model, tokenizer, "it")
    assert scorer.max_length == 34
    long = " ".join(WORDS[i % 20] for i in range(60))
    with caplog.at_level(logging.WARNING):
        scores = scorer.score(["the cat", long])
    assert scores.truncated == 1 and "judged 1 of 2 texts by their first 34 tokens" in caplog.text
    beginning = " ".join(long.split()[:34])
    assert scores.probabilities[1] == pytest.approx(scorer.score([beginning]).probabilities[0], abs=1e-6)
    assert scorer.score([beginning]).truncated == 0


def test_context_is_what_the_positions_allow(tokenizer: PreTrainedTokenizerFast):
    roberta = ClassifierScorer(make_classifier("roberta"), tokenizer, "it")
    assert roberta.max_length == 32  # two of its 34 positions are not for tokens
    assert np.isfinite(roberta.score([" ".join(["cat"] * 50)]).probabilities).all()
    short = make_tokenizer()
    short.model_max_length = 10
    assert ClassifierScorer(make_classifier("bert"), short, "it").max_length == 10


def test_a_decoder_without_padding_is_scored_row_by_row():
    bare = make_tokenizer()
    bare.pad_token = None
    model = make_classifier("gpt2")
    assert model.config.pad_token_id is None
    scores = ClassifierScorer(model, bare, "it").score(TEXTS).probabilities
    expected = [float(logits_of(model, bare, text).softmax(-1)[1]) for text in TEXTS]
    np.testing.assert_allclose(scores, expected, atol=1e-5)


def test_an_empty_text_has_a_score_or_raises():
    scorer = ClassifierScorer(make_classifier("gpt2", pad_token_id=0), make_tokenizer(), "it")
    assert 0 < scorer.score(["the cat", ""]).probabilities[1] < 1
    assert scorer.score([]).probabilities.shape == (0,)
    bare = make_tokenizer()
    bare.bos_token = bare.eos_token = None
    with pytest.raises(ScoreError, match="text 1 has no tokens"):
        ClassifierScorer(make_classifier("gpt2", pad_token_id=0), bare, "it").score(["the cat", ""])


def test_nan_is_an_error(tokenizer: PreTrainedTokenizerFast):
    model = make_classifier("bert")
    with torch.no_grad():
        model.classifier.bias.fill_(math.nan)
    with pytest.raises(ScoreError, match="4 of 4 scores are NaN"):
        ClassifierScorer(model, tokenizer, "it").score(TEXTS)


def test_directories_load_and_language_models_are_refused(tmp_path: Path, tokenizer: PreTrainedTokenizerFast):
    model = make_classifier("bert", **HEADS["softmax"])
    for folder, saved in ((tmp_path / "classifier", model), (tmp_path / "language_model", make_hf("llama"))):
        saved.save_pretrained(folder)
        tokenizer.save_pretrained(folder)
    scorer = ClassifierScorer.from_pretrained(tmp_path / "classifier")
    assert scorer.name == "classifier"
    expected = ClassifierScorer(model, tokenizer, "it").score(TEXTS).probabilities
    np.testing.assert_allclose(scorer.score(TEXTS).probabilities, expected, atol=1e-6)
    with pytest.raises(CheckpointError, match=r"missing from the checkpoint, first score\.weight"):
        ClassifierScorer.from_pretrained(tmp_path / "language_model")
    with pytest.raises(CheckpointError, match="no such directory"):
        ClassifierScorer.from_pretrained(tmp_path / "nowhere")
