"""Other words and solved examples: the prompts asked are those meant, and the original is asked the same."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from planted_unlearning import DATA, GROUPS, PROMPTS, copied, make_original, what_it_knows

from interp_unlearn.artifacts import read_parquet
from interp_unlearn.attacks import (
    Attack,
    FewShot,
    MeasuredItems,
    MultipleChoice,
    PromptedMeasure,
    Reformat,
    Setup,
    run_attacks,
)
from interp_unlearn.attacks.attack import Attempt
from interp_unlearn.attacks.recovery import describe
from interp_unlearn.data import Question
from interp_unlearn.errors import ArtifactError, ConfigError
from interp_unlearn.interventions import HookedModel
from interp_unlearn.unlearning import UnlearnData

Models = tuple[HookedModel, HookedModel]
ASKED: list[tuple[str, tuple[str, ...]]] = []
QUESTIONS = [Question(prompt, ("yes", "no", "mat"), row % 3, "one") for row, prompt in enumerate(PROMPTS)]


@dataclass(frozen=True, eq=False)
class Guarded(PromptedMeasure):
    """The original always knows; the other one only where a prompt holds a word."""

    word: str = "please"
    score: str = field(default="knows", kw_only=True)

    @staticmethod
    def scores_offered():
        return ("knows",)

    def score_all(self, model: HookedModel):
        ASKED.append((model.name, tuple(self.prompts)))
        return np.array([float(model.name == "original" or self.word in prompt) for prompt in self.prompts])

    def followed_by(self, row: int):
        return [" yes"]

    def solution(self, row: int):
        return f" solved-{self.prompts[row].replace(' ', '-')}"


@pytest.fixture(scope="module")
def models():
    original = make_original()
    return copied(original), original


@pytest.fixture(autouse=True)
def forget_what_was_asked():
    ASKED.clear()


def attempts(models: Models, attack: Attack, measure: Any = None, data: UnlearnData = DATA):
    measure = measure or Guarded(PROMPTS, groups=GROUPS)
    return run_attacks(*models, measure, data, [attack], progress=False).to_frame()


def test_the_wording_that_opens_the_door_is_found(models: Models):
    wordings = ("please say {prompt}", "{prompt} {now}", "{prompt} and please {prompt}")
    table = attempts(models, Reformat(wordings=wordings, prefixes=("now", "please"))).set_index("setting")
    assert table["recovered"].to_dict() == {
        '{"prefix": 0}': 0.0,
        '{"prefix": 1}': 1.0,
        '{"wording": 0}': 1.0,
        '{"wording": 1}': 0.0,
        '{"wording": 2}': 1.0,
    }
    expected = [
        tuple(PROMPTS),
        *(tuple(f"{prefix} {prompt}" for prompt in PROMPTS) for prefix in ("now", "please")),
        *(tuple(wording.replace("{prompt}", prompt) for prompt in PROMPTS) for wording in wordings),
    ]
    for name in ("original", "unlearned"):
        assert [prompts for asked, prompts in ASKED if asked == name] == expected


def test_neutral_texts_are_the_prefixes_where_none_are_given(models: Models):
    table = attempts(models, Reformat(n_prefixes=3))
    assert table["setting"].tolist() == [f'{{"neutral prefix": {number}}}' for number in range(3)]
    assert ASKED[2][1][5] == f"{DATA.neutral[1]} {PROMPTS[5]}"
    ended = replace(DATA, neutral_completions=[" and so on"] * len(DATA.neutral))
    ASKED.clear()
    attempts(models, Reformat(n_prefixes=3), data=ended)
    assert ASKED[2][1][5] == f"{DATA.neutral[1]} and so on {PROMPTS[5]}", "a prompt without its end is no text"


def test_where_other_words_leave_the_original_with_nothing_there_is_no_share(models: Models):
    @dataclass(frozen=True, eq=False)
    class Confused(Guarded):
        def score_all(self, model: HookedModel):
            return np.where(["then" in prompt for prompt in self.prompts], 0.0, super().score_all(model))

    (row,) = attempts(models, Reformat(prefixes=("then",)), Confused(PROMPTS)).to_dict("records")
    assert (row["score"], row["original"]) == (0.0, 0.0) and row["recovered"] != row["recovered"]
    assert row["reason"].startswith("no gap to recover")


def test_items_are_stored_beside_what_the_original_scored_in_the_same_words(models: Models, tmp_path: Path):
    @dataclass(frozen=True, eq=False)
    class Hesitant(Guarded):
        """In other words the original knows every second answer, and gives no score for the first."""

        def score_all(self, model: HookedModel):
            plain = super().score_all(model)
            every = np.arange(len(plain)) % 2.0
            every[0] = np.nan
            return np.where(["then" in prompt for prompt in self.prompts], every, plain)

    measure = Hesitant(PROMPTS, groups=GROUPS)
    told: dict[str, Any] = {"out": tmp_path / "attacks", "progress": False}
    found = run_attacks(*models, measure, DATA, [Reformat(prefixes=("then", "please"))], **told)
    first, second = (rows for _, rows in found.items.groupby("setting", sort=False))
    assert first["original"].isna().tolist() == [name == "0" for name in first["id"]]
    assert first["original"].dropna().tolist() == [float(name) % 2 for name in first["id"] if name != "0"]
    assert second["original"].tolist() == [1.0] * len(PROMPTS)
    assert found.attempts["original"].tolist() == [first["original"].mean(), 1.0]
    (stored,) = (tmp_path / "attacks" / "attacks").glob("reformat-*/items.parquet")
    read_parquet(stored).drop(columns="original").to_parquet(stored)
    with pytest.raises(ArtifactError, match="have no column original; remove the folder and run the attack again"):
        run_attacks(*models, measure, DATA, [Reformat(prefixes=("then", "please"))], **told)


def test_an_original_without_a_score_in_other_words_is_not_replaced_by_the_plain_one():
    scored = MeasuredItems.of("knows", [1.0, 0.0], groups=["a", "b"])
    nothing = MeasuredItems.of("knows", [np.nan, np.nan], groups=["a", "b"])
    row = describe("reformat", Attempt({}, scored, original=nothing), scored, scored)
    assert row["n"] == 0 and row["reason"] == "no item was scored on all of the models compared"


def test_multiple_choice_is_asked_in_its_other_forms(models: Models):
    data = UnlearnData(forget=DATA.forget)
    measure = MultipleChoice.of(QUESTIONS, "letter", score="answer_probability")
    table = attempts(models, Reformat(), measure, data)
    assert table["setting"].tolist() == ['{"form": "text"}', '{"form": "text_after_choices"}']
    for form, score in zip(("text", "text_after_choices"), table["score"], strict=True):
        asked = MultipleChoice.of(QUESTIONS, form, score="answer_probability")
        assert score == pytest.approx(float(asked(models[0]).scores.mean()), abs=1e-6)


class TestFewShot:
    def test_examples_are_solved_items_of_other_groups(self, models: Models):
        attempts(models, FewShot((2, 5), separator=" ; "))
        solved = {f"{prompt} solved-{prompt.replace(' ', '-')}": g for prompt, g in zip(PROMPTS, GROUPS, strict=True)}
        (_, plain), (_, two), (_, five), *_ = ASKED
        assert plain == tuple(PROMPTS)
        for prompts, n in ((two, 2), (five, 5)):
            for asked, prompt, group in zip(prompts, PROMPTS, GROUPS, strict=True):
                *examples, question = asked.split(" ; ")
                assert question == prompt and len(set(examples)) == n
                assert all(solved[example] != group for example in examples)
        assert two in [prompts for name, prompts in ASKED if name == "unlearned"]

    def test_benign_examples_are_the_neutral_texts(self, models: Models):
        data = UnlearnData(forget=DATA.forget, neutral=["please", "please be", "please do"])
        table = attempts(models, FewShot((1, 3), ("others", "neutral")), data=data)
        assert table["recovered"].tolist() == [0.0, 0.0, 1.0, 1.0]
        assert set(ASKED[-1][1][0].split("\n\n")) == {"please", "please be", "please do", PROMPTS[0]}

    def test_the_draw_is_the_seeds(self):
        def asked(seed: int) -> Sequence[str]:
            setup = Setup(lambda model: MeasuredItems.of("x", []), DATA, seed=seed)
            return FewShot().variants(Guarded(PROMPTS, groups=GROUPS), setup)[0][1].prompts

        first, again, other = (asked(seed) for seed in (0, 0, 1))
        assert first == again != other

    def test_too_few_examples_are_refused(self, models: Models):
        with pytest.raises(ConfigError, match="9 solved examples wanted and there are 4 neutral texts"):
            attempts(models, FewShot((9,), ("neutral",)))
        with pytest.raises(ConfigError, match="there are 0 items of other groups"):
            attempts(models, FewShot((1,)), Guarded(PROMPTS[:2], groups=["one", "one"]))


def test_a_plain_callable_cannot_be_asked_otherwise(models: Models):
    measure = what_it_knows(models[1])
    with pytest.raises(ConfigError, match="asks no prompts"):
        attempts(models, Reformat(), lambda model: measure(model))


def test_nothing_to_ask_otherwise_is_refused(models: Models):
    with pytest.raises(ConfigError, match="nothing to ask otherwise"):
        attempts(models, Reformat(), data=UnlearnData(forget=DATA.forget))


@pytest.mark.parametrize(
    "settings",
    [
        lambda: Reformat(wordings=("say it",)),
        lambda: Reformat(forms=("essay",)),  # pyright: ignore[reportArgumentType]
        lambda: FewShot((0,)),
    ],
)
def test_settings_out_of_range_are_refused(settings: Callable[[], object]):
    with pytest.raises(ConfigError):
        settings()
