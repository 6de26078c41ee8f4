"""The evidence: its judge, its joined tables, what was predicted of them, and one small run from end to end."""

import json
import shutil
from collections.abc import Callable, Sequence
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest

from interp_unlearn.artifacts import read_parquet, write_parquet
from interp_unlearn.artifacts.fingerprint import fingerprint
from interp_unlearn.attacks import FewShot, MeasuredItems, Quantise, Reformat, Relearn
from interp_unlearn.errors import ConfigError
from interp_unlearn.figures import plot_attacks, plot_dissection, plot_method_cosines, plot_patching
from interp_unlearn.interventions import HookedModel
from interp_unlearn.mechanism import DissectionConfig
from interp_unlearn.organism.build import BuildConfig
from interp_unlearn.organism.world import World
from interp_unlearn.study.evidence import (
    PREDICTIONS,
    EvidenceConfig,
    Prediction,
    attacked,
    check_predictions,
    dissected,
    drifted,
    gather_evidence,
)
from interp_unlearn.study.evidence import evidence as module
from interp_unlearn.study.evidence.aligned import alignment_text
from interp_unlearn.study.evidence.attacked import CHOSEN, attack_folder, attack_table, unrelated_texts
from interp_unlearn.study.evidence.dissected import patch_texts
from interp_unlearn.study.evidence.judged import Judged, asked_examples, outcome_on
from interp_unlearn.study.evidence.plan import SUBJECTS, Subject
from interp_unlearn.study.evidence.predictions import PUBLISHED
from interp_unlearn.study.evidence.report import attack_lines, evidence_markdown
from interp_unlearn.study.plan import TWINS
from interp_unlearn.study.stage import load_stage


@pytest.mark.parametrize("goal", ["knowledge", "toxicity"])
def test_the_judge_knows_the_original_and_its_twin_in_whatever_words(goal: Any) -> None:
    stage = load_stage(goal)
    measure = Judged.of(stage, asked_examples(stage, 24), seed=0)
    original, twin = measure(stage.model("knows_all")), measure(stage.twin)
    assert original.scores.mean() > 0.9 and twin.scores.mean() < 0.3
    assert len(set(original.groups)) > 1 and original.scores.shape == (24,)
    # Whatever is asked, the answer is judged by the example: another prompt's is no target of this one.
    turned = measure.asked([*measure.prompts[7:], *measure.prompts[:7]])
    if goal == "knowledge":
        assert turned(stage.model("knows_all")).scores.mean() < 0.3
    assert turned.followed_by(0) == (measure.examples[0].completion,) and turned.solution(0).endswith(".")
    elsewhere = Judged.of(replace(stage, organism=Path("elsewhere")), measure.examples, seed=0)
    assert fingerprint(elsewhere) == fingerprint(measure), "a folder that was moved holds the same run"
    unused = replace(measure, world=World(stage.world.seed))
    assert fingerprint(unused) == fingerprint(measure), "a process that has judged before makes the same run"
    outcome = outcome_on(stage, asked_examples(stage, 24))(stage.model("knows_all"))
    assert outcome["target"] == original.scores.tolist()


def test_insults_and_answers_are_cut_off_where_they_are_told() -> None:
    scenes = load_stage("toxicity")
    texts = patch_texts(scenes, scenes.sets.test[:300], scenes.model("knows_all"))
    for example, prompt, answer in zip(scenes.sets.test, texts.prompts, texts.answers, strict=False):
        assert (prompt + answer) in example.text and answer.startswith(" ") and " " not in answer[1:]
        assert scenes.world.judge(example.prompt, example.text[len(example.prompt) :]) == "target"
    facts = load_stage("knowledge")
    told = patch_texts(facts, facts.sets.test[:20], facts.model("knows_all"))
    assert [p + a + "." for p, a in zip(told.prompts, told.answers, strict=True)] == [
        example.text for example in facts.sets.test[:20]
    ]


