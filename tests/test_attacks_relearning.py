"""Relearning in the suite: what is asked was not taught, every rate and step is kept, what was hidden comes back."""

from collections.abc import Callable
from typing import Any

import pytest
import torch
from planted_unlearning import DATA, GROUPS, POOL, PROMPTS, SUBJECTS, copied, make_original, n_hooks, what_it_knows

from interp_unlearn.attacks import Cloze, MeasuredItems, Relearn, RelearnConfig, Setup, run_attacks
from interp_unlearn.errors import ConfigError
from interp_unlearn.interventions import HookedModel
from interp_unlearn.unlearning import LoraConfig, UnlearnConfig, UnlearnData, unlearn
from interp_unlearn.unlearning.fine_tuning import FineTuning

Models = tuple[HookedModel, HookedModel]
ITEMS = MeasuredItems.of("x", [1.0] * len(PROMPTS), groups=GROUPS)
TAUGHT = UnlearnData(
    forget=PROMPTS,
    forget_completions=[" mat"] * len(PROMPTS),
    groups=GROUPS,
    neutral=["yes it was blue", "no and then a dog ran"],
)


def setup(data: UnlearnData):
    return Setup(lambda model: ITEMS, data)


class TestLessons:
    @pytest.mark.parametrize("share", [0.25, 0.5, 0.9])
    def test_no_subject_is_taught_and_asked(self, share: float):
        lessons: Any = Relearn(taught=share).lessons(setup(DATA), ITEMS)
        group_of = dict(zip(DATA.forget, GROUPS, strict=True))
        taught = {group_of[text] for text in lessons.texts}
        asked = {GROUPS[int(name)] for name in lessons.ids}
        assert lessons.held_out and not taught & asked and taught | asked == set(SUBJECTS)
        assert len(taught) == round(share * 12) and len(lessons.texts) == 2 * len(taught)

    def test_completions_stay_with_their_prompts(self):
        texts = [f"{prompt} {row}" for row, prompt in enumerate(PROMPTS)]
        data = UnlearnData(forget=texts, forget_completions=[str(row) for row in range(24)], groups=GROUPS)
        lessons: Any = Relearn().lessons(setup(data), ITEMS)
        assert all(text.endswith(f" {end}") for text, end in zip(lessons.texts, lessons.completions, strict=True))

    def test_an_item_of_an_unknown_subject_is_not_asked(self):
        half = UnlearnData(forget=DATA.forget[:12], groups=GROUPS[:12])
        lessons: Any = Relearn().lessons(setup(half), ITEMS)
        assert {GROUPS[int(name)] for name in lessons.ids} < set(GROUPS[:12])

    @pytest.mark.parametrize("groups", [None, [f"text {row}" for row in range(24)]])
    def test_without_common_subjects_nothing_is_held_out(self, groups: Any):
        lessons: Any = Relearn().lessons(setup(UnlearnData(forget=DATA.forget, groups=groups)), ITEMS)
        assert not lessons.held_out and lessons.ids is None and lessons.texts == list(DATA.forget)

    def test_numbers_of_items_are_no_subjects(self):
        """A measure without groups counts its items; texts whose groups are numbers have nothing to do with that."""
        data = UnlearnData(forget=DATA.forget, groups=[str(row) for row in range(24)])
        lessons: Any = Relearn().lessons(setup(data), MeasuredItems.of("x", [1.0] * 24))
        assert not lessons.held_out and lessons.ids is None

    def test_other_texts_are_taught_whole(self):
        lessons: Any = Relearn("neutral").lessons(setup(DATA), ITEMS)
        assert lessons.texts == list(DATA.neutral) and lessons.ids is None and lessons.held_out
        with pytest.raises(ConfigError, match="no neutral texts"):
            Relearn("neutral").lessons(setup(UnlearnData(forget=DATA.forget)), ITEMS)
        others: Any = Relearn("unrelated", unrelated=("it rained",)).lessons(setup(DATA), ITEMS)
        assert others.texts == ["it rained"] and others.ids is None and others.held_out
        with pytest.raises(ConfigError, match="no unrelated texts"):
            Relearn("unrelated").lessons(setup(DATA), ITEMS)

    def test_one_subject_cannot_be_split(self):
        one = UnlearnData(forget=DATA.forget[:2], groups=GROUPS[:2])
        with pytest.raises(ConfigError, match="no item is left to ask"):
            Relearn().lessons(setup(one), ITEMS)


