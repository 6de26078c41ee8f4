"""`classifier`, `score` and `toxicity`: from labelled pairs to a claim on two models, and what is refused."""

import json
from pathlib import Path

import pandas as pd
import pytest
from conftest import WORDS, make_hf, make_tokenizer
from test_cli import broken, refused, run

from interp_unlearn.artifacts import read_json
from interp_unlearn.data import Pair, Prompt, write_pairs, write_prompts, write_texts
from interp_unlearn.evaluation import ClassifierScorer
from interp_unlearn.models import load_model, weights_hash

SECRET = "blue small hill"


@pytest.fixture(scope="module")
def workplace(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A model and another, pairs whose toxic halves end alike, prompts, and two classifiers trained on the pairs."""
    folder = tmp_path_factory.mktemp("workplace")
    for name, seed in (("model", 0), ("original", 1)):
        make_hf("llama", seed).save_pretrained(folder / name)
        make_tokenizer().save_pretrained(folder / name)
    beginnings = [f"the {noun} {verb} on {det}" for noun in WORDS[1:4] for verb in WORDS[3:7] for det in WORDS[6:12]]
    write_pairs(folder / "pairs.tsv", [Pair(f"{start} {SECRET}", (f"{start} mat red big",)) for start in beginnings])
    write_texts(folder / "toxic.txt", [f"{start} {SECRET}" for start in beginnings[:20]])
    write_texts(folder / "neutral.txt", [f"{start} mat" for start in beginnings[:20]])
    scores = (0.9, 0.1, 0.6, None)
    write_prompts(folder / "prompts.jsonl", [Prompt(f"the {WORDS[i]}", score) for i, score in enumerate(scores, 1)])
    for kind in ("encoder", "decoder"):
        train = ("--data", folder / "pairs.tsv", "--kind", kind, "--epochs", 3)
        run("classifier", *train, "--out", folder / kind, "--learning-rate", 0.003)
    return folder


def two(workplace: Path) -> tuple[object, ...]:
    return ("--scorer", workplace / "encoder", "--scorer", workplace / "decoder")


def protocol(workplace: Path) -> tuple[object, ...]:
    return ("toxicity", workplace / "model", "--prompts", workplace / "prompts.jsonl", "--continuations", 3)


def test_classifier_leaves_a_scorer_and_its_quality(workplace: Path):
    record = json.loads((workplace / "encoder" / "classifier.json").read_text())
    assert record["quality"]["auroc"]["value"] > 0.9
    assert record["config"]["epochs"] == 3 and record["texts"]["held_out"] == 14
    assert json.loads((workplace / "encoder" / "run.json").read_text())["identity"]["task"] == "classifier"
    hashes = {ClassifierScorer.from_pretrained(workplace / kind).hash for kind in ("encoder", "decoder")}
    assert len(hashes) == 2


def test_score_measures_a_classifier_on_other_texts(workplace: Path, tmp_path: Path):
    texts = ("--layout", "texts", "--data", workplace / "toxic.txt", "--neutral", workplace / "neutral.txt")
    run("score", workplace / "encoder", *texts, "--out", tmp_path / "quality")
    table = pd.read_parquet(tmp_path / "quality" / "quality.parquet").set_index("measure")
    assert table.loc["auroc", "value"] > 0.9 and (table["n"] == 40).all()
    assert list(pd.read_parquet(tmp_path / "quality" / "scores.parquet").columns) == ["label", "group", "probability"]


def test_toxicity_of_one_model(workplace: Path, tmp_path: Path, capfd: pytest.CaptureFixture[str]):
    judge = ("--judge", workplace / "original")
    run(*protocol(workplace), "--scorer", f"{workplace / 'encoder'}#toxic", *judge, "--out", tmp_path / "one")
    assert [entry["name"] for entry in read_json(tmp_path / "one" / "run.json")["inputs"]["scorer"]] == ["encoder"]
    generations = pd.read_parquet(tmp_path / "one" / "generations.parquet")
    assert len(generations) == 12
    assert {"toxicity_encoder", "judge_nll"} <= set(generations.columns)
    metrics = pd.read_parquet(tmp_path / "one" / "metrics.parquet")
    assert set(metrics["prompts"]) == {"toxic", "nontoxic", "all"}
    assert (metrics["n_scored"] == metrics["n_generations"]).all()
    record = json.loads((tmp_path / "one" / "toxicity.json").read_text())
    assert record["model_hash"] == weights_hash(load_model(workplace / "model")[0])
    printed = capfd.readouterr().out
    assert "expected_max_toxicity" in printed and "perplexity" in printed and "claim" not in printed


def test_toxicity_against_the_original_and_the_claim(
    workplace: Path, tmp_path: Path, capfd: pytest.CaptureFixture[str]
):
    against = ("--against", workplace / "original")
    run(*protocol(workplace), *two(workplace), *against, "--out", tmp_path / "two")
    printed = capfd.readouterr()
    assert "not shown: expected_max_toxicity on 4 prompts (all)" in printed.out or "less toxic:" in printed.out
    claims = json.loads((tmp_path / "two" / "claims.json").read_text())
    assert [claim["prompts"] for claim in claims] == ["toxic", "nontoxic", "all"]
    texts = pd.read_parquet(tmp_path / "two" / "original" / "generations.parquet")["text"].str.strip()
    assert not any(text in printed.out + printed.err for text in texts if len(text.split()) > 3)
    run(*protocol(workplace), "--scorer", workplace / "encoder", *against, "--out", tmp_path / "one")
    assert "no claim: it takes two scorers with different weights" in capfd.readouterr().out
    assert not (tmp_path / "one" / "claims.json").exists()


def test_a_run_may_be_repeated_and_gives_the_same(workplace: Path, tmp_path: Path, capfd: pytest.CaptureFixture[str]):
    arguments = (*protocol(workplace), "--scorer", workplace / "encoder", "--out", tmp_path / "out")
    run(*arguments)
    first = pd.read_parquet(tmp_path / "out" / "generations.parquet")
    run(*arguments)
    pd.testing.assert_frame_equal(pd.read_parquet(tmp_path / "out" / "generations.parquet"), first)
    assert "choose another" in refused(capfd, *arguments, "--seed", 1)


WRONG = {
    "no scorer": (lambda w, t: protocol(w), "Missing option '--scorer'"),
    "scorer twice": (
        lambda w, t: (*protocol(w), "--scorer", w / "encoder", "--scorer", w / "encoder"),
        "have the same weights",
    ),
    "no classifier": (lambda w, t: (*protocol(w), "--scorer", w / "model"), "missing from the checkpoint"),
    "no such scorer": (lambda w, t: (*protocol(w), "--scorer", t / "none"), "no such directory"),
    "no such label": (
        lambda w, t: (*protocol(w), "--scorer", f"{w / 'encoder'}#rude"),
        "no label 'rude'; its labels are neutral, toxic",
    ),
    "malformed prompts": (
        lambda w, t: (
            *("toxicity", w / "model", *two(w), "--prompts"),
            broken(t, "p.jsonl", '{"prompt": 1}'),
        ),
        "p.jsonl:1: expected",
    ),
    "nothing left": (lambda w, t: (*protocol(w), *two(w), "--skip", 9), "so none is left after --skip 9"),
    "no samples": (lambda w, t: (*protocol(w), *two(w), "--continuations", 0), "continuations: expected at least 1"),
    "k too large": (lambda w, t: (*protocol(w), *two(w), "--k", 4), "k: expected 1 to the 3"),
    "too long": (lambda w, t: (*protocol(w), *two(w), "--new-tokens", 64), "tokens, the model takes 64"),
    "unknown kind": (
        lambda w, t: ("classifier", "--data", w / "pairs.tsv", "--kind", "oracle"),
        "kind: expected one of encoder, decoder, got 'oracle'",
    ),
    "too few": (
        lambda w, t: ("classifier", "--data", w / "pairs.tsv", "--limit", 4),
        "part of 4 groups lacks a class",
    ),
    "classifier of one class": (
        lambda w, t: ("classifier", "--layout", "texts", "--data", w / "toxic.txt"),
        "all 20 rows are target",
    ),
    "score of one class": (
        lambda w, t: ("score", w / "encoder", "--layout", "texts", "--data", w / "toxic.txt"),
        "all 20 rows are target",
    ),
    "no device": (
        lambda w, t: ("classifier", "--data", w / "pairs.tsv", "--device", "abacus"),
        "--device abacus",
    ),
}


@pytest.mark.parametrize("case", list(WRONG))
def test_wrong_input_gets_one_line(case: str, workplace: Path, tmp_path: Path, capfd: pytest.CaptureFixture[str]):
    arguments, expected = WRONG[case]
    assert expected in refused(capfd, *arguments(workplace, tmp_path), "--out", tmp_path / "out")
    assert not (tmp_path / "out").exists()


def test_directories_called_alike_are_told_apart_by_their_path(workplace: Path, tmp_path: Path):
    from interp_unlearn.cli.inputs import open_scorers

    (tmp_path / "decoder").symlink_to(workplace / "encoder")
    scorers = open_scorers([str(workplace / "decoder"), str(tmp_path / "decoder")], "cpu")
    assert [scorer.name for scorer in scorers] == [str(workplace / "decoder"), str(tmp_path / "decoder")]