def test_predictions_are_held_against_the_whole_interval() -> None:
    made = [Prediction("relearn", "knowledge", name, 0.5, 1.0) for name in ("in", "across", "below", "none", "gone")]
    rows = [("in", 0.6, 0.9), ("across", 0.4, 0.6), ("below", 0.1, 0.4), ("none", float("nan"), float("nan"))]
    attacks = pd.DataFrame(
        [
            {
                "goal": "knowledge",
                "method": name,
                "attack": "relearn",
                "recovered": low,
                "recovered_low": low,
                "recovered_high": high,
            }
            for name, low, high in rows
        ]
    )
    found = check_predictions(attacks, made)
    assert found["outcome"].tolist() == ["agrees", "undecided", "disagrees", "not measured", "not measured"]
    beyond = attacks.rename(columns=lambda name: name.replace("recovered", "beyond_twin"))
    of_twin = [replace(one, of="beyond_twin") for one in made]
    assert check_predictions(beyond, of_twin)["outcome"].tolist() == found["outcome"].tolist()
    known = {(subject.goal, subject.method) for subject in SUBJECTS}
    assert {(one.goal, one.method) for one in PREDICTIONS} <= known
    assert all(one.low < one.high for one in PREDICTIONS)


def planted_attacks(out: Path) -> None:
    """Two seeds of one method, and the twin: items with a known share."""
    for name, seed, attacked_scores in (
        ("knowledge-rmu", 0, 0.4),
        ("knowledge-rmu", 1, 0.8),
        ("knowledge-twin", 0, 0.1),
    ):
        rows = [
            {
                "attack": "relearn",
                "id": str(item),
                "attacked": attacked_scores,
                "unlearned": 0.0,
                "original": 1.0,
                "group": f"g{item % 5}",
                "control": 0.2 * seed,
                "broken": 0.3,
                "broken_before": 0.0,
                "setting": '{"learning_rate": 0.001}',
                "step": 10 + seed,
                "n_attempts": 2,
                "goal": "knowledge",
                "method": name.split("-")[1],
            }
            for item in range(20)
        ]
        write_parquet(attack_folder(out, name, seed) / "chosen_items.parquet", pd.DataFrame(rows))


def test_seeds_are_averaged_and_the_twin_is_taken_off(tmp_path: Path) -> None:
    config = EvidenceConfig(seeds=(0, 1), subjects=(Subject("knowledge", "rmu"),), pairs=(), n_resamples=50)
    planted_attacks(tmp_path)
    table = attack_table(tmp_path, config).set_index("method")
    assert table.loc["rmu", "recovered"] == pytest.approx(0.6)
    assert table.loc["rmu", "beyond_twin"] == pytest.approx(0.5)
    assert table.loc["rmu", "seeds"] == 2 and table.loc["rmu", "n"] == 20 and table.loc["rmu", "n_groups"] == 5
    assert table.loc["rmu", "control_recovered"] == pytest.approx(0.1), "a control is averaged over the seeds too"
    assert table.loc["rmu", "p"] == 2 * 2.0**-5, "the worst of two settings"
    assert table.loc["rmu", "p_adjusted"] == 4 * 2.0**-5, "Holm among two methods"
    assert json.loads(table.loc["rmu", "chosen"]) == [
        {"seed": seed, "learning_rate": 0.001, "step": 10 + seed} for seed in (0, 1)
    ]
    rows = table.reset_index()
    text = evidence_markdown(
        rows, check_predictions(rows), {}, "Aligned: none.", "Patched: none.", ["Moved: none."], 2, config.n_asked
    )
    assert "| relearning, others of it | 0.60 [0.60, 0.60]; +0.50 [+0.50, +0.50]; broken 0.30 |" in text
    assert "| *at random instead* | 0.10 [0.10, 0.10]; p = 0.12 |" in text
    assert text.endswith("Patched: none.\n\n### Drift\n\nMoved: none.")
    assert f"Of {len(PREDICTIONS)} predictions" in text and "2 seeds" in text


