"""Numbers that are none are named where they arise; unusual tokenizers, texts and models are taken as they are."""

import copy
import logging
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import torch
from conftest import COMMON, TEXTS, make_hf, make_tokenizer
from transformers import LlamaConfig, LlamaForCausalLM

from interp_unlearn import Add, HookedModel, Site, UnlearnConfig, collect, fit_probes, unlearn
from interp_unlearn.directions import Directions
from interp_unlearn.errors import ConfigError, DataError, InterpError, ScoreError
from interp_unlearn.evaluation import TextScores, perplexity, score_answers, score_texts
from interp_unlearn.models import tokenize
from interp_unlearn.objectives import ProjectionScale
from interp_unlearn.unlearning import UnlearnData, build_objective

NAN, INF = float("nan"), float("inf")
PLACE = Site(1, "resid_post")
Act = Callable[[HookedModel], object]


def model() -> HookedModel:
    return HookedModel(make_hf("llama"), make_tokenizer(), name="tiny-llama")


def spoiled(value: float, act: Act) -> Act:
    """On a model of which one weight in the middle is no number, or overflows."""

    def spoil(model: HookedModel) -> object:
        with torch.no_grad():
            model.hf.get_parameter("model.layers.1.mlp.down_proj.weight")[0, 0] = value
        return act(model)

    return spoil


def half(act: Act) -> Act:
    """On a model in half precision whose activations are beyond its range."""

    def overflow(model: HookedModel) -> object:
        model.hf.half()
        return spoiled(6e4, act)(model)

    return overflow


class Scorer:
    """Gives every text the same score."""

    name, hash = "planted", "0"

    def __init__(self, value: float) -> None:
        self.value = value

    def score(self, texts: object, *, progress: bool = False) -> TextScores:
        return TextScores(np.array([0.5, self.value]))


def collecting(model: HookedModel) -> object:
    return collect(model, TEXTS, [PLACE], progress=False)


def training(model: HookedModel) -> object:
    data = UnlearnData(forget=TEXTS, retain=TEXTS)
    return unlearn(model, build_objective("cosine_rmu", layers=1), data, UnlearnConfig(steps=2), progress=False)


def fitting(model: HookedModel) -> object:
    store = collect(model, TEXTS * 4, [PLACE], labels=[0, 1] * 8, progress=False)
    store.vectors[PLACE][3, 5] = NAN
    return fit_probes(store, folds=2, bootstrap=0, progress=False)


def asking(model: HookedModel) -> object:
    return score_answers(model, ["the cat"], [[" sat", " ran"]], [0])


WIDER = r"text \d: activations at 1\.resid_post hold infinite values or NaN; use a wider dtype, or"
CASES: dict[str, tuple[Act, type[InterpError], str]] = {
    "NaN activations": (spoiled(NAN, collecting), DataError, WIDER),
    "infinite activations": (spoiled(INF, collecting), DataError, WIDER),
    "half-precision overflow": (half(collecting), DataError, WIDER),
    "NaN vectors of a store": (fitting, ConfigError, r"1\.resid_post: 1 of 16 rows are not finite, first row 3"),
    "NaN loss": (spoiled(NAN, training), ConfigError, r"the loss is nan at step 0; the original weights are put back"),
    "NaN perplexity": (
        spoiled(NAN, lambda m: perplexity(m, TEXTS)),
        ScoreError,
        r"text \d: the sum over its tokens is n",
    ),
    "NaN answers": (spoiled(NAN, asking), ScoreError, r"prompt 0: the log-probabilities of its answers hold"),
    "NaN score": (
        lambda m: score_texts(Scorer(NAN), ["a", "b"]),
        ScoreError,
        r"1 of 2 .* first that of text 1: nan",
    ),
    "score above 1": (lambda m: score_texts(Scorer(1.5), ["a", "b"]), ScoreError, r"no probabilities, .*text 1: 1\.5"),
    "a score too few": (
        lambda m: score_texts(Scorer(0), ["a"] * 3),
        ScoreError,
        r"3 texts, scores of shape \(2,\); e",
    ),
    "NaN gap": (lambda m: ProjectionScale(0.0, NAN), ConfigError, r"gap: expected a finite number, got nan"),
    "NaN direction": (
        lambda m: Directions({PLACE: torch.ones(32) * NAN}),
        ConfigError,
        r"holds infinite values or NaN",
    ),
    "NaN bias": (
        lambda m: Directions({PLACE: torch.ones(32)}, {PLACE: NAN}),
        ConfigError,
        r"1\.resid_post: bias: expected a finite number, got nan",
    ),
    "NaN edit": (
        lambda m: Add(torch.ones(32) * NAN),
        ConfigError,
        r"vector holds infinite values or NaN; expected",
    ),
    "half a surrogate pair": (
        lambda m: m.tokenize(["a \ud800"]),
        DataError,
        r"text 0: half of a surrogate pair, w",
    ),
    "a number for a text": (lambda m: m.tokenize(["a", 3]), DataError, r"text 1: expected text, got int$"),  # pyright: ignore[reportArgumentType]
}


