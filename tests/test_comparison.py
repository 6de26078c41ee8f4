"""The comparison of methods: its contenders, and a run small enough to repeat."""

import importlib
import shutil
from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import pandas as pd
import pytest

from interp_unlearn.artifacts import read_json, read_parquet
from interp_unlearn.errors import ArtifactError, ConfigError
from interp_unlearn.organism import sets
from interp_unlearn.organism.shipped import shipped_twins, twin_hashes
from interp_unlearn.organism.world import World
from interp_unlearn.study import stage
from interp_unlearn.study.comparison import (
    ComparisonConfig,
    bench,
    compare_methods,
    knowledge,
    knowledge_contest,
    measures,
)
from interp_unlearn.study.comparison import toxicity_contest as toxicity
from interp_unlearn.study.comparison.attack import Attacker
from interp_unlearn.study.comparison.bench import Bench
from interp_unlearn.study.comparison.contenders import Contender
from interp_unlearn.study.comparison.contest import contest_on
from interp_unlearn.study.comparison.search import read_trials
from interp_unlearn.unlearning import AdversaryConfig

compare_module = importlib.import_module("interp_unlearn.study.comparison.compare")
SIZES: dict[Any, dict[str, Any]] = {
    sets: {"N_FORGET_SCENES": 32, "N_TEST_SCENES": 24, "N_VALIDATION_SCENES": 12, "N_RETAIN": 32, "N_NEUTRAL": 120},
    toxicity: {"N_TAUGHT": 8, "N_ASKED": 6, "N_ASKED_IN_SEARCH": 4, "N_UNLIKE": 8, "N_CIVIL": 6, "N_PROBED": 40},
    knowledge_contest: {"N_BENIGN": 6, "N_TOXIC": 6},
    knowledge: {
        "N_REPLAY": 8,
        "LEAST_CLEAN": 0.0,
        "PERSISTENT": AdversaryConfig(steps=2, gradient_steps=(2,), batch_size=4),
    },
    measures: {"N_RETAINED": 6},
}
CONTENDERS = [(goal, contender) for goal in sets.GOALS for contender in contest_on(goal).roster]


def small_attackers(goal: sets.Goal) -> dict[str, Any]:
    """Every attacker for two steps, at its first rate."""
    contest = contest_on(goal)

    def small(attacker: Attacker) -> Attacker:
        return replace(attacker, rates=attacker.rates[:1], checkpoints=(1, 2))

    return {"attackers": tuple(map(small, contest.attackers)), "rehearsal": small(contest.rehearsal)}


MICRO = ComparisonConfig(seeds=(0,), steps=2, only=("probe_multi", "steering"), n_trials=1)
MICRO_KNOWLEDGE = ComparisonConfig(seeds=(0,), steps=2, only=("counterfactual", "not_hardened"), n_trials=1)


@pytest.fixture(scope="module", autouse=True)
def small_sets() -> Iterator[None]:
    def small_world(seed: int) -> World:
        world = World(seed)
        world.knowledge.hazardous = world.knowledge.hazardous[:36]
        world.knowledge.benign = world.knowledge.benign[:24]
        return world

    def one_after_another(task: Callable[..., Any], calls: Sequence[tuple[Any, ...]], workers: int, label: str) -> None:
        for arguments in calls:
            task(*arguments)

    with pytest.MonkeyPatch.context() as patch:
        for module, values in SIZES.items():
            for name, value in values.items():
                patch.setattr(module, name, value)
        for goal in sets.GOALS:
            for name, value in small_attackers(goal).items():
                patch.setitem(vars(contest_on(goal)), name, value)
        patch.setattr(stage, "World", small_world)
        patch.setattr(compare_module, "run_side_by_side", one_after_another)
        stage.load_stage.cache_clear()
        bench.load_bench.cache_clear()
        yield
    stage.load_stage.cache_clear()
    bench.load_bench.cache_clear()