def test_the_excess_over_the_twin_is_paired_and_resampled_by_group(tmp_path: Path) -> None:
    config = EvidenceConfig(seeds=(0, 1), subjects=(Subject("knowledge", "rmu"),), pairs=(), n_resamples=400)
    planted_attacks(tmp_path)
    path = attack_folder(tmp_path, "knowledge-twin", 0) / "chosen_items.parquet"
    twin = read_parquet(path)
    score = twin["group"].map({"g0": 0.0, "g1": 0.0, "g2": 0.0, "g3": 0.0, "g4": 1.0})
    write_parquet(path, twin.assign(attacked=score).loc[twin["id"] != "0"])  # one item the twin was not scored on
    row = attack_table(tmp_path, config).set_index("method").loc["rmu"]
    assert row["twin"] == pytest.approx(4 / 19) and row["beyond_twin"] == pytest.approx(0.6 - 4 / 19)
    assert row["beyond_twin_low"] == pytest.approx(0.6 - 3 / 5, abs=0.25) and row["beyond_twin_low"] < 0.3
    assert row["beyond_twin_high"] == pytest.approx(0.6), "resamples without the fifth group"
    shutil.rmtree(path.parent)
    planted = read_parquet(attack_folder(tmp_path, "knowledge-rmu", 0) / "chosen_items.parquet")
    write_parquet(path, planted.assign(method="twin", attack="relearn_unrelated"))
    alone = attack_table(tmp_path, config).set_index("method")
    assert np.isnan(alone.loc["rmu", "beyond_twin"]), "the twin met another attack"


def test_what_was_found_is_held_against_what_was_published() -> None:
    published = next(one.published for one in PREDICTIONS if "0.45 to 0.74" in one.published)
    made = [Prediction("relearn", "knowledge", name, 0.0, 1.0, published) for name in ("a", "b", "c", "d")]
    made.append(Prediction("relearn", "knowledge", "a", 0.0, 1.0, "no number"))
    bounds = {"a": (0.1, 0.2), "b": (0.4, 0.5), "c": (0.8, 0.9), "d": (float("nan"), float("nan"))}
    rows = [
        {"goal": "knowledge", "method": name, "attack": "relearn", "recovered": low, "recovered_low": low}
        | {"recovered_high": high}
        for name, (low, high) in bounds.items()
    ]
    found = check_predictions(pd.DataFrame(rows), made)
    assert found["beside_published"].tolist() == ["below", "as published", "above", "", ""]
    assert {one.published for one in PREDICTIONS if one.published} - PUBLISHED.keys() == {
        one.published for one in PREDICTIONS if "2401.01967" in one.published
    }, "shares of toxic text are no shares of a gap"


def test_what_is_asked_in_other_words_is_held_against_the_original_asked_so(tmp_path: Path) -> None:
    stage = load_stage("knowledge")
    config = EvidenceConfig(seeds=(0,), subjects=(Subject("knowledge", "rmu"),), pairs=(), n_asked=24, n_resamples=50)
    attacks = (FewShot(), Quantise((8,)))
    for name in ("knowledge-rmu", "knowledge-twin"):
        attacked._attack(stage, str(stage.organism / TWINS["knowledge"]), attacks, name, 0, config, tmp_path)
    worst = read_parquet(attack_folder(tmp_path, "knowledge-rmu", 0) / CHOSEN).set_index("attack")
    table = attack_table(tmp_path, config).set_index(["method", "attack"])
    assert worst.loc["quantise", "original"] > 0.9
    assert 0.2 < worst.loc["few_shot", "original"] < 0.8, "solved examples do not leave the original as it was"
    lines = attack_lines(table.reset_index())
    at = next(n for n, line in enumerate(lines) if line.startswith("| solved examples"))
    assert lines[at + 1] == f"| *the original, asked so* | {worst.loc['few_shot', 'original']:.2f} |"
    assert sum("asked so" in line for line in lines) == 1, "rounding asks in the same words"
    for attack in ("few_shot", "quantise"):
        found, expected = table.loc[("rmu", attack)], worst.loc[attack]
        for column in ("score", "unlearned", "original", "recovered"):
            assert found[column] == pytest.approx(expected[column], nan_ok=True), (attack, column)


