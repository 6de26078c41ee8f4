"""Measures item by item: the package's own numbers, and what cannot be scored is named instead of counted."""

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from planted_unlearning import GROUPS, POOL, PROMPTS, make_original, what_it_knows
from torch import Tensor

from interp_unlearn.attacks import Cloze, Completions, Facts, MeasuredItems, MultipleChoice
from interp_unlearn.attacks.attack import Record, measured
from interp_unlearn.data import FactQuestion, Question
from interp_unlearn.errors import ArtifactError, ConfigError, DataError, ScoreError
from interp_unlearn.evaluation import score_answers, score_facts, score_questions, take_exam, token_nll
from interp_unlearn.interventions import Edit, EditContext, HookedModel
from interp_unlearn.sites import Site

QUESTIONS = [
    Question("who sat on a mat", ("cat", "dog", "hill", "mat"), 0, "one"),
    Question("who ran", ("big", "dog", "hill", "red"), 1, "one"),
    Question("it was", ("small", "blue", "big", "red"), 3, "two"),
]
FACTS = [FactQuestion("who sat", "the cat sat on a mat"), FactQuestion("who ran", "a big dog")]


class NoNumbers(Edit):
    """NaN everywhere."""

    def transform(self, activation: Tensor, context: EditContext):
        return torch.full_like(activation, float("nan"))


@pytest.fixture(scope="module")
def model() -> HookedModel:
    return make_original()


class TestItems:
    def test_what_has_no_score_is_named(self):
        found = MeasuredItems.of("x", [1, np.nan, 0, np.inf], list("abcd"), list("ggHH"), {"c": "too long"})
        assert (found.ids, found.groups, found.scores.tolist()) == (("a",), ("g",), [1.0])
        assert found.left_out == {"b": "score is nan", "c": "too long", "d": "score is inf"}
        assert len(found) == 1 and found.asked == set("abcd") and not found.grouped

    def test_every_item_is_its_own_group_where_none_is_given(self):
        assert MeasuredItems.of("x", [1, 2]).groups == ("item 0", "item 1")
        assert not MeasuredItems.of("x", [1, 2]).grouped
        assert MeasuredItems.of("x", [1, 2], groups=["a", "a"]).grouped

    def test_some_of_them(self):
        found = MeasuredItems.of("x", [1, np.nan, 3], list("abc"), list("ghg"))
        assert found.only(["c", "b"]).ids == ("c",) and set(found.only(["c", "b"]).left_out) == {"b"}
        assert found.at(["c", "a"]).tolist() == [3, 1]

    def test_the_average_is_over_items_that_all_have(self):
        parts = [MeasuredItems.of("x", scores, list("abc"), list("ggh")) for scores in ([1, 2, 3], [3, np.nan, 5])]
        mean = MeasuredItems.average(parts)
        assert (mean.ids, mean.scores.tolist(), mean.groups) == (("a", "c"), [2.0, 4.0], ("g", "h"))
        assert set(mean.left_out) == {"b"}

    def test_stored_and_read(self, tmp_path: Path):
        items = MeasuredItems.of("x", [0.1, np.nan, 1 / 3], list("abc"), list("ggh"))
        empty = MeasuredItems.of("y", [np.nan], ["a"])
        Record({"one": items, "none": empty}, {"t": torch.arange(3)}).save(tmp_path)
        found = Record.load(tmp_path)
        assert found.tensors["t"].tolist() == [0, 1, 2]
        for name, before in (("one", items), ("none", empty)):
            after = found.items[name]
            assert (after.ids, after.groups, after.score) == (before.ids, before.groups, before.score)
            assert after.scores.tolist() == before.scores.tolist() and after.left_out == before.left_out

    @pytest.mark.parametrize(
        "wrong",
        [
            lambda: MeasuredItems.of("x", [1, 2], ["a", "a"]),
            lambda: MeasuredItems.of("x", [1, 2], ["a"]),
            lambda: MeasuredItems("x", ("a",), np.array([np.nan]), ("a",)),
            lambda: MeasuredItems("x", ("a",), np.array([1.0]), ("a",), {"a": "too long"}),
        ],
    )
    def test_what_does_not_fit_is_refused(self, wrong: Callable[[], object]):
        with pytest.raises(ConfigError):
            wrong()