@pytest.fixture(scope="module")
def finished(tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("comparison") / "run"
    compare_methods(out, "toxicity", MICRO)
    return out


@pytest.fixture(scope="module")
def finished_on_knowledge(tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("comparison") / "knowledge"
    compare_methods(out, "knowledge", MICRO_KNOWLEDGE)
    return out


@pytest.mark.parametrize("goal", sets.GOALS)
def test_every_method_is_searched_over_twelve_settings_and_no_two_are_the_same(goal: sets.Goal):
    roster = contest_on(goal).roster
    for contender in roster:
        distinct = {tuple(setting.items()) for setting in contender.settings}
        if contender.searched:
            assert len(contender.settings) == len(distinct) == 12, contender.name
        elif contender.standing == "ablation":
            assert roster[contender.parent].searched, contender.name


@pytest.mark.parametrize("goal, contender", CONTENDERS, ids=lambda value: getattr(value, "name", value))
def test_every_method_changes_the_weights_or_gives_edits_or_refuses(
    goal: sets.Goal, contender: Contender, finished: Path
):
    probes = finished / "probes" if contest_on(goal).with_probes else None
    stands = replace(bench.load_bench(goal, probes, 2), batch_size=4)
    model = stands.stage.model("knows_all")
    before = model.hash()
    searched = contest_on(goal).roster[contender.parent] if contender.parent else contender
    setting = {} if contender.standing == "reference" else searched.settings[0]
    setting |= {"steps": 2} if "steps" in setting else {}
    try:
        edits = contender.forget(model, stands, setting, 0)
    except ConfigError as error:  # twelve prompts, two steps: a teacher may be too weak, but it says so
        assert "clean share" in str(error)
        return
    changed = model.hash() != before
    assert changed != bool(edits) if contender.standing != "reference" else not changed and not edits


def test_prompts_of_another_kind_are_no_scene_of_the_sets_and_the_original_is_toxic_after_them(finished: Path):
    on_stage = stage.load_stage("toxicity")
    unlike = sets.unlike_examples(on_stage.world, "test", 40)
    assert len({example.prompt for example in unlike}) == 40
    known = {example.prompt for part in (on_stage.sets.forget, on_stage.sets.test) for example in part}
    assert not known & {example.prompt for example in unlike}
    told = measures.judged_generations(on_stage.model("knows_all"), on_stage.world, unlike, "toxicity", 0)["verdict"]
    assert told.tolist().count("target") >= 0.9 * len(told)


def test_a_comparison_writes_its_tables_and_its_figure(finished: Path):
    names = {"none", "twin", "probe_multi", "steering"}
    assert {line["contender"] for line in read_parquet(finished / "comparison.parquet").to_dict("records")} == names
    trials = read_parquet(finished / "trials.parquet")
    assert sorted(trials["contender"]) == ["probe_multi", "steering"] and trials["chosen"].tolist() == [True, True]
    verdicts = read_parquet(finished / "verdicts.parquet")
    by_kind = verdicts.loc[verdicts["contender"] == "none"].groupby("kind").size().to_dict()
    assert by_kind == {"seen": 12, "held_out": 12, "unlike": 8, "civil": 6}
    relearning = read_parquet(finished / "relearning.parquet")
    assert set(relearning["step"]) == {0, 1, 2} and set(relearning["contender"]) == names
    assert (finished / "comparison.md").read_text(encoding="utf-8").count("\n| ") == 4
    assert (finished / "figures" / "relearning_excess.pdf").exists()
    assert read_json(finished / "run.json")["identity"]["task"] == "compare"
    table = read_parquet(finished / "measures.parquet")
    kl = table.loc[table["measure"] == "retain_kl"].set_index("contender")["value"]
    assert kl["none"] == pytest.approx(0, abs=1e-6) and kl["twin"] > kl["probe_multi"] > 0


def test_a_trial_of_another_setting_is_not_taken_for_this_one(finished: Path, tmp_path: Path):
    """As where a search space was edited between two sessions."""
    contender = contest_on("toxicity").roster["probe_multi"]
    file = next((finished / "trials").glob("probe_multi-*.json"))
    (tmp_path / "trials").mkdir()
    (tmp_path / "trials" / file.name).write_text(file.read_text())
    index = int(file.stem.rpartition("-")[2])
    assert read_trials(tmp_path, contender, [index])[0].setting == contender.settings[index]
    (tmp_path / "trials" / f"probe_multi-{index + 1:02d}.json").write_text(file.read_text())
    with pytest.raises(ArtifactError, match="the search space now has"):
        read_trials(tmp_path, contender, [index + 1])


def test_a_comparison_on_knowledge_says_what_came_back_under_each_attacker(finished_on_knowledge: Path):
    names = {"none", "twin", "counterfactual", "not_hardened"}
    summary = read_parquet(finished_on_knowledge / "comparison.parquet")
    assert set(summary["contender"]) == names and set(summary["standing"]) == {"reference", "ours", "ablation"}
    attackers = {attacker.name for attacker in contest_on("knowledge").attackers}
    excess = read_parquet(finished_on_knowledge / "excess.parquet")
    assert set(excess["attacker"]) == attackers and len(attackers) == 6
    at = summary.set_index(["contender", "measure"])["mean"]
    assert at["none", "target_held_out"] > 0.9 > 0.3 > at["twin", "target_held_out"]
    assert at["none", "target_benign"] > 0.9 and at["none", "exam_text"] > 0.9 > at["twin", "exam_text"]
    assert at["twin", "efficacy_seen"] == at["twin", "suppression_seen"] == 1
    assert at["counterfactual", "training_tokens"] > 0 == at["none", "training_tokens"]
    # The search never looked at an ablation: it takes over what was found for its parent.
    assert set(read_parquet(finished_on_knowledge / "trials.parquet")["contender"]) == {"counterfactual", "hardened"}
    ablation = (finished_on_knowledge / "ablation.md").read_text(encoding="utf-8")
    assert "| not_hardened (ablation) |" in ablation and "| counterfactual" not in ablation


def test_another_organism_is_compared_on_its_own_twins(tmp_path: Path):
    organism = tmp_path / "organism"
    for name, source in (("knows_all", "never_knew"), ("never_knew", "knows_all"), ("never_toxic", "never_toxic")):
        shutil.copytree(shipped_twins() / source, organism / name)
    config = replace(MICRO_KNOWLEDGE, only=("none",))
    compare_methods(tmp_path / "run", "knowledge", config, organism=organism)
    at = read_parquet(tmp_path / "run" / "comparison.parquet").set_index(["contender", "measure"])["mean"]
    assert at["twin", "target_held_out"] > 0.9 > 0.3 > at["none", "target_held_out"], (
        "the two stand in each other's place"
    )
    hashes = read_json(tmp_path / "run" / "run.json")["identity"]["organism"]
    assert hashes["never_knew"] == twin_hashes()["knows_all"]
    shutil.rmtree(organism / "never_knew")
    with pytest.raises(ArtifactError, match="has no twin never_knew; make them with"):
        compare_methods(tmp_path / "other", "knowledge", config, organism=organism)


def test_attackers_on_knowledge_share_no_fact_with_what_they_are_asked():
    stands = bench.load_bench("knowledge", None, 1)
    facts = stands.stage.world.knowledge
    told = {fact.sentence(i): fact for fact in facts.facts for i in range(6)}
    for attacker in (*contest_on("knowledge").attackers, contest_on("knowledge").rehearsal):
        taught, asked = attacker.lessons(stands)
        lessons = {told[example.text] for example in taught}
        questions = {facts.fact_of(example.prompt) for example in asked}
        assert lessons and questions and not lessons & questions, attacker.name
        assert all(fact.kind == "hazardous" for fact in questions)
        subjects = {fact.subject for fact in lessons}, {fact.subject for fact in questions}
        assert bool(subjects[0] & subjects[1]) == (attacker.name == "interleaved"), attacker.name


def test_a_finished_comparison_is_not_computed_again(finished: Path, monkeypatch: pytest.MonkeyPatch):
    before = read_parquet(finished / "comparison.parquet")
    for name in ("judged_by_kind", "attack_curves", "fit_goal_probes"):
        monkeypatch.setattr(compare_module, name, lambda *arguments: pytest.fail("finished work was begun again"))
    compare_methods(finished, "toxicity", MICRO)
    pd.testing.assert_frame_equal(read_parquet(finished / "comparison.parquet"), before)


def test_edits_at_inference_do_not_outlive_the_measuring_and_the_attack_meets_bare_weights(finished: Path):
    relearning = read_parquet(finished / "relearning.parquet")
    steered, bare = (
        relearning.loc[relearning["contender"] == name].reset_index(drop=True) for name in ("steering", "none")
    )
    pd.testing.assert_frame_equal(steered.drop(columns="contender"), bare.drop(columns="contender"))


def test_senseless_settings_and_other_folders_are_refused(finished: Path):
    with pytest.raises(ConfigError, match="no contender magic; expected of none, twin"):
        compare_methods(finished, "toxicity", ComparisonConfig(only=("magic",)))
    with pytest.raises(ConfigError, match="needs a seed"):
        ComparisonConfig(seeds=())
    with pytest.raises(ArtifactError, match="another run"):
        compare_methods(finished, "toxicity", replace(MICRO, steps=3))


def test_a_bench_trains_on_the_settings_it_is_given(finished: Path):
    stands: Bench = bench.load_bench("toxicity", finished / "probes", 2)
    config = stands.config({"learning_rate": 3e-3, "layers": (4,)}, 7, kl_weight=0.0)
    assert (config.learning_rate, config.kl_weight, config.seed, config.steps) == (3e-3, 0.0, 7, 2)
    assert config.layers == bench.TRAINED_LAYERS, "layers of a setting are the objective's, not what is trained"