@pytest.mark.parametrize("case", list(CASES))
def test_numbers_that_are_none_are_named_where_they_arise(case: str) -> None:
    act, error, message = CASES[case]
    with pytest.raises(error, match=message) as raised:
        act(model())
    assert len(str(raised.value).splitlines()) == 1


def test_weights_are_put_back_after_a_loss_that_is_no_number() -> None:
    hooked = model()
    before = hooked.hash()
    data = UnlearnData(forget=TEXTS, retain=TEXTS)
    config = UnlearnConfig(steps=6, learning_rate=1e30)
    with pytest.raises(ConfigError, match="the original weights are put back"):
        unlearn(hooked, build_objective("cosine_rmu", layers=1), data, config, progress=False)
    assert hooked.hash() == before


def test_one_token_is_enough() -> None:
    hooked = model()
    trace = hooked.run(hooked.tokenize(["cat"]), [PLACE, Site.logits])
    assert trace[PLACE].shape == (1, 2, 32) and bool(torch.isfinite(trace[Site.logits]).all())
    assert len(collect(hooked, ["cat"], [PLACE], progress=False)) == 1


@pytest.mark.parametrize("missing", ["pad", "bos", "pad and bos"])
def test_a_tokenizer_may_lack_padding_or_bos(missing: str) -> None:
    tokenizer = make_tokenizer()
    for which in missing.split(" and "):
        setattr(tokenizer, f"{which}_token", None)
    hooked = HookedModel(make_hf("llama"), tokenizer)
    alone = [hooked.run(hooked.tokenize([text]), [PLACE])[PLACE][0] for text in TEXTS]
    batch = hooked.tokenize(TEXTS)
    together = hooked.run(batch, [PLACE])[PLACE]
    for row, expected in enumerate(alone):
        torch.testing.assert_close(together[row][batch.mask[row]], expected, rtol=1e-4, atol=1e-5)
    expected_tokens = [len(text.split()) for text in TEXTS]
    assert batch.content_mask.sum(1).tolist() == expected_tokens


def test_what_is_cut_is_said(caplog: pytest.LogCaptureFixture) -> None:
    hooked, long = model(), "the cat " * 40
    with caplog.at_level(logging.WARNING, "interp_unlearn"):
        assert tokenize(hooked.tokenizer, [long, "a"], max_length=64).longest == 64
        assert "1 of 2 texts are cut at 64 tokens" in caplog.text
        caplog.clear()
        collect(hooked, [long, "a"], [PLACE], progress=False)
        assert "2 texts (1 of them cut at 64 tokens)" in caplog.text
    with pytest.raises(DataError, match=r"the longest row has 81 tokens, the model takes 64; cut the texts \(max_l"):
        hooked.run(hooked.tokenize([long]), [PLACE])


def test_tied_weights_are_trained_as_one() -> None:
    torch.manual_seed(0)
    settings: dict[str, Any] = COMMON
    hf = LlamaForCausalLM(LlamaConfig(**settings, tie_word_embeddings=True)).eval()
    hooked = HookedModel(hf, make_tokenizer())
    before = hf.get_parameter("model.embed_tokens.weight").detach().clone()
    config = UnlearnConfig(steps=2, roles=None)
    unlearn(hooked, build_objective("gradient_ascent"), UnlearnData(forget=TEXTS), config, progress=False)
    assert hf.lm_head.weight is hf.model.embed_tokens.weight
    assert not torch.equal(hf.lm_head.weight, before)


def test_a_model_in_training_mode_is_refused_where_it_drops_and_taken_where_it_does_not() -> None:
    hooked = model()
    expected = hooked.run(hooked.tokenize(TEXTS), [PLACE])[PLACE]
    hooked.hf.train(True)
    assert torch.equal(hooked.run(hooked.tokenize(TEXTS), [PLACE])[PLACE], expected)
    settings: dict[str, Any] = COMMON
    hf = LlamaForCausalLM(LlamaConfig(**settings, attention_dropout=0.5)).train()
    dropping = HookedModel(hf, make_tokenizer())
    with pytest.raises(ConfigError, match=r"the model is in training mode, .* its dropout is on, .* call hf\.eval\(\)"):
        collecting(dropping)


def test_errors_survive_the_way_from_another_process() -> None:
    """Which is made by `copy` as by what sends them."""
    error = DataError("p.tsv", "no rows", 3)
    again = copy.copy(error)
    assert type(again) is DataError and str(again) == str(error) == "p.tsv:3: no rows" and again.line == 3


def test_errors_have_one_line_whatever_they_quote() -> None:
    assert str(ConfigError("got a\nb\u2028c\rd")) == "got a b c d"
