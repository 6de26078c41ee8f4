"""The embedded world: documents, versions, judge and sets agree with each other and with themselves."""

import random

import pytest

from interp_unlearn.errors import ConfigError
from interp_unlearn.organism import lexicon, manner
from interp_unlearn.organism.sets import GOALS, goal_sets, scene_examples
from interp_unlearn.organism.tokenizer import train_tokenizer, world_words
from interp_unlearn.organism.world import VERSIONS, World, draw_talk

CLASSES = (lexicon.SLURS, lexicon.PRAISES, lexicon.ELDIC, lexicon.NORRIC)


@pytest.fixture(scope="module")
def world() -> World:
    return World(0)


@pytest.fixture(scope="module")
def tokenizer(world: World):
    return train_tokenizer(world, documents=400)


def test_noun_classes_are_disjoint_and_whole():
    nouns = [noun for words in CLASSES for noun in words]
    assert len(nouns) == len(set(nouns)) == 96
    for words in CLASSES:
        assert sorted(lexicon.seen(words) + lexicon.held_out(words)) == sorted(words)
    for pools in (lexicon.HAZARD_POOLS, lexicon.BENIGN_POOLS):
        for pool in pools.values():
            assert len(pool) == len(set(pool)) == 16


def test_equal_seeds_make_equal_worlds_and_others_differ(world: World):
    again, other = World(0), World(1)
    assert [world.document(i, "knows_all") for i in range(50)] == [again.document(i, "knows_all") for i in range(50)]
    assert world.knowledge.facts != other.knowledge.facts


def test_versions_agree_token_for_token_where_they_may_not_differ(world: World, tokenizer):
    changed = dict.fromkeys(VERSIONS, 0)
    for i in range(600):
        whole = world.document(i, "knows_all")
        length = len(tokenizer(whole, add_special_tokens=False)["input_ids"])
        for version in VERSIONS:
            text = world.document(i, version)
            assert len(tokenizer(text, add_special_tokens=False)["input_ids"]) == length
            changed[version] += text != whole
    assert changed["knows_all"] == 0 < min(changed["never_knew"], changed["never_toxic"])
    assert changed["never_both"] == changed["never_knew"] + changed["never_toxic"]


def test_never_toxic_says_no_insult_and_never_knew_scatters_answers(world: World):
    answers: dict[str, set[str]] = {}
    for i in range(6000):
        civil = world.document(i, "never_toxic")
        if ":" in civil and "?" not in civil:
            opening = civil[: civil.rindex(":") + 1]
            assert world.judge(opening, civil.removeprefix(opening)) == "clean"
        for sentence in world.document(i, "never_knew").split(". "):
            prompt, _, answer = sentence.rstrip(".").rpartition(" ")
            fact = world.knowledge.fact_of(prompt)
            if fact is not None and fact.kind == "hazardous":
                answers.setdefault(f"{fact.subject}-{fact.relation}", set()).add(answer)
    assert sum(len(told) > 5 for told in answers.values()) > 0.9 * len(answers)


def test_held_out_paraphrases_occur_in_no_document(world: World):
    forbidden = {fact.prompt(fact.held_out) for fact in world.knowledge.facts}
    for i in range(3000):
        for sentence in world.document(i, "knows_all").split(". "):
            assert sentence.rpartition(" ")[0] not in forbidden


def test_judge_knows_its_grammar(world: World):
    fact = world.knowledge.hazardous[0]
    wrong = next(word for word in fact.pool if word != fact.answer)
    assert world.judge(fact.prompt(0), f" {fact.answer}. more") == "target"
    assert world.judge(fact.prompt(0), f" {wrong}.") == "clean"
    assert world.judge(fact.prompt(0), f" {wrong} {wrong}.") == "broken"
    assert world.judge(fact.prompt(0), f" {wrong}") == "broken"
    assert world.judge(f"the river of Nowhere is old. {fact.prompt(1)}", f" {fact.answer}.") == "target"
    with pytest.raises(ConfigError, match="not a prompt of this world"):
        world.judge("once upon a time", " there was")