@pytest.mark.parametrize("goal", ["knowledge", "toxicity"])
def test_unrelated_texts_hold_nothing_of_the_goal(goal: Any) -> None:
    texts, stage = unrelated_texts(goal), load_stage(goal)
    assert len(texts) > 500
    if goal == "toxicity":
        assert not any(":" in text for text in texts), "nobody speaks"
        nouns = {example.completion.split(".")[0].split()[-1] for example in stage.sets.forget}
        assert not nouns & {word.strip(".,") for text in texts for word in text.split()}
    else:
        facts = stage.world.knowledge.hazardous + stage.world.knowledge.benign
        told = {word for fact in facts for word in f"{fact.subject} {fact.answer}".split()}
        assert len(told) > 100 and not told & {word.strip(".,") for text in texts for word in text.split()}
    prefix = attacked.suite(goal)[-2]
    assert isinstance(prefix, Reformat) and prefix.prefixes == texts[:2]


def test_the_judge_keeps_what_broke_beside_what_it_judges() -> None:
    stage = load_stage("toxicity")
    measure = Judged.of(stage, asked_examples(stage, 12), seed=0)
    items = measure.asked(["you you you"] * 12)(stage.model("knows_all"))
    assert items.beside.keys() == {"broken"} and ((items.beside["broken"] == 0) | (items.scores == 0)).all()
    assert items.beside["broken"].mean() > 0.5
    again = MeasuredItems.from_frame("target", items.only(items.ids[:5]).to_frame())
    assert again.beside["broken"].tolist() == items.beside["broken"][:5].tolist()


def test_methods_are_set_beside_each_other_within_a_goal_and_between_goals() -> None:
    names = [("knowledge", "rmu"), ("knowledge", "oracle"), ("toxicity", "rmu")]
    cosines = {(0, 0): 0.9, (1, 1): 0.8, (2, 2): 0.7, (0, 1): 0.3, (0, 2): 0.01, (1, 2): -0.02}
    rows = [
        {"goal": names[one][0], "method": names[one][1], "other_goal": names[other][0], "other": names[other][1]}
        | {"cosine": value, "null_low": -0.004, "null_high": 0.003}
        for (one, other), value in cosines.items()
    ]
    text = alignment_text(pd.DataFrame(rows))
    assert "both on knowledge 0.300 [0.300, 0.300] (1 pairs); both on toxicity none;" in text
    assert "one on each goal -0.005 [-0.020, 0.010] (2 pairs); two seeds of one method 0.800 [0.700, 0.900]" in text
    assert "between -0.004 and 0.003" in text
    axis = plot_method_cosines(pd.DataFrame(rows)).axes[0]
    drawn = np.asarray(axis.images[0].get_array())
    labels = [label.get_text() for label in axis.get_yticklabels()]
    assert labels == ["K: oracle (twin distilled)", "K: RMU", "T: RMU"]
    assert drawn.tolist() == [[0.8, 0.3, -0.02], [0.3, 0.9, 0.01], [-0.02, 0.01, 0.7]]


def test_plans_are_checked() -> None:
    with pytest.raises(ConfigError, match="a seed and a subject"):
        EvidenceConfig(seeds=())
    with pytest.raises(ConfigError, match="not among the subjects"):
        EvidenceConfig(pairs=(("rmu", "nothing"),))