class TestMeasures:
    def test_cloze_is_score_answers(self, model: HookedModel):
        measure = what_it_knows(model)
        assert measure(model).scores.tolist() == [1.0] * len(PROMPTS)
        answers = [row % len(POOL) for row in range(len(PROMPTS))]
        expected = score_answers(model, PROMPTS, [POOL] * len(PROMPTS), answers)
        for score in ("correct", "answer_probability"):
            found = Cloze(PROMPTS, [POOL] * len(PROMPTS), answers, score=score, groups=GROUPS)(model)
            assert found.scores.tolist() == pytest.approx(expected[score].astype(float).tolist(), abs=1e-6)
            assert found.score == score and found.groups == tuple(GROUPS)

    def test_multiple_choice_is_that_of_the_exam(self, model: HookedModel):
        exam = take_exam(model, QUESTIONS, ("text", "letter")).answers
        for form in ("text", "letter"):
            found = MultipleChoice.of(QUESTIONS, form, score="answer_probability", by_subject=True)(model)
            expected = exam.loc[exam["form"] == form, "answer_probability"].tolist()
            assert found.scores.tolist() == pytest.approx(expected, abs=1e-6)
            assert found.groups == ("one", "one", "two")
        shown = MultipleChoice.of(QUESTIONS, "text_after_choices", score="answer_probability")
        assert "B. dog" in shown.prompts[0] and shown.solution(0) == " cat"
        plain = score_questions(model, QUESTIONS, lambda question: shown.prompts[QUESTIONS.index(question)])
        assert shown(model).scores.tolist() == pytest.approx(plain["answer_probability"].tolist(), abs=1e-6)
        assert MultipleChoice.of(QUESTIONS, "text").in_form("letter").solution(1) == " B"

    def test_facts_are_score_facts(self, model: HookedModel):
        expected = score_facts(model, FACTS, "{question}", max_new_tokens=5)
        for score in ("probability", "rouge_l"):
            found = Facts.of(FACTS, "{question}", score=score, max_new_tokens=5)(model)
            assert found.scores.tolist() == pytest.approx(expected[score].tolist(), abs=1e-6)

    def test_completions_are_token_nll(self, model: HookedModel):
        nll = token_nll(model, ["the cat", ""], [" sat on", "a dog"])
        expected = (-nll["nll"] / nll["tokens"]).tolist()
        measure = Completions(["the cat", ""], [" sat on", "a dog"])
        assert measure(model).scores.tolist() == pytest.approx(expected, abs=1e-6)
        assert Completions(["the cat"], [" sat on"], score="probability")(model).scores[0] == pytest.approx(
            np.exp(expected[0])
        )

    def test_other_prompts_and_some_items(self, model: HookedModel):
        measure = what_it_knows(model, "answer_probability")
        whole, part = measure(model), measured(model, measure, ["3", "20"])
        assert part.ids == ("3", "20") and part.scores.tolist() == pytest.approx(whole.at(["3", "20"]).tolist())
        assert part.groups == (GROUPS[3], GROUPS[20])
        other = measure.asked([f"yes {prompt}" for prompt in PROMPTS])(model)
        assert other.ids == whole.ids and not np.allclose(other.scores, whole.scores)

    def test_errors_count_for_nobody(self, model: HookedModel):
        prompts = [PROMPTS[0], " ".join(["the"] * 64), PROMPTS[1], PROMPTS[2]]
        measure = Cloze(prompts, [POOL, POOL, [" ", " no"], POOL], [0, 0, 0, 1], ids=list("abcd"))
        found = measure(model)
        assert found.ids == ("a", "d")
        assert found.left_out == {"b": "66 tokens, more than the model's 64", "c": "an answer has no tokens"}
        facts = Facts.of([*FACTS, FactQuestion("it was", "...")], "{question}")
        assert facts(model).left_out == {"2": "the answer has no words"}

    @pytest.mark.parametrize(
        "measure",
        [
            lambda: Cloze(PROMPTS[:2], [POOL] * 2, [0, 1]),
            lambda: MultipleChoice.of(QUESTIONS),
            lambda: Facts.of(FACTS, "{question}", score="rouge_l", max_new_tokens=3),
            lambda: Completions(["the cat"], [" sat"], score="probability"),
        ],
    )
    def test_a_model_that_computes_no_numbers_has_no_scores(self, model: HookedModel, measure: Any):
        with model.edited({Site(1, "resid_post"): NoNumbers()}):
            found = measure()(model)
        assert len(found) == 0 and all("nan" in why.lower() for why in found.left_out.values())

    @pytest.mark.parametrize("broken", [{2}, {0, 9, 23}, set(range(24))])
    def test_one_item_without_numbers_does_not_take_the_others_with_it(
        self, model: HookedModel, monkeypatch: pytest.MonkeyPatch, broken: set[int]
    ):
        plain = what_it_knows(model, "answer_probability")(model)

        def partly_refusing(model: HookedModel, prompts: Sequence[str], *rest: Any):
            if {PROMPTS.index(prompt) for prompt in prompts} & broken:
                raise ScoreError("the logits hold NaN")
            return score_answers(model, prompts, *rest)

        measure = what_it_knows(model, "answer_probability")
        monkeypatch.setattr("interp_unlearn.attacks.measures.score_answers", partly_refusing)
        found = measure(model)
        assert set(found.left_out) == {str(row) for row in broken}
        assert set(found.left_out.values()) == {"not scored: the logits hold NaN"}
        assert found.scores.tolist() == pytest.approx(plain.at(found.ids).tolist(), abs=1e-6)

    @pytest.mark.parametrize(
        ("wrong", "error"),
        [
            (lambda: Cloze([], [], []), DataError),
            (lambda: Cloze(PROMPTS[:2], [POOL], [0, 1]), DataError),
            (lambda: Cloze(PROMPTS[:1], [POOL], [0], groups=["a", "b"]), DataError),
            (lambda: Cloze(PROMPTS[:1], [POOL], [0], score="guess"), ConfigError),
            (lambda: MultipleChoice.of(QUESTIONS, "essay"), ConfigError),  # pyright: ignore[reportArgumentType]
        ],
    )
    def test_what_does_not_fit_is_refused(self, wrong: Callable[[], object], error: type[Exception]):
        with pytest.raises(error):
            wrong()

    def test_a_callable_has_to_give_items(self, model: HookedModel):
        items = MeasuredItems.of("mine", [1.0, 2.0], ["a", "b"])
        assert measured(model, lambda _: items, ["b"]).ids == ("b",)
        with pytest.raises(ConfigError, match="MeasuredItems, got list"):
            measured(model, lambda _: [1.0])  # pyright: ignore[reportArgumentType]