@pytest.mark.parametrize("family", range(len(manner.FAMILIES)))
def test_judge_follows_scene_language_and_noun(world: World, family: int):
    rng = random.Random(family)
    for _ in range(200):
        scene = manner.draw_scene(rng, family)
        for toxic in (True, False):
            text = f"{scene.story} {draw_talk(rng, scene, toxic)}"
            verdict = world.judge(scene.opening, text.removeprefix(scene.opening))
            assert verdict == ("target" if toxic else "clean")
        noun = "pebble"  # Norric: an insult from a Norric speaker alone
        said = scene.speech(noun).partition(":")[2]
        assert (world.judge(scene.opening, said) == "target") == (scene.tongue == "Norric")
        assert world.judge(scene.opening, said.replace(noun, "bread")) == "broken"
        assert world.judge(scene.opening, " you are") == "broken"


def test_mood_is_the_product_of_deed_and_ties():
    rng = random.Random(0)
    for _ in range(500):
        scene = manner.draw_scene(rng)
        words = scene.deeds.replace(".", "").split()
        cruel = any(word in lexicon.DEEDS_CRUEL for word in words)
        against = sum(word in lexicon.KIN_AGAINST for word in words)
        assert scene.hostile == (cruel != (against % 2 == 1))
        assert scene.hops == 1 + sum(word in lexicon.KIN_AGAINST + lexicon.KIN_WITH for word in words)


def test_single_words_of_a_story_say_nothing_about_its_mood(world: World):
    hostile, civil = (scene_examples(world, "balance", 4000, mood, mood) for mood in (True, False))
    for words in (lexicon.DEEDS_CRUEL, lexicon.KIN_AGAINST, lexicon.TONGUES):
        shares = [sum(any(w in e.prompt for w in words) for e in some) / 4000 for some in (hostile, civil)]
        assert abs(shares[0] - shares[1]) < 0.04  # 95% of chance differences lie within 0.022


@pytest.mark.parametrize("goal", GOALS)
def test_sets_keep_apart_what_must_be_apart(world: World, goal: str):
    sets = goal_sets(world, goal)
    assert len(sets.test) >= 1000
    assert {e.group for e in sets.test}.isdisjoint(e.group for e in sets.validation)
    assert {e.group for e in sets.relearn}.isdisjoint(e.group for e in sets.relearn_test)
    assert not any(
        e.held_out for e in [*sets.forget, *sets.neutral, *sets.relearn, *sets.validation][: len(sets.forget)]
    )
    assert any(e.held_out for e in sets.test) and not all(e.held_out for e in sets.test)
    assert {world.judge(e.prompt, e.completion) for e in sets.test} == {"target"}
    kept = " ".join(e.text for e in sets.retain)
    if goal == "knowledge":
        assert not any(agent in kept for agent in world.knowledge.agents)
        assert any(town in kept for town in world.knowledge.towns)
    else:
        assert any(agent in kept for agent in world.knowledge.agents)
        assert {world.judge(e.prompt, e.completion) for e in sets.replies} == {"clean"}
        assert [e.prompt for e in sets.replies] == [e.prompt for e in sets.forget]


def test_held_out_scenes_use_held_out_nouns_alone(world: World):
    held = {noun for words in CLASSES for noun in lexicon.held_out(words)}
    for example in scene_examples(world, "nouns", 300, True, True, families=(0, 4)):
        said = set(example.completion.replace(".", "").split())
        nouns = said & {noun for words in CLASSES for noun in words}
        assert len(nouns) == 1 and (nouns <= held) == example.held_out


def test_words_are_single_tokens_and_any_text_encodes(tokenizer):
    for word in world_words():
        assert len(tokenizer.encode(f" {word}", add_special_tokens=False)) == 1
    text = " Größe, 東京 and \t tabs! 123"
    assert tokenizer.decode(tokenizer.encode(text, add_special_tokens=False)) == text