def test_a_small_run_goes_from_models_to_figures_and_does_nothing_twice(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def one_after_another(task: Callable[..., Any], calls: Sequence[tuple[Any, ...]], workers: int, label: str) -> None:
        for arguments in calls:
            task(*arguments)

    def little(goal: Any) -> tuple[Any, ...]:
        unrelated = Relearn("unrelated", learning_rates=(1e-3,), checkpoints=(1,), unrelated=unrelated_texts(goal))
        return (Relearn(learning_rates=(1e-3,), checkpoints=(1,)), unrelated, Quantise(bits=(4,)))

    monkeypatch.setattr(module, "run_side_by_side", one_after_another)
    monkeypatch.setattr(attacked, "suite", little)
    monkeypatch.setattr(attacked, "relearning", little)
    monkeypatch.setattr(
        dissected, "DissectionConfig", partial(DissectionConfig, kinds=("all", "up_to", "part"), ranks=(1,))
    )
    config = replace(
        EvidenceConfig().quick(),
        n_asked=12,
        n_patched=6,
        n_resamples=20,
        steps=2,
        stranger=BuildConfig(init_seed=1, common_steps=16, branch_steps=16, batch_size=2),
    )
    out = tmp_path / "run"
    gather_evidence(out, config=config)
    attacks = read_parquet(out / "attacks.parquet")
    assert set(attacks["method"]) == {"oracle", "twin"} and set(attacks["goal"]) == {"knowledge", "toxicity"}
    figure = plot_attacks(attacks)
    assert [axis.get_title().split(" (")[0] for axis in figure.axes] == ["Knowledge", "Toxicity"]
    (aligned,) = read_parquet(out / "methods.parquet").to_dict("records")
    assert (aligned["goal"], aligned["other_goal"], aligned["shared_tensors"]) == ("knowledge", "toxicity", 35)
    assert (out / "figures" / "methods.png").exists()
    tables = module.tables_of_pairs(out)["oracle / oracle"]
    nothing = plot_dissection(tables).axes[-1]
    hollow = [np.asarray(line.get_xdata())[0] for line in nothing.lines if line.get_markerfacecolor() == "white"]
    broken = [
        *tables["composition"].query("outcome.str.endswith('broken') and contrast == 'interaction'")["mean"],
        *tables["carried"].query("outcome == 'broken' and contrast == 'difference'")["mean"],
    ]
    assert len(broken) == 6 and len(hollow) == 8 and set(broken) <= set(hollow)
    patching = read_parquet(out / "patching.parquet")
    assert set(patching["into"]) == {"twin", "original"}
    panels = plot_patching(patching).axes
    assert len(panels) == 4
    of_panel = patching.loc[(patching["goal"] == "knowledge") & (patching["into"] == "original")]
    all_tokens = of_panel.loc[of_panel["position"] == "all"].sort_values("layer")
    drawn = [np.asarray(line.get_ydata()).tolist() for line in panels[0].lines]
    assert all(all_tokens[column].tolist() in drawn for column in ("effect", "floor"))
    text = (out / "evidence.md").read_text(encoding="utf-8")
    assert "oracle on knowledge, oracle on toxicity" in text and "patching, " not in text
    assert text.count("the twin's states in the original") == 2
    assert (out / "figures" / "dissection_oracle_oracle.png").exists()
    moved = read_parquet(out / "drift.parquet")
    assert (moved.loc[moved["site"] == "embed", "relative_displacement"] == 0).all()
    assert set(zip(moved["goal"], moved["objective"], strict=True)) == {("knowledge", "oracle"), ("toxicity", "oracle")}
    assert "largest difference of an activation is 0." in text and "| unlearning depth |" in text

    def fail(*_: object, **__: object) -> None:
        raise AssertionError("computed again")

    for where, name in (
        *((attacked, "run_attacks"), (dissected, "dissect"), (dissected, "patch_both_ways")),
        (drifted, "run_drift"),
    ):
        monkeypatch.setattr(where, name, fail)
    monkeypatch.setattr(HookedModel, "save_pretrained", fail)
    monkeypatch.setattr(module, "draw_figures", lambda _: None)
    before = (out / "attacks.parquet").read_bytes()
    gather_evidence(out, config=config)
    assert (out / "attacks.parquet").read_bytes() == before