@pytest.fixture(scope="module")
def models():
    """An original that says one word of every subject, and one in which a constant hides it."""
    original = make_original()
    config = UnlearnConfig(steps=40, learning_rate=3e-3, roles=None, forget_on="completion")
    unlearn(original, FineTuning("forget", retains=False), TAUGHT, config, progress=False)
    hidden = copied(original)
    with torch.no_grad():
        hidden.hf.lm_head.weight[hidden.tokenizer.convert_tokens_to_ids("mat")] *= -0.5
    return hidden, original


def measure_of(score: str):
    answer = POOL.index(" mat")
    return Cloze(PROMPTS, [POOL] * len(PROMPTS), [answer] * len(PROMPTS), groups=GROUPS, score=score)


def test_what_was_only_hidden_comes_back_for_subjects_that_were_not_taught(models: Models):
    hidden, original = models
    before = hidden.hash(), n_hooks(hidden)
    attacks = [
        Relearn(learning_rates=(1e-6, 1e-2), checkpoints=(1, 10)),
        Relearn(
            learning_rates=(3e-2,),
            checkpoints=(12,),
            attacker=RelearnConfig(lora=LoraConfig(rank=4), roles=("attn", "mlp")),
        ),
        Relearn("neutral", learning_rates=(1e-6,), checkpoints=(2,)),
    ]
    result = run_attacks(hidden, original, measure_of("answer_probability"), TAUGHT, attacks, progress=False)
    table = result.to_frame()
    assert table["attack"].tolist() == ["relearn"] * 4 + ["relearn_lora", "relearn_neutral"]
    assert table["step"].tolist() == [1, 10, 1, 10, 12, 2]
    weak, _, _, strong = table["recovered"].tolist()[:4]
    assert strong > 0.8 > 0.05 > weak
    assert table["recovered"].iloc[4] > 0.5 and table["recovered"].iloc[5] < 0.05
    assert table["n"].tolist() == [12, 12, 12, 12, 12, 24]
    worst = result.worst()
    assert worst["attack"].iloc[0] == "relearn" and worst["recovered"].iloc[0] == table["recovered"].iloc[:4].max()
    assert worst["n_attempts"].tolist() == [4, 1, 1]
    hidden.mark_changed()
    assert (hidden.hash(), n_hooks(hidden)) == before


def test_a_rate_that_fails_does_not_take_the_others_with_it(models: Models):
    hidden, original = models
    attack = Relearn(learning_rates=(1e30, 1e-3), checkpoints=(1, 3))
    table: Any = run_attacks(hidden, original, measure_of("correct"), TAUGHT, [attack], progress=False).to_frame()
    failed: Any = table[table["setting"].str.contains("1e\\+30")]
    assert failed["reason"].notna().any() and failed["recovered"].isna().all()
    assert table[~table["setting"].str.contains("1e\\+30")]["recovered"].notna().all()


@pytest.mark.parametrize(
    "settings",
    [
        lambda: Relearn("retain"),  # pyright: ignore[reportArgumentType]
        lambda: Relearn(taught=1.0),
        lambda: Relearn(learning_rates=()),
        lambda: Relearn(learning_rates=(0.0,)),
        lambda: Relearn(checkpoints=()),
        lambda: Relearn(checkpoints=(0,)),
    ],
)
def test_settings_out_of_range_are_refused(settings: Callable[[], object]):
    with pytest.raises(ConfigError):
        settings()


def test_equal_seeds_give_equal_tables(models: Models):
    hidden, original = models
    attack = Relearn(learning_rates=(1e-3,), checkpoints=(2,))
    tables = [
        run_attacks(hidden, original, what_it_knows(original), TAUGHT, [attack], seed=seed, progress=False).items
        for seed in (0, 0, 1)
    ]
    assert tables[0].equals(tables[1]) and not tables[0].equals(tables[2])


def test_attackers_of_two_seeds_are_two(models: Models):
    hidden, original = models
    attacks = [Relearn(learning_rates=(1e-3,), checkpoints=(2,), attacker=RelearnConfig(seed=seed)) for seed in (0, 1)]
    measure = what_it_knows(original, "answer_probability")
    items = run_attacks(hidden, original, measure, TAUGHT, attacks, progress=False).items
    first, second = items["score"].to_numpy().reshape(2, -1)
    assert (first != second).any()