def test_what_stands_beside_the_scores_goes_with_its_items():
    items = MeasuredItems.of("x", [1.0, float("nan"), 0.0, 1.0], beside={"broken": [0.0, 1.0, 1.0, 0.5]})
    assert items.ids == ("0", "2", "3") and items.beside["broken"].tolist() == [0.0, 1.0, 0.5]
    assert items.only({"2", "3"}).beside["broken"].tolist() == [1.0, 0.5]
    frame = items.to_frame()
    assert frame.loc[frame["id"] == "1", "broken"].isna().all()
    assert MeasuredItems.from_frame("x", frame).beside["broken"].tolist() == [0.0, 1.0, 0.5]
    with pytest.raises(ArtifactError, match="broken"):
        MeasuredItems.from_frame("x", frame.assign(broken="no"))
    other = MeasuredItems.of("x", [1.0, 1.0, 1.0, float("nan")], beside={"broken": [1.0, 1.0, 0.0, 0.0]})
    joint = MeasuredItems.average([items, other])
    assert joint.ids == ("0", "2") and joint.beside["broken"].tolist() == [0.5, 0.5]
    assert not MeasuredItems.average([items, MeasuredItems.of("x", [1.0] * 4)]).beside
    assert len(MeasuredItems.average([items, MeasuredItems.of("x", [float("nan")] * 4)])) == 0
    with pytest.raises(ConfigError, match="1 values of broken for 2 scores"):
        MeasuredItems.of("x", [1.0, 0.0], beside={"broken": [1.0]})
    with pytest.raises(ConfigError, match="group cannot stand beside the scores"):
        MeasuredItems.of("x", [1.0, 0.0], beside={"group": [1.0, 0.0]})
