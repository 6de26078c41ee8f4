"""What a folder knows of the run that is in it, and options that a method has no use for."""

from pathlib import Path

import pandas as pd
import pytest
from conftest import WORDS
from test_cli import broken, refused, results, run, workplace  # noqa: F401 fixtures among them

from interp_unlearn.activations import ActivationStore
from interp_unlearn.data import Prompt, write_prompts
from interp_unlearn.probes import ProbeSet

# ruff: noqa: F811 a test's arguments are the fixtures


def test_another_layout_of_the_same_file_is_another_run(
    results: Path, tmp_path: Path, capfd: pytest.CaptureFixture[str]
):
    retain = broken(tmp_path, "kept.txt", "the cat ran\nyes\n")
    data = broken(tmp_path, "pairs.txt", (results / "pairs.tsv").read_text())
    told = ("unlearn", results / "model", "--data", data, "--retain", retain, "--out", tmp_path / "o")
    told = (*told, "--objective", "gradient_ascent", "--steps", 1)
    run(*told, "--layout", "pairs")
    assert 'layout: "pairs" there, "texts" here' in refused(capfd, *told, "--layout", "texts")


def test_probes_are_read_over_the_tokens_they_were_fitted_on(results: Path, tmp_path: Path):
    model, data = results / "model", results / "pairs.tsv"
    run("collect", model, "--data", data, "--out", tmp_path / "store", "--tokens=-3:")
    run("probe", tmp_path / "store", "--out", tmp_path / "probes", "--folds", 3)
    against = (model, "--against", model, "--data", data, "--probes", tmp_path / "probes")
    run("evaluate", *against, "--out", tmp_path / "evaluation")
    fitted = ProbeSet.load(tmp_path / "probes")
    expected = fitted.evaluate(ActivationStore.open(tmp_path / "store")).set_index("site")
    found = pd.read_parquet(tmp_path / "evaluation" / "probe_scores.parquet")
    for _, row in found.iterrows():
        assert row["auroc"] == pytest.approx(expected.loc[row["site"], "auroc"])
        assert row["accuracy"] == pytest.approx(expected.loc[row["site"], "accuracy"])


@pytest.mark.parametrize(
    "option", [("--max-kl", 0.1), ("--lora-rank", 2), ("--adversary", "text"), ("--keep-every", 2)]
)
def test_a_weight_edit_takes_no_options_of_training(
    option: tuple[object, ...], results: Path, tmp_path: Path, capfd: pytest.CaptureFixture[str]
):
    told = ("unlearn", results / "model", "--data", results / "pairs.tsv", "--out", tmp_path / "o", "--objective")
    retain = broken(tmp_path, "kept.txt", "the cat ran\n")
    line = refused(capfd, *told, "profs", "--retain", retain, *option)
    assert f"profs is a weight edit: {option[0]} goes with losses" in line


@pytest.mark.parametrize(
    "told",
    [
        ("grad_diff", "--intervention", "steering"),
        ("grad_diff", "--overshoot", 4),
        ("grad_diff", "--teacher", "somewhere"),
        ("distilled", "--coefficient", 7),
        ("distilled", "--overshoot", 2, "--intervention", "project_out"),
    ],
)
def test_options_that_a_method_has_no_use_for_are_refused(
    told: tuple[object, ...], results: Path, tmp_path: Path, capfd: pytest.CaptureFixture[str]
):
    name, option, *_ = told
    given = ("unlearn", results / "model", "--data", results / "pairs.tsv", "--probes", results / "probes")
    line = refused(capfd, *given, "--out", tmp_path / "o", "--objective", *told)
    assert f"{option}: {name} has no use for it" in line


def test_labels_are_part_of_what_a_store_is(workplace: Path, tmp_path: Path, capfd: pytest.CaptureFixture[str]):
    """The same texts with other labels must not get under a finished store, nor its probes be replaced."""
    scores = [0.9, 0.1] * 6
    for name, given in (("one", scores), ("other", scores[::-1])):
        rows = [Prompt(f"the cat sat on {word}", score) for word, score in zip(WORDS[:12], given, strict=True)]
        write_prompts(tmp_path / f"{name}.jsonl", rows)
    told = ("collect", workplace / "model", "--layout", "prompts", "--out", tmp_path / "store", "--data")
    run(*told, tmp_path / "one.jsonl")
    before = ActivationStore.open(tmp_path / "store").labels
    assert "rows_hash" in refused(capfd, *told, tmp_path / "other.jsonl")
    after = ActivationStore.open(tmp_path / "store").labels
    assert before is not None and after is not None and (before == after).all()


@pytest.mark.parametrize("verb", ["collect", "probe", "unlearn", "evaluate", "drift", "attack", "classifier"])
def test_the_same_run_leaves_the_same_bytes(verb: str, results: Path, tmp_path: Path):
    """But for run.json, which says when and where it was."""
    model, data = results / "model", ("--data", results / "pairs.tsv")
    against = (results / "changed", "--against", model, *data)
    told: dict[str, tuple[object, ...]] = {
        "collect": ("collect", model, *data),
        "probe": ("probe", results / "store", "--folds", 3),
        "unlearn": ("unlearn", model, *data, "--objective", "cosine_rmu", "--layers", 1, "--steps", 2),
        "evaluate": ("evaluate", *against),
        "drift": ("drift", *against),
        "attack": ("attack", "prune", *against),
        "classifier": ("classifier", *data, "--kind", "encoder", "--epochs", 1),
    }
    left: list[dict[Path, bytes]] = []
    for out in (tmp_path / "first", tmp_path / "second"):
        run(*told[verb], "--out", out)
        files = [file for file in out.rglob("*") if file.is_file() and file.name != "run.json"]
        left.append({file.relative_to(out): file.read_bytes() for file in files})
    assert left[0].keys() == left[1].keys() and left[0]
    assert [str(name) for name, content in left[0].items() if left[1][name] != content] == []
