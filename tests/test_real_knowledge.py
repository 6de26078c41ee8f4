"""Real forget texts, questions and facts through the command line, on a checkpoint too small to know any of them."""

import json
import os
from pathlib import Path

import pandas as pd
import pytest

from interp_unlearn.cli import main
from interp_unlearn.data import read_facts, read_questions

pytestmark = pytest.mark.skipif("INTERP_UNLEARN_DATA" not in os.environ, reason="INTERP_UNLEARN_DATA is not set")

SHARED = Path(os.environ.get("INTERP_UNLEARN_DATA", "."))
MODEL = SHARED / "models" / "stories260K"
DATA = SHARED / "data"
CYBER = DATA / "cyber_corpus" / "mitre_attack_descriptions.jsonl"
SHEETS = DATA / "cyber_corpus" / "owasp_cheatsheets.jsonl"
WIKITEXT = DATA / "wikitext2" / "wiki.valid.raw"
TOFU = DATA / "tofu"


def run(*arguments: object) -> None:
    assert main([str(argument) for argument in arguments]) == 0, arguments


def test_a_corpus_is_unlearned_and_the_exam_taken(tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    texts = ("--data", CYBER, "--topic", SHEETS, "--layout", "texts", "--retain", WIKITEXT, "--max-length", 64)
    settings = ("--objective", "rmu", "--coefficient", 5, "--layers", 2, "--train-layers", "0-2", "--steps", 12)
    where = ("--batch-size", 4, "--limit", 60, "--kl-weight", 0, "--retain-weight", 10, "--first-blocks", 3)
    run("unlearn", MODEL, *texts, *settings, *where, "--out", tmp_path / "model", "--learning-rate", "1e-3")
    record = json.loads((tmp_path / "model" / "run.json").read_text())["identity"]
    assert record["config"]["layers"] == [0, 1, 2] and len(record["data"]) == 2
    history = pd.read_parquet(tmp_path / "model" / "history.parquet")
    assert history["forget"].iloc[-2:].mean() < history["forget"].iloc[:2].mean()
    questions = ("--questions", DATA / "wmdp" / "cyber_questions.json", "--questions", DATA / "mmlu" / "val")
    capfd.readouterr()
    for name, model in (("before", MODEL), ("after", tmp_path / "model")):
        asked = ("--skip-long", "--limit", 1, "--max-new-tokens", 4)
        run("exam", model, *questions, *asked, "--out", tmp_path / name)
        answers = pd.read_parquet(tmp_path / name / "answers.parquet")
        assert answers["subject"].nunique() == 56 and len(answers) == 4 * 56  # of 58: two have long questions alone
        accuracy = answers.loc[answers["form"] != "generation"].groupby("form")["correct"].mean()
        assert accuracy.between(0.08, 0.5).all(), accuracy  # it knows nothing of this: near chance
    shown = capfd.readouterr()
    assert " questions are longer than the context and were left out." in shown.out
    hidden = read_questions(DATA / "wmdp" / "cyber_questions.json")[0]  # asked, and never to be seen
    assert not any(text in shown.out + shown.err for text in (hidden.question, *hidden.choices))


def test_the_public_layouts_are_read_whole() -> None:
    assert len(read_questions(DATA / "wmdp" / "cyber_questions.json")) == 1987
    assert len(read_questions(DATA / "mmlu" / "test")) == 14042
    facts = read_facts(TOFU / "forget10_perturbed.json")
    assert len(facts) == 400 and all(len(fact.wrong) == 5 and fact.paraphrase for fact in facts)
    assert len(read_facts(TOFU / "retain90.json")) == 3600


def test_tofu_is_learned_unlearned_and_measured(tmp_path: Path) -> None:
    """Facts as questions and answers; the losses are over the answers alone."""
    data = ("--data", TOFU / "forget10.json", "--layout", "facts", "--limit", 24, "--retain", TOFU / "retain90.json")
    settings = ("--steps", 8, "--batch-size", 4, "--roles", "all", "--learning-rate", "1e-3", "--max-length", 200)
    run("unlearn", MODEL, *data, *settings, "--objective", "npo", "--out", tmp_path / "npo", "--kl-weight", 1)
    config = json.loads((tmp_path / "npo" / "unlearn.json").read_text())["config"]
    assert config["forget_on"] == "completion"
    history = pd.read_parquet(tmp_path / "npo" / "history.parquet")
    assert history["log_probability"].iloc[-1] < history["log_probability"].iloc[0]
    tables = []
    for name, model in (("before", MODEL), ("after", tmp_path / "npo")):
        asked = ("facts", model, "--data", TOFU / "forget10_perturbed.json", "--limit", 12, "--max-new-tokens", 12)
        run(*asked, "--out", tmp_path / name)
        tables.append(pd.read_parquet(tmp_path / name / "facts.parquet"))
    assert tables[1]["probability"].mean() < tables[0]["probability"].mean()
    assert all(table["truth_ratio"].notna().all() and table["rouge_l"].between(0, 1).all() for table in tables)
